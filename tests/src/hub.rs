//! A stand-in of a Hugging Face hub on loopback: a folder as a repository at one commit, faults on demand, and a list of what
//! was asked. Large files are redirected to a second path, as the hub does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The commit that the repository has, and that its branch `main` is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files from here on are named by their SHA-256 and redirected.
const LARGE: usize = 4096;
/// Where large files lie.
const STORAGE: &str = "/storage/";

/// What a file's content does in place of arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes, once.
    CutAfter(usize),
    /// Nothing behind the first so many bytes comes: the connection ends there, each time.
    UpTo(usize),
    /// One byte is another, each time.
    Wrong,
    /// A status in place of the content, once.
    Status(u16),
    /// A request for a part gets the whole, each time.
    Whole,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path, with what follows it.
    pub path: String,
    /// Headers by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// Bytes of content that were sent.
    pub sent: usize,
}

#[derive(Debug, Default)]
struct State {
    repository: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Listed, and not there.
    missing: Vec<String>,
    faults: BTreeMap<String, Fault>,
    token: Option<String>,
    requests: Vec<Request>,
}

/// A hub with one repository. It ends with its test.
#[derive(Debug)]
pub struct Hub {
    url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// Serves the files of `folder` as `repository`.
    ///
    /// # Errors
    /// When the folder cannot be read or no address is free.
    pub async fn serve(repository: &str, folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        read(folder, folder, &mut files)?;
        Self::of_files(repository, files).await
    }

    /// Serves `files`, by their paths, as `repository`.
    ///
    /// # Errors
    /// When no address is free.
    pub async fn of_files(repository: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = State { repository: repository.to_owned(), files, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that leaves in the middle is part of the game.
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { url, state, task })
    }

    /// What `HF_ENDPOINT` is set to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on only who has this token is let in.
    pub fn demand_token(&self, token: &str) {
        lock(&self.state).token = Some(token.to_owned());
    }

    /// What happens to a file's content.
    pub fn fault(&self, file: &str, fault: Fault) {
        lock(&self.state).faults.insert(file.to_owned(), fault);
    }

    /// Ends what [`Hub::fault`] began.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    /// A file that is listed and not there.
    pub fn lose(&self, file: &str) {
        lock(&self.state).missing.push(file.to_owned());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    /// Every request for content so far, with the first byte that it asked for and how many were sent.
    pub fn contents(&self, file: &str) -> Vec<(usize, usize)> {
        let place = place(&lock(&self.state), file);
        let asked = self.requests().into_iter();
        let asked = asked.filter(|request| request.method == "GET" && request.path == place);
        asked.map(|request| (start(&request.headers).unwrap_or(0), request.sent)).collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root)?.to_str().context("a name that is no text")?;
            files.insert(name.to_owned(), std::fs::read(&path)?);
        }
    }
    Ok(())
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the content of a file is asked for in the end.
fn place(state: &State, file: &str) -> String {
    match state.files.get(file) {
        Some(content) if content.len() >= LARGE => format!("{STORAGE}{}", sha256(content)),
        _ => format!("/{}/resolve/{COMMIT}/{file}", state.repository),
    }
}

