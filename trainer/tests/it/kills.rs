//! Training cut off by force.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{errors, prepared, succeed, trainer};

const STEPS: u64 = 40;

/// The final weights of a run.
fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join(format!("checkpoints/{STEPS:08}/model.safetensors"))).unwrap()
}

/// Waits until the run has logged `lines` lines in all, or has ended; whether it goes on.
fn logged(child: &mut Child, out: &Path, lines: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap_or_default();
        if log.lines().count() >= lines {
            return true;
        }
        std::thread::yield_now();
    }
    panic!("the run logged nothing new for two minutes");
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let run = prepared(folder.path(), STEPS);
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let fit = |out: &Path| {
        let arguments = ["fit", run.to_str().unwrap(), "--out", out.to_str().unwrap(), "--resume"];
        let mut command = trainer(&arguments);
        command.stderr(Stdio::null());
        command
    };
    assert!(fit(&whole).status().unwrap().success());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (mut lines, mut kills, started) = (1, 0, Instant::now());
    loop {
        let mut child = fit(&cut).spawn().unwrap();
        lines += rng.random_range(1..12);
        let goes_on = logged(&mut child, &cut, lines);
        if goes_on {
            // The log tells steps; where within one the kill falls, this many looks at the clock decide.
            let looks = rng.random_range(0..20_000);
            assert!((0..looks).all(|_| started.elapsed() < Duration::from_secs(600)));
            child.kill().unwrap();
            kills += 1;
        }
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        lines = std::fs::read_to_string(cut.join("log.jsonl")).unwrap().lines().count();
    }
    assert!(kills >= 3, "{kills} kills");
    assert!(weights(&whole) == weights(&cut), "after {kills} kills");
}

#[test]
fn a_full_disk_is_said_and_leaves_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = prepared(folder.path(), STEPS);
    let out = folder.path().join("out");
    let arguments = ["fit", run.to_str().unwrap(), "--out", out.to_str().unwrap(), "--resume"];
    let mut first = trainer(&arguments).stderr(Stdio::null()).spawn().unwrap();
    assert!(logged(&mut first, &out, 8), "there is a checkpoint after three steps");
    first.kill().unwrap();
    first.wait().unwrap();
    // Files of more than 60 blocks are refused as a full disk would refuse them: a checkpoint has larger ones.
    let script = "trap '' XFSZ; ulimit -f 60; exec \"$0\" \"$@\"";
    let program = trainer(&arguments);
    let limited = Command::new("sh")
        .args(["-c", script])
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .unwrap();
    assert!(!limited.status.success());
    let message = errors(&limited);
    assert!(message.contains("File too large"), "{message}");
    assert!(message.contains("checkpoints/"), "{message}");
    // With room again the run goes on and ends as one that never stopped.
    succeed(&arguments);
    let whole = folder.path().join("whole");
    succeed(&["fit", run.to_str().unwrap(), "--out", whole.to_str().unwrap()]);
    assert!(weights(&whole) == weights(&out));
}
