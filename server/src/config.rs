//! Settings: read once, checked whole, passed down.
//!
//! Precedence: flag, environment, file, built-in. A wrong key or value is refused before anything binds, with a message that
//! names it and says what would be right; all faults are told at once.
//!
//! - `flags`: the command line and the environment; the source of every key
//! - `file`, `names`: the TOML file; names that nobody knows
//! - `reader`, `unit`: from text to values within their range
//! - `bundle`: where a bundle comes from, a folder or a hub
//! - `observe`: what is told of calls
//! - `transport`: connections, calls, and how the server goes down

mod bundle;
mod file;
mod flags;
mod names;
mod observe;
mod reader;
#[cfg(test)]
mod tests;
mod transport;
mod unit;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use diptych_index::EmbeddedConfig;
use diptych_model::preprocess::ImageLimits;

pub use self::bundle::BundleSource;
pub use self::flags::Flags;
use self::reader::Reader;
use self::unit::{show_bytes, show_duration};
use crate::encoder::EncoderSettings;
use crate::hub;
use crate::limits::{CallLimits, ConnectionLimits, DrainTimes};
use crate::observe::Settings as ObserveSettings;
use crate::service::Limits;

/// Built-in values.
pub mod defaults {
    use std::time::Duration;

    /// Main listener.
    pub const LISTEN: &str = "127.0.0.1:50051";
    /// Ops listener.
    pub const OPS_LISTEN: &str = "127.0.0.1:9464";
    /// Data folder, below the working directory.
    pub const DATA_DIR: &str = "diptych-data";
    /// Bytes of a message: one photograph of 12 megapixels fits.
    pub const MESSAGE_BYTES: u64 = 16 << 20;
    /// Bytes of requests under way.
    pub const RECEIVE_BYTES: u64 = 256 << 20;
    /// Large replies that were not read yet.
    pub const REPLY_BYTES: u64 = 128 << 20;
    /// Memory that pictures are decoded in.
    pub const DECODE_BYTES: u64 = 512 << 20;
    /// The same for each thread, where that is more: a photograph of two megapixels.
    pub const DECODE_BYTES_A_THREAD: u64 = 32 << 20;
    /// Bytes of a text.
    pub const TEXT_BYTES: u64 = 8 << 10;
    /// Inputs or items of a batch.
    pub const BATCH_ITEMS: u64 = 64;
    /// Hits of a page of a search, and entries of a page of a listing.
    pub const PAGE: u64 = 1000;
    /// Inputs under way in an encoder.
    pub const QUEUE_ITEMS: u64 = 512;
    /// The longest predicted wait for an encoder.
    pub const QUEUE_WAIT: Duration = Duration::from_secs(1);
    /// Pictures encoded together.
    pub const ENCODE_IMAGES: u64 = 8;
    /// Texts encoded together.
    pub const ENCODE_TEXTS: u64 = 64;
    /// Ids of texts encoded together.
    pub const ENCODE_IDS: u64 = 4096;
    /// Vectors of inputs that were embedded of late.
    pub const CACHE_BYTES: u64 = 64 << 20;
    /// Share of the searches that are compared with their exact answers.
    pub const RECALL_SHARE: f64 = 0.01;
    /// Longest call.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// Longest wait for the next message of a stream of requests: longer than a caller who reads its inputs elsewhere pauses.
    pub const STREAM_IDLE: Duration = Duration::from_secs(300);
    /// Longest stream.
    pub const STREAM_TIMEOUT: Duration = Duration::from_secs(3600);
    /// Calls of one caller at once.
    pub const CALLS_PER_CALLER: u64 = 512;
    /// Connections at once.
    pub const CONNECTIONS: u64 = 1024;
    /// Streams of a connection at once: what hyper takes without a word.
    pub const STREAMS: u64 = 1000;
    /// From connecting to the first frame.
    pub const HANDSHAKE: Duration = Duration::from_secs(5);
    /// Bytes of a call's headers: what clients take, too.
    pub const HEADER_BYTES: u64 = 16 << 10;
    /// Streams that a peer's errors may reset in the life of a connection: what hyper takes without a word.
    pub const LOCAL_RESETS: u64 = 1024;
    /// Streams that a peer may reset before we came to them: clients that cancel many calls at once need more than h2's 20.
    pub const PENDING_RESETS: u64 = 100;
    /// Silence after which a peer is asked whether it lives, below the 60 s after which many a proxy forgets it.
    pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
    /// Time to say so.
    pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
    /// Time that a connection is used: callers that keep theirs would never meet a server that came later.
    pub const CONNECTION_AGE: Duration = Duration::from_secs(300);
    /// Between two self-tests.
    pub const SELF_TEST: Duration = Duration::from_secs(30);
    /// Time from which on a call is told in the log.
    pub const SLOW_CALL: Duration = Duration::from_secs(1);
    /// Share of the calls whose spans are sent.
    pub const TRACE_SHARE: f64 = 0.05;
    /// From NOT_SERVING to GOAWAY.
    pub const DRAIN_DELAY: Duration = Duration::ZERO;
    /// From GOAWAY to the end of what still runs.
    pub const DRAIN: Duration = Duration::from_secs(20);
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Main listener. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Ops listener. Port 0 takes a free one.
    pub ops_listen: SocketAddr,
    /// Folder of the store and of kept bundles.
    pub data_dir: PathBuf,
    /// Bundles that are loaded, the first for new collections; none for the sample's.
    pub bundles: Vec<BundleSource>,
    /// Folder from which bundles may be loaded while the server serves; none without it.
    pub models_dir: Option<PathBuf>,
    /// How to reach a hub; nobody asks it unless a bundle is named as one of its checkpoints.
    pub hub: hub::Settings,
    /// Whether to make and fill the sample collection.
    pub sample: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged, as tracing's filters say it.
    pub log: String,
    /// Where the secret of page tokens was read from.
    pub page_key_file: Option<PathBuf>,
    /// Secret of page tokens; `None` to make one at start.
    pub page_key: Option<Vec<u8>>,
    /// What requests may hold.
    pub limits: Limits,
    /// Bytes of requests under way, over all calls, at least `limits.message_bytes`.
    pub receive_bytes: u64,
    /// Bytes of large replies that were not read yet, over all calls, at least `limits.message_bytes`.
    pub reply_bytes: u64,
    /// Memory that pictures are decoded in together, in bytes; enough for the largest.
    pub decode_bytes: u64,
    /// Memory from which on nothing more is taken to be held, in bytes; 0 for no limit, `None` for what the container leaves.
    pub memory_bytes: Option<u64>,
    /// Queues and batches.
    pub encoder: EncoderSettings,
    /// Threads of each kind of computing, at least 1.
    pub threads: usize,
    /// Share of the searches that are compared with their exact answers, 0 to 1.
    pub recall_share: f64,
    /// Newest rows of one kind up from which a graph is built.
    pub exact_below: usize,
    /// What the main listener takes.
    pub connections: ConnectionLimits,
    /// How long calls may take, and how many there may be.
    pub calls: CallLimits,
    /// Between two self-tests of every bundle.
    pub self_test: Duration,
    /// What is told of calls.
    pub observe: ObserveSettings,
    /// How the server goes down.
    pub drain: DrainTimes,
}

