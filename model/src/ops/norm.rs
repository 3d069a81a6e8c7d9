//! Group and layer normalisation, with the residual sum and the ReLU that follow fused in.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

use self::kernel::Norm;
use super::real::{Real, elements, for_real, native, view, widen};

mod kernel;

/// Added to the variance before its root.
pub const NORM_EPSILON: f64 = 1e-5;

/// What follows a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(0, y), with gradient 0 at 0.
    Relu,
}

/// Group normalisation (Wu and He 2018, eq. 1-7) of `x` (B, H, W, C) over positions and over the
/// channels of each of `groups` groups, times `affine`'s first row plus its second, (2, C); then
/// plus `residual` if given, of `x`'s shape; then `activation`. Same shape and type as `x`; in half
/// precision it is computed in f32, with `affine` as it is.
///
/// # Errors
/// If the shapes do not fit, or `groups` does not divide C.
pub fn group_norm(
    x: &Tensor,
    affine: &Tensor,
    groups: usize,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let fits = residual.is_none_or(|residual| residual.dims() == x.dims());
    if groups == 0 || !channels.is_multiple_of(groups) || affine.dims() != [2, channels] || !fits {
        candle_core::bail!(
            "group_norm: {:?} in {groups} groups with affine {:?} and residual {:?}",
            x.dims(),
            affine.dims(),
            residual.map(Tensor::dims)
        );
    }
    if !native(x) {
        return composed(x, affine, groups, residual, activation);
    }
    let (positions, epsilon) = (height * width, NORM_EPSILON);
    let op = Norm { batch, positions, channels, groups, activation, epsilon };
    let (x, affine) = (x.contiguous()?, affine.contiguous()?);
    match residual {
        Some(residual) => x.apply_op3(&affine, &residual.contiguous()?, op),
        None => x.apply_op2(&affine, op),
    }
}

/// Layer normalisation (Ba et al. 2016) of the rows of `x` (N, D), times `affine`'s first row plus
/// its second, (2, D).
///
/// # Errors
/// If the shapes do not fit.
pub fn layer_norm(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let x = x.reshape((rows, 1, 1, width))?;
    group_norm(&x, affine, 1, None, Activation::Identity)?.reshape((rows, width))
}

/// The normalisation of rows as a group normalisation of pictures with one position.
fn rows(elements: usize, channels: usize, epsilon: f64) -> Norm {
    let activation = Activation::Identity;
    Norm { batch: elements / channels, positions: 1, channels, groups: 1, activation, epsilon }
}

/// Layer normalisation of rows as wide as `affine`'s, with an epsilon of one's own.
pub(super) fn plain_rows<T: Real>(x: &[T], affine: &[T], epsilon: f64) -> Vec<T> {
    rows(x.len(), affine.len() / 2, epsilon).forward(x, affine, None)
}

/// Gradients of `x` (.., D) and of the affine part (2, D) of a layer normalisation. `dy` is contiguous.
pub(super) fn rows_gradients(
    x: &Tensor,
    affine: &Tensor,
    dy: &Tensor,
    epsilon: f64,
) -> Result<[Tensor; 2]> {
    let norm = rows(x.elem_count(), affine.dim(1)?, epsilon);
    for_real!(x.dtype(), "normalize", T => {
        let (dx, daffine) = norm.backward::<T>(&view(x)?, &view(affine)?, &view(dy)?);
        Ok([
            Tensor::from_vec(dx, x.shape(), x.device())?,
            Tensor::from_vec(daffine, affine.shape(), x.device())?,
        ])
    })
}

/// The same function from candle's operations.
fn composed(
    x: &Tensor,
    affine: &Tensor,
    groups: usize,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let grouped = widen(x)?.reshape((batch, height * width, groups, channels / groups))?;
    let mean = grouped.mean_keepdim((1, 3))?;
    let centred = grouped.broadcast_sub(&mean)?;
    let deviation = (centred.sqr()?.mean_keepdim((1, 3))? + NORM_EPSILON)?.sqrt()?;
    let mut y = centred.broadcast_div(&deviation)?.reshape(x.shape())?;
    y = y.broadcast_mul(&affine.get(0)?)?.broadcast_add(&affine.get(1)?)?;
    if let Some(residual) = residual {
        y = (y + widen(residual)?)?;
    }
    if activation == Activation::Relu {
        y = super::relu(&y)?;
    }
    y.to_dtype(x.dtype())
}

impl Norm {
    /// The output gradient where the activation let the value through.
    fn before_activation<T: Real>(&self, y: &[T], dy: &[T]) -> Vec<T> {
        match self.activation {
            Activation::Identity => dy.to_vec(),
            Activation::Relu => super::activation::gate(y, dy),
        }
    }

    /// Gradients of x, of the affine part and of the residual.
    fn gradients(
        &self,
        x: &Tensor,
        affine: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "group_norm", T => {
            let (dx, daffine, dz) = {
                let dz = self.before_activation::<T>(&view(y)?, &view(&dy)?);
                let (dx, daffine) = self.backward(&view(x)?, &view(affine)?, &dz);
                (dx, daffine, dz)
            };
            Ok([
                Tensor::from_vec(dx, x.shape(), x.device())?,
                Tensor::from_vec(daffine, affine.shape(), x.device())?,
                Tensor::from_vec(dz, x.shape(), x.device())?,
            ])
        })
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_real!(x.dtype(), "group_norm", T => {
            let x = elements::<T>(x, x_layout)?;
            let y = self.forward(x, elements(affine, affine_layout)?, None);
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, daffine, _] = self.gradients(x, affine, y, dy)?;
        Ok((Some(dx), Some(daffine)))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "group_norm_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_real!(x.dtype(), "group_norm", T => {
            let x = elements::<T>(x, x_layout)?;
            let residual = elements(residual, residual_layout)?;
            let y = self.forward(x, elements(affine, affine_layout)?, Some(residual));
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, daffine, dresidual] = self.gradients(x, affine, y, dy)?;
        Ok((Some(dx), Some(daffine), Some(dresidual)))
    }
}

#[cfg(test)]
mod tests;
