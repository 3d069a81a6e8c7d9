//! Everything that can be said on the command line.

mod admin;
mod bench;
mod like;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::admin::{
    AliasCommand, OperationCommand, ReembedCommand, SnapshotCommand, Waiting,
};
pub(crate) use self::bench::{Arrivals, BenchArgs, BenchCall};
pub(crate) use self::like::LikeArgs;
pub(crate) use self::trace::TraceArgs;

/// Searches pictures by text and texts by picture, on a Diptych server.
#[derive(Debug, Parser)]
#[command(name = "diptych", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shared {
    /// Address of the server, host:port or http://host:port; given more than once or separated by commas, of several that stand in
    /// for one another.
    #[arg(
        long,
        visible_alias = "endpoint",
        global = true,
        env = "DIPTYCH_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub(crate) server: Vec<String>,
    /// Collection to work on.
    #[arg(long, global = true, default_value = "emoji", value_name = "NAME")]
    pub(crate) collection: String,
    /// Most hits.
    #[arg(long, global = true, default_value_t = 10, value_name = "HITS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Answer in JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Only the best hit of each group.
    #[arg(long, global = true, default_value_t = true, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub(crate) one_per_group: bool,
    /// Longest call, retries included, such as 10s or 500ms [default: by command, 5s for search to 2m for
    /// put].
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

impl Shared {
    /// All servers, as the client takes them.
    pub(crate) fn servers(&self) -> String {
        self.server.join(",")
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find pictures by a text, texts by a picture, or pictures like another.
    Search(SearchArgs),
    /// Print the vectors of a text or a picture.
    Embed(EmbedArgs),
    /// Put pictures and texts into a collection, which is made when it is not there.
    ///
    /// A folder: its pictures, with the texts of .txt files of the same name and of CSV, JSON-lines and Parquet files in it.
    ///
    /// A file: CSV, JSON lines or Parquet with columns `image` (also file_name, file, path; relative to the file), `text` (also
    /// caption, captions), `id` and `group`; any other column becomes metadata.
    ///
    /// A picture and its texts share a group. Putting the same again changes nothing; a run that was interrupted goes on where it
    /// ended.
    Put(PutArgs),
    /// Print an item.
    Get(GetArgs),
    /// Delete items by id, by group or by filter.
    Delete(DeleteArgs),
    /// List, make, change or delete collections.
    #[command(visible_alias = "collection")]
    Collections(CollectionsArgs),
    /// Measure how much of the exact answer the indexes of a collection find.
    Recall(RecallArgs),
    /// Set, list or delete aliases: second names that can be moved from one collection to another.
    Alias {
        #[command(subcommand)]
        command: AliasCommand,
    },
    /// Make, list, restore or delete snapshots: a collection in one file on the server.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Change the bundle of the collection behind an alias.
    Reembed {
        #[command(subcommand)]
        command: ReembedCommand,
    },
    /// List, wait for or cancel work that outlives a call.
    Operation {
        #[command(subcommand)]
        command: OperationCommand,
    },
    /// Drop what was deleted from a collection's index.
    Compact {
        /// The collection, or an alias.
        #[arg(value_name = "COLLECTION")]
        of: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Load a server and measure what it makes of it.
    ///
    /// A file of JSON lines has {"text": …}, {"image": FILE} or {"vector": […]} on each line, and what is right to find in
    /// "relevant": [IDS] or "relevant_groups": [GROUPS]; with those, recall among the first --limit hits is told too.
    Bench(Box<BenchArgs>),
    /// List, load, activate, unload or test the bundles of a server.
    Models {
        #[command(subcommand)]
        command: super::models::ModelsCommand,
    },
    /// Print the server's version, models and limits.
    Info,
}

/// A query.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// The text to search by.
    #[arg(required_unless_present_any = ["image", "picture"], conflicts_with = "image")]
    pub(crate) text: Option<String>,
    /// The picture to search by: a JPEG, PNG, WebP or GIF file.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) like: LikeArgs,
    /// What to find [default: the other of what is given].
    #[arg(long, value_enum)]
    pub(crate) target: Option<Target>,
    /// Only items whose metadata KEY equals VALUE; several must all hold.
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) filters: Vec<(String, String)>,
    /// Look at every item, in place of the index.
    #[arg(long, conflicts_with = "prefix_dims")]
    pub(crate) exact: bool,
    /// Find candidates by the first N components of the vectors only; `diptych info --json` tells which N a bundle takes.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) prefix_dims: u32,
    /// Most pages of --limit hits to fetch.
    #[arg(long, value_name = "PAGES", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pages: u32,
    /// Fetch all pages.
    #[arg(long, conflicts_with = "pages")]
    pub(crate) all: bool,
    /// In place of hits, tell why this item scores as it does, and where it stands among all.
    #[arg(long, value_name = "ITEM", conflicts_with_all = ["pages", "all"])]
    pub(crate) explain: Option<String>,
    /// Whether to show the pictures found.
    #[arg(long, value_enum, default_value_t = Pictures::Auto)]
    pub(crate) pictures: Pictures,
}

/// What a search finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// Whether pictures are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pictures {
    /// On a terminal that can show them.
    Auto,
    /// Also on others, in coloured blocks.
    Always,
    /// Not at all.
    Never,
}

