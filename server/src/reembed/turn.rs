//! The moment in which the alias moves.
//!
//! No write through the alias may be lost between the last look at the log and the move. Three things see to it:
//!
//! 1. Most changes are taken over while writers go on.
//! 2. Then the gate of the collection that the alias leaves is closed ([`crate::gates`]): writes under way end, new ones wait
//!    and resolve the alias anew afterwards. The few changes that came meanwhile are taken over.
//! 3. The alias moves in the writing thread, on the condition that the collection still has the generation that was read: a
//!    write that came past the gate, from inside this program, lets the move fail, and it is tried again.
//!
//! The job's new phase is written in the same transaction, so that a kill leaves it before the move or after it.

use diptych_index::{AliasChange, Error as Index};
use diptych_proto::v1::ErrorReason;

use super::follow::Growth;
use super::job::{Job, Phase};
use crate::error::{Error, Kind, Result};
use crate::service::Service;

/// Steps without the gate after which it is closed, though writers are faster than this.
const STEPS_BEFORE: usize = 10_000;
/// Moves that may fail because something was written past the gate.
const ATTEMPTS: usize = 5;

impl Service {
    /// Moves the alias the way that the job goes, and the job with it.
    pub(super) async fn turn(&self, job: &mut Job) -> Result<()> {
        for _ in 0..STEPS_BEFORE {
            if !self.follow(job, Growth::Allowed).await?.more {
                break;
            }
        }
        for _ in 0..ATTEMPTS {
            let _closed = self.gates.close(job.way().0.number).await;
            let generation = loop {
                let step = self.follow(job, Growth::Allowed).await?;
                if !step.more {
                    break step.generation;
                }
            };
            self.check_counts(job).await?;
            let (from, to) = job.way();
            let turned = job.turned(self.side(to).await?.generation);
            let change = AliasChange {
                name: job.alias.clone(),
                collection: Some(to.name.clone()),
                expected: Some(Some(from.name.clone())),
                at_generation: Some((from.name.clone(), generation)),
                note: Some((turned.key(), turned.note()?)),
            };
            match self.engine.change_alias(change).await {
                Err(Index::GenerationMoved { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    *job = turned;
                    return Ok(());
                }
            }
        }
        let message = "the collection is written to without end; try again";
        Err(Error::new(Kind::Conflict, ErrorReason::AliasMismatch, message))
    }

    /// Both sides have as many items, before the alias goes to one that was made by a program.
    async fn check_counts(&self, job: &Job) -> Result<()> {
        if job.phase == Phase::Finished {
            return Ok(());
        }
        let (old, new) = (self.side(&job.old).await?, self.side(&job.new).await?);
        if old.counts == new.counts {
            return Ok(());
        }
        let told = |side: &diptych_index::Counts| {
            format!("{} pictures and {} texts", side.images, side.texts)
        };
        let message = format!(
            "{:?} holds {}, {:?} holds {}: was the new collection written to by its name?",
            job.old.name,
            told(&old.counts),
            job.new.name,
            told(&new.counts)
        );
        Err(Error::precondition(ErrorReason::VerificationFailed, message))
    }
}
