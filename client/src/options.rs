//! How a client connects and calls.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::error::{Error, Result};
use crate::retry::RetryPolicy;

/// Longest call, retries included, when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a connection when nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest reply taken when nothing else is said; servers send at most 16 MiB unless told otherwise.
const MESSAGE_BYTES: usize = 64 << 20;
/// Servers may drop who pings more often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client connects and calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Longest call, retries and the waits between them included. Default 10 s.
    pub deadline: Duration,
    /// Longest wait for a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// When and how often a call is sent again.
    pub retry: RetryPolicy,
    /// Largest message sent or taken, in bytes. Default 64 MiB.
    pub message_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: DEADLINE,
            connect_timeout: CONNECT_TIMEOUT,
            retry: RetryPolicy::default(),
            message_bytes: MESSAGE_BYTES,
        }
    }
}

/// The URL of an address: `http://` goes before a bare `host:port`.
pub(crate) fn url(address: &str) -> Result<String> {
    let address = address.trim().trim_end_matches('/');
    match address.split_once("://") {
        None if address.is_empty() => Err(Error::invalid("the server's address is empty")),
        None => Ok(format!("http://{address}")),
        Some(("http", _)) => Ok(address.to_owned()),
        Some(("https", _)) => Err(Error::invalid(format!(
            "{address}: this client speaks no TLS; connect to a proxy that does, by http://"
        ))),
        Some((scheme, _)) => {
            Err(Error::invalid(format!("{address}: {scheme} is no scheme of gRPC; use http://")))
        }
    }
}

/// Where and how to connect.
pub(crate) fn endpoint(url: &str, options: &Options) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint =
        endpoint.map_err(|_| Error::invalid(format!("{url} is no address of a server")))?;
    if endpoint.uri().host().is_none() {
        return Err(Error::invalid(format!("{url} names no host")));
    }
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_gets_a_scheme() {
        let check = |given: &str, expected: &str| assert_eq!(url(given).unwrap(), expected);
        check("localhost:50051", "http://localhost:50051");
        check("http://127.0.0.1:50051/", "http://127.0.0.1:50051");
        check(" [::1]:50051", "http://[::1]:50051");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named() {
        for given in ["", "https://host:1", "ftp://host"] {
            let error = url(given).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Invalid);
            assert!(error.to_string().contains(given), "{error}");
        }
        assert!(endpoint("http://a b", &Options::default()).is_err());
    }
}
