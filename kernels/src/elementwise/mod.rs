//! Operators around layers: the rules of [`reference`](crate::reference), element by element, on an instruction set.
//!
//! | here | rules | in the reference |
//! |---|---|---|
//! | [`quantize`], [`dequantize`] | R2, R3, R22, R23 | `quantizer` |
//! | [`Binary`] rules of [`Operand`]s, [`broadcast`](broadcast()) | R25, R26 | `add`, `mul`, `broadcast` |
//! | [`Lookup`] | R13, R27, R28: every function of one code | `table`, `recode`, `elementwise` |
//! | [`concat`](concat()) | R29 | `concat` |
//! | [`max_pool`], [`avg_pool`], [`adaptive_avg_pool`], [`mean_pool`] | R11, R12, R30 | `pool`, `mean` |
//! | [`batch_norm`] | R10 | `batch_norm` |
//!
//! The arithmetic is not written a second time: a loop over the rule's own `apply` is compiled for each instruction set
//! and vectorised by the compiler, which may not change a bit of IEEE arithmetic. Rules with several formulas are taken
//! apart before the loop, so that every loop has one. Only [`Lookup`] needs an instruction of its own.
//!
//! Where a runtime has one formula for whole vectors and another for the elements left over, call with one rule for the
//! first part of the slices and with the other for the rest: every function takes any length, at any alignment.

mod batch_norm;
mod binary;
mod broadcast;
mod compile;
mod concat;
mod convert;
mod lookup;
mod pool;

pub use batch_norm::batch_norm;
pub use binary::{Binary, Operand};
pub use broadcast::broadcast;
pub use concat::concat;
pub use convert::{dequantize, quantize};
pub use lookup::Lookup;
pub use pool::{adaptive_avg_pool, avg_pool, max_pool, mean_pool};

use qexact_reference::Error;

fn expect_len(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, got, expected: alloc::format!("{expected}") }) }
}