/// What is wrong with the settings: every fault, one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the settings are refused:\n  - {}", .0.join("\n  - "))]
pub struct Faults(pub Vec<String>);

impl Config {
    /// Settings from flags (which hold the environment's values already), the file they name, and built-in values.
    /// `environment` lists all variables, so that a misspelt one is told.
    ///
    /// # Errors
    /// All faults at once, each naming its flag, variable or key.
    pub fn resolve(
        flags: &Flags,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let keys = Flags::keys();
        let environment: Vec<(String, String)> = environment.collect();
        let mut faults = Vec::new();
        names::check_environment(environment.iter().cloned(), &keys, &mut faults);
        let mut reader = Reader::new(flags, &keys, faults);
        let config = Self::read(&mut reader, &environment);
        config.check_together(&mut reader.faults);
        if reader.faults.is_empty() { Ok(config) } else { Err(Faults(reader.faults)) }
    }

    fn read(reader: &mut Reader<'_>, environment: &[(String, String)]) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = size(reader.count("threads", cores as u64, 1..=1024));
        let limits = read_limits(reader);
        let encoder = read_encoder(reader, &limits, threads);
        // Without a word about them, both grow with what they must hold.
        let decode_bytes = defaults::DECODE_BYTES
            .max(defaults::DECODE_BYTES_A_THREAD * threads as u64)
            .max(encoder.image_limits.decode_memory(limits.image_pixels));
        let [receive_bytes, reply_bytes] = [defaults::RECEIVE_BYTES, defaults::REPLY_BYTES]
            .map(|bytes| bytes.max(limits.message_bytes as u64));
        let bundles = reader.bundles();
        let calls = transport::calls(reader, &encoder);
        let page_key_file = reader.path("page_key_file");
        Self {
            listen: reader.address("listen", defaults::LISTEN),
            ops_listen: reader.address("ops_listen", defaults::OPS_LISTEN),
            data_dir: reader.data_dir(defaults::DATA_DIR),
            sample: reader.switch("sample", bundles.is_empty()),
            bundles,
            models_dir: reader.folder("models_dir"),
            hub: hub::Settings::of_environment(environment, reader.path("hf_token_file")),
            log_format: reader.log_format(),
            log: reader.log_filter(),
            page_key: page_key_file.as_deref().and_then(|file| reader.page_key(file)),
            page_key_file,
            limits,
            receive_bytes: reader.bytes("receive_bytes", receive_bytes, 64 << 10..=1 << 40),
            reply_bytes: reader.bytes("reply_bytes", reply_bytes, 64 << 10..=1 << 40),
            decode_bytes: reader.bytes("decode_bytes", decode_bytes, 1 << 20..=1 << 40),
            memory_bytes: reader.bytes_if_given("memory_bytes", 0..=1 << 50),
            encoder,
            threads,
            recall_share: reader.share("recall_share", defaults::RECALL_SHARE),
            exact_below: size(reader.count(
                "exact_below",
                EmbeddedConfig::EXACT_BELOW as u64,
                0..=100_000_000,
            )),
            connections: transport::connections(reader, calls.longest()),
            calls,
            self_test: transport::self_test(reader),
            observe: observe::read(reader),
            drain: transport::drain(reader),
        }
    }

