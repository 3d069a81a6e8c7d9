//! The program itself: its settings, its first and last words, and what it says when it cannot start.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use diptych_model::testing::tiny_bundle;
use diptych_proto::v1;
use diptych_proto::v1::info_service_client::InfoServiceClient;
use diptych_proto::v1::search_service_client::SearchServiceClient;
use diptych_server::config::{Config, Flags};
use diptych_server::grpc;
use diptych_server::listen::Ends;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::support::*;

/// The exit code of settings that are refused.
const BAD_SETTINGS: i32 = 64;
/// Free ports, which the system chooses.
const ANY: (&str, &str) = ("127.0.0.1:0", "127.0.0.1:0");
/// How long a start that must fail may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program without any setting of the environment.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DIPTYCH_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn checked(command: &mut Command) -> Output {
    command.arg("--check-config").output().unwrap()
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_built_in() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "listen = '127.0.0.1:1'\nops_listen = '127.0.0.1:2'\ndrain = '1s'\n")
        .unwrap();
    let mut command = program(&["--listen", "127.0.0.1:5", "--config"]);
    command
        .arg(&file)
        .env("DIPTYCH_LISTEN", "127.0.0.1:3")
        .env("DIPTYCH_OPS_LISTEN", "127.0.0.1:4");
    let output = checked(&mut command);
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    for line in [
        "listen = \"127.0.0.1:5\"",
        "ops_listen = \"127.0.0.1:4\"",
        "drain = \"1s\"",
        "timeout = \"30s\"",
    ] {
        assert!(told.lines().any(|told| told == line), "{line} is not in: {told}");
    }
}

#[test]
fn what_is_wrong_with_the_settings_is_told_by_the_name_that_gave_it() {
    let mut command = program(&["--drain", "soon"]);
    command.env("DIPTYCH_TIMEOUT", "long").env("DIPTYCH_LISEN", "127.0.0.1:1");
    let output = checked(&mut command);
    assert_eq!(output.status.code(), Some(BAD_SETTINGS));
    let told = text(&output.stderr);
    for part in [
        "drain is \"soon\" (--drain)",
        "timeout is \"long\" (DIPTYCH_TIMEOUT)",
        "DIPTYCH_LISEN is unknown; did you mean DIPTYCH_LISTEN?",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    let unknown = program(&["--lisen", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(BAD_SETTINGS));
    assert!(text(&unknown.stderr).contains("--lisen"));
    assert_eq!(program(&["--help"]).output().unwrap().status.code(), Some(0));
}

/// A process that is killed when dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server's command on these addresses, with a tiny bundle and its data below `folder`.
pub(crate) fn tiny(folder: &Path, (listen, ops): (&str, &str)) -> Command {
    let bundle = folder.join("bundle");
    if !bundle.exists() {
        tiny_bundle(7).unwrap().write(&bundle).unwrap();
    }
    let mut command = program(&["--listen", listen, "--ops-listen", ops]);
    command.arg("--bundle").arg(bundle).arg("--data-dir").arg(folder.join("data"));
    command
}

/// What a server says that cannot start. One that starts after all is no reason to wait for ever.
async fn refused(command: Command) -> String {
    let ended = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, ended).await.expect("it started").unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr).to_owned()
}

/// A server that serves, and the address that it says.
pub(crate) async fn serving(command: &mut Command) -> (Running, String) {
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let stdout = tokio::process::ChildStdout::from_std(child.0.stdout.take().unwrap()).unwrap();
    let said = BufReader::new(stdout).lines().next_line().await.unwrap().unwrap();
    let address = said.strip_prefix("Diptych serves on ").unwrap().strip_suffix('.').unwrap();
    (child, address.to_owned())
}

#[tokio::test]
async fn what_hinders_a_start_is_told_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let (_running, address) = serving(&mut tiny(folder.path(), ANY)).await;

    let told = refused(tiny(folder.path(), ANY)).await;
    assert!(told.contains("in use by another process; stop it"), "{told}");

    let elsewhere = TempDir::new().unwrap();
    let mut command = program(&["--ops-listen", &address, "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(elsewhere.path().join("data"));
    let told = refused(command).await;
    assert!(told.contains(&format!("cannot listen on {address}")), "{told}");
    assert!(told.contains("another address with --ops-listen"), "{told}");

    let damaged = tiny(elsewhere.path(), ANY);
    let weights = elsewhere.path().join("bundle/model.safetensors");
    File::options().write(true).open(weights).unwrap().set_len(100).unwrap();
    let told = refused(damaged).await;
    assert!(told.contains("model.safetensors") && told.contains("--bundle"), "{told}");
}

#[tokio::test]
async fn a_server_told_to_stop_ends_well_though_a_connection_hangs() {
    let folder = TempDir::new().unwrap();
    let (mut running, address) = serving(tiny(folder.path(), ANY).args(["--drain", "100ms"])).await;
    // It never says a word, so that no connection ever ends by itself.
    let _silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || running.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn health_answers_from_the_first_moment_and_all_else_once_the_parts_are_there() {
    let server = Server::with_things().await;
    let config = Config::resolve(&Flags::default(), std::iter::empty()).unwrap();
    let (_reporter, health) = grpc::health().await;
    let door = grpc::Door::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (ends, stack) = (Ends::default(), door.stack(health.clone(), &config));
    tokio::spawn(grpc::serve(stack, listener, (ends.clone(), Default::default())));
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();

    let mut asked = HealthClient::new(channel.clone());
    let mut check = async || {
        let request = HealthCheckRequest { service: String::new() };
        asked.check(request).await.unwrap().into_inner().status
    };
    const NOT_SERVING: i32 = 2;
    assert_eq!(check().await, NOT_SERVING);
    let mut search = SearchServiceClient::new(channel.clone());
    let question = ask("things", v1::Modality::Image, by_text("a"));
    let told = super::support::refused(search.search(question.clone())).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STARTING"));

    door.open(grpc::routes(&server.service, health, &config).unwrap());
    assert_eq!(check().await, NOT_SERVING);
    search.search(question).await.unwrap();
    let request = v1::GetServerInfoRequest::default();
    InfoServiceClient::new(channel).get_server_info(request).await.unwrap();
    ends.goaway.cancel();
}
