//! Memory in whole cache lines, so that a row starts where the processor fetches.

use bytemuck::{Pod, Zeroable};

use super::huge;

/// Bytes that one fetch brings.
pub(super) const LINE: usize = 64;

/// One cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; LINE]);

/// Lines of zeros.
pub(super) fn zeroed(count: usize) -> Vec<Line> {
    let mut lines = huge::with_room(count);
    lines.resize(count, Line([0; LINE]));
    lines
}