    /// Settings that are right alone and wrong together.
    fn check_together(&self, faults: &mut Vec<String>) {
        if self.listen == self.ops_listen && self.listen.port() != 0 {
            let address = self.listen;
            faults.push(format!("listen and ops_listen are both {address}, must be two addresses"));
        }
        let (batch, queue) = (self.limits.batch_items, self.encoder.queue_items);
        if batch > queue {
            faults.push(format!(
                "batch_items is {batch}, must be at most queue_items, which is {queue}: no encoder could take such a batch"
            ));
        }
        let message = self.limits.message_bytes as u64;
        let pixels = self.limits.image_pixels;
        let least = [
            ("receive_bytes", self.receive_bytes, message, "to take a message of message_bytes"),
            ("reply_bytes", self.reply_bytes, message, "to give a message of message_bytes"),
            (
                "decode_bytes",
                self.decode_bytes,
                self.encoder.image_limits.decode_memory(pixels),
                "to decode a picture of image_pixels",
            ),
        ];
        for (key, bytes, least, what) in least.into_iter().filter(|(_, had, least, _)| had < least)
        {
            let (bytes, least) = (show_bytes(bytes), show_bytes(least));
            faults.push(format!("{key} is {bytes}, must be at least {least} {what}"));
        }
        let parts = [
            ("image_bytes", self.limits.image_bytes),
            ("text_bytes", self.limits.text_bytes as u64),
        ];
        for (key, bytes) in parts.into_iter().filter(|(_, bytes)| *bytes > message) {
            faults.push(format!(
                "{key} is {}, must be at most message_bytes, which is {}: no message could hold it",
                show_bytes(bytes),
                show_bytes(message)
            ));
        }
    }

    /// The most memory that requests and pictures take on their way to the encoders, over all calls, in bytes. `uncounted` is what
    /// requests too small to be counted have together, `queues` what waits for the towers. Requests count twice, since some are
    /// hashed from a copy; replies that nobody reads are there once.
    pub(crate) fn embedding_bytes(&self, uncounted: u64, queues: u64) -> u64 {
        2 * (self.receive_bytes + uncounted) + self.reply_bytes + self.decode_bytes + queues
    }

