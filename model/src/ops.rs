//! Differentiable operations that training relies on, each with a forward and a backward of its own.
//!
//! Candle detaches some fused layers from the graph, gets a few gradients wrong and runs the
//! gradient of a convolution through plain loops, so nothing in a network's path is used untested:
//! every operation here has a numeric-gradient test in f64. Pictures are laid out channels last,
//! (B, H, W, C): a patch is then a few contiguous runs, and channels vectorise.
//!
//! On the CPU the operations are [`candle_core::CustomOp1`] and its kin: parallel over samples with
//! serial products inside, work split by shape alone, so that results are the same to the bit for
//! any number of threads. On other devices, and in half precision, the same functions are composed
//! from candle's operations, of which only those are used whose gradients were found right. Half
//! precision is for products: weights are cast to it where they are used, and what sums over many
//! elements (norms, pooling) does so in f32.
//!
//! | file | what |
//! |---|---|
//! | `conv2d` | convolution; its 1 x 1 core is also `linear` |
//! | `norm` | group normalisation with fused residual and ReLU, layer normalisation |
//! | `activation` | ReLU |
//! | `embedding_bag` | sums of table rows |
//! | `pooling` | mean, deviation and maximum over positions |
//! | `palette` | the colours of a picture |
//! | `contrast` | unit vectors, log-softmax with forbidden entries |
//! | `gradcheck` | numeric gradients, for tests |
//! | [`packed`] | forward only, fast: what frozen towers are made of |

mod activation;
mod contrast;
mod conv2d;
mod embedding_bag;
pub mod gradcheck;
mod linear;
mod matrix;
mod norm;
pub mod packed;
pub(crate) mod palette;
mod pooling;
mod real;

pub use activation::relu;
pub use contrast::{cross_entropy, l2_normalize, log_softmax, masked_log_softmax};
pub use conv2d::conv2d;
pub use embedding_bag::embedding_bag;
pub use linear::{linear, similarity};
pub use norm::{Activation, NORM_EPSILON, group_norm, layer_norm};
pub use pooling::{mean_pool, pool_statistics};
pub use real::widen;
