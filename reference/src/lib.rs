//! # qexact-reference
//!
//! What the right bits are: the arithmetic of quantized inference as plain scalar code, one function
//! a rule. Nothing here is fast and nothing is clever; kernels are checked against it, bit for bit,
//! and every function cites its rule in
//! [`NUMERICS.md`](https://github.com/qexact/qexact/blob/main/reference/NUMERICS.md).
//!
//! | module | rules |
//! |---|---|
//! | [`float`] | R1: the primitives `rne`, `cvt`, `fma` |
//! | [`quantization`] | R2 quantize, R3 dequantize |
//! | [`layer`] | R4 accumulators of linear and convolution layers, R5 what the epilogue of a layer does |
//! | [`requantize`] | R6 `F32Mul` and its parameters R7, R8; R9 `F32Out` |
//! | [`batch_norm`] | R10 |
//! | [`pool`] | R11 max pool, R12 average pools |
//! | [`elementwise`] | R13 ReLU |
//! | [`layout`] | R14 orders of elements |
//! | [`saturation`] | R15 what a machine computes whose pairs of products saturate |
//! | [`requantize`] | R16 `F32Real`, R17 `Q31Double`, R18 `Q31Single`, R19 `F64`, R20 `Pow2` |
//! | [`preset`] | how runtimes derive the parameters of rules: R7, R21 |
//! | [`quantizer`] | R22 quantize and R23 dequantize as every runtime does it |
//! | [`activation`] | R24 ranges of codes that fused activations leave |
//! | [`add`], [`mul`] | R25, R26: sums and products of codes |
//! | [`table`] | R27: functions of one code |
//! | [`recode`] | R28: codes of one scale to codes of another |
//! | [`concat`](mod@concat) | R29 |
//! | [`mean`] | R30: averages of runtimes other than PyTorch's own kernels |
//! | [`dynamic`] | R31: scale and zero point from data |
//! | [`movement`] | R40, R41: padding, permutations, shuffles, splits, nearest neighbours |
//! | [`transposed`] | R42: transposed convolutions |
//! | [`narrow`] | R43 packed codes, R44 products of binary codes |
//! | [`observer`] | R32–R39 scales, zero points and codes from float weights and ranges |
//!
//! Layouts: activations are N, spatial axes, C (NHWC); weights are O, kernel axes, I (OHWI).
//! The crate is `no_std` (with `alloc`), has no dependencies and no `unsafe`.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod activation;
pub mod add;
pub mod batch_norm;
pub mod broadcast;
pub mod concat;
pub mod dynamic;
pub mod elementwise;
mod error;
mod fixed_point;
pub mod float;
pub mod layer;
pub mod layout;
pub mod mean;
pub mod movement;
pub mod mul;
pub mod narrow;
pub mod observer;
mod operand;
pub mod pool;
pub mod preset;
pub mod quantization;
pub mod quantizer;
pub mod recode;
pub mod requantize;
pub mod saturation;
pub mod shape;
pub mod table;
pub mod transposed;

pub use error::Error;
pub use layer::{Layer, Region};
pub use narrow::{NarrowType, PackedCodes};
pub use operand::{Addend, Code, Input, Output};
pub use quantization::{CodeType, Quantization};
pub use requantize::Rule;
pub use shape::{Axis, Conv, Linear};
