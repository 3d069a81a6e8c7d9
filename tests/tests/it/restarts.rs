//! Replicas that are restarted one after the other, under load, as a rollout does: no call fails.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use diptych_tests::foreign::Load;
use diptych_tests::process::{http_get, until};
use diptych_tests::program::command;
use diptych_tests::{Server, foreign};
use serde_json::Value;
use tempfile::TempDir;

/// Restarts of a rollout that is watched.
const RESTARTS: usize = 10;

struct Replicas {
    servers: [Server; 2],
    _data: [TempDir; 2],
}

impl Replicas {
    async fn start() -> Self {
        let data = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let [first, second] = [data[0].path(), data[1].path()].map(|data| Server::start(data, &[]));
        Self { servers: [first.await.unwrap(), second.await.unwrap()], _data: data }
    }

    fn addresses(&self) -> [&str; 2] {
        self.servers.each_ref().map(Server::listen)
    }

    /// Each in turn gets SIGTERM, ends with success and is started again; the next one's turn comes when it has calls again. gRPC's own
    /// clients come back to an address a second or more after it refused them.
    async fn roll(&mut self) {
        for round in 0..RESTARTS {
            let server = &mut self.servers[round % 2];
            server.terminate().unwrap();
            let status = server.ended().await.unwrap();
            assert!(status.success(), "{status}: {}", server.stderr());
            server.restart().await.unwrap();
            until("it has calls again", async || has_calls(server).await).await.unwrap();
        }
    }
}

/// Whether the server has answered texts since it was started.
async fn has_calls(server: &Server) -> bool {
    let (_, page) = http_get(server.ops(), "/metrics").await.unwrap();
    page.lines()
        .any(|line| line.starts_with("grpc_server_handled_total") && line.contains("EmbedText"))
}

/// One load of `diptych bench` by several callers; what it prints.
fn bench(call: &str, addresses: &str) -> Value {
    let load = "--callers 4 --retries --warm-up 1ms --duration 1s --deadline 60s --json";
    let output = command("diptych")
        .args(["bench", call, "--server", addresses])
        .args(load.split(' '))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_our_client_fails_while_replicas_restart_ten_times() {
    let mut replicas = Replicas::start().await;
    let addresses = replicas.addresses().join(",");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads = ["embed-text", "text-to-image"].map(|call| {
            let (addresses, over) = (&addresses, &over);
            scope.spawn(move || {
                let mut found = Vec::new();
                while !over.load(Ordering::Acquire) {
                    found.push(bench(call, addresses));
                }
                found
            })
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(replicas.roll());
        });
        over.store(true, Ordering::Release);
        for load in loads {
            for found in load.join().unwrap() {
                let outcomes = found["outcomes"].as_array().unwrap();
                assert!(outcomes.len() == 1 && outcomes[0]["code"] == "OK", "{found}");
                assert!(outcomes[0]["count"].as_u64().unwrap() > 0, "{found}");
            }
        }
    });
}

#[tokio::test]
async fn no_call_of_grpcio_with_retries_fails_while_replicas_restart_ten_times() {
    let Some(python) = foreign::python() else { return };
    let mut replicas = Replicas::start().await;
    let load = Load::start(&python, &replicas.addresses()).await.unwrap();
    replicas.roll().await;
    let told = load.finish().await.unwrap();
    println!("{told:#}");
    for call in ["search", "embed"] {
        assert!(told[call]["answered"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(told[call]["failed"], Value::Array(Vec::new()), "{told}");
    }
}
