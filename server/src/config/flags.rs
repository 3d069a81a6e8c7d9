//! The command line and the environment, as clap reads them. A setting's key is its field's name, everywhere.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

/// Serves cross-modal search over gRPC. Without flags: the built-in sample on 127.0.0.1:50051.
///
/// A flag wins over its environment variable, that over the file of --config, that over the built-in value. Sizes are written
/// as 16MiB, 64KiB or a number of bytes, times as 30s or 500ms.
///
/// Two other commands have a help of their own: `diptych-server pull --help`, checkpoints of a hub into the cache, and
/// `diptych-server bench-index --help`, graphs measured on a file of vectors.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "diptych-server", version)]
pub struct Flags {
    /// TOML file with settings: the names of the flags, with underscores.
    #[arg(long, env = "DIPTYCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the settings, print the effective ones as TOML, and exit.
    #[arg(long)]
    pub check_config: bool,

    /// Address of gRPC, gRPC-Web, health and reflection [built-in: 127.0.0.1:50051].
    #[arg(long, env = "DIPTYCH_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of /livez, /readyz and /metrics over plain HTTP [built-in: 127.0.0.1:9464].
    #[arg(long, env = "DIPTYCH_OPS_LISTEN", value_name = "ADDRESS")]
    pub ops_listen: Option<String>,
    /// Folder of the store and of the bundles that collections were made with [built-in: diptych-data].
    #[arg(long, env = "DIPTYCH_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Bundle that is loaded, a folder or hf:ORG/NAME@REVISION of a hub; may be given more than once, and new collections are
    /// made with the first. In the environment with `:` between them, in the file as a list [built-in: the sample's].
    #[arg(long, env = "DIPTYCH_BUNDLE", value_name = "BUNDLE")]
    pub bundle: Vec<PathBuf>,
    /// Folder from below which LoadModel may load bundles while the server serves [built-in: none, so that none is loaded].
    #[arg(long, env = "DIPTYCH_MODELS_DIR", value_name = "FOLDER")]
    pub models_dir: Option<PathBuf>,
    /// File with the token of private repositories of a hub [built-in: the one that the hub's other clients left in HF_HOME].
    #[arg(long, env = "DIPTYCH_HF_TOKEN_FILE", value_name = "FILE")]
    pub hf_token_file: Option<PathBuf>,
    /// Whether to make and fill the collection `emoji` on first start, true or false [built-in: true without --bundle].
    #[arg(long, env = "DIPTYCH_SAMPLE", value_name = "BOOL")]
    pub sample: Option<String>,

    /// How log lines look on standard error, human or json [built-in: human].
    #[arg(long, env = "DIPTYCH_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,diptych_index=debug [built-in: info].
    #[arg(long, env = "DIPTYCH_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// File with the secret of page tokens, at least 16 bytes; servers that share it, and one that was restarted, take each other's
    /// tokens of listings. Tokens of searches end with the server that gave them [built-in: a secret made at start].
    #[arg(long, env = "DIPTYCH_PAGE_KEY_FILE", value_name = "FILE")]
    pub page_key_file: Option<PathBuf>,

    /// Most bytes of one message, each way [built-in: 16MiB].
    #[arg(long, env = "DIPTYCH_MESSAGE_BYTES", value_name = "SIZE")]
    pub message_bytes: Option<String>,
    /// Most bytes of a picture's file [built-in: 10MiB].
    #[arg(long, env = "DIPTYCH_IMAGE_BYTES", value_name = "SIZE")]
    pub image_bytes: Option<String>,
    /// Most pixels of a picture, width times height [built-in: 25000000].
    #[arg(long, env = "DIPTYCH_IMAGE_PIXELS", value_name = "PIXELS")]
    pub image_pixels: Option<String>,
    /// Most pixels of a picture's longer side [built-in: 12000].
    #[arg(long, env = "DIPTYCH_IMAGE_SIDE", value_name = "PIXELS")]
    pub image_side: Option<String>,
    /// Most bytes of a text; the bundle may take less [built-in: 8KiB].
    #[arg(long, env = "DIPTYCH_TEXT_BYTES", value_name = "SIZE")]
    pub text_bytes: Option<String>,
    /// Most inputs or items of a batch [built-in: 64].
    #[arg(long, env = "DIPTYCH_BATCH_ITEMS", value_name = "ITEMS")]
    pub batch_items: Option<String>,
    /// Most hits of one page of a search [built-in: 1000].
    #[arg(long, env = "DIPTYCH_SEARCH_LIMIT", value_name = "HITS")]
    pub search_limit: Option<String>,
    /// Most entries of one page of a listing [built-in: 1000].
    #[arg(long, env = "DIPTYCH_PAGE_SIZE", value_name = "ENTRIES")]
    pub page_size: Option<String>,

