//! From float weights and seen values to scales, zero points and codes: what runs before inference (rules R32–R39).
//!
//! | module | rules |
//! |---|---|
//! | [`Range`], [`CodeRange`] | R32: what was seen, and the codes it is mapped to |
//! | [`affine`], [`symmetric`] | R33, R34: PyTorch's observers |
//! | [`choose`] | R35: parameters of dynamic quantization |
//! | [`quantize_weights`] | R36 |
//! | [`quantize_bias`] | R37: integer biases |
//! | [`fold`] | R38: a BatchNorm folded into the layer before it |
//! | [`textbook`] | R39: the formulas as text books give them |
//!
//! ```
//! use qexact_reference::CodeType;
//! use qexact_reference::observer::{CodeRange, EPS, Range, affine};
//!
//! let seen = Range::of(&[-1.0, 0.5, 2.0])?;
//! let quantization = affine(seen, CodeRange::all(CodeType::U8), EPS)?;
//! assert_eq!((quantization.scale(), quantization.zero_point()), (f64::from(3.0f32 / 255.0), 85));
//! # Ok::<(), qexact_reference::Error>(())
//! ```

mod bias;
mod codes;
pub mod fold;
mod parameters;
mod range;
pub mod textbook;
mod weights;

pub use bias::{BiasForm, quantize_bias};
pub use codes::CodeRange;
pub use parameters::{EPS, affine, choose, symmetric};
pub use range::Range;
pub use weights::quantize_weights;
