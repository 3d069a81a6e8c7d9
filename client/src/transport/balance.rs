//! Which of the ready endpoints takes a call: the less busy of two drawn at random (Mitzenmacher 2001, "The power of two choices
//! in randomized load balancing"), busy being the number of calls whose answers have not been read to their end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};

use super::endpoint::Endpoint;
use super::table::{Ready, Table};

/// An endpoint for a call, at another address than that of `avoid` if there is one; nothing when none is ready.
pub(super) fn pick(table: &Table, avoid: Option<SocketAddr>) -> Option<Ready> {
    let ready = table.ready();
    let elsewhere: Vec<usize> = match avoid {
        None => Vec::new(),
        Some(avoid) => (0..ready.len()).filter(|at| ready[*at].endpoint.address != avoid).collect(),
    };
    let place = |nth: usize| if elsewhere.is_empty() { nth } else { elsewhere[nth] };
    let count = if elsewhere.is_empty() { ready.len() } else { elsewhere.len() };
    let load = |nth: usize| ready[place(nth)].endpoint.in_flight.load(Ordering::Relaxed);
    let chosen = &ready[place(choose(count, load, rand::random())?)];
    if !chosen.sender.is_closed() {
        return Some(chosen.clone());
    }
    // A GOAWAY came: its keeper is told, and the call goes where it can.
    ready.iter().filter(|ready| ready.sender.is_closed()).for_each(|ready| ready.endpoint.closed());
    ready.iter().find(|ready| !ready.sender.is_closed()).cloned()
}

/// One of `count` places: `random` draws two, and the one with the lesser load is it.
fn choose(count: usize, load: impl Fn(usize) -> usize, random: [u32; 2]) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let first = random[0] as usize % count;
    if count == 1 {
        return Some(first);
    }
    // Any but the first.
    let second = (first + 1 + random[1] as usize % (count - 1)) % count;
    Some(if load(second) < load(first) { second } else { first })
}

/// A call that counts as in flight for as long as this lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Endpoint>);

impl Counted {
    pub(super) fn begin(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The answer's body, with which the call ends.
    pub(super) fn body(self, incoming: Incoming) -> CountedBody {
        CountedBody { incoming, _counted: self }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct CountedBody {
    incoming: Incoming,
    _counted: Counted,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_busy_of_two_is_chosen_and_the_busiest_never() {
        let loads = [5, 0, 9];
        for first in 0..3 {
            for second in 0..2 {
                let chosen = choose(3, |place| loads[place], [first, second]).unwrap();
                assert_ne!(chosen, 2, "drew {first} {second}");
            }
        }
        assert_eq!((choose(1, |_| 0, [7, 7]), choose(0, |_| 0, [7, 7])), (Some(0), None));
    }

    #[test]
    fn all_of_equal_load_get_their_share() {
        let mut counts = [0; 4];
        for first in 0..4 {
            for second in 0..3 {
                counts[choose(4, |_| 0, [first, second]).unwrap()] += 1;
            }
        }
        assert_eq!(counts, [3; 4]);
    }
}
