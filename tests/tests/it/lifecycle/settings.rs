//! Settings: precedence, refusals that name the key, and the check that starts nothing.

use std::process::Output;

use diptych_tests::checkout;
use diptych_tests::program::command;
use tempfile::TempDir;

/// Runs `diptych-server --check-config` with a file, variables and flags.
fn check(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("diptych.toml");
    std::fs::write(&path, file).unwrap();
    command("diptych-server")
        .arg("--check-config")
        .arg("--config")
        .arg(&path)
        .args(flags)
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn refused(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> String {
    let output = check(file, variables, flags);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn effective(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> String {
    let output = check(file, variables, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_built_in() {
    let file = "listen = \"127.0.0.1:1001\"";
    let variable = [("DIPTYCH_LISTEN", "127.0.0.1:1002")];
    let flag = ["--listen", "127.0.0.1:1003"];
    let said = |file, variables: &[_], flags: &[_]| {
        let told = effective(file, variables, flags);
        told.lines().find(|line| line.starts_with("listen")).unwrap().to_owned()
    };
    assert!(said("", &[], &[]).contains("127.0.0.1:50051"));
    assert!(said(file, &[], &[]).contains("127.0.0.1:1001"));
    assert!(said(file, &variable, &[]).contains("127.0.0.1:1002"));
    assert!(said(file, &variable, &flag).contains("127.0.0.1:1003"));
}

#[test]
fn the_settings_of_the_contract_are_there() {
    let told = effective("", &[], &[]);
    for (key, value) in [("listen", "127.0.0.1:50051"), ("ops_listen", "127.0.0.1:9464")] {
        let line = told.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.contains(value), "{told}");
    }
    let bundle = checkout().join("server/sample/bundle");
    let variables = [
        ("DIPTYCH_OPS_LISTEN", "127.0.0.1:2001"),
        ("DIPTYCH_DATA_DIR", "/some/folder"),
        ("DIPTYCH_BUNDLE", bundle.to_str().unwrap()),
    ];
    let told = effective("", &variables, &[]);
    for (_, value) in variables {
        assert!(told.contains(value), "{told}");
    }
}

#[test]
fn a_bundle_that_is_not_there_is_refused_by_name() {
    let told = refused("", &[("DIPTYCH_BUNDLE", "/not/there")], &[]);
    assert!(told.contains("bundle") && told.contains("/not/there"), "{told}");
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let told = refused("listn = \"127.0.0.1:1\"", &[], &[]);
    assert!(told.contains("key listn") && told.contains("did you mean listen"), "{told}");
    let told = refused("", &[("DIPTYCH_LISTN", "127.0.0.1:1")], &[]);
    assert!(told.contains("DIPTYCH_LISTN") && told.contains("DIPTYCH_LISTEN"), "{told}");
    let told = refused("", &[], &["--lisen", "127.0.0.1:1"]);
    assert!(told.contains("--lisen"), "{told}");
}

#[test]
fn every_wrong_value_is_named_at_once() {
    let told = refused("listen = \"nowhere\"\ntext_bytes = 3", &[], &["--queue-items", "many"]);
    for key in ["listen", "nowhere", "text_bytes", "queue_items", "many"] {
        assert!(told.contains(key), "{key} is not named in {told}");
    }
    let told = refused("listen = 5", &[], &[]);
    assert!(told.contains("listen"), "{told}");
    let told = refused("listen = [", &[], &[]);
    assert!(told.contains("diptych.toml"), "{told}");
    let told = refused("", &[], &["--config", "/not/there.toml"]);
    assert!(told.contains("/not/there.toml") || told.contains("--config"), "{told}");
}

#[test]
fn checking_makes_no_folder() {
    let folder = TempDir::new().unwrap();
    let output = command("diptych-server")
        .arg("--check-config")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
