//! The hub's protocol: what a revision holds, what a file is, its bytes from some place on. The only file that speaks HTTP to
//! anyone.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::error::{Error, Result};
use super::settings::Settings;
use super::spec::{is_commit, is_name};

/// Tries of a request, or of a transfer that does not move.
pub(super) const TRIES: u32 = 5;
/// Longest wait between two tries, whatever a hub asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest time to reach a hub.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest silence of a hub within an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes of a listing of files.
const LARGEST_REPLY: u64 = 32 << 20;
const REDIRECTS: usize = 10;
/// The hub's word for what is missing; a status alone does not tell a repository from a revision.
const ERROR_CODE: &str = "x-error-code";

/// What a revision is and holds.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    #[serde(rename = "sha")]
    pub(super) commit: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Info {
    /// Every file of the revision, by its path.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.siblings.iter().map(|sibling| sibling.rfilename.as_str())
    }
}

/// A file as the hub describes it before it gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Names this content; fit to be a file's name.
    pub(super) etag: String,
    /// Bytes.
    pub(super) length: u64,
}

impl Remote {
    /// The SHA-256 that the content must have, where the hub tells one: its names of large files are their digests.
    pub(super) fn sha256(&self) -> Option<&str> {
        let digest =
            self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        digest.then_some(self.etag.as_str())
    }
}

/// Why one try did not succeed.
pub(super) enum Fault {
    /// Another try may; after the wait that the hub asks for.
    Passing(String, Option<Duration>),
    /// None will.
    Final(Error),
}

/// One hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    authorization: Option<String>,
    first_wait: Duration,
}

impl Client {
    /// # Errors
    /// For settings that cannot be used. Nothing is sent.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let endpoint = settings.endpoint.clone();
        let encrypted = endpoint.starts_with("https://");
        if !encrypted && !endpoint.starts_with("http://") {
            return Err(Error::Setting {
                name: "HF_ENDPOINT",
                value: endpoint,
                problem: "must begin with https:// or http://".to_owned(),
            });
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(encrypted)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("diptych-server/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .tls_config(tls(settings)?)
            .build();
        let authorization = settings.token()?.map(|token| format!("Bearer {token}"));
        let first_wait = settings.first_wait;
        Ok(Self { agent: config.new_agent(), endpoint, authorization, first_wait })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks which commit `revision` is, and which files it has.
    pub(super) fn info(&self, repository: &str, revision: &str) -> Result<Info> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repository}/revision/{revision}", self.endpoint);
        let info: Info = self.tried(&url, || {
            let mut response = self.send(&url, self.agent.get(&url))?;
            self.check(repository, &revision, "", &response)?;
            let body = response.body_mut().with_config().limit(LARGEST_REPLY).read_to_vec();
            let body = body.map_err(|error| passing(&error))?;
            serde_json::from_slice(&body).map_err(|error| {
                Fault::Final(Error::reply(&url, format!("its listing of files is none: {error}")))
            })
        })?;
        if is_commit(&info.commit) {
            return Ok(info);
        }
        Err(Error::reply(&url, format!("{:?} is no commit hash", info.commit)))
    }

    /// Asks what `file` is, without its content. What stores large files knows nothing of their names, so redirects are followed
    /// no farther than needed.
    pub(super) fn describe(&self, repository: &str, commit: &str, file: &str) -> Result<Remote> {
        let first = self.url(repository, commit, file);
        self.tried(&first, || {
            let mut url = first.clone();
            let mut etag = None;
            for _ in 0..REDIRECTS {
                let request = self.agent.head(&url).config().max_redirects(0).build();
                let response = self.send(&url, request)?;
                self.check(repository, commit, file, &response)?;
                let headers = response.headers();
                etag = etag.or_else(|| etag_of(headers));
                let redirected = response.status().is_redirection();
                let length = length_of(headers, redirected);
                if let (Some(etag), Some(length)) = (&etag, length) {
                    return Ok(Remote { etag: etag.clone(), length });
                }
                if !redirected {
                    break;
                }
                url = target(&url, headers)
                    .ok_or_else(|| Fault::Final(Error::reply(&url, "it redirects to nowhere")))?;
            }
            let problem = format!("it tells neither ETag nor length of {file}");
            Err(Fault::Final(Error::reply(&url, problem)))
        })
    }

