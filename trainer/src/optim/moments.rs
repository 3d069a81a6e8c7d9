//! The moments of one variable, where its update needs them.

use candle_core::{Device, Tensor, Var};

use super::update::{self, Constants};
use crate::error::Result;

/// First and second moment of one variable.
#[derive(Debug, Clone)]
pub(super) enum Moments {
    /// In row-major order, for the update in place.
    OnCpu { first: Vec<f32>, second: Vec<f32> },
    /// Shaped as the variable and beside it, for the update from candle's operations.
    OnDevice { first: Tensor, second: Tensor },
}

impl Moments {
    /// Zeros for `var`.
    pub(super) fn zeros(var: &Var) -> Result<Self> {
        if var.device().is_cpu() {
            let zeros = vec![0.0; var.elem_count()];
            return Ok(Self::OnCpu { first: zeros.clone(), second: zeros });
        }
        Ok(Self::OnDevice { first: var.zeros_like()?, second: var.zeros_like()? })
    }

    /// From tensors of `var`'s shape on any device, as [`Self::tensors`] gives them.
    pub(super) fn from_tensors(var: &Var, first: &Tensor, second: &Tensor) -> Result<Self> {
        if var.device().is_cpu() {
            let flat = |moment: &Tensor| moment.flatten_all()?.to_vec1::<f32>();
            return Ok(Self::OnCpu { first: flat(first)?, second: flat(second)? });
        }
        let [first, second] = [first, second].map(|moment| moment.to_device(var.device()));
        Ok(Self::OnDevice { first: first?, second: second? })
    }

    /// First and second moment in the shape of `var`, on the CPU.
    pub(super) fn tensors(&self, var: &Var) -> Result<[Tensor; 2]> {
        let shape = var.shape();
        match self {
            Self::OnCpu { first, second } => Ok([
                Tensor::from_slice(first, shape, &Device::Cpu)?,
                Tensor::from_slice(second, shape, &Device::Cpu)?,
            ]),
            Self::OnDevice { first, second } => {
                Ok([first.to_device(&Device::Cpu)?, second.to_device(&Device::Cpu)?])
            }
        }
    }

    /// One update of `var` and of the moments with `gradient` (same shape, f32).
    pub(super) fn update(
        &mut self,
        var: &Var,
        gradient: &Tensor,
        constants: Constants,
    ) -> Result<()> {
        match self {
            Self::OnCpu { first, second } => {
                update::in_place(var.as_tensor(), gradient, (first, second), constants)
            }
            Self::OnDevice { first, second } => {
                update::composed(var, gradient, (first, second), constants)
            }
        }
    }
}
