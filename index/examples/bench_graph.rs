//! A graph over a file of vectors: build, memory, recall and speed.
//!
//! `cargo run --release -p diptych-index --example bench_graph -- ROWS QUERIES [--key value]...`
//! with files `.npy` or `.fvecs`, and the keys `--builder native|hnsw_rs`, `--storage 8|16|24|32`,
//! `--allow 0.1` (a filter that lets this share of the rows pass), `--m`, `--ef-construction`, `--threads`, `--k`, `--ef 10,20,...`, `--file PATH` (saves the graph and measures what is loaded again), `--rounds`, `--json`.
//! `--serve yes` builds, tells what it took as a line of JSON, and then measures each width that a
//! line of input names: `scripts/bench-peers.py` takes turns with others this way.

use std::{collections::HashMap, io::BufRead, path::Path};

use anyhow::{Context, bail};
use diptych_index::bench::{Bench, BuilderKind, Matrix, Params, Plan, Storage};

#[expect(clippy::print_stdout, reason = "the output of this program")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, queries, options @ ..] = arguments.as_slice() else {
        bail!("names of a file of rows and a file of queries are missing");
    };
    let mut options = read_options(options)?;
    let mut take =
        |name: &str, default: &str| options.remove(name).unwrap_or_else(|| default.to_owned());
    let plan = Plan {
        builder: match take("builder", "native").as_str() {
            "native" => BuilderKind::Native,
            "hnsw_rs" => BuilderKind::HnswRs,
            other => bail!("--builder {other}: is neither native nor hnsw_rs"),
        },
        params: Params {
            m: take("m", "16").parse().context("--m")?,
            ef_construction: take("ef-construction", "100").parse().context("--ef-construction")?,
            storage: match take("storage", "32").as_str() {
                "8" => Storage::Bits8,
                "16" => Storage::Bits16,
                "24" => Storage::Bits24,
                "32" => Storage::Bits32,
                other => bail!("--storage {other}: is none of 8, 16, 24, 32"),
            },
            ..Params::default()
        },
        threads: take("threads", "1").parse().context("--threads")?,
        k: take("k", "10").parse().context("--k")?,
        allowed_share: match take("allow", "all").as_str() {
            "all" => None,
            share => Some(share.parse().context("--allow")?),
        },
        file: Some(take("file", "")).filter(|file| !file.is_empty()).map(Into::into),
    };
    let rounds = take("rounds", "3").parse().context("--rounds")?;
    let widths = take("ef", "10,12,16,20,24,32,40,48,64,96,128,200,300,500");
    let widths: Result<Vec<usize>, _> = widths.split(',').map(str::parse).collect();
    let json = take("json", "no") == "yes";
    let serve = take("serve", "no") == "yes";
    if let Some(name) = options.keys().next() {
        bail!("--{name}: is not known");
    }
    let read = |name: &str| Matrix::read(Path::new(name));
    let bench = Bench::build(read(rows)?, read(queries)?, &plan)?;
    if serve {
        println!("{}", serde_json::to_string(bench.build_report())?);
        for line in std::io::stdin().lock().lines() {
            let point = bench.measure(line?.trim().parse().context("a width")?, rounds)?;
            println!("{}", serde_json::to_string(&point)?);
        }
        return Ok(());
    }
    let report = bench.sweep(&widths.context("--ef")?, rounds)?;
    if json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}

fn read_options(arguments: &[String]) -> anyhow::Result<HashMap<String, String>> {
    let mut options = HashMap::new();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name.starts_with("--") => {
                options.insert(name.trim_start_matches("--").to_owned(), value.clone());
            }
            _ => bail!("{}: is no pair of --key and value", pair.join(" ")),
        }
    }
    Ok(options)
}
