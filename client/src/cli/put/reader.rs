//! Reads what a plan names, on a thread of its own, and hands it over in batches.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych::v1;
use tokio::sync::mpsc;

use super::folder::{files, is_picture};
use super::item::Piece;
use super::journal::Known;
use super::maker::Maker;
use super::plan::Plan;
use super::report::Report;
use super::row::row;
use super::table::{Format, Place};
use super::upload::Most;

/// Reads, makes items, and leaves out what is there already.
pub(crate) struct Reader {
    pub(crate) maker: Maker,
    pub(crate) known: Known,
    pub(crate) batches: mpsc::Sender<Vec<Piece>>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) report: Arc<Report>,
    pub(crate) most: Most,
}

/// A batch that fills.
#[derive(Default)]
struct Batch {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Reader {
    /// Reads until the end, or until nobody wants more.
    pub(crate) fn read(mut self, plan: &Plan) -> Maker {
        let mut batch = Batch::default();
        if self.read_all(plan, &mut batch).is_continue() && !batch.pieces.is_empty() {
            // Nobody to send to: the upload has failed and says why.
            self.batches.blocking_send(batch.pieces).ok();
        }
        self.maker
    }

    fn read_all(&mut self, plan: &Plan, batch: &mut Batch) -> ControlFlow<()> {
        for (path, format) in plan.tables() {
            self.table(path, *format, plan.root(), batch)?;
        }
        if plan.pictures() {
            for file in files(plan.path()) {
                self.wanted()?;
                match file {
                    Ok(path) if is_picture(&path) => {
                        self.report.step();
                        let made = self.maker.picture(&path, plan.root());
                        self.push(made, &Place::file(&path), batch)?;
                    }
                    Ok(_) => {}
                    Err((path, error)) => self.report.failed(&Place::file(&path), &error),
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn table(
        &mut self,
        path: &Path,
        format: Format,
        root: &Path,
        batch: &mut Batch,
    ) -> ControlFlow<()> {
        let base = path.parent().unwrap_or(Path::new(""));
        let rows = match format.rows(path) {
            Ok(rows) => rows,
            Err(error) => {
                self.report.failed(&Place::file(path), &format!("{error:#}"));
                return ControlFlow::Continue(());
            }
        };
        for (number, cells) in rows {
            self.wanted()?;
            self.report.step();
            let made = cells.and_then(row).and_then(|row| self.maker.row(row, base, root));
            self.push(made, &format.place(path, number), batch)?;
        }
        ControlFlow::Continue(())
    }

    /// Adds items to the batch and sends it when it is full.
    fn push(
        &mut self,
        made: Result<Vec<v1::ItemInput>, String>,
        place: &Place,
        batch: &mut Batch,
    ) -> ControlFlow<()> {
        let items = match made {
            Ok(items) => items,
            Err(error) => {
                self.report.failed(place, &error);
                return ControlFlow::Continue(());
            }
        };
        for item in items {
            self.report.saw(&item, place);
            let piece = Piece::new(item, place.clone());
            if self.known.get(&piece.id) == Some(&piece.content) {
                self.report.unchanged();
                continue;
            }
            let bytes = piece.bytes();
            let full =
                batch.pieces.len() >= self.most.items || batch.bytes + bytes > self.most.bytes;
            if full && !batch.pieces.is_empty() {
                let ready = std::mem::take(batch).pieces;
                if self.batches.blocking_send(ready).is_err() {
                    return ControlFlow::Break(());
                }
            }
            batch.bytes += bytes;
            batch.pieces.push(piece);
        }
        ControlFlow::Continue(())
    }

    fn wanted(&self) -> ControlFlow<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
