//! One file from the hub into the cache: what is there already stays, what broke off goes on, what is wrong is not kept.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use super::cache::{self, Cache, Entry};
use super::client::{Client, Fault, Remote, TRIES};
use super::error::{Error, Result};

const CHUNK: usize = 256 << 10;
/// How often the log tells how far a large file is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// A commit of a repository, from a hub to a cache.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a Cache,
    pub(super) repository: &'a str,
    pub(super) commit: &'a str,
}

impl Download<'_> {
    /// Fetches `file`, verifies it and names it in the commit.
    pub(super) fn fetch(&self, file: &str) -> Result<Entry> {
        let remote = self.client.describe(self.repository, self.commit, file)?;
        let blob = self.cache.blob(&remote.etag);
        cache::make_parent(&blob)?;
        let lock = self.cache.lock(&remote.etag)?;
        let sha256 = match self.kept(&blob, &remote)? {
            Some(sha256) => sha256,
            None => self.transfer(file, &remote, &blob)?,
        };
        self.cache.name(self.commit, file, &blob)?;
        drop(lock);
        Ok(Entry { path: file.to_owned(), length: remote.length, sha256, etag: remote.etag })
    }

    /// The digest of a content that is there and right.
    fn kept(&self, blob: &Path, remote: &Remote) -> Result<Option<String>> {
        if !fs::metadata(blob).is_ok_and(|found| found.is_file() && found.len() == remote.length) {
            return Ok(None);
        }
        let found = cache::digest(blob)?;
        let right = remote.sha256().is_none_or(|expected| expected == found);
        if !right {
            tracing::warn!(file = %blob.display(), "the cache holds another content than its name says; fetching it anew");
        }
        Ok(right.then_some(found))
    }

    /// Brings the whole content to `blob`. What was there from an earlier try and does not fit is given up once.
    fn transfer(&self, file: &str, remote: &Remote, blob: &Path) -> Result<String> {
        let mut name = blob.as_os_str().to_owned();
        name.push(".incomplete");
        let part = PathBuf::from(name);
        loop {
            let resumed = self.fill(file, remote, &part)?;
            let found = cache::digest(&part)?;
            match remote.sha256() {
                Some(expected) if expected != found => {
                    cache::remove(&part)?;
                    if resumed {
                        tracing::warn!(
                            file,
                            "what an earlier try left does not fit; fetching all of it"
                        );
                        continue;
                    }
                    return Err(Error::Digest {
                        file: file.to_owned(),
                        repository: self.repository.to_owned(),
                        endpoint: self.client.endpoint().to_owned(),
                        found,
                        expected: expected.to_owned(),
                    });
                }
                _ => {
                    fs::rename(&part, blob).map_err(Error::io(blob))?;
                    return Ok(found);
                }
            }
        }
    }

    /// Appends to `part` until it has the whole length. Says whether it began with what an earlier run had left.
    fn fill(&self, file: &str, remote: &Remote, part: &Path) -> Result<bool> {
        let mut open = OpenOptions::new();
        let output = open.create(true).append(true).open(part).map_err(Error::io(part))?;
        let mut have = output.metadata().map_err(Error::io(part))?.len();
        if have > remote.length {
            output.set_len(0).map_err(Error::io(part))?;
            have = 0;
        }
        let resumed = have > 0;
        let (mut tries, mut told) = (0, Instant::now());
        while have < remote.length {
            let before = have;
            let asked = match self.append(file, remote, &output, (&mut have, &mut told)) {
                Ok(()) => continue,
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(reason, asked)) => {
                    tries = if have > before { 1 } else { tries + 1 };
                    if tries == TRIES {
                        let (file, length) = (file.to_owned(), remote.length);
                        return Err(Error::Cut { file, tries, have, length, reason });
                    }
                    tracing::warn!(
                        file,
                        have,
                        length = remote.length,
                        reason,
                        "a transfer broke off; going on"
                    );
                    asked
                }
            };
            self.client.wait(tries, asked);
        }
        output.sync_all().map_err(Error::io(part))?;
        Ok(resumed)
    }

    /// One request: from the bytes that are there to the end, or to where it breaks.
    fn append(
        &self,
        file: &str,
        remote: &Remote,
        mut output: &File,
        (have, told): (&mut u64, &mut Instant),
    ) -> std::result::Result<(), Fault> {
        let place = (self.repository, self.commit, file);
        let response = self.client.content(place, *have)?;
        if *have > 0 && !continues(&response, *have) {
            // The hub gives the whole, or another part than was asked for: what is there would be followed by the wrong bytes.
            output.set_len(0).map_err(|error| self.disk(file, error))?;
            *have = 0;
            if response.status() != StatusCode::OK {
                let reason = format!("status {} to a request for the rest", response.status());
                return Err(Fault::Passing(reason, None));
            }
        }
        let mut body = response.into_body().into_reader().take(remote.length - *have);
        let mut chunk = vec![0; CHUNK];
        while *have < remote.length {
            let bytes = body.read(&mut chunk);
            let bytes = bytes.map_err(|error| Fault::Passing(error.to_string(), None))?;
            if bytes == 0 {
                return Err(Fault::Passing("the answer was too short".to_owned(), None));
            }
            output.write_all(&chunk[..bytes]).map_err(|error| self.disk(file, error))?;
            *have += bytes as u64;
            if told.elapsed() >= PROGRESS_PERIOD {
                tracing::info!(file, have = *have, length = remote.length, "fetching");
                *told = Instant::now();
            }
        }
        Ok(())
    }

    fn disk(&self, file: &str, error: std::io::Error) -> Fault {
        Fault::Final(Error::io(&self.cache.folder(self.commit).join(file))(error))
    }
}

/// Whether an answer is the part that begins at `start`.
fn continues(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.strip_prefix("bytes ").is_some_and(|range| range.starts_with(&format!("{start}-")))
}
