//! One connection to one socket address, made again whenever it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use http::uri::Authority;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Sender, connect};
use super::health::{Health, Word};
use super::table::{State, Table};

/// One connection to one socket address.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Unique in the process.
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    /// What the server is told that it was called by.
    pub(super) authority: Authority,
    /// Calls whose answers have not been read to their end.
    pub(super) in_flight: AtomicUsize,
    closed: Notify,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, authority: Authority) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self { id, address, authority, in_flight: AtomicUsize::new(0), closed: Notify::new() }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0
    }

    /// Tells the endpoint's keeper that a connection takes no more calls.
    pub(super) fn closed(&self) {
        self.closed.notify_one();
    }

    /// Waits until somebody has told that the connection of `sender` takes no more calls. Several calls tell of one connection, and
    /// the last of them may do so when there is the next one, which is not to end for that.
    async fn until_closed(&self, sender: &Sender) {
        loop {
            self.closed.notified().await;
            if sender.is_closed() {
                return;
            }
        }
    }
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// After it had served calls, such as by a GOAWAY.
    Served,
    /// Before its server told anything.
    Failed(String),
}

/// Keeps an endpoint connected and its state known, for ever.
pub(super) async fn keep(endpoint: Arc<Endpoint>, table: Arc<Table>) {
    let options = &table.options;
    let mut failures = 0;
    loop {
        let begun = tokio::time::Instant::now();
        match attempt(&endpoint, &table).await {
            // A server may end connections of a certain age: the next one is made at once. One that ends them at once is not
            // worth that.
            End::Served if begun.elapsed() >= options.first_backoff => {
                failures = 0;
                table.set(endpoint.id, State::Connecting);
                continue;
            }
            End::Served => table.set(endpoint.id, State::Connecting),
            End::Failed(why) => table.set(endpoint.id, State::Down(why)),
        }
        table.resolve_again.notify_one();
        sleep(backoff(options.first_backoff, options.max_backoff, failures, rand::random())).await;
        failures += 1;
    }
}

/// The doubled wait, between half and all of it, so that clients of one server do not come back together.
fn backoff(first: Duration, most: Duration, failures: u32, jitter: f64) -> Duration {
    first
        .saturating_mul(1 << failures.min(20))
        .min(most)
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Connects and follows the server's health until the connection ends.
async fn attempt(endpoint: &Endpoint, table: &Table) -> End {
    let options = &table.options;
    let opened = async {
        let connection = connect(endpoint.address, options).await?;
        let sender = connection.sender.clone();
        let mut health = Health::new(sender, &endpoint.authority, options);
        match health.ask().await {
            Ok(word) => Ok((connection, health, word)),
            Err(status) => Err(format!("does not tell its health: {}", status.message())),
        }
    };
    match timeout(options.connect_timeout, opened).await {
        Ok(Ok((connection, health, word))) => {
            follow(endpoint, table, (connection, health), word).await;
            End::Served
        }
        Ok(Err(why)) => End::Failed(why),
        Err(_) => End::Failed(format!("no answer within {:?}", options.connect_timeout)),
    }
}

/// Tells every change of health, until the connection ends or takes no more calls.
async fn follow(
    endpoint: &Endpoint,
    table: &Table,
    (mut connection, mut health): (Connection, Health),
    mut word: Word,
) {
    loop {
        table.set(
            endpoint.id,
            match word {
                Word::Serving => State::Ready(connection.sender.clone()),
                Word::NotServing => State::NotServing,
            },
        );
        let next = tokio::select! {
            next = health.next(word) => next,
            _ = &mut connection.ended => return,
            () = endpoint.until_closed(&connection.sender) => return,
        };
        match next {
            Ok(next) => word = next,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let wait = |failures, jitter| {
            backoff(Duration::from_millis(100), Duration::from_secs(1), failures, jitter)
                .as_millis()
        };
        assert_eq!([wait(0, 1.0), wait(1, 1.0), wait(2, 1.0)], [100, 200, 400]);
        assert_eq!((wait(40, 1.0), wait(40, 0.0)), (1000, 500));
    }
}