    /// Most bytes of requests under way, over all calls, of which one caller may have half; what does not fit in is refused
    /// [built-in: 256MiB].
    #[arg(long, env = "DIPTYCH_RECEIVE_BYTES", value_name = "SIZE")]
    pub receive_bytes: Option<String>,
    /// Most bytes of large replies that were not read yet, over all calls, of which one caller may have half; what does not fit in
    /// is refused [built-in: 128MiB].
    #[arg(long, env = "DIPTYCH_REPLY_BYTES", value_name = "SIZE")]
    pub reply_bytes: Option<String>,
    /// Most memory that pictures are decoded in together, 12 bytes a pixel and 4MiB each; the others wait [built-in: 512MiB, or
    /// 32MiB a thread, or what the largest picture takes, whichever is most].
    #[arg(long, env = "DIPTYCH_DECODE_BYTES", value_name = "SIZE")]
    pub decode_bytes: Option<String>,
    /// Memory of the process from which on it refuses to hold more: items, bundles and what is restored. Searches, reads and
    /// deletes go on; 0 for no limit [built-in: the container's memory less what requests and pictures under way take at most, a tenth
    /// at least and half at most; none without a container].
    #[arg(long, env = "DIPTYCH_MEMORY_BYTES", value_name = "SIZE")]
    pub memory_bytes: Option<String>,
    /// Inputs that may be under way in an encoder, those that wait included, of searches and of other callers each; one more is refused
    /// [built-in: 512].
    #[arg(long, env = "DIPTYCH_QUEUE_ITEMS", value_name = "ITEMS")]
    pub queue_items: Option<String>,
    /// Longest time that an input may have to wait for its encoder, as far as can be told when it comes; one that would wait
    /// longer is refused at once [built-in: 1s].
    #[arg(long, env = "DIPTYCH_QUEUE_WAIT", value_name = "TIME")]
    pub queue_wait: Option<String>,
    /// Most pictures that are encoded in one batch [built-in: 8].
    #[arg(long, env = "DIPTYCH_ENCODE_IMAGES", value_name = "ITEMS")]
    pub encode_images: Option<String>,
    /// Most texts that are encoded in one batch [built-in: 64].
    #[arg(long, env = "DIPTYCH_ENCODE_TEXTS", value_name = "ITEMS")]
    pub encode_texts: Option<String>,
    /// Most token ids of the texts of one batch, each text padded [built-in: 4096].
    #[arg(long, env = "DIPTYCH_ENCODE_IDS", value_name = "IDS")]
    pub encode_ids: Option<String>,
    /// Bytes of vectors kept of inputs that were asked for of late, so that they are not encoded again; for each bundle; 0 for
    /// none [built-in: 64MiB].
    #[arg(long, env = "DIPTYCH_CACHE_BYTES", value_name = "SIZE")]
    pub cache_bytes: Option<String>,
    /// Threads of each kind of computing: networks, decoding, scans [built-in: one per core].
    #[arg(long, env = "DIPTYCH_THREADS", value_name = "THREADS")]
    pub threads: Option<String>,
    /// Share of the searches whose exact answer is computed too, in the background, so that GetCollection tells how much of it
    /// searches find; 0 for none [built-in: 0.01].
    #[arg(long, env = "DIPTYCH_RECALL_SHARE", value_name = "SHARE")]
    pub recall_share: Option<String>,
    /// Newest items of one kind up from which a graph is built; fewer are scanned, which is exact [built-in: 20000].
    #[arg(long, env = "DIPTYCH_EXACT_BELOW", value_name = "ITEMS")]
    pub exact_below: Option<String>,
    /// Longest time for a call with one reply; a caller's shorter deadline wins [built-in: 30s].
    #[arg(long, env = "DIPTYCH_TIMEOUT", value_name = "TIME")]
    pub timeout: Option<String>,
    /// Longest time for a call that streams; a caller's shorter deadline wins [built-in: 1h].
    #[arg(long, env = "DIPTYCH_STREAM_TIMEOUT", value_name = "TIME")]
    pub stream_timeout: Option<String>,
    /// Longest wait for the next message of a stream of requests; the stream is ended then, and may be opened again [built-in: 5m].
    #[arg(long, env = "DIPTYCH_STREAM_IDLE_TIMEOUT", value_name = "TIME")]
    pub stream_idle_timeout: Option<String>,
    /// Times of methods that differ, as Search=5s,EmbedStream=10m [built-in: none].
    #[arg(long, env = "DIPTYCH_METHOD_TIMEOUTS", value_name = "LIST")]
    pub method_timeouts: Option<String>,
    /// Calls at once of one caller, told by the address (of IPv6 the first 64 bits); one more is refused [built-in:
    /// 512].
    #[arg(long, env = "DIPTYCH_CALLS_PER_CALLER", value_name = "CALLS")]
    pub calls_per_caller: Option<String>,
    /// Calls of one method that may be under way at once, however long they take, before any is refused because more come than
    /// can be answered [built-in: 40].
    #[arg(long, env = "DIPTYCH_BURST_CALLS", value_name = "CALLS")]
    pub burst_calls: Option<String>,
    /// Longest time that the calls of one method under way may take together before those that come are refused, as long as
    /// more come than can be answered [built-in: 250ms].
    #[arg(long, env = "DIPTYCH_BURST_WAIT", value_name = "TIME")]
    pub burst_wait: Option<String>,
    /// Connections at once, of which one caller may have half; one more is closed at once [built-in: 1024].
    #[arg(long, env = "DIPTYCH_MAX_CONNECTIONS", value_name = "CONNECTIONS")]
    pub max_connections: Option<String>,
    /// Calls at once on one HTTP/2 connection [built-in: 1000].
    #[arg(long, env = "DIPTYCH_STREAMS_PER_CONNECTION", value_name = "STREAMS")]
    pub streams_per_connection: Option<String>,
    /// Longest time from connecting to the first frame [built-in: 5s].
    #[arg(long, env = "DIPTYCH_HANDSHAKE_TIMEOUT", value_name = "TIME")]
    pub handshake_timeout: Option<String>,
    /// Most bytes of a call's headers [built-in: 16KiB].
    #[arg(long, env = "DIPTYCH_HEADER_BYTES", value_name = "SIZE")]
    pub header_bytes: Option<String>,
    /// Streams of a connection that its peer's errors may make the server reset, before it is closed [built-in: 1024].
    #[arg(long, env = "DIPTYCH_LOCAL_RESETS", value_name = "STREAMS")]
    pub local_resets: Option<String>,
    /// Streams of a connection that its peer may reset before the server came to them, before it is closed [built-in:
    /// 100].
    #[arg(long, env = "DIPTYCH_PENDING_RESETS", value_name = "STREAMS")]
    pub pending_resets: Option<String>,
    /// Silence after which a connection's peer is asked whether it lives [built-in: 30s].
    #[arg(long, env = "DIPTYCH_KEEPALIVE_INTERVAL", value_name = "TIME")]
    pub keepalive_interval: Option<String>,
    /// Longest time for the peer to say so, before its connection is closed [built-in: 10s].
    #[arg(long, env = "DIPTYCH_KEEPALIVE_TIMEOUT", value_name = "TIME")]
    pub keepalive_timeout: Option<String>,
    /// Time that a connection is used, give or take a tenth; then its peer is asked to make another, and calls go on
    /// [built-in: 5m].
    #[arg(long, env = "DIPTYCH_CONNECTION_AGE", value_name = "TIME")]
    pub connection_age: Option<String>,
    /// Between two self-tests of every bundle, each a golden input through its queue [built-in: 30s].
    #[arg(long, env = "DIPTYCH_SELF_TEST_INTERVAL", value_name = "TIME")]
    pub self_test_interval: Option<String>,
    /// Time from NOT_SERVING to the end of taking calls after SIGTERM or SIGINT, for load balancers to hear of it
    /// [built-in: 0ms].
    #[arg(long, env = "DIPTYCH_DRAIN_DELAY", value_name = "TIME")]
    pub drain_delay: Option<String>,
    /// Longest time to finish running calls after that [built-in: 20s].
    #[arg(long, env = "DIPTYCH_DRAIN", value_name = "TIME")]
    pub drain: Option<String>,
    /// Time from which on a call with one reply is told in the log, with the stages that it went through; 0ms for none
    /// [built-in: 1s].
    #[arg(long, env = "DIPTYCH_SLOW_CALL", value_name = "TIME")]
    pub slow_call: Option<String>,
    /// Collector that spans of calls are sent to, over OTLP/gRPC without TLS, such as http://localhost:4317 [built-in: none, and
    /// nobody is told anything].
    #[arg(long, env = "DIPTYCH_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the calls without a caller's trace whose spans are sent; with one, the caller decides [built-in: 0.05].
    #[arg(long, env = "DIPTYCH_TRACE_SHARE", value_name = "SHARE")]
    pub trace_share: Option<String>,

