//! Rows grouped by equal vectors. A point of a graph stands for one group: equal vectors as points
//! of their own would link to each other and to nothing else.

use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

use super::Rows;

/// The rows of each point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Points {
    /// The rows of point 0, then those of point 1, and so on.
    rows: Vec<u32>,
    /// Rows of point `p` are `rows[starts[p]..starts[p + 1]]`; `None` while each point has one row.
    starts: Option<Vec<u32>>,
}

impl Points {
    /// Groups rows, in the order in which they first appear.
    pub(crate) fn collapse(rows: &dyn Rows) -> Self {
        let bytes = |row: u32| bytemuck::cast_slice::<f32, u8>(rows.row(row as usize));
        let hasher = RandomState::new();
        let mut hashed: Vec<(u64, u32)> = (0..rows.len() as u32)
            .into_par_iter()
            .map(|row| (hasher.hash_one(bytes(row)), row))
            .collect();
        hashed.par_sort_unstable();
        let mut first_equal: Vec<u32> = (0..rows.len() as u32).collect();
        for same_hash in hashed.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
            let mut firsts: Vec<u32> = Vec::new();
            for &(_, row) in same_hash {
                match firsts.iter().find(|&&first| bytes(first) == bytes(row)) {
                    Some(&first) => first_equal[row as usize] = first,
                    None => firsts.push(row),
                }
            }
        }
        // From first rows to numbers: a first row comes before those equal to it.
        let mut groups = 0;
        let mut group_of = first_equal;
        for row in 0..group_of.len() {
            let first = group_of[row] as usize;
            group_of[row] = if first == row {
                groups += 1;
                groups - 1
            } else {
                group_of[first]
            };
        }
        if groups as usize == group_of.len() {
            return Self { rows: group_of, starts: None };
        }
        Self::from_groups(&group_of, groups as usize)
    }

    /// From the group of each row.
    fn from_groups(groups: &[u32], count: usize) -> Self {
        let mut starts = vec![0_u32; count + 1];
        for &group in groups {
            starts[group as usize + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; groups.len()];
        for (row, &group) in groups.iter().enumerate() {
            let at = &mut next[group as usize];
            rows[*at as usize] = row as u32;
            *at += 1;
        }
        Self { rows, starts: Some(starts) }
    }

    /// From its two lists, if they are the rows below some number, each once, in groups that are
    /// not empty.
    pub(crate) fn from_parts(rows: Vec<u32>, starts: Option<Vec<u32>>) -> Option<Self> {
        let mut seen = vec![false; rows.len()];
        for &row in &rows {
            let seen = seen.get_mut(row as usize)?;
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        if let Some(starts) = &starts {
            let whole = starts.first() == Some(&0) && starts.last() == Some(&(rows.len() as u32));
            if !whole || starts.windows(2).any(|pair| pair[0] >= pair[1]) {
                return None;
            }
        }
        Some(Self { rows, starts })
    }

    /// Its two lists.
    pub(crate) fn parts(&self) -> (&[u32], Option<&[u32]>) {
        (&self.rows, self.starts.as_deref())
    }

    /// The same points with other numbers: `order` lists the present ones.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        if self.starts.is_none() {
            let rows = order.iter().map(|&point| self.rows[point as usize]).collect();
            return Self { rows, starts: None };
        }
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut starts = Vec::with_capacity(order.len() + 1);
        starts.push(0);
        for &point in order {
            rows.extend_from_slice(self.rows(point));
            starts.push(rows.len() as u32);
        }
        Self { rows, starts: Some(starts) }
    }

    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.starts.as_ref().map_or(self.rows.len(), |starts| starts.len() - 1)
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The rows of a point; none past the last.
    #[inline(always)]
    pub(crate) fn rows(&self, point: u32) -> &[u32] {
        let point = point as usize;
        let range = match &self.starts {
            None => point..point + 1,
            Some(starts) => match starts.get(point..point + 2) {
                Some(ends) => ends[0] as usize..ends[1] as usize,
                None => return &[],
            },
        };
        self.rows.get(range).unwrap_or_default()
    }

    /// The first row of each point.
    pub(crate) fn firsts(&self) -> Vec<u32> {
        (0..self.len() as u32).filter_map(|point| self.rows(point).first().copied()).collect()
    }

    /// The point of each row.
    pub(crate) fn by_row(&self) -> Vec<u32> {
        let mut by_row = vec![0; self.rows.len()];
        for point in 0..self.len() as u32 {
            for &row in self.rows(point) {
                by_row[row as usize] = point;
            }
        }
        by_row
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * (self.rows.capacity() + self.starts.as_ref().map_or(0, Vec::capacity))
    }
}
