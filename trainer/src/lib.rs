//! Pictures and texts to a bundle: data, objectives, fit, eval, export.
//!
//! - [`prepare`] turns sources into the Parquet [`shards`] that everything else reads.
//! - [`run_file`] is a run as data; [`fit`] carries it out: [`loader`] makes batches ([`corpus`],
//!   [`augment`]), an [`objective`] turns them into losses, [`optim`] moves the variables along
//!   [`schedule`] on a [`device`], [`checkpoint`] keeps the run resumable, [`report`] shows it;
//!   [`seeds`] repeats it.
//! - [`eval`] measures a checkpoint or a bundle ([`phrase_check`] keeps its phrases honest);
//!   [`export`] writes the bundle, [`import`] one from weights at hand, [`heads`] one whose heads stand on a
//!   checkpoint of others; [`inspect`] tells what is in one.
//! - [`generate`] makes pictures and texts of a trained run's codes; [`sheet`] shows them.
//! - [`sample`] packs the pictures and names that the server carries.
//! - [`allocator`] keeps the memory of one step for the next.

pub mod allocator;
pub mod augment;
pub mod checkpoint;
pub mod corpus;
pub mod device;
pub mod encode;
pub mod error;
pub mod eval;
pub mod export;
pub mod fit;
pub mod generate;
pub mod heads;
pub mod import;
pub mod inspect;
pub mod loader;
pub mod objective;
pub mod optim;
pub mod phrase_check;
pub mod prepare;
pub mod preprocessing;
pub mod report;
pub mod run_file;
pub mod sample;
pub mod schedule;
pub mod seeds;
pub mod shards;
pub mod sheet;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