    /// The bytes of `file` from `start` on, or all of them if the hub does not do parts. One try.
    pub(super) fn content(
        &self,
        (repository, commit, file): (&str, &str, &str),
        start: u64,
    ) -> std::result::Result<Response<Body>, Fault> {
        let url = self.url(repository, commit, file);
        let mut request = self.agent.get(&url);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = self.send(&url, request)?;
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.check(repository, commit, file, &response)?;
        }
        Ok(response)
    }

    /// Waits before try number `tried + 1`.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no condition to await: a hub asks for time"
    )]
    pub(super) fn wait(&self, tried: u32, asked: Option<Duration>) {
        let doubled = self.first_wait * 2_u32.saturating_pow(tried.saturating_sub(1));
        std::thread::sleep(asked.unwrap_or(doubled).min(LONGEST_WAIT));
    }

    fn tried<T>(&self, url: &str, ask: impl Fn() -> std::result::Result<T, Fault>) -> Result<T> {
        let mut tries = 0;
        loop {
            let (reason, asked) = match ask() {
                Ok(answer) => return Ok(answer),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(reason, asked)) => (reason, asked),
            };
            tries += 1;
            if tries == TRIES {
                return Err(Error::Unreachable { url: url.to_owned(), tries, reason });
            }
            tracing::warn!(url, reason, "the hub does not answer as it should; trying again");
            self.wait(tries, asked);
        }
    }

    fn send<B>(
        &self,
        url: &str,
        request: ureq::RequestBuilder<B>,
    ) -> std::result::Result<Response<Body>, Fault>
    where
        ureq::RequestBuilder<B>: Call,
    {
        let authorization =
            self.authorization.as_deref().filter(|_| same_host(url, &self.endpoint));
        request.call_with(authorization).map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Fault::Final(Error::reply(url, error.to_string()))
            }
            ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::RequireHttpsOnly(_) => {
                Fault::Final(Error::reply(url, error.to_string()))
            }
            other => passing(&other),
        })
    }

    /// Turns an answer that is none into what is wrong.
    fn check(
        &self,
        repository: &str,
        revision: &str,
        file: &str,
        response: &Response<Body>,
    ) -> std::result::Result<(), Fault> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let headers = response.headers();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let asked = text(headers, header::RETRY_AFTER.as_str());
            let asked = asked.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
            return Err(Fault::Passing(format!("status {status}"), asked));
        }
        let repository = repository.to_owned();
        let no_repository = || Error::NoRepository {
            endpoint: self.endpoint.clone(),
            repository: repository.clone(),
        };
        Err(Fault::Final(match (status.as_u16(), text(headers, ERROR_CODE)) {
            (_, Some("RepoNotFound")) => no_repository(),
            (_, Some("RevisionNotFound")) => {
                Error::NoRevision { repository, revision: revision.replace("%2F", "/") }
            }
            (status @ (401 | 403), _) => {
                Error::Denied { repository, status, remedy: self.remedy() }
            }
            (404, _) if file.is_empty() => no_repository(),
            (404, _) => Error::NoFile {
                repository,
                commit: revision.to_owned(),
                file: file.to_owned(),
                because: "it lists all the same",
            },
            (status, _) => Error::reply(&self.endpoint, format!("status {status}")),
        }))
    }

    fn remedy(&self) -> &'static str {
        match self.authorization {
            Some(_) => {
                "the token's owner must be let in first: ask for access on the repository's page"
            }
            None => "give a token by hf_token_file (a file with nothing else in it)",
        }
    }

    fn url(&self, repository: &str, commit: &str, file: &str) -> String {
        let file: String = file.bytes().map(escaped).collect();
        format!("{}/{repository}/resolve/{commit}/{file}", self.endpoint)
    }
}

