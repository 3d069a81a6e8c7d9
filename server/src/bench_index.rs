//! `diptych-server bench-index`: graphs measured on the operator's own vectors.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use diptych_index::bench::{Bench, BuilderKind, Matrix, Params, Plan, Storage};

/// The word that calls it, first on the command line.
pub const NAME: &str = "bench-index";

/// Builds a graph over a file of vectors, and tells its recall against a scan and its speed per width of search.
///
/// Files are .npy (f32, two axes) or .fvecs; rows are brought to unit length. Speed is queries per second of CPU time on one
/// thread.
#[derive(Debug, Parser)]
#[command(name = "diptych-server bench-index")]
struct Arguments {
    /// Vectors to search.
    rows: PathBuf,
    /// Vectors to search with, of the same length.
    queries: PathBuf,
    /// Who builds the graph.
    #[arg(long, value_enum, default_value = "native")]
    builder: BuilderName,
    /// Bits that a component is held with; native only.
    #[arg(long, value_enum, default_value = "32")]
    storage: Bits,
    /// Links that a point makes on each layer.
    #[arg(long, default_value_t = Params::default().m)]
    m: usize,
    /// Width of search that looks for a point's neighbours.
    #[arg(long, default_value_t = Params::default().ef_construction)]
    ef_construction: usize,
    /// Threads that build.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Neighbours asked for.
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Widths of search, ascending.
    #[arg(long, value_delimiter = ',', default_value = "10,16,24,32,48,64,96,128,192,256,384,512")]
    ef: Vec<usize>,
    /// Times that each width is measured; the best counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Share of the rows, drawn at random, that a filter lets pass: above 0, at most 1.
    #[arg(long, value_name = "SHARE")]
    allow: Option<f64>,
    /// Save the graph to this file, and measure what is loaded from it.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BuilderName {
    Native,
    #[value(name = "hnsw_rs")]
    HnswRs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bits {
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
    #[value(name = "24")]
    TwentyFour,
    #[value(name = "32")]
    ThirtyTwo,
}

/// Runs it with its arguments, its own name first. Gives what is to be printed.
///
/// # Errors
/// What clap says of the arguments, call for help included; a file that cannot be read; a graph that cannot be built.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<String> {
    let arguments = Arguments::try_parse_from(arguments)?;
    let plan = Plan {
        builder: match arguments.builder {
            BuilderName::Native => BuilderKind::Native,
            BuilderName::HnswRs => BuilderKind::HnswRs,
        },
        params: Params {
            m: arguments.m,
            ef_construction: arguments.ef_construction,
            storage: match arguments.storage {
                Bits::Eight => Storage::Bits8,
                Bits::Sixteen => Storage::Bits16,
                Bits::TwentyFour => Storage::Bits24,
                Bits::ThirtyTwo => Storage::Bits32,
            },
            ..Params::default()
        },
        threads: arguments.threads,
        k: arguments.k,
        allowed_share: arguments.allow,
        file: arguments.file,
    };
    let (rows, queries) = (Matrix::read(&arguments.rows)?, Matrix::read(&arguments.queries)?);
    let bench = Bench::build(rows, queries, &plan).context("building the graph")?;
    let report = bench.sweep(&arguments.ef, arguments.rounds)?;
    Ok(if arguments.json { report.to_json().to_string() } else { report.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(folder: &std::path::Path, more: &[&str]) -> anyhow::Result<String> {
        let file = folder.join("rows.fvecs");
        let rows = (1..=40_u8).flat_map(|row| {
            let mut bytes = 2_i32.to_le_bytes().to_vec();
            bytes.extend([1.0, f32::from(row)].iter().flat_map(|x| x.to_le_bytes()));
            bytes
        });
        std::fs::write(&file, rows.collect::<Vec<u8>>()).unwrap();
        let file = file.into_os_string();
        let named = [NAME.into(), file.clone(), file].into_iter();
        run(named.chain(more.iter().map(OsString::from)))
    }

    #[test]
    fn tells_a_table_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let table = run_on(folder.path(), &["--ef", "40", "--storage", "16"]).unwrap();
        assert!(table.contains("| 40 | 1.0000 |"), "{table}");
        let json =
            run_on(folder.path(), &["--ef", "40", "--builder", "hnsw_rs", "--json"]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["points"][0]["recall"], 1.0);
    }

    #[test]
    fn says_which_argument_or_file_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = run_on(folder.path(), &["--storage", "7"]).unwrap_err();
        assert!(wrong.downcast_ref::<clap::Error>().is_some(), "{wrong}");
        let wrong = run_on(folder.path(), &["--m", "1"]).unwrap_err();
        assert!(format!("{wrong:#}").contains("m is 1, it may be 2 to 128"), "{wrong:#}");
        let missing = [NAME, "nowhere.npy", "nowhere.npy"].map(OsString::from);
        assert!(run(missing).unwrap_err().to_string().contains("nowhere.npy"));
    }
}
