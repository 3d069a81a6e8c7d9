//! An operation with packed weights, with or without a residual, as candle takes it.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::no_gradient;
use crate::ops::real::elements;

/// One operation on elements that lie one after the other.
pub(super) trait Forward: Send + Sync + 'static {
    const NAME: &'static str;

    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> (CpuStorage, Shape);
}

/// The operation on `x`, onto a residual of the result's shape where there is one.
pub(super) fn onto<F: Forward>(op: F, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    match residual {
        None => x.contiguous()?.apply_op1(Op(op)),
        Some(residual) => x.contiguous()?.apply_op2(&residual.contiguous()?, Op(op)),
    }
}

struct Op<F>(F);

impl<F: Forward> CustomOp1 for Op<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.0.forward(elements(x, layout)?, None))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        no_gradient(F::NAME)
    }
}

impl<F: Forward> CustomOp2 for Op<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.0.forward(elements(x, layout)?, Some(elements(residual, residual_layout)?)))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        no_gradient(F::NAME)
    }
}