/// What to embed.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// The text to embed.
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    pub(crate) text: Option<String>,
    /// The picture to embed: a JPEG, PNG, WebP or GIF file.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
}

/// What to put where.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Collection to put into.
    #[arg(value_name = "COLLECTION")]
    pub(crate) into: String,
    /// Folders and files.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Put before every id and group that is made from a path, to keep folders apart.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Send everything, also what an earlier run has put.
    #[arg(long)]
    pub(crate) no_resume: bool,
}

/// A measurement of up to --limit hits per query.
#[derive(Debug, Args)]
pub(crate) struct RecallArgs {
    /// The collection [default: that of --collection].
    #[arg(value_name = "COLLECTION")]
    pub(crate) name: Option<String>,
    /// Stored vectors of each index to ask with [default: 100].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) queries: u32,
    /// Width of graph searches [default: the engine's].
    #[arg(long, value_name = "WIDTH", default_value_t = 0, hide_default_value = true)]
    pub(crate) ef_search: u32,
    /// Chooses the vectors; the same one asks with the same ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
}

/// An item.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Its id.
    pub(crate) id: String,
    /// Write the picture or text that it was made from to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

/// Items.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Their ids.
    #[arg(required_unless_present_any = ["group", "filters"], conflicts_with_all = ["group", "filters"], value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Delete all items of this group.
    #[arg(long, conflicts_with = "filters")]
    pub(crate) group: Option<String>,
    /// Delete all items whose metadata KEY equals VALUE; several must all hold. Needs --count, which --dry-run tells.
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) filters: Vec<(String, String)>,
    /// Only count what would be deleted.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete only if so many items match.
    #[arg(long, value_name = "N", conflicts_with_all = ["dry_run", "ids"])]
    pub(crate) count: Option<u64>,
}

/// What to do with collections.
#[derive(Debug, Args)]
pub(crate) struct CollectionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CollectionsCommand>,
}

/// What to do with collections.
#[derive(Debug, Subcommand)]
pub(crate) enum CollectionsCommand {
    /// List all (the default).
    List,
    /// Make one.
    Create(CreateArgs),
    /// Change settings of one.
    Update {
        /// Its name, or an alias.
        name: String,
        /// Whether items that are put from now on keep what they were made from.
        #[arg(long, value_name = "BOOL", action = ArgAction::Set, required = true)]
        keep_source: bool,
    },
    /// Delete one with all its items.
    Delete {
        /// Its name.
        name: String,
    },
}

/// A new collection.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: lower-case letters, digits, and . _ - between them.
    pub(crate) name: String,
    /// Digest of the bundle that makes its vectors, as `diptych info` shows it [default: the server's default bundle].
    #[arg(long, value_name = "DIGEST", conflicts_with = "dims")]
    pub(crate) bundle: Option<String>,
    /// Without a bundle: items are put as vectors of this many components.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) dims: Option<u32>,
    /// Bytes that a component of a stored vector takes: f32 4, i16 2, i8 1.
    #[arg(long, value_enum, default_value_t = StorageArg::F32)]
    pub(crate) storage: StorageArg,
    /// What builds the graphs that a large collection is searched by.
    #[arg(long, value_enum, default_value_t = GraphArg::Native)]
    pub(crate) graph: GraphArg,
}

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageArg {
    /// As they came.
    F32,
    /// Fixed point, finer than half floats.
    I16,
    /// Fixed point, a quarter of the memory.
    I8,
}

/// What builds graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphArg {
    /// The server's own.
    Native,
    /// The crate hnsw_rs.
    HnswRs,
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE, such as lang=de".to_owned()),
    }
}

/// `10s`, `500ms`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        unit => return Err(format!("{unit} is no unit of time; known: ms, s, m")),
    };
    let seconds = digits.parse::<f64>().map(|number| number * unit).unwrap_or(f64::NAN);
    // A day bounds it: gRPC's own header ends not far above.
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be a time from 1ms to 1440m, such as 10s".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let Shared { collection, limit, json, one_per_group, .. } =
            parse("diptych search heart").unwrap().shared;
        assert_eq!((collection.as_str(), limit, json, one_per_group), ("emoji", 10, false, true));
        assert!(!parse("diptych search heart --one-per-group=false").unwrap().shared.one_per_group);
    }

    #[test]
    fn what_does_not_go_together_is_a_usage_error() {
        for line in [
            "diptych search",
            "diptych search a --image b",
            "diptych search a --limit 0",
            "diptych search a --filter lang",
            "diptych search a --deadline 5y",
            "diptych search a --exact --prefix-dims 8",
            "diptych search a --pages 0",
            "diptych search a --traceparent 00-0-0-00",
            "diptych search a --all --pages 2",
            "diptych search a --all --explain x",
            "diptych delete",
            "diptych delete a --group b",
            "diptych delete --filter lang",
            "diptych delete --filter lang=de --group b",
            "diptych delete --filter lang=de --dry-run --count 3",
            "diptych collection update x",
            "diptych alias set x",
            "diptych reembed start x --bundle y",
            "diptych operation wait",
            "diptych put x",
            "diptych collections create x --bundle y --dims 3",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "0s", "1h", "NaN"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
