//! `diptych bench`: a load, and what the server made of it.
//!
//! - `query`: what is asked; `ask`: one call; `schedule`: when calls are due
//! - `load`: open and closed loops; `capacity`: many of them, to find what a server can do
//! - `histogram`, `tally`: what calls came to; `report`: how that is told

mod ask;
mod capacity;
mod histogram;
mod load;
mod query;
mod report;
mod schedule;
mod tally;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use diptych::{Client, Deadlines, Options, RetryPolicy, TransportOptions, v1};

use self::ask::Ask;
use self::load::Mode;
use self::query::Queries;
use super::Outcome;
use super::args::{BenchArgs, BenchCall, Shared};
use super::out::{Out, say};

/// Makes the load and prints what came of it.
pub(crate) async fn run(shared: &Shared, args: &BenchArgs, out: Out) -> Result<Outcome> {
    let client = connect(shared, args).await?;
    let dimension = dimension(&client, shared, args).await?;
    let queries = Queries::load(args, dimension)?;
    let before = client.statistics();
    let ask = Arc::new(Ask::new(client, queries, shared, args));
    if args.find_capacity {
        let capacity = capacity::find(&ask, args).await?;
        report::print_capacity(&capacity, args, out)?;
        return Ok(answered(capacity.peak > 0.0));
    }
    let mode = match args.rate {
        Some(rate) => Mode::Open { rate, arrivals: args.arrivals },
        None => Mode::Closed { callers: args.callers.unwrap_or(1) },
    };
    let measured = load::run(&ask, args, mode).await?;
    let mut did = ask.client.statistics();
    did.retries -= before.retries;
    did.resent -= before.resent;
    report::print(&measured, did, args, out)?;
    Ok(answered(measured.tally.ok() > 0))
}

/// A load that nothing answered measured nothing.
fn answered(any: bool) -> Outcome {
    if any {
        return Outcome::Done;
    }
    say("diptych: no call was answered in the time that is measured");
    Outcome::Partly
}

async fn connect(shared: &Shared, args: &BenchArgs) -> diptych::Result<Client> {
    let retry = if args.retries { RetryPolicy::default() } else { RetryPolicy::never() };
    let connections = args.connections as usize;
    let options = Options {
        deadlines: shared.deadline.map(Deadlines::all).unwrap_or_default(),
        retry,
        transport: TransportOptions { connections, ..TransportOptions::default() },
        ..Options::default()
    };
    super::open(shared, options).await
}

/// The dimension of the shared space that is searched, for vectors that are made up.
async fn dimension(client: &Client, shared: &Shared, args: &BenchArgs) -> Result<u32> {
    if args.call != BenchCall::Vector || args.queries.is_some() {
        return Ok(0);
    }
    let request = v1::GetCollectionRequest { name: shared.collection.clone() };
    let collection = client.get_collection(request).await?.collection;
    let dimensions = collection.and_then(|collection| collection.dimensions);
    let dimension = dimensions.map(|dimensions| dimensions.shared).filter(|shared| *shared > 0);
    dimension.context("the collection tells no dimension of its vectors; give --queries")
}
