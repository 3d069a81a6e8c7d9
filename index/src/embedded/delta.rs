//! The newest rows of a slot, which no segment has yet. They are scanned.
//!
//! A published delta never changes. The writing thread copies the little that a commit touches: the
//! list of chunks, and the last chunk.

use std::{ops::Range, sync::Arc};

use super::{rows::Matrix, view::Entry};
use crate::types::VectorStorage;

/// Floats per chunk, about: small enough to be copied at each commit, long enough to be scanned.
const CHUNK_FLOATS: usize = 1 << 16;

/// Some rows.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) vectors: Matrix,
}

/// Rows in the order of their versions.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    pub(crate) dims: usize,
    pub(crate) storage: VectorStorage,
    pub(crate) chunk_rows: usize,
    /// All full but the last.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) rows: usize,
}

impl Delta {
    pub(crate) fn new(dims: usize, storage: VectorStorage) -> Self {
        let chunk_rows = (CHUNK_FLOATS / dims).clamp(16, 4096);
        Self { dims, storage, chunk_rows, chunks: Vec::new(), rows: 0 }
    }

    /// Appends a row. Copies the last chunk if a published view shares it.
    pub(crate) fn push(&mut self, entry: Arc<Entry>, vector: &[f32]) {
        let last = match self.chunks.pop() {
            Some(chunk) if chunk.entries.len() < self.chunk_rows => chunk,
            full => {
                self.chunks.extend(full);
                Arc::new(self.empty_chunk())
            }
        };
        let mut last = Arc::try_unwrap(last).unwrap_or_else(|shared| {
            let mut copy = self.empty_chunk();
            copy.entries.extend_from_slice(&shared.entries);
            copy.vectors.extend(&shared.vectors);
            copy
        });
        last.entries.push(entry);
        last.vectors.push(vector);
        self.chunks.push(Arc::new(last));
        self.rows += 1;
    }

    fn empty_chunk(&self) -> Chunk {
        Chunk {
            entries: Vec::with_capacity(self.chunk_rows),
            vectors: Matrix::with_capacity(self.dims, self.storage, self.chunk_rows),
        }
    }

    /// The chunk of a row, and the row's number in it.
    pub(crate) fn place(&self, row: usize) -> (&Chunk, usize) {
        (&self.chunks[row / self.chunk_rows], row % self.chunk_rows)
    }

    /// A row's entry.
    pub(crate) fn entry(&self, row: usize) -> &Arc<Entry> {
        &self.chunks[row / self.chunk_rows].entries[row % self.chunk_rows]
    }

    /// A row's entry; its vector goes into `out`.
    pub(crate) fn row(&self, row: usize, out: &mut Vec<f32>) -> &Arc<Entry> {
        let chunk = &self.chunks[row / self.chunk_rows];
        let at = row % self.chunk_rows;
        out.clear();
        chunk.vectors.read(at..at + 1, out);
        &chunk.entries[at]
    }

    /// Whether all rows of an older one are here in their places. Rows are appended, and taken out in
    /// order, so if the last one is in its place all are.
    pub(crate) fn covers(&self, older: &Self) -> bool {
        older
            .rows
            .checked_sub(1)
            .is_none_or(|last| last < self.rows && Arc::ptr_eq(self.entry(last), older.entry(last)))
    }

    /// Some of the rows that are visible, alone.
    pub(crate) fn visible(&self, rows: Range<usize>, generation: u64) -> Self {
        let mut kept = Self::new(self.dims, self.storage);
        let mut vector = Vec::with_capacity(self.dims);
        for row in rows {
            let entry = self.row(row, &mut vector);
            if entry.visible(generation) {
                kept.push(Arc::clone(entry), &vector);
            }
        }
        kept
    }
}
