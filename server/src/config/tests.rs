use std::io::Write as _;

use clap::CommandFactory as _;

use super::*;

fn resolve(flags: &Flags) -> Result<Config, Faults> {
    Config::resolve(flags, std::iter::empty())
}

/// What the settings of a command line are refused with.
fn refused(arguments: &[&str]) -> String {
    resolve(&flags(arguments)).unwrap_err().to_string()
}

fn flags(arguments: &[&str]) -> Flags {
    let arguments = std::iter::once("diptych-server").chain(arguments.iter().copied());
    Flags::read(arguments.map(Into::into)).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn of_file(file: &tempfile::NamedTempFile) -> Flags {
    Flags { config: Some(file.path().to_owned()), ..Flags::default() }
}

#[test]
fn built_in_values_stand_without_anything() {
    let config = resolve(&Flags::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.ops_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.data_dir, PathBuf::from("diptych-data"));
    assert!(config.sample && config.bundles.is_empty());
    assert_eq!(config.limits.message_bytes, 16 << 20);
    assert_eq!(config.calls.timeout, Duration::from_secs(30));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_built_in() {
    let file = file("listen = '127.0.0.1:7001'\nops_listen = '127.0.0.1:7002'\ndrain = '3s'\n");
    let path = file.path().display().to_string();
    let config = resolve(&flags(&["--config", &path, "--listen", "127.0.0.1:7003"])).unwrap();
    assert_eq!(config.listen.port(), 7003);
    assert_eq!(config.ops_listen.port(), 7002);
    assert_eq!(config.drain.grace, Duration::from_secs(3));
    assert_eq!(config.limits.text_bytes, 8192);
}

#[test]
fn every_fault_is_told_at_once_and_by_name() {
    let file = file("lisen = 'x'\ntimout = '3s'\npage_size = 0\nsearch_limit = [1]\n");
    let path = file.path().display().to_string();
    let flags = flags(&[
        "--config",
        &path,
        "--listen",
        "nowhere",
        "--text-bytes",
        "many",
        "--queue-items",
        "0",
        "--log-format",
        "xml",
        "--timeout",
        "30",
        "--sample",
        "yes",
        "--log",
        "a=b=c",
    ]);
    let variables = [("DIPTYCH_LISEN", ""), ("DIPTYCH_DATA_DIR", "x"), ("HOME", "/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let told = Config::resolve(&flags, variables.into_iter()).unwrap_err().to_string();
    for part in [
        "the key lisen is unknown; did you mean listen?",
        "the key timout is unknown; did you mean timeout?",
        "search_limit is of type array, must be a single value",
        &format!("page_size is \"0\" ({path}), must be a whole number from 1 to 10000"),
        "DIPTYCH_LISEN is unknown; did you mean DIPTYCH_LISTEN?",
        "listen is \"nowhere\" (--listen), must be an IP address and a port, such as 127.0.0.1:50051",
        "text_bytes is \"many\" (--text-bytes), must be a size from 16B to 1MiB, such as 8KiB",
        "queue_items is \"0\" (--queue-items), must be a whole number from 1 to 65536",
        "log_format is \"xml\" (--log-format), must be human or json",
        "timeout is \"30\" (--timeout), must be a time with its unit from 1ms to 1h, such as 30s",
        "sample is \"yes\" (--sample), must be true or false",
        "log is \"a=b=c\" (--log), must be a level",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    assert_eq!(told.lines().count(), 13, "{told}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let file = file("listen = '127.0.0.1:1'\n\ndrain = = 3\n");
    let told = resolve(&of_file(&file)).unwrap_err().to_string();
    assert!(told.contains("line 3"), "{told}");
    assert!(refused(&["--config", "/nowhere/at/all.toml"]).contains("/nowhere/at/all.toml"));
}

#[test]
fn limits_that_exclude_each_other_are_refused() {
    let told = refused(&["--image-bytes", "2MiB", "--message-bytes", "1MiB"]);
    assert!(told.contains("image_bytes is 2MiB, must be at most message_bytes, which is 1MiB"));
    // What nobody asked for shrinks by itself.
    let config = resolve(&flags(&["--message-bytes", "1MiB"])).unwrap();
    assert_eq!(config.limits.image_bytes, 1 << 20);
    let told = refused(&["--batch-items", "9", "--queue-items", "8"]);
    assert!(told.contains("batch_items is 9, must be at most queue_items, which is 8"), "{told}");
    let told = refused(&["--listen", "127.0.0.1:7", "--ops-listen", "127.0.0.1:7"]);
    assert!(told.contains("listen and ops_listen are both 127.0.0.1:7"));
}

#[test]
fn bounds_of_memory_hold_the_largest_of_what_they_bound() {
    let told = refused(&["--receive-bytes", "1MiB", "--decode-bytes", "2MiB"]);
    let rule = "receive_bytes is 1MiB, must be at least 16MiB to take a message of message_bytes";
    assert!(told.contains(rule), "{told}");
    assert!(told.contains("decode_bytes is 2MiB, must be at least 304194304"), "{told}");
    assert!(told.contains("to decode a picture of image_pixels"), "{told}");
    // What nobody asked for grows by itself.
    let large = ["--image-pixels", "100000000", "--message-bytes", "512MiB", "--threads", "2"];
    let config = resolve(&flags(&large)).unwrap();
    assert_eq!(config.decode_bytes, 12 * 100_000_000 + (4 << 20));
    assert_eq!(config.receive_bytes, 512 << 20);
    let config = resolve(&flags(&["--threads", "64"])).unwrap();
    assert_eq!(config.decode_bytes, 64 * (32 << 20));
}

#[test]
fn the_memory_of_embedding_is_the_sum_of_its_bounds() {
    let sizes = ["--receive-bytes", "100MiB", "--decode-bytes", "600MiB"];
    let config = resolve(&flags(&sizes)).unwrap();
    let mib = 1 << 20;
    // Requests twice, replies, pictures being decoded, small requests twice, and what waits for towers.
    assert_eq!(config.embedding_bytes(24 * mib, 7 * mib), (200 + 128 + 600 + 48 + 7) * mib);
}

#[test]
fn paths_that_cannot_be_right_are_refused() {
    let short = file("too short");
    let path = short.path().display().to_string();
    assert!(refused(&["--page-key-file", &path]).contains("holds 9 bytes, must hold 16 or more"));
    assert!(
        refused(&["--page-key-file", "/nowhere/key"]).contains("page_key_file is /nowhere/key")
    );
    assert!(
        refused(&["--bundle", "/nowhere"]).contains("must be a folder with a bundle.json in it")
    );
    assert!(refused(&["--models-dir", &path]).contains("must be a folder"));
    assert!(refused(&["--data-dir", &path]).contains("must be a folder, or a path"));
    let empty = file("data_dir = ''");
    assert!(resolve(&of_file(&empty)).unwrap_err().to_string().contains("data_dir is empty"));
}

#[test]
fn several_bundles_are_given_by_flags_a_variable_or_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = ["one", "two"].map(|name| {
        let bundle = folder.path().join(name);
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("bundle.json"), "{}").unwrap();
        bundle
    });
    let [one, two] = [0, 1].map(|place: usize| bundles[place].to_str().unwrap());
    let config = resolve(&flags(&["--bundle", one, "--bundle", two])).unwrap();
    let bundles = bundles.clone().map(BundleSource::Folder);
    assert_eq!(config.bundles, bundles);
    assert!(!config.sample, "the sample is for a server without bundles");
    let printed = file(&config.describe());
    assert_eq!(resolve(&of_file(&printed)).unwrap().bundles, bundles);
    let single = file(&format!("bundle = {one:?}"));
    assert_eq!(resolve(&of_file(&single)).unwrap().bundles, bundles[..1]);
    let variable = Flags {
        bundle: vec![format!("{one}:{two}").into()],
        from_environment: ["bundle".to_owned()].into(),
        ..Flags::default()
    };
    assert_eq!(resolve(&variable).unwrap().bundles, bundles);
    let list = file("listen = ['127.0.0.1:1']");
    let told = resolve(&of_file(&list)).unwrap_err().to_string();
    assert!(told.contains("listen is of type array, must be a single value"), "{told}");
}

#[test]
fn methods_have_times_of_their_own_and_a_wrong_name_or_time_is_told() {
    let config = resolve(&flags(&["--method-timeouts", "Search=5s, EmbedStream=10m"])).unwrap();
    let second = Duration::from_secs(1);
    let expected = [("EmbedStream".to_owned(), 600 * second), ("Search".to_owned(), 5 * second)];
    assert_eq!(config.calls.methods, expected.into());
    let again = resolve(&of_file(&file(&config.describe()))).unwrap();
    assert_eq!(again.calls.methods, config.calls.methods);
    let told = refused(&["--method-timeouts", "Serch=5s,EmbedText=soon,GetItem"]);
    for part in [
        "method_timeouts (--method-timeouts): there is no method Serch; did you mean Search?",
        "method_timeouts has \"EmbedText=soon\" (--method-timeouts), must be METHOD=TIME",
        "method_timeouts has \"GetItem\"",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

#[test]
fn a_collector_is_a_host_over_plain_http() {
    let given = |url: &str| resolve(&flags(&["--otlp-endpoint", url]));
    let fine = given("http://collector:4317").unwrap().observe.otlp_endpoint;
    assert_eq!(fine.as_deref(), Some("http://collector:4317"));
    for url in ["collector:4317", "https://collector:4317", "http://", "http://a/v1/traces", ""] {
        let told = refused(&["--otlp-endpoint", url]);
        assert!(told.contains("otlp_endpoint") && told.contains("http://localhost:4317"), "{told}");
    }
    assert_eq!(resolve(&Flags::default()).unwrap().observe.otlp_endpoint, None);
}

#[test]
fn what_is_printed_is_a_file_of_the_same_effect() {
    let key = file("0123456789abcdef");
    let path = key.path().display().to_string();
    let config = resolve(&flags(&[
        "--page-key-file",
        &path,
        "--sample",
        "false",
        "--drain",
        "1500ms",
        "--image-bytes",
        "9MiB",
        "--log-format",
        "json",
    ]));
    let printed = config.unwrap().describe();
    assert!(!printed.contains("0123456789abcdef"), "a secret was printed");
    let again = resolve(&of_file(&file(&printed))).unwrap();
    assert_eq!(again.describe(), printed);
    assert_eq!(again.page_key.as_deref(), Some(&b"0123456789abcdef"[..]));
}

#[test]
fn every_setting_is_a_flag_a_variable_and_a_key_and_its_help_tells_the_truth() {
    let config = resolve(&Flags::default()).unwrap();
    let entries = config.entries();
    let keys = Flags::keys();
    assert_eq!(
        keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(),
        entries.iter().map(|(key, _)| *key).collect::<Vec<_>>()
    );
    let flags = Flags::default();
    // Bundles are a list and are read apart.
    let read = flags.texts().len() + flags.paths().len() + 1;
    assert_eq!(read, keys.len(), "a flag is not read");
    let command = Flags::command();
    for ((name, value), key) in entries.iter().zip(&keys) {
        assert_eq!(key.variable, format!("DIPTYCH_{}", name.to_uppercase()));
        let flag = command.get_arguments().find(|flag| flag.get_id() == *name).unwrap();
        let help = flag.get_help().unwrap().to_string();
        // What has no value, or follows the machine, is told in words.
        let in_words = [
            "bundle",
            "models_dir",
            "hf_token_file",
            "sample",
            "page_key_file",
            "decode_bytes",
            "memory_bytes",
            "threads",
            "method_timeouts",
            "otlp_endpoint",
        ];
        if !in_words.contains(name) {
            let value = value.clone().unwrap().replace('"', "");
            assert!(help.contains(&format!("[built-in: {value}]")), "{name}: {help}");
        }
    }
}
