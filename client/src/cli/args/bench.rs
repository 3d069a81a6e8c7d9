//! What can be said to `diptych bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// A load.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// What is called.
    #[arg(value_enum)]
    pub(crate) call: BenchCall,
    /// Open loop: so many calls a second are begun by a schedule, whatever becomes of those before; times count from the schedule.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, group = "mode")]
    pub(crate) rate: Option<f64>,
    /// Closed loop: so many callers, each with one call at a time [default: 1].
    #[arg(long, value_name = "N", group = "mode", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) callers: Option<u32>,
    /// Find what the server can do: ever more callers, then open loops near what they reached. --duration is that of a step.
    #[arg(long, group = "mode")]
    pub(crate) find_capacity: bool,
    /// How the calls of an open loop are apart.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub(crate) arrivals: Arrivals,
    /// Time that is measured, such as 30s or 2m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Time before that, in which calls are made and not counted.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// What to ask with: JSON lines, a text file with a query on each line, a picture, or a folder of pictures [default: made up].
    #[arg(long, value_name = "PATH")]
    pub(crate) queries: Option<PathBuf>,
    /// Words of a made-up text.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) words: u32,
    /// Width and height of made-up pictures.
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) side: u32,
    /// Chooses what is made up, the order of queries and the schedule.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// What a search by vector finds.
    #[arg(long, value_enum, default_value_t = super::Target::Image)]
    pub(crate) target: super::Target,
    /// Connections to each server; one carries 1,000 calls at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) connections: u32,
    /// Threads of this tool.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// Calls under way above which an open loop drops the next one, counted as not sent.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Send refused calls again as the client library does; without it each call is sent once.
    #[arg(long)]
    pub(crate) retries: bool,
    /// A call sent so long after its time is late; with more than one in a hundred the tool did not keep the schedule.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub(crate) late: Duration,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchCall {
    /// EmbedText.
    EmbedText,
    /// EmbedImage.
    EmbedImage,
    /// SearchTextToImage.
    TextToImage,
    /// SearchImageToText.
    ImageToText,
    /// Search by a vector in the shared space.
    Vector,
}

/// How calls are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// At random, as those of many callers who do not know each other.
    Poisson,
    /// Evenly.
    Fixed,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if rate > 0.0 && rate <= 1e6 {
        Ok(rate)
    } else {
        Err("must be above 0, at most 1000000".to_owned())
    }
}