/// The first byte that is asked for.
fn start(headers: &BTreeMap<String, String>) -> Option<usize> {
    headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// One request, one answer, and the connection ends.
async fn answer(stream: TcpStream, state: Arc<Mutex<State>>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first().context("no request line")?.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let mut request = Request { method, path, headers: headers.collect(), sent: 0 };
    let reply = {
        let mut state = lock(&state);
        let reply = reply(&mut state, &request);
        request.sent = if request.method == "HEAD" { 0 } else { reply.body.len().min(reply.cut) };
        state.requests.push(request.clone());
        reply
    };
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length = reply.length.unwrap_or(reply.body.len());
    head += &format!("Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&reply.body[..request.sent]).await?;
    stream.flush().await?;
    let mut stream = stream.into_inner();
    stream.shutdown().await?;
    // The other side closes first, or what was sent last could be lost.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection ends.
    cut: usize,
    /// The length that is told, when it is not the body's.
    length: Option<usize>,
}

impl Reply {
    fn status(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { status, headers, body: Vec::new(), cut: usize::MAX, length: None }
    }

    fn code(status: u16, code: &str) -> Self {
        Self::status(status, &[("X-Error-Code", code)])
    }
}

fn reply(state: &mut State, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(digest) = path.strip_prefix(STORAGE) {
        let found = state.files.iter().find(|(_, content)| sha256(content) == digest);
        let found = found.map(|(file, content)| (file.clone(), content.clone()));
        return found.map_or(Reply::status(404, &[]), |(file, content)| {
            content_of(state, request, &file, content)
        });
    }
    let given =
        request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if state.token.is_some() && state.token.as_deref() != given {
        return if given.is_some() {
            Reply::code(403, "GatedRepo")
        } else {
            Reply::status(401, &[])
        };
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return match rest.split_once("/revision/") {
            Some((repository, _)) if repository != state.repository => {
                Reply::code(404, "RepoNotFound")
            }
            Some((_, "main" | COMMIT)) => listing(state),
            _ => Reply::code(404, "RevisionNotFound"),
        };
    }
    let prefix = format!("/{}/resolve/{COMMIT}/", state.repository);
    let file = path.strip_prefix(&prefix).unwrap_or_default().to_owned();
    let Some(content) = state.files.get(&file).filter(|_| !state.missing.contains(&file)).cloned()
    else {
        return Reply::code(404, "EntryNotFound");
    };
    if content.len() < LARGE {
        return content_of(state, request, &file, content);
    }
    let digest = sha256(&content);
    let (location, etag) = (format!("{STORAGE}{digest}"), format!("\"{digest}\""));
    let size = content.len().to_string();
    let headers = [
        ("Location", location.as_str()),
        ("X-Repo-Commit", COMMIT),
        ("X-Linked-Etag", &etag),
        ("X-Linked-Size", &size),
        ("ETag", "\"not-the-content\""),
    ];
    Reply::status(302, &headers)
}

fn listing(state: &State) -> Reply {
    let siblings = state.files.keys().map(|file| serde_json::json!({ "rfilename": file }));
    let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>() });
    Reply { body: info.to_string().into_bytes(), ..Reply::status(200, &[]) }
}

fn content_of(state: &mut State, request: &Request, file: &str, mut content: Vec<u8>) -> Reply {
    let etag = format!("\"{}\"", &sha256(&content)[..40]);
    let head = request.method == "HEAD";
    let fault = if head { None } else { state.faults.get(file).copied() };
    let mut headers = vec![("ETag", etag), ("X-Repo-Commit", COMMIT.to_owned())];
    let mut cut = usize::MAX;
    match fault {
        Some(Fault::CutAfter(bytes)) => {
            state.faults.remove(file);
            cut = bytes;
        }
        Some(Fault::UpTo(bytes)) => {
            cut = bytes.saturating_sub(start(&request.headers).unwrap_or(0));
        }
        Some(Fault::Wrong) => content[0] ^= 1,
        Some(Fault::Status(status)) => {
            state.faults.remove(file);
            return Reply::status(status, &[("Retry-After", "0")]);
        }
        Some(Fault::Whole) | None => {}
    }
    let length = content.len();
    let from = start(&request.headers).filter(|_| fault != Some(Fault::Whole));
    let status = match from {
        Some(from) if from >= length => return Reply::status(416, &[]),
        Some(from) => {
            content.drain(..from);
            headers.push(("Content-Range", format!("bytes {from}-{}/{length}", length - 1)));
            206
        }
        None => 200,
    };
    let length = head.then_some(content.len());
    Reply { status, headers, body: content, cut, length }
}
