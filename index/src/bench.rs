//! Graphs measured on a file of vectors: build, memory, recall against a scan, speed.
//!
//! [`Matrix::read`] the rows and the queries, [`Bench::build`] a graph, [`Bench::sweep`] its widths.
//! A figure means something beside another one of the same run on the same machine only.

mod matrix;
mod system;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use rayon::prelude::*;
use serde::Serialize;

pub use self::matrix::{Matrix, ReadError};
pub use crate::graph::{BuilderKind, Params, Storage};
use crate::{
    graph::{self, Ask, Builder, Graph, Near, RowSet, Rows, Sequence},
    kernel,
};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BenchError(String);

/// What a build took.
#[derive(Debug, Clone, Serialize)]
pub struct BuildReport {
    /// Rows in the graph.
    pub rows: usize,
    /// Components of a row.
    pub dims: usize,
    /// Threads that built.
    pub threads: usize,
    /// From start to end.
    pub wall_seconds: f64,
    /// Of this process meanwhile, on all cores; `None` where the system does not tell.
    pub cpu_seconds: Option<f64>,
    /// Bytes the graph says it holds, per row.
    pub bytes_per_row: f64,
    /// Growth of this process's resident memory, per row; `None` where the system does not tell.
    pub resident_bytes_per_row: Option<f64>,
    /// Of [`Plan::file`].
    pub file: Option<FileReport>,
}

/// What a file of the graph took.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// Its length.
    pub bytes: u64,
    /// From start until it is on the disk.
    pub save_seconds: f64,
    /// From its name to a graph that answers, everything checked; it is in the system's cache.
    pub load_seconds: f64,
}

/// What one width gives.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Width of the walks.
    pub ef: usize,
    /// Share of the true `k` nearest rows found. A row as near as the k-th true one is right.
    pub recall: f64,
    /// Queries a second of CPU time, one thread, the best of all rounds; of wall time where the
    /// system does not tell CPU time. So what else runs on the machine takes nothing away.
    pub queries_per_second: f64,
    /// Rows compared with a query, mean.
    pub visited: f64,
}

/// Figures of all widths.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the build took.
    pub build: BuildReport,
    /// Neighbours asked for.
    pub k: usize,
    /// Ascending widths.
    pub points: Vec<Point>,
}

/// A graph, queries and their true answers.
#[derive(Debug)]
pub struct Bench {
    graph: Box<dyn Graph>,
    build: BuildReport,
    queries: Matrix,
    k: usize,
    /// Rows that may be found.
    allow: Option<RowSet>,
    /// Score of the k-th true neighbour of each query.
    edges: Vec<f32>,
    rows: Matrix,
}

impl Rows for Matrix {
    fn len(&self) -> usize {
        Matrix::len(self)
    }

    fn dims(&self) -> usize {
        Matrix::dims(self)
    }

    fn row(&self, row: usize) -> &[f32] {
        Matrix::row(self, row)
    }
}

/// What is built and asked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who builds.
    pub builder: BuilderKind,
    /// How.
    pub params: Params,
    /// Threads that build, 1 at least. Searches run on one.
    pub threads: usize,
    /// Neighbours asked for, 1 at least.
    pub k: usize,
    /// Share of the rows, drawn at random, that a search may find; `None` for no filter.
    pub allowed_share: Option<f64>,
    /// A file to which the graph is saved, and from which it is loaded again to be measured.
    pub file: Option<PathBuf>,
}

/// Decides which rows are allowed.
const ALLOW_SEED: u64 = 0xA110;

