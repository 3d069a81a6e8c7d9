//! A server that ends with its test.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::program::{command, signal};

/// How long anything may take before a test gives up. Far above what is promised: promises are measured elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(10);
/// Ports below the range that systems give to outgoing connections, so that none of those takes one between two starts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A server process. It is killed when dropped, so that no test leaves one behind.
#[derive(Debug)]
pub struct Server {
    child: Child,
    listen: String,
    ops: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    data: PathBuf,
    notes: TempDir,
}

impl Server {
    /// Starts a server on `data` with further `arguments` and waits until health says SERVING.
    ///
    /// # Errors
    /// When the process ends before it serves, with what it said; when it does not serve in time.
    pub async fn start(data: &Path, arguments: &[&str]) -> Result<Self> {
        let mut server = Self::launch(data, arguments)?;
        server.wait_serving().await?;
        Ok(server)
    }

    /// A server on the built-in bundle without the sample collection.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn plain(data: &Path) -> Result<Self> {
        Self::start(data, &["--sample", "false"]).await
    }

    /// Starts a server and does not wait for anything.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn launch(data: &Path, arguments: &[&str]) -> Result<Self> {
        Self::launch_in(data, arguments, Vec::new())
    }

    /// As [`Server::launch`], with variables in the environment of this start and of later ones.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn launch_in(
        data: &Path,
        arguments: &[&str],
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let (listen, ops, notes) = (free_address()?, free_address()?, TempDir::new()?);
        let data = data.to_path_buf();
        let child = spawn(&data, (&arguments, &environment), (&listen, &ops), notes.path())?;
        Ok(Self { child, listen, ops, arguments, environment, data, notes })
    }

    /// The gRPC address as a client takes it, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The gRPC address, `127.0.0.1:PORT`.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// The address of the ops listener, `127.0.0.1:PORT`.
    pub fn ops(&self) -> &str {
        &self.ops
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that the process has, in bytes.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kilobytes.context("the system tells no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// A channel to the server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn channel(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(self.url())?.connect().await?)
    }

    /// Clients of the server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn api(&self) -> Result<crate::Api> {
        Ok(crate::Api::new(self.channel().await?))
    }

    /// What the process wrote to standard output since its last start.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.notes.path().join("stdout")).unwrap_or_default()
    }

    /// What the process wrote to standard error since its last start.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.notes.path().join("stderr")).unwrap_or_default()
    }

    /// Ends the process as `kill -9` does, without a word.
    ///
    /// # Errors
    /// When the process cannot be signalled or waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        signal(self.id(), "TERM")
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status);
                }
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the server does not end")?
    }

    /// Kills the server if it runs, starts it again on the same data folder and ports, and waits until health says SERVING.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.relaunch()?;
        self.wait_serving().await
    }

    /// As [`Server::restart`], without waiting for anything.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn relaunch(&mut self) -> Result<()> {
        self.kill()?;
        let addresses = (self.listen.as_str(), self.ops.as_str());
        let how = (self.arguments.as_slice(), self.environment.as_slice());
        self.child = spawn(&self.data, how, addresses, self.notes.path())?;
        Ok(())
    }

    /// Waits until health says SERVING.
    ///
    /// # Errors
    /// When the process ends before it serves, with what it said; when it does not serve in time.
    pub async fn wait_serving(&mut self) -> Result<()> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the server ended before it served ({status}): {}", self.stderr());
                }
                if serving(&self.listen).await {
                    return Ok(());
                }
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the server does not serve")?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good as ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not in time; `what` says what was waited for.
pub async fn until<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Result<()> {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(GLANCE).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.with_context(|| format!("not in time: {what}"))
}

/// Runs a server that is expected to end by itself, and gives what it said.
///
/// # Errors
/// When it does not start or does not end in time.
pub async fn server_output(data: &Path, arguments: &[&str]) -> Result<Output> {
    let mut server = Server::launch(data, arguments)?;
    let status = server.ended().await?;
    let (stdout, stderr) = (server.stdout().into_bytes(), server.stderr().into_bytes());
    Ok(Output { status, stdout, stderr })
}

/// Whether the server at `listen` says SERVING for itself as a whole.
pub async fn serving(listen: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{listen}")) else { return false };
    let Ok(channel) = endpoint.connect().await else { return false };
    let reply =
        HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
    reply.is_ok_and(|reply| reply.into_inner().status() == ServingStatus::Serving)
}

/// Status and body of `GET path` over plain HTTP.
///
/// # Errors
/// When nothing answers there, or no HTTP comes back.
pub async fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no HTTP reply")?;
    let status = head.split(' ').nth(1).context("no status line")?.parse()?;
    Ok((status, body.to_owned()))
}

/// A loopback address that nothing listens on, never given twice.
///
/// # Errors
/// When no port is free.
pub fn free_address() -> Result<String> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        if GIVEN.lock().is_ok_and(|mut given| given.insert(port))
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return Ok(format!("127.0.0.1:{port}"));
        }
    }
    bail!("no port is free")
}

fn spawn(
    data: &Path,
    (arguments, environment): (&[String], &[(&'static str, OsString)]),
    (listen, ops): (&str, &str),
    notes: &Path,
) -> Result<Child> {
    command("diptych-server")
        .args(["--listen", listen, "--ops-listen", ops, "--data-dir"])
        .arg(data)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(File::create(notes.join("stdout"))?)
        .stderr(File::create(notes.join("stderr"))?)
        .spawn()
        .context("diptych-server does not start")
}