    /// The folder of the store: everything that must go and come with it lies in there.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// The settings as `--check-config` prints them: a file that, given as `--config`, has the same effect.
    pub fn describe(&self) -> String {
        let lines = self.entries().into_iter().map(|(key, value)| match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} is not set"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Keys with their values as TOML, in the order of the help; `None` for those that have no value. Secrets stay unsaid.
    fn entries(&self) -> Vec<(&'static str, Option<String>)> {
        let text = |text: String| Some(toml::Value::String(text).to_string());
        let path = |path: &PathBuf| text(path.display().to_string());
        let number = |number: u64| Some(number.to_string());
        let size = |bytes: u64| text(show_bytes(bytes));
        let Limits { message_bytes, image_bytes, image_pixels, image_side, .. } = self.limits;
        let Limits { text_bytes, batch_items, search_limit, page_size, .. } = self.limits;
        let mut entries = vec![
            ("listen", text(self.listen.to_string())),
            ("ops_listen", text(self.ops_listen.to_string())),
            ("data_dir", path(&self.data_dir)),
            ("bundle", bundle_entry(&self.bundles)),
            ("models_dir", self.models_dir.as_ref().and_then(path)),
            ("hf_token_file", self.hub.token_file.as_ref().and_then(path)),
            ("sample", Some(self.sample.to_string())),
            ("log_format", text(format!("{:?}", self.log_format).to_lowercase())),
            ("log", text(self.log.clone())),
            ("page_key_file", self.page_key_file.as_ref().and_then(path)),
            ("message_bytes", size(message_bytes as u64)),
            ("image_bytes", size(image_bytes)),
            ("image_pixels", number(image_pixels)),
            ("image_side", number(image_side.into())),
            ("text_bytes", size(text_bytes as u64)),
            ("batch_items", number(batch_items as u64)),
            ("search_limit", number(search_limit as u64)),
            ("page_size", number(page_size as u64)),
            ("receive_bytes", size(self.receive_bytes)),
            ("reply_bytes", size(self.reply_bytes)),
            ("decode_bytes", size(self.decode_bytes)),
            ("memory_bytes", self.memory_bytes.and_then(size)),
            ("queue_items", number(self.encoder.queue_items as u64)),
            ("queue_wait", text(show_duration(self.encoder.queue_wait))),
            ("encode_images", number(self.encoder.batch_images as u64)),
            ("encode_texts", number(self.encoder.batch_texts as u64)),
            ("encode_ids", number(self.encoder.batch_ids as u64)),
            ("cache_bytes", size(self.encoder.cache_bytes)),
            ("threads", number(self.threads as u64)),
            ("recall_share", Some(self.recall_share.to_string())),
            ("exact_below", number(self.exact_below as u64)),
        ];
        entries.extend(transport::entries(self));
        entries.extend(observe::entries(&self.observe));
        entries
    }
}

/// One bundle, or a list of them; nothing without any.
fn bundle_entry(bundles: &[BundleSource]) -> Option<String> {
    let text = |bundle: &BundleSource| toml::Value::String(bundle.to_string());
    match bundles {
        [] => None,
        [one] => Some(text(one).to_string()),
        several => Some(toml::Value::Array(several.iter().map(text).collect()).to_string()),
    }
}

fn read_encoder(reader: &mut Reader<'_>, limits: &Limits, threads: usize) -> EncoderSettings {
    let second = Duration::from_secs(1);
    EncoderSettings {
        queue_items: size(reader.count("queue_items", defaults::QUEUE_ITEMS, 1..=65_536)),
        queue_wait: reader.time("queue_wait", defaults::QUEUE_WAIT, second / 1000..=second * 3600),
        batch_images: size(reader.count("encode_images", defaults::ENCODE_IMAGES, 1..=1024)),
        batch_texts: size(reader.count("encode_texts", defaults::ENCODE_TEXTS, 1..=4096)),
        batch_ids: size(reader.count("encode_ids", defaults::ENCODE_IDS, 16..=1 << 20)),
        threads,
        cache_bytes: reader.bytes("cache_bytes", defaults::CACHE_BYTES, 0..=1 << 40),
        image_limits: ImageLimits {
            max_bytes: limits.image_bytes,
            max_pixels: limits.image_pixels,
            max_side: limits.image_side,
        },
        text_bytes: limits.text_bytes,
    }
}

fn read_limits(reader: &mut Reader<'_>) -> Limits {
    let image = ImageLimits::default();
    let message_bytes = reader.bytes("message_bytes", defaults::MESSAGE_BYTES, 64 << 10..=1 << 30);
    // Without a word about it, the parts of a message shrink with the message.
    let image_bytes = image.max_bytes.min(message_bytes);
    Limits {
        message_bytes: size(message_bytes),
        image_bytes: reader.bytes("image_bytes", image_bytes, 1 << 10..=1 << 30),
        image_pixels: reader.count("image_pixels", image.max_pixels, 64..=400_000_000),
        image_side: u32::try_from(reader.count("image_side", image.max_side.into(), 8..=65_535))
            .unwrap_or(u32::MAX),
        text_bytes: size(reader.bytes("text_bytes", defaults::TEXT_BYTES, 16..=1 << 20)),
        batch_items: size(reader.count("batch_items", defaults::BATCH_ITEMS, 1..=4096)),
        search_limit: size(reader.count("search_limit", defaults::PAGE, 1..=10_000)),
        page_size: size(reader.count("page_size", defaults::PAGE, 1..=10_000)),
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
