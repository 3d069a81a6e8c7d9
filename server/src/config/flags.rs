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
    /// Address of /livez and /readyz over plain HTTP [built-in: 127.0.0.1:9464].
    #[arg(long, env = "DIPTYCH_OPS_LISTEN", value_name = "ADDRESS")]
    pub ops_listen: Option<String>,
    /// Folder of the store and of the bundles that collections were made with [built-in: diptych-data].
    #[arg(long, env = "DIPTYCH_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Bundle that is loaded, a folder or hf:ORG/NAME@REVISION of a hub; may be given more than once, and new collections are
    /// made with the first. In the environment with `:` between them, in the file as a list [built-in: the sample's].
    #[arg(long, env = "DIPTYCH_BUNDLE", value_name = "BUNDLE")]
    pub bundle: Vec<PathBuf>,
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
    /// File with the secret of page tokens, at least 16 bytes; servers that share it take each other's tokens [built-in: a
    /// secret made at start].
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

    /// Inputs that may be under way in an encoder, those that wait included; one more is refused [built-in: 512].
    #[arg(long, env = "DIPTYCH_QUEUE_ITEMS", value_name = "ITEMS")]
    pub queue_items: Option<String>,
    /// Most pictures that are encoded in one batch [built-in: 8].
    #[arg(long, env = "DIPTYCH_ENCODE_IMAGES", value_name = "ITEMS")]
    pub encode_images: Option<String>,
    /// Most texts that are encoded in one batch [built-in: 64].
    #[arg(long, env = "DIPTYCH_ENCODE_TEXTS", value_name = "ITEMS")]
    pub encode_texts: Option<String>,
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
    /// Longest time for one call; a caller's shorter deadline wins [built-in: 30s].
    #[arg(long, env = "DIPTYCH_TIMEOUT", value_name = "TIME")]
    pub timeout: Option<String>,
    /// Longest time to finish running calls after SIGTERM or SIGINT [built-in: 20s].
    #[arg(long, env = "DIPTYCH_DRAIN", value_name = "TIME")]
    pub drain: Option<String>,

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
    pub(super) fn texts(&self) -> [(&'static str, &Option<String>); 21] {
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
            ("queue_items", &self.queue_items),
            ("encode_images", &self.encode_images),
            ("encode_texts", &self.encode_texts),
            ("threads", &self.threads),
            ("recall_share", &self.recall_share),
            ("exact_below", &self.exact_below),
            ("timeout", &self.timeout),
            ("drain", &self.drain),
        ]
    }

    /// The values that are single paths, by key.
    pub(super) fn paths(&self) -> [(&'static str, &Option<PathBuf>); 3] {
        [
            ("data_dir", &self.data_dir),
            ("hf_token_file", &self.hf_token_file),
            ("page_key_file", &self.page_key_file),
        ]
    }
}
