//! Names to socket addresses, again and again: endpoints come and go with what the names stand for.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use http::uri::Authority;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::endpoint::{Endpoint, keep};
use super::table::Table;
use super::target::Target;

/// The addresses of a name.
pub(super) type Found<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Who knows names.
pub(super) trait Names: fmt::Debug + Send + Sync {
    /// All addresses of `host` by now, with `port`.
    fn find<'a>(&'a self, host: &'a str, port: u16) -> Found<'a>;
}

/// The system's resolver.
#[derive(Debug)]
pub(super) struct System;

impl Names for System {
    fn find<'a>(&'a self, host: &'a str, port: u16) -> Found<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// An endpoint that is kept: which it is, and how its keeping ends.
#[derive(Debug)]
struct Kept {
    ids: Vec<u64>,
    keepers: Vec<AbortHandle>,
}

/// Keeps endpoints for all addresses of all targets, for ever. What it started ends with it.
pub(super) async fn follow(targets: Vec<Target>, names: Arc<dyn Names>, table: Arc<Table>) {
    let mut tasks = JoinSet::new();
    let mut kept: BTreeMap<SocketAddr, Kept> = BTreeMap::new();
    let mut last: Vec<Vec<SocketAddr>> = vec![Vec::new(); targets.len()];
    let fixed = targets.iter().all(|target| target.host.parse::<IpAddr>().is_ok());
    loop {
        let mut unresolved = BTreeMap::new();
        for (target, addresses) in targets.iter().zip(&mut last) {
            match find(target, &*names, &table).await {
                Ok(found) => *addresses = found,
                // What it stood for until now is better than nothing.
                Err(why) => drop(unresolved.insert(target.authority.to_string(), why)),
            }
        }
        let wanted = wanted(&targets, &last);
        kept.retain(|address, kept| {
            let stays = wanted.contains_key(address);
            if !stays {
                kept.keepers.iter().for_each(AbortHandle::abort);
                kept.ids.iter().for_each(|id| table.remove(*id));
            }
            stays
        });
        for (address, authority) in wanted {
            kept.entry(address).or_insert_with(|| begin(address, &authority, &table, &mut tasks));
        }
        // Those of addresses that are gone.
        while tasks.try_join_next().is_some() {}
        table.resolved(unresolved);
        if fixed {
            return while_kept(tasks).await;
        }
        let asked = Instant::now();
        tokio::select! {
            () = sleep(table.options.resolve_interval) => {}
            () = table.resolve_again.notified() => {
                sleep_until(asked + table.options.resolve_pause).await;
            }
        }
    }
}

/// Each address once, called by the first target that has it.
fn wanted(targets: &[Target], last: &[Vec<SocketAddr>]) -> BTreeMap<SocketAddr, Authority> {
    let mut wanted = BTreeMap::new();
    for (target, addresses) in targets.iter().zip(last) {
        for address in addresses {
            wanted.entry(*address).or_insert_with(|| target.authority.clone());
        }
    }
    wanted
}

async fn find(
    target: &Target,
    names: &dyn Names,
    table: &Table,
) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let found = names.find(&target.host, target.port);
    match timeout(table.options.connect_timeout, found).await {
        Ok(Ok(found)) if found.is_empty() => Err("stands for no address".to_owned()),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not resolved within {:?}", table.options.connect_timeout)),
    }
}

fn begin(
    address: SocketAddr,
    authority: &Authority,
    table: &Arc<Table>,
    tasks: &mut JoinSet<()>,
) -> Kept {
    let mut kept = Kept { ids: Vec::new(), keepers: Vec::new() };
    for _ in 0..table.options.connections.max(1) {
        let endpoint = Arc::new(Endpoint::new(address, authority.clone()));
        kept.ids.push(endpoint.id);
        table.add(Arc::clone(&endpoint));
        kept.keepers.push(tasks.spawn(keep(endpoint, Arc::clone(table))));
    }
    kept
}

/// Addresses that are none of a name's never change.
async fn while_kept(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