/// Requests without a body, whatever their builder's type.
pub(super) trait Call {
    fn call_with(
        self,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error>;
}

impl Call for ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    fn call_with(
        self,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        match authorization {
            Some(value) => self.header(header::AUTHORIZATION, value).call(),
            None => self.call(),
        }
    }
}

fn passing(error: &ureq::Error) -> Fault {
    Fault::Passing(error.to_string(), None)
}

/// Certificates to trust: those of `SSL_CERT_FILE`, as where a company's own authority signs, or else the built-in ones.
fn tls(settings: &Settings) -> Result<TlsConfig> {
    let Some(file) = &settings.certificates else { return Ok(TlsConfig::builder().build()) };
    let refused = |problem: String| Error::Setting {
        name: "SSL_CERT_FILE",
        value: file.display().to_string(),
        problem,
    };
    let text = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    let items = parse_pem(&text).collect::<std::result::Result<Vec<_>, _>>();
    let items = items.map_err(|error| refused(error.to_string()))?;
    let roots = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let roots: Vec<_> = roots.collect();
    if roots.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The name of a content. It becomes a file's name, so that one which could not is as good as none.
fn etag_of(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"))?;
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    is_name(etag).then(|| etag.to_owned())
}

fn length_of(headers: &HeaderMap, redirected: bool) -> Option<u64> {
    let own = text(headers, "content-length").filter(|_| !redirected);
    text(headers, "x-linked-size").or(own)?.parse().ok()
}

/// Where a redirect leads.
fn target(url: &str, headers: &HeaderMap) -> Option<String> {
    let location = text(headers, "location")?;
    if !location.starts_with('/') {
        return Some(location.to_owned());
    }
    let uri: http::Uri = url.parse().ok()?;
    Some(format!("{}://{}{location}", uri.scheme_str()?, uri.authority()?))
}

/// A token is for the hub alone, not for who stores its files.
fn same_host(url: &str, endpoint: &str) -> bool {
    let authority = |text: &str| Some(text.parse::<http::Uri>().ok()?.authority()?.to_string());
    authority(url).is_some_and(|host| authority(endpoint) == Some(host))
}

fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_name_of_a_large_file_wins_and_none_leaves_its_folder() {
        let both = headers(&[("etag", "\"small\""), ("x-linked-etag", "\"large\"")]);
        assert_eq!(etag_of(&both).as_deref(), Some("large"));
        assert_eq!(etag_of(&headers(&[("etag", "W/\"weak\"")])).as_deref(), Some("weak"));
        for etag in ["\"../x\"", "\"\"", "\"a/b\"", "\".hidden\""] {
            assert_eq!(etag_of(&headers(&[("etag", etag)])), None, "{etag}");
        }
    }

    #[test]
    fn a_redirect_is_not_the_length_of_what_it_leads_to() {
        let plain = headers(&[("content-length", "7")]);
        assert_eq!((length_of(&plain, false), length_of(&plain, true)), (Some(7), None));
        let linked = headers(&[("content-length", "7"), ("x-linked-size", "9")]);
        assert_eq!(length_of(&linked, true), Some(9));
    }

    #[test]
    fn a_token_goes_to_the_hub_only() {
        let hub = "https://hub.example/prefix";
        assert!(same_host("https://hub.example/a/b", hub));
        assert!(!same_host("https://cdn.example/a/b", hub));
        assert!(!same_host("https://hub.example.evil/a", hub));
        let location = headers(&[("location", "/moved/x")]);
        assert_eq!(
            target("https://hub.example/a", &location).unwrap(),
            "https://hub.example/moved/x"
        );
    }
}
