//! Who calls, and how many of something each of them has at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The part of an IPv6 address that a caller is told by: a single host may have all the rest.
const PREFIX_BITS: u32 = 64;

/// A caller, told by the address until there are keys.
pub(crate) fn caller(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> (128 - PREFIX_BITS) << (128 - PREFIX_BITS);
            Ipv6Addr::from_bits(prefix).into()
        }
        v4 => v4,
    }
}

/// How many each caller has who has some.
#[derive(Debug)]
pub(crate) struct Callers {
    /// How many one may have.
    most: usize,
    has: Mutex<HashMap<IpAddr, usize>>,
}

/// One of what a caller has, until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    callers: Arc<Callers>,
    /// `None` for one of no address, such as a test's.
    caller: Option<IpAddr>,
}

impl Callers {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, has: Mutex::default() })
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Counts one more, or gives `None` when the caller has as many as one may have.
    pub(crate) fn enter(self: &Arc<Self>, caller: Option<IpAddr>) -> Option<Counted> {
        if let Some(caller) = caller {
            let mut has = self.has.lock();
            let count = has.entry(caller).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Counted { callers: Arc::clone(self), caller })
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.has.lock().is_empty()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(caller) = self.caller else { return };
        let mut has = self.callers.has.lock();
        if let Some(count) = has.get_mut(&caller) {
            *count -= 1;
            // Only who has some takes room.
            if *count == 0 {
                has.remove(&caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_one_caller() {
        let of = |address: &str| caller(address.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2]:7"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
    }

    #[test]
    fn each_has_as_many_as_one_may_have_and_nothing_is_left_of_who_has_none() {
        let callers = Callers::new(2);
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        let held = [callers.enter(one), callers.enter(one)];
        assert!(held.iter().all(Option::is_some) && callers.enter(one).is_none());
        assert!(callers.enter(other).is_some() && callers.enter(None).is_some());
        drop(held);
        assert!(callers.enter(one).is_some());
        assert!(callers.is_empty());
    }
}
