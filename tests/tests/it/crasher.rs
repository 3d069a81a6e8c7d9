//! The crasher: writers, searches, `kill -9` at random moments, damage to what is derived, a disk that fills up. After each start
//! every answer equals a model of the store (`crate::history`): nothing acknowledged is lost, nothing is done twice.
//!
//! `DIPTYCH_SEED` brings back the plan of a failed run. Which step the kill meets depends on the machine, so it may take more
//! than one try. The data folder of a failed run is kept.

mod change;
mod damage;
mod full_disk;
mod keeper;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::{Api, Server};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::damage::damage;
use self::keeper::Keeper;
use crate::history::{
    Answer, Model, Step, VECTORS, Writer, bundle, check, disk_refused, make_collections, seed, send,
};

const WRITERS: u64 = 6;
/// Acknowledged steps before a kill, at most.
const BEFORE_KILL: usize = 90;

/// What a step came to.
#[derive(Debug)]
enum Fate {
    Answered(Answer),
    /// The disk takes no writes.
    Refused,
    /// The server was gone.
    Unknown,
}

/// A server that is killed again and again, and what it must hold.
struct Crasher {
    seed: u64,
    rng: ChaCha8Rng,
    server: Server,
    data: PathBuf,
    model: Model,
    numbers: Arc<AtomicU64>,
    kills: usize,
    damaged: usize,
    refused: usize,
    keeper: Keeper,
}

impl Crasher {
    /// A server on the data folder `data`, its bundle in `folder`.
    async fn start(seed: u64, folder: &Path, data: &Path) -> Result<Self> {
        let bundles = [bundle(&folder.join("first"), 7)?, bundle(&folder.join("second"), 8)?];
        let [first, second] = bundles.each_ref().map(|bundle| bundle.to_str());
        let (first, second) = (first.context("a path")?, second.context("a path")?);
        // Graphs from few rows on, so that there are some to be cut off in their making, and to be damaged.
        let plain = ["--sample", "false", "--exact-below", "40"];
        let arguments = [&plain[..], &["--bundle", first, "--bundle", second]].concat();
        let server = Server::start(data, &arguments).await?;
        make_collections(&server.api().await?).await?;
        change::prepare(&server.api().await?).await?;
        Ok(Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            server,
            data: data.to_path_buf(),
            model: Model::default(),
            numbers: Arc::default(),
            kills: 0,
            damaged: 0,
            refused: 0,
            keeper: Keeper::default(),
        })
    }

    /// Lets writers and a searcher work until `enough` steps were answered or all writers were refused, ends the server, and
    /// takes into the model what is known.
    async fn work(&mut self, enough: usize) -> Result<()> {
        let api = self.server.api().await?;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let mut writer = Writer::new(self.rng.random(), number, &self.numbers);
            writer.take_over(self.model.items.iter());
            tasks.spawn(write(api.clone(), writer, sender.clone()));
        }
        drop(sender);
        let searching = tokio::spawn(search(api, self.seed));
        let keeper = self.keeper.clone();
        let keeping = tokio::spawn(keeper.disturb(self.server.channel().await?, self.rng.random()));
        let mut answered = 0;
        // A kill is to come at any moment, so it does not wait for one: microseconds after an answer, or in the middle of a commit.
        let delay = Duration::from_micros(self.rng.random_range(0..4000));
        while let Some((step, fate)) = receiver.recv().await {
            let answer = match &fate {
                Fate::Answered(answer) => Some(answer),
                Fate::Refused => {
                    self.refused += 1;
                    self.model.refused.push(step);
                    continue;
                }
                Fate::Unknown => None,
            };
            self.model.note(&step, answer)?;
            answered += usize::from(answer.is_some());
            if answered == enough {
                answered += 1;
                tokio::time::sleep(delay).await;
                self.end().await?;
            }
        }
        if answered <= enough {
            self.end().await?;
        }
        tasks.join_all().await;
        keeping.await?;
        searching.await?
    }

    /// Mostly a kill; now and then an orderly end, of which the same is true.
    async fn end(&mut self) -> Result<()> {
        if self.rng.random_bool(0.1) {
            self.server.terminate()?;
            let status = self.server.ended().await?;
            ensure!(status.success(), "{status}: {}", self.server.stderr());
            return Ok(());
        }
        self.kills += 1;
        self.server.kill()
    }

    /// Damages what is derived, starts the server again, sometimes after kills in mid-start, and compares.
    async fn recover(&mut self) -> Result<()> {
        self.damaged += damage(&self.data, &mut self.rng)?;
        while self.rng.random_bool(0.15) {
            self.server.relaunch()?;
            tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..150_000))).await;
            self.server.kill()?;
            self.kills += 1;
        }
        self.server.restart().await.context("no start after a kill")?;
        let api = self.server.api().await?;
        check(&api, &mut self.model, &mut self.rng).await
    }

    /// Looks at what the server keeps besides items.
    async fn keep(&mut self) -> Result<()> {
        let (api, channel) = (self.server.api().await?, self.server.channel().await?);
        let finish = self.rng.random();
        self.keeper.check(&api, channel, &self.model, finish).await
    }
}

