//! Sums of table rows.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::real::{Real, elements, for_real, native, view};

/// Row b of the result is the sum of the rows `ids[offsets[b]..offsets[b + 1]]` of `table` (V, D);
/// zeros where that range is empty. `offsets` has one entry more than there are rows: (B, D).
///
/// # Errors
/// If an id is not below V, or the offsets do not rise from 0 to the number of ids.
pub fn embedding_bag(table: &Tensor, ids: &[u32], offsets: &[u32]) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    let rising = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    let spans =
        offsets.first() == Some(&0) && offsets.last().map(|&o| o as usize) == Some(ids.len());
    if !rising || !spans {
        candle_core::bail!("embedding_bag: offsets do not rise from 0 to {}", ids.len());
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        candle_core::bail!("embedding_bag: id {id} in a table of {rows} rows");
    }
    if !native(table) {
        return composed(table, ids, offsets);
    }
    let bag = EmbeddingBag { ids: ids.to_vec(), offsets: offsets.to_vec(), width };
    table.contiguous()?.apply_op1(bag)
}

/// The same function from candle's operations, for devices without one of ours.
fn composed(table: &Tensor, ids: &[u32], offsets: &[u32]) -> Result<Tensor> {
    let (device, bags) = (table.device(), offsets.len() - 1);
    let sums = Tensor::zeros((bags, table.dim(1)?), table.dtype(), device)?;
    if ids.is_empty() {
        return Ok(sums);
    }
    let mut bag_of = Vec::with_capacity(ids.len());
    for (bag, pair) in (0_u32..).zip(offsets.windows(2)) {
        bag_of.extend((pair[0]..pair[1]).map(|_| bag));
    }
    let rows = table.index_select(&Tensor::new(ids, device)?, 0)?;
    sums.index_add(&Tensor::new(bag_of, device)?, &rows, 0)
}

struct EmbeddingBag {
    ids: Vec<u32>,
    offsets: Vec<u32>,
    width: usize,
}

impl EmbeddingBag {
    fn bag(&self, index: usize) -> &[u32] {
        &self.ids[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    fn forward<T: Real>(&self, table: &[T]) -> Vec<T> {
        let bags = self.offsets.len() - 1;
        let mut sums = vec![T::zero(); bags * self.width];
        sums.par_chunks_mut(self.width.max(1)).enumerate().for_each(|(bag, sums)| {
            for &id in self.bag(bag) {
                let row = &table[id as usize * self.width..][..self.width];
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += *value;
                }
            }
        });
        sums
    }

    /// One thread in the order of the bags: repeated ids add up in one order only, and the table's
    /// traffic leaves little to gain from more.
    fn backward<T: Real>(&self, table: usize, dy: &[T]) -> Vec<T> {
        let mut dtable = vec![T::zero(); table];
        for (bag, dy) in dy.chunks_exact(self.width.max(1)).enumerate() {
            for &id in self.bag(bag) {
                let row = &mut dtable[id as usize * self.width..][..self.width];
                for (sum, value) in row.iter_mut().zip(dy) {
                    *sum += *value;
                }
            }
        }
        dtable
    }
}

impl CustomOp1 for EmbeddingBag {
    fn name(&self) -> &'static str {
        "embedding_bag"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = Shape::from((self.offsets.len() - 1, self.width));
        for_real!(table.dtype(), "embedding_bag", T => {
            let sums = self.forward::<T>(elements(table, layout)?);
            Ok((T::to_cpu_storage_owned(sums), shape))
        })
    }

    fn bwd(&self, table: &Tensor, _sums: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(table.dtype(), "embedding_bag", T => {
            let dtable = self.backward::<T>(table.elem_count(), &view(&dy)?);
            Tensor::from_vec(dtable, table.shape(), table.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use proptest::prelude::*;

    use super::{composed, embedding_bag};
    use crate::ops::gradcheck::{largest_error, values};

    /// Bags of ids below 7, some of them empty, with repetitions.
    fn bags() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
        prop::collection::vec(prop::collection::vec(0..7_u32, 0..5), 1..6).prop_map(|bags| {
            let mut offsets = vec![0];
            for bag in &bags {
                offsets.push(offsets[offsets.len() - 1] + bag.len() as u32);
            }
            (bags.concat(), offsets)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn equals_the_composition_and_has_its_gradient((ids, offsets) in bags()) {
            let table = values(1, &[7, 3]).unwrap();
            let ours = embedding_bag(&table, &ids, &offsets).unwrap().to_vec2::<f64>().unwrap();
            let slow = composed(&table, &ids, &offsets).unwrap().to_vec2::<f64>().unwrap();
            for (ours, slow) in ours.concat().iter().zip(&slow.concat()) {
                prop_assert!((ours - slow).abs() < 1e-12);
            }
            let bag = |t: &[Tensor]| embedding_bag(&t[0], &ids, &offsets);
            let table = [table];
            prop_assert!(largest_error(&table, bag).unwrap() < 1e-8);
            // Without an id nothing of the composition depends on the table.
            let slow = |t: &[Tensor]| composed(&t[0], &ids, &offsets);
            prop_assert!(ids.is_empty() || largest_error(&table, slow).unwrap() < 1e-8);
        }
    }

    #[test]
    fn an_empty_bag_is_zero() {
        let table = values(1, &[4, 2]).unwrap();
        let sums = embedding_bag(&table, &[3, 3], &[0, 0, 2, 2]).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!((&sums[0], &sums[2]), (&vec![0.0; 2], &vec![0.0; 2]));
        assert_ne!(sums[1], vec![0.0; 2]);
    }

    #[test]
    fn refuses_ids_and_offsets_out_of_range() {
        let table = values(1, &[4, 2]).unwrap();
        for (ids, offsets) in
            [(&[4][..], &[0, 1][..]), (&[1, 2], &[0, 1]), (&[1, 2], &[0, 2, 1]), (&[], &[])]
        {
            assert!(embedding_bag(&table, ids, offsets).is_err(), "{ids:?} {offsets:?}");
        }
    }
}
