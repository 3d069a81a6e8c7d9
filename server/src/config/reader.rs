//! Picks each setting's text from flag, environment or file, and turns it into a value within its range. Faults are noted, and
//! reading goes on with the built-in value, so that all are told at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;

use super::bundle::{BundleSource, split};
use super::flags::{Flags, Key};
use super::names::nearest;
use super::unit::{bytes, duration, show_bytes, show_duration};
use super::{LogFormat, file};
use crate::limits::method_names;

/// The least bytes of a page key.
const PAGE_KEY_BYTES: usize = 16;

/// A setting as it was given.
struct Given {
    text: String,
    /// Where: `--listen`, `DIPTYCH_LISTEN` or the file.
    place: String,
}

pub(super) struct Reader<'a> {
    flags: &'a Flags,
    given: BTreeMap<String, Given>,
    pub(super) faults: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of what `flags`, the environment behind them and their file say.
    pub(super) fn new(flags: &'a Flags, keys: &[Key], mut faults: Vec<String>) -> Self {
        let mut given = BTreeMap::new();
        if let Some(path) = &flags.config {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let place = path.display().to_string();
            for (key, text) in file::read(path, &names, &mut faults) {
                given.insert(key, Given { text, place: place.clone() });
            }
        }
        let texts = flags.texts().into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
        for (key, text) in texts {
            given.insert(key.to_owned(), Given { text, place: place_of(flags, keys, key) });
        }
        Self { flags, given, faults }
    }

    pub(super) fn address(&mut self, key: &str, default: &str) -> SocketAddr {
        let expected = format!("an IP address and a port, such as {default}");
        let read = self.read(key, &expected, |text| text.parse().ok());
        let built_in = || default.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        read.unwrap_or_else(built_in)
    }

    pub(super) fn bytes(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let (least, most) = (show_bytes(*range.start()), show_bytes(*range.end()));
        let expected = format!("a size from {least} to {most}, such as {}", show_bytes(default));
        self.read(key, &expected, |text| bytes(text).filter(|size| range.contains(size)))
            .unwrap_or(default)
    }

    pub(super) fn bytes_if_given(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (show_bytes(*range.start()), show_bytes(*range.end()));
        let expected = format!("a size from {least} to {most}");
        self.read(key, &expected, |text| bytes(text).filter(|size| range.contains(size)))
    }

    pub(super) fn count(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let within = |number: &u64| range.contains(number);
        self.read(key, &expected, |text| text.parse().ok().filter(within)).unwrap_or(default)
    }

    /// A text that `fits`; `None` when none is given.
    pub(super) fn text(
        &mut self,
        key: &str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.read(key, expected, |text| fits(text).then(|| text.to_owned()))
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &str, default: f64) -> f64 {
        let expected = format!("a number from 0 to 1, such as {default}");
        let within = |number: &f64| (0.0..=1.0).contains(number);
        self.read(key, &expected, |text| text.parse().ok().filter(within)).unwrap_or(default)
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        let example = show_duration(default);
        let expected = format!("a time with its unit from {least} to {most}, such as {example}");
        self.read(key, &expected, |text| duration(text).filter(|time| range.contains(time)))
            .unwrap_or(default)
    }

    /// Times by method, as `Search=5s,EmbedText=10s`.
    pub(super) fn method_times(
        &mut self,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> BTreeMap<String, Duration> {
        let known = method_names();
        let Some(Given { text, place }) = self.given.get(key) else { return BTreeMap::new() };
        let mut times = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let read = pair.split_once('=').map(|(name, time)| (name.trim(), duration(time)));
            match read {
                Some((name, Some(time))) if range.contains(&time) && known.contains(name) => {
                    times.insert(name.to_owned(), time);
                }
                Some((name, Some(_))) if !known.contains(name) => {
                    let hint = nearest(name, known.iter().copied());
                    self.faults.push(format!("{key} ({place}): there is no method {name}{hint}"));
                }
                _ => {
                    let (least, most) =
                        (show_duration(*range.start()), show_duration(*range.end()));
                    self.faults.push(format!(
                        "{key} has {pair:?} ({place}), must be METHOD=TIME with a time from {least} to {most}, such as Search=5s"
                    ));
                }
            }
        }
        times
    }

    pub(super) fn switch(&mut self, key: &str, default: bool) -> bool {
        self.read(key, "true or false", |text| text.parse().ok()).unwrap_or(default)
    }

    pub(super) fn log_format(&mut self) -> LogFormat {
        let read =
            self.read("log_format", "human or json", |text| LogFormat::from_str(text, false).ok());
        read.unwrap_or(LogFormat::Human)
    }

    pub(super) fn log_filter(&mut self) -> String {
        let expected = "a level such as info, or a filter such as info,diptych_index=debug";
        let valid = |text: &str| tracing_subscriber::EnvFilter::try_new(text).is_ok();
        self.read("log", expected, |text| valid(text).then(|| text.to_owned()))
            .unwrap_or_else(|| "info".to_owned())
    }

    /// A path from the flag, its variable or the file.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let flag = self.flags.paths().into_iter().find(|(name, _)| *name == key)?.1.clone();
        let path = flag.or_else(|| self.given.get(key).map(|given| PathBuf::from(&given.text)))?;
        if path.as_os_str().is_empty() {
            self.faults.push(format!("{key} is empty, must be a path"));
            return None;
        }
        Some(path)
    }

    /// Where bundles come from, looked at so far that a wrong path or name is told before anything starts.
    pub(super) fn bundles(&mut self) -> Vec<BundleSource> {
        let flags = &self.flags.bundle;
        let given: Vec<PathBuf> = match flags.as_slice() {
            [list] if self.flags.from_environment.contains("bundle") => split(list),
            [] => {
                let given = self.given.get("bundle").map(|given| given.text.as_str());
                given.into_iter().flat_map(str::lines).map(PathBuf::from).collect()
            }
            flags => flags.to_vec(),
        };
        let read = given.into_iter().map(BundleSource::read).filter_map(|read| match read {
            Ok(source) => Some(source),
            Err(problem) => {
                self.faults.push(problem);
                None
            }
        });
        read.collect()
    }

    pub(super) fn data_dir(&mut self, default: &str) -> PathBuf {
        let folder = self.path("data_dir").unwrap_or_else(|| default.into());
        if folder.exists() && !folder.is_dir() {
            self.fault("data_dir", &folder, "must be a folder, or a path where one can be made");
        }
        folder
    }

    /// A folder that must be there.
    pub(super) fn folder(&mut self, key: &str) -> Option<PathBuf> {
        let folder = self.path(key)?;
        if !folder.is_dir() {
            self.fault(key, &folder, "must be a folder");
        }
        Some(folder)
    }

    /// The secret in a page key file.
    pub(super) fn page_key(&mut self, file: &Path) -> Option<Vec<u8>> {
        match std::fs::read(file) {
            Ok(key) if key.len() >= PAGE_KEY_BYTES => return Some(key),
            Ok(key) => {
                let problem =
                    format!("holds {} bytes, must hold {PAGE_KEY_BYTES} or more", key.len());
                self.fault("page_key_file", file, problem);
            }
            Err(error) => self.fault("page_key_file", file, error),
        }
        None
    }

    fn fault(&mut self, key: &str, path: &Path, problem: impl Display) {
        self.faults.push(format!("{key} is {}: {problem}", path.display()));
    }

    /// The value of `key`, or `None` when it is not given or, with a fault noted, is not what was expected.
    fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Given { text, place } = self.given.get(key)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.faults.push(format!("{key} is {text:?} ({place}), must be {expected}"));
        }
        value
    }
}

/// How the command line or the environment names `key`, whichever gave it.
fn place_of(flags: &Flags, keys: &[Key], key: &str) -> String {
    let variable = keys.iter().find(|known| known.name == key).map(|known| known.variable.clone());
    match variable {
        Some(variable) if flags.from_environment.contains(key) => variable,
        _ => format!("--{}", key.replace('_', "-")),
    }
}
