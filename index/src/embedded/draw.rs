//! Rows drawn at random from a view.

use std::collections::BinaryHeap;

use super::view::View;
use crate::{
    engine::{Draw, Drawn},
    graph::Sequence,
    store::key::Slot,
};

/// Rows of one slot, each at most once: those whose version gets the least numbers from the seed,
/// so that the draw does not depend on where rows lie.
pub(crate) fn draw(view: &View, draw: Draw) -> Drawn {
    let Some(slot) = view.slot(Slot::new(draw.modality, draw.space)) else {
        return Drawn { rows: Vec::new(), of: 0 };
    };
    let number =
        |version: u64| Sequence::new(draw.seed.rotate_left(32) ^ version).below(usize::MAX);
    let mut least: BinaryHeap<(usize, usize)> = BinaryHeap::new();
    let mut of = 0;
    for (row, entry) in slot.visible(view.generation) {
        of += 1;
        let drawn = (number(entry.version), row);
        if least.len() < draw.count {
            least.push(drawn);
        } else if let Some(mut worst) = least.peek_mut()
            && drawn < *worst
        {
            *worst = drawn;
        }
    }
    let rows = least.into_sorted_vec().into_iter().map(|(_, row)| {
        let mut vector = Vec::new();
        let entry = slot.row(row, &mut vector);
        (entry.id.clone(), vector)
    });
    Drawn { rows: rows.collect(), of }
}
