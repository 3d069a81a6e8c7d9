//! Addresses as people write them.

use http::Uri;
use http::uri::Authority;

use crate::error::{Error, Result};

/// The port of an address that names none.
const PORT: u16 = 50051;

/// One server, or a name that stands for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What the server is told that it was called by.
    pub(super) authority: Authority,
}

/// The addresses of a comma-separated list, each `host:port` or `http://host:port`.
pub(super) fn targets(addresses: &str) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for address in addresses.split(',') {
        let target = target(address.trim())?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

fn target(address: &str) -> Result<Target> {
    let bare = match address.split_once("://") {
        None => address,
        Some(("http", rest)) => rest,
        // gRPC's own way to say that a name stands for several servers, which any name here may.
        Some(("dns", rest)) if rest.starts_with('/') => &rest[1..],
        Some(("https", _)) => {
            return Err(Error::invalid(format!(
                "{address}: this client speaks no TLS; connect to a proxy that does, by http://"
            )));
        }
        Some((scheme, _)) => {
            let message = format!("{address}: {scheme} is no scheme of gRPC; use http://");
            return Err(Error::invalid(message));
        }
    };
    let bare = bare.trim_end_matches('/');
    if bare.is_empty() {
        return Err(Error::invalid(format!("{address:?}: the server's address is empty")));
    }
    let none = || Error::invalid(format!("{address} is no address of a server, host:port"));
    let uri: Uri = format!("http://{bare}").parse().map_err(|_| none())?;
    let authority = uri.authority().ok_or_else(none)?.clone();
    let alone = uri.path() == "/" && uri.query().is_none() && !bare.contains('@');
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || !alone {
        return Err(none());
    }
    // `Authority::port` says nothing of one that is too large.
    let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
        "" => PORT,
        port => port.trim_start_matches(':').parse().map_err(|_| none())?,
    };
    Ok(Target { host, port, authority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_port_and_brackets() {
        let check = |given: &str, host: &str, port: u16| {
            let found = targets(given).unwrap();
            assert_eq!((found[0].host.as_str(), found[0].port), (host, port), "{given}");
        };
        check("localhost:50052", "localhost", 50052);
        check("http://127.0.0.1:50051/", "127.0.0.1", 50051);
        check(" [::1]:7", "::1", 7);
        check("search.example", "search.example", 50051);
        check("dns:///headless:50051", "headless", 50051);
    }

    #[test]
    fn a_list_is_read_without_repeats() {
        let hosts: Vec<String> =
            targets("a:1, b:1,a:1").unwrap().into_iter().map(|target| target.host).collect();
        assert_eq!(hosts, ["a", "b"]);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named() {
        for given in
            ["", "https://host:1", "ftp://host", "a b", "host:99999", "a:1,,b:1", "h/p", "u@h"]
        {
            let error = targets(given).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Invalid, "{given}");
        }
        assert!(targets("https://host:1").unwrap_err().to_string().contains("https://host:1"));
    }
}
