//! # qexact-kernels
//!
//! Linear and convolution layers on 8-bit codes for AVX2, AVX-VNNI and AVX-512-VNNI, with fused bias, ReLU and
//! requantization: the same bits as [`qexact_reference`] for every input, on every CPU.
//!
//! ```
//! use qexact_kernels::{Isa, Plan};
//! use qexact_reference::layer::LayerParts;
//! use qexact_reference::requantize::{Bias, F32Mul};
//! use qexact_reference::{CodeType, Input, Layer, Linear, Output, Rule};
//!
//! let rule = Rule::F32Mul(F32Mul::new(vec![0.01], Bias::I32(vec![100, -100]), 3, CodeType::U8)?.relu());
//! let layer = Layer::new(LayerParts {
//!     shape: Linear { rows: 1, in_features: 4, out_features: 2 }.into(),
//!     input: CodeType::U8,
//!     input_zero_point: 128,
//!     weight: &[1, -2, 3, -4, 127, 127, -128, -128],
//!     weight_zero_point: &[0],
//!     rule: &rule,
//! })?;
//! let plan = Plan::new(&layer, Isa::best())?;                       // chooses a kernel, packs the weights
//! let (mut y, mut scratch) = ([0; 2], plan.scratch());              // buffers are the caller's
//! plan.run(&plan.region(1)?, Input::U8(&[255, 0, 7, 128]), Output::U8(&mut y), &mut scratch)?;
//! assert_eq!(y, [4, 156]);
//! # Ok::<(), qexact_reference::Error>(())
//! ```
//!
//! A [`Plan`] never changes while it runs: threads share it, each with scratch memory of its own and any
//! [`Region`](qexact_reference::Region) of the output.
//!
//! Weights of 4, 2 and 1 bits stay packed in memory where that is faster ([`Plan::from_packed`]); binary weights and
//! activations are XORed and counted ([`BinaryLinear`]).
//!
//! Operators around layers (quantize, sums, pools, …) are in [`elementwise`], transposed convolutions in
//! [`TransposedPlan`].
//!
//! What makes the bits equal: products are summed in int32, which is associative even where it wraps; AVX2
//! multiplies in 16 bits, where 8-bit codes cannot saturate, or in 8 where a layer's weights prove that no input does
//! ([`Choice::for_layer`]); and requantization performs the same IEEE operations, in the same order, as the scalar rule.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod aligned;
mod band_copy;
mod binary;
mod choose;
mod drive;
mod element;
pub mod elementwise;
mod epilogue;
mod finish;
mod gather;
mod isa;
mod memory;
mod micro;
mod pack;
mod plan;
mod requantizer;
mod safe;
mod spans;
mod taps;
mod transposed;
mod work;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use binary::BinaryLinear;
pub use choose::{Choice, choose, choose_narrow, kernels};
pub use isa::{Isa, IsaError, IsaName};
pub use plan::Plan;
pub use qexact_reference as reference;
pub use requantizer::Requantizer;
pub use transposed::TransposedPlan;