impl Bench {
    /// Builds a graph over the rows, and finds the true neighbours of the queries by scan.
    ///
    /// # Errors
    /// [`BenchError`], when the two have different lengths of row, and when no graph can be built.
    pub fn build(rows: Matrix, queries: Matrix, plan: &Plan) -> Result<Self, BenchError> {
        if rows.dims() != queries.dims() {
            let (rows, queries) = (rows.dims(), queries.dims());
            return Err(BenchError(format!("rows of {rows} and queries of {queries} components")));
        }
        if let Some(share) = plan.allowed_share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return Err(BenchError(format!("{share} is no share above 0 and at most 1")));
        }
        let threads = plan.threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| BenchError(error.to_string()))?;
        let (cpu, resident, started) = (system::cpu_seconds(), system::resident(), Instant::now());
        let builder = graph::builder(plan.builder);
        let graph = pool
            .install(|| builder.build(&rows, &plan.params, &AtomicBool::new(false)))
            .map_err(|error| BenchError(error.to_string()))?;
        let wall_seconds = started.elapsed().as_secs_f64();
        let since = |before: Option<f64>, now: Option<f64>| Some(now? - before?);
        let per_row = 1.0 / rows.len().max(1) as f64;
        let mut build = BuildReport {
            rows: rows.len(),
            dims: rows.dims(),
            threads,
            wall_seconds,
            cpu_seconds: since(cpu, system::cpu_seconds()),
            bytes_per_row: graph.memory_bytes() as f64 * per_row,
            resident_bytes_per_row: since(resident, system::resident())
                .map(|grown| grown * per_row),
            file: None,
        };
        let graph = match &plan.file {
            None => graph,
            Some(path) => {
                let (loaded, file) = through_file(builder, graph.as_ref(), path)?;
                build.file = Some(file);
                loaded
            }
        };
        let k = plan.k.max(1);
        let allow = plan.allowed_share.map(|share| {
            let mut sequence = Sequence::new(ALLOW_SEED);
            let drawn: Vec<bool> = (0..rows.len()).map(|_| sequence.share() <= share).collect();
            RowSet::from_fn(rows.len(), |row| drawn[row])
        });
        let edges = pool.install(|| {
            let queries = (0..queries.len()).into_par_iter().map(|query| queries.row(query));
            queries.map(|query| edge(&rows, query, k, allow.as_ref())).collect()
        });
        Ok(Self { graph, build, queries, k, allow, edges, rows })
    }

    /// What the build took.
    #[must_use]
    pub fn build_report(&self) -> &BuildReport {
        &self.build
    }

    /// Asks all queries `rounds` times at one width, on this thread.
    ///
    /// # Errors
    /// [`BenchError`], when a search fails.
    pub fn measure(&self, ef: usize, rounds: usize) -> Result<Point, BenchError> {
        let count = self.queries.len();
        let mut best = f64::INFINITY;
        let mut answers = Vec::new();
        let mut visited = 0;
        for _ in 0..rounds.max(1) {
            answers.clear();
            visited = 0;
            let (cpu, started) = (system::thread_seconds(), Instant::now());
            for query in 0..count {
                let ask = Ask { allow: self.allow.as_ref(), ..Ask::new(self.k, ef) };
                let found = self.graph.search(self.queries.row(query), &ask);
                let found = found.map_err(|error| BenchError(error.to_string()))?;
                visited += found.visited;
                answers.push(found.near);
            }
            let wall = started.elapsed().as_secs_f64();
            let cpu = cpu.zip(system::thread_seconds()).map(|(before, now)| now - before);
            best = best.min(cpu.unwrap_or(wall));
        }
        let right: usize =
            answers.iter().enumerate().map(|(query, near)| self.right(query, near)).sum();
        let rows = self.allow.as_ref().map_or(self.rows.len(), RowSet::len);
        let wanted = self.k.min(rows) * count;
        Ok(Point {
            ef,
            recall: right as f64 / wanted.max(1) as f64,
            queries_per_second: count as f64 / best,
            visited: visited as f64 / count.max(1) as f64,
        })
    }

    /// Measures each width.
    ///
    /// # Errors
    /// [`BenchError`], when a search fails.
    pub fn sweep(&self, widths: &[usize], rounds: usize) -> Result<Report, BenchError> {
        let points: Result<_, _> = widths.iter().map(|&ef| self.measure(ef, rounds)).collect();
        Ok(Report { build: self.build.clone(), k: self.k, points: points? })
    }

    fn right(&self, query: usize, near: &[Near]) -> usize {
        let vector = self.queries.row(query);
        let reaches = |near: &&Near| {
            kernel::dot(vector, self.rows.row(near.row as usize)) >= self.edges[query]
        };
        near.iter().filter(reaches).count().min(self.k)
    }
}

fn through_file(
    builder: &dyn Builder,
    graph: &dyn Graph,
    path: &Path,
) -> Result<(Box<dyn Graph>, FileReport), BenchError> {
    let started = Instant::now();
    graph.save(path).map_err(|error| BenchError(error.to_string()))?;
    let save_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let loaded = builder.load(path).map_err(|error| BenchError(error.to_string()))?;
    let load_seconds = started.elapsed().as_secs_f64();
    let bytes = path.metadata().map_err(|error| BenchError(error.to_string()))?.len();
    Ok((loaded, FileReport { bytes, save_seconds, load_seconds }))
}

/// Score of the k-th nearest row.
fn edge(rows: &Matrix, query: &[f32], k: usize, allow: Option<&RowSet>) -> f32 {
    let mut scores = vec![0.0; rows.len()];
    kernel::dot_rows(query, rows.values(), &mut scores);
    if let Some(allow) = allow {
        let mut row = 0..;
        scores.retain(|_| row.next().is_some_and(|row| allow.contains(row)));
    }
    if scores.is_empty() {
        return f32::NEG_INFINITY;
    }
    let last = k.min(scores.len()) - 1;
    *scores.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1
}

impl Report {
    /// The figures as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "build": self.build, "k": self.k, "points": self.points })
    }

    /// The first width that finds this share of the nearest rows.
    #[must_use]
    pub fn reaching(&self, recall: f64) -> Option<&Point> {
        self.points.iter().find(|point| point.recall >= recall)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = &self.build;
        write!(f, "{} rows of {}, ", build.rows, build.dims)?;
        write!(f, "{} threads: {:.2} s", build.threads, build.wall_seconds)?;
        if let Some(cpu) = build.cpu_seconds {
            write!(f, ", {cpu:.2} CPU s")?;
        }
        write!(f, ", {:.0} bytes a row", build.bytes_per_row)?;
        if let Some(resident) = build.resident_bytes_per_row {
            write!(f, " ({resident:.0} resident)")?;
        }
        if let Some(FileReport { bytes, save_seconds, load_seconds }) = &build.file {
            write!(f, "; file of {bytes} bytes saved in {save_seconds:.2} s, ")?;
            write!(f, "loaded in {load_seconds:.2} s")?;
        }
        writeln!(f, "\n\n| ef | recall@{} | queries/s | visited |\n|---|---|---|---|", self.k)?;
        for point in &self.points {
            let Point { ef, recall, queries_per_second, visited } = point;
            writeln!(f, "| {ef} | {recall:.4} | {queries_per_second:.0} | {visited:.0} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