    /// Keys of the settings that came from the environment, for messages.
    #[arg(skip)]
    pub from_environment: BTreeSet<String>,
}

/// A setting as the command line knows it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Its key in the file.
    pub(super) name: String,
    /// Its environment variable.
    pub(super) variable: String,
}

impl Flags {
    /// Flags from a command line, the program's name first, and from the environment.
    ///
    /// # Errors
    /// An argument that is unknown or lacks its value; also a call for help, which clap calls an error.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut flags = Self::from_arg_matches(&matches)?;
        let from_environment =
            |id: &&str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        flags.from_environment = matches
            .ids()
            .map(clap::Id::as_str)
            .filter(from_environment)
            .map(str::to_owned)
            .collect();
        Ok(flags)
    }

    /// Every setting that is a flag, a variable and a key of the file.
    pub(super) fn keys() -> Vec<Key> {
        let command = Self::command();
        let settings = command.get_arguments().filter_map(|argument| {
            let variable = argument.get_env()?.to_str()?.to_owned();
            Some(Key { name: argument.get_id().as_str().to_owned(), variable })
        });
        settings.filter(|key| key.name != "config").collect()
    }

    /// The values that are no paths, by key.
    pub(super) fn texts(&self) -> [(&'static str, &Option<String>); 48] {
        [
            ("listen", &self.listen),
            ("ops_listen", &self.ops_listen),
            ("sample", &self.sample),
            ("log_format", &self.log_format),
            ("log", &self.log),
            ("message_bytes", &self.message_bytes),
            ("image_bytes", &self.image_bytes),
            ("image_pixels", &self.image_pixels),
            ("image_side", &self.image_side),
            ("text_bytes", &self.text_bytes),
            ("batch_items", &self.batch_items),
            ("search_limit", &self.search_limit),
            ("page_size", &self.page_size),
            ("receive_bytes", &self.receive_bytes),
            ("reply_bytes", &self.reply_bytes),
            ("decode_bytes", &self.decode_bytes),
            ("memory_bytes", &self.memory_bytes),
            ("queue_items", &self.queue_items),
            ("queue_wait", &self.queue_wait),
            ("encode_images", &self.encode_images),
            ("encode_texts", &self.encode_texts),
            ("encode_ids", &self.encode_ids),
            ("cache_bytes", &self.cache_bytes),
            ("threads", &self.threads),
            ("recall_share", &self.recall_share),
            ("exact_below", &self.exact_below),
            ("timeout", &self.timeout),
            ("stream_timeout", &self.stream_timeout),
            ("stream_idle_timeout", &self.stream_idle_timeout),
            ("method_timeouts", &self.method_timeouts),
            ("calls_per_caller", &self.calls_per_caller),
            ("burst_calls", &self.burst_calls),
            ("burst_wait", &self.burst_wait),
            ("max_connections", &self.max_connections),
            ("streams_per_connection", &self.streams_per_connection),
            ("handshake_timeout", &self.handshake_timeout),
            ("header_bytes", &self.header_bytes),
            ("local_resets", &self.local_resets),
            ("pending_resets", &self.pending_resets),
            ("keepalive_interval", &self.keepalive_interval),
            ("keepalive_timeout", &self.keepalive_timeout),
            ("connection_age", &self.connection_age),
            ("self_test_interval", &self.self_test_interval),
            ("drain_delay", &self.drain_delay),
            ("drain", &self.drain),
            ("slow_call", &self.slow_call),
            ("otlp_endpoint", &self.otlp_endpoint),
            ("trace_share", &self.trace_share),
        ]
    }

    /// The values that are single paths, by key.
    pub(super) fn paths(&self) -> [(&'static str, &Option<PathBuf>); 4] {
        [
            ("data_dir", &self.data_dir),
            ("models_dir", &self.models_dir),
            ("hf_token_file", &self.hf_token_file),
            ("page_key_file", &self.page_key_file),
        ]
    }
}