/// A writer's steps until one gets no answer, or a refusal.
async fn write(api: Api, mut writer: Writer, sender: mpsc::UnboundedSender<(Step, Fate)>) {
    loop {
        let step = writer.next();
        let fate = match send(&api, &step).await {
            Ok(answer) => {
                writer.learn(&step, &answer);
                Fate::Answered(answer)
            }
            Err(status) if disk_refused(&status) => Fate::Refused,
            Err(_) => Fate::Unknown,
        };
        let ended = !matches!(fate, Fate::Answered(_));
        if sender.send((step, fate)).is_err() || ended {
            return;
        }
    }
}

/// Searches until the server is gone: whatever is written meanwhile, an answer is in order and names nothing twice.
async fn search(api: Api, seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    loop {
        let query: Vec<f32> = (0..16).map(|_| rng.random_range(-1.0..1.0)).collect();
        let request = v1::SearchRequest {
            limit: 50,
            ..ask(VECTORS, v1::Modality::Image, Source::Vector(packed(&query)))
        };
        let Ok(hits) = api.hits(request).await else { return Ok(()) };
        let in_order = |a: &v1::Hit, b: &v1::Hit| (b.score, &a.id) < (a.score, &b.id);
        ensure!(hits.is_sorted_by(in_order), "not in order, or twice: {hits:?}");
    }
}

/// Kills a server on one data folder `rounds` times or more.
async fn kills(seed: u64, rounds: usize) -> Result<(usize, usize)> {
    let mut folder = TempDir::new()?;
    let data = folder.path().join("data");
    let mut crasher = Crasher::start(seed, folder.path(), &data).await?;
    for round in 0..rounds {
        let enough = crasher.rng.random_range(1..BEFORE_KILL);
        let lived = async {
            crasher.work(enough).await?;
            crasher.recover().await?;
            crasher.keep().await
        };
        if let Err(error) = lived.await {
            folder.disable_cleanup(true);
            let place = folder.path().display();
            anyhow::bail!("DIPTYCH_SEED={seed}, round {round}, data left in {place}: {error:#}");
        }
    }
    let (done, changes) = crasher.keeper.told();
    println!(
        "{done} merges, moves, snapshots and begun changes of bundle, {changes} of these ended"
    );
    Ok((crasher.kills, crasher.damaged))
}

#[tokio::test]
async fn a_server_that_is_killed_ten_times_answers_as_the_model_does() {
    kills(seed(), 10).await.unwrap();
}

#[tokio::test]
#[ignore = "hundreds of kills: run by just long"]
async fn a_server_that_is_killed_three_hundred_times_answers_as_the_model_does() {
    let first = seed();
    let (mut killed, mut damaged) = (0, 0);
    let mut seed = first;
    // A new folder now and then, so that the comparison stays quick.
    while killed < 300 {
        let (more, files) = kills(seed, 25).await.unwrap();
        (killed, damaged, seed) = (killed + more, damaged + files, seed + 1);
        println!("{killed} kills, {damaged} derived files damaged; next DIPTYCH_SEED={seed}");
    }
}
