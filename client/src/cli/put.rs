//! `diptych put`: folders and tables into a collection.
//!
//! A thread reads (`plan`, `folder`, `table`), makes items (`maker`) and leaves out what the `journal` knows; batches go to the
//! `upload` over a channel of one, so that memory holds a few batches whatever is put. `report` counts and tells.

mod csv;
mod folder;
mod item;
mod journal;
mod jsonl;
mod lines;
mod maker;
mod parquet;
mod plan;
mod reader;
mod report;
mod row;
mod table;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use diptych::{Client, Deadlines, Kind, Options, RetryBudget, RetryPolicy, TransportOptions, v1};
use tokio::sync::mpsc;

use self::journal::{Journal, Known, Scope};
use self::maker::Maker;
use self::plan::Plan;
use self::reader::Reader;
use self::report::Report;
use self::upload::Upload;
use super::Outcome;
use super::args::{PutArgs, Shared};
use super::collections::{create, tell_sample};
use super::out::{Out, say};

/// Longest batch: a server that restarts meanwhile is waited for.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait between two tries while a server is away.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A server at its limit says when to come back, and is to be asked until it has room.
const ATTEMPTS: u32 = 200;
/// Longest wait for a server that is away, as one is that is started again.
const READY_WAIT: Duration = Duration::from_secs(60);

/// Puts all paths, one after the other, and says what came of it.
pub(crate) async fn run(shared: &Shared, args: PutArgs, out: Out) -> Result<Outcome> {
    let plans = plans(&args).await?;
    let client = connect(shared).await?;
    let limits = client.server_info().await?.limits.unwrap_or_default();
    let collection = collection(&client, &args.into).await?;
    let total = plans.iter().map(Plan::steps).sum();
    let report = Arc::new(Report::new(total));
    let stop = Arc::new(AtomicBool::new(false));
    let mut put = Put { client, shared, args: &args, limits, collection, report, stop };
    let watch = tokio::spawn(watch(Arc::clone(&put.stop)));
    let ended = tokio::select! {
        ended = put.all(plans) => ended,
        second = watch => second.unwrap_or_else(|_| Ok(())),
    };
    put.report.finish();
    if let Err(error) = ended {
        put.report.tell_rest();
        let told = error.context("stopped; the same command goes on where this one ended");
        return Err(told);
    }
    let stopped = put.stop.load(Ordering::Relaxed);
    put.report.summary(shared, &args.into, stopped, out)
}

/// What is to be read, found before anything is sent, so that a path that is wrong costs nothing.
async fn plans(args: &PutArgs) -> Result<Vec<Plan>> {
    let paths = args.paths.clone();
    let plans = tokio::task::spawn_blocking(move || {
        paths.iter().map(|path| Plan::make(path)).collect::<Result<Vec<Plan>>>()
    });
    plans.await.context("the paths could not be looked through")?
}

async fn connect(shared: &Shared) -> diptych::Result<Client> {
    let options = Options {
        deadlines: Deadlines::all(shared.deadline.unwrap_or(DEADLINE)),
        retry: RetryPolicy {
            attempts: ATTEMPTS,
            max_backoff: MAX_BACKOFF,
            budget: RetryBudget::unlimited(),
            ..RetryPolicy::default()
        },
        transport: TransportOptions { ready_wait: READY_WAIT, ..TransportOptions::default() },
        ..Options::default()
    };
    super::open(shared, options).await
}

/// The collection, made when it is not there.
async fn collection(client: &Client, name: &str) -> Result<v1::Collection> {
    let asked = || client.get_collection(v1::GetCollectionRequest { name: name.to_owned() });
    match asked().await {
        Ok(found) => return found.collection.context("the server's answer holds no collection"),
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let request = v1::CreateCollectionRequest { name: name.to_owned(), ..Default::default() };
    match create(client, request).await {
        Ok(made) => {
            say(&format!("made collection {name}"));
            tell_sample(&made);
            Ok(made)
        }
        // Someone else was quicker.
        Err(error) if error.downcast_ref().is_some_and(exists) => {
            asked().await?.collection.context("the server's answer holds no collection")
        }
        Err(error) => Err(error),
    }
}

fn exists(error: &diptych::Error) -> bool {
    error.kind() == Kind::AlreadyExists
}

/// Lets what is under way end at the first Ctrl-C; returns at the second.
async fn watch(stop: Arc<AtomicBool>) -> Result<()> {
    tokio::signal::ctrl_c().await?;
    stop.store(true, Ordering::Relaxed);
    tokio::signal::ctrl_c().await?;
    bail!("interrupted twice")
}

/// One run.
struct Put<'a> {
    client: Client,
    shared: &'a Shared,
    args: &'a PutArgs,
    limits: v1::Limits,
    collection: v1::Collection,
    report: Arc<Report>,
    stop: Arc<AtomicBool>,
}

impl Put<'_> {
    async fn all(&mut self, plans: Vec<Plan>) -> Result<()> {
        let mut maker = Maker::new(&self.args.prefix, &self.limits);
        for plan in plans {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            maker = self.one(plan, maker).await?;
        }
        Ok(())
    }

    /// Puts one path. The maker is handed through: it knows the ids that were given.
    async fn one(&mut self, plan: Plan, maker: Maker) -> Result<Maker> {
        let (journal, known) = self.journal(plan.path()).await?;
        let (batches, incoming) = mpsc::channel(1);
        let reader = Reader {
            maker,
            known,
            batches,
            stop: Arc::clone(&self.stop),
            report: Arc::clone(&self.report),
            most: upload::most(&self.limits),
        };
        let reading = tokio::task::spawn_blocking(move || reader.read(&plan));
        let upload = Upload {
            client: self.client.clone(),
            collection: self.args.into.clone(),
            report: Arc::clone(&self.report),
            journal,
        };
        let sent = upload.run(incoming, &self.stop).await;
        let maker = reading.await.context("the reader ended early")?;
        sent.map(|()| maker)
    }

    /// What earlier runs have put from `path` and is still there.
    async fn journal(&self, path: &Path) -> Result<(Journal, Known)> {
        let scope = Scope::new(&self.shared.servers(), &self.collection, path);
        let (journal, mut known) = match Journal::open(&scope, !self.args.no_resume) {
            Ok(opened) => opened,
            Err(error) => {
                say(&format!(
                    "note: this run cannot be resumed, its journal cannot be kept: {error:#}"
                ));
                (Journal::none(), Known::new())
            }
        };
        if !known.is_empty() {
            let page_size = self.limits.page_size;
            let there = journal::there(&self.client, &self.args.into, page_size).await?;
            known.retain(|id, _| there.contains(id));
        }
        Ok((journal, known))
    }
}
