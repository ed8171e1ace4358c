//! Rules R22 and R23: real numbers to codes and back.

use super::compile::map;
use super::expect_len;
use crate::Isa;
use DequantizeForm::{Difference, Double};
use QuantizeForm::{
    Bounded, Converted, Divided, DividedAway, DividedAwayF64, Fused, Saturating, Wrapping, ZeroPointFirst,
};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::{Code, Error};

/// R22: the codes of real numbers. R2 is the form [`Wrapping`].
///
/// # Errors
/// Slices of different lengths.
pub fn quantize<T: Code>(isa: Isa, rule: &Quantizer, x: &[f32], y: &mut [T]) -> Result<(), Error> {
    expect_len("output", y.len(), x.len())?;
    let rule = *rule;
    // A loop for each form, in which it is a constant.
    match rule.form {
        Wrapping => map(isa, x, y, move |x| code(Quantizer { form: Wrapping, ..rule }, x)),
        Saturating => map(isa, x, y, move |x| code(Quantizer { form: Saturating, ..rule }, x)),
        Fused => map(isa, x, y, move |x| code(Quantizer { form: Fused, ..rule }, x)),
        ZeroPointFirst => map(isa, x, y, move |x| code(Quantizer { form: ZeroPointFirst, ..rule }, x)),
        Divided => map(isa, x, y, move |x| code(Quantizer { form: Divided, ..rule }, x)),
        Bounded => map(isa, x, y, move |x| code(Quantizer { form: Bounded, ..rule }, x)),
        Converted => map(isa, x, y, move |x| code(Quantizer { form: Converted, ..rule }, x)),
        DividedAway => map(isa, x, y, move |x| code(Quantizer { form: DividedAway, ..rule }, x)),
        DividedAwayF64 => map(isa, x, y, move |x| code(Quantizer { form: DividedAwayF64, ..rule }, x)),
    }
    Ok(())
}

#[inline(always)]
fn code<T: Code>(rule: Quantizer, x: f32) -> T {
    T::from_i32(rule.apply(x))
}

/// R23: the real numbers that codes stand for. R3 is the form [`Difference`].
///
/// # Errors
/// Slices of different lengths.
pub fn dequantize<T: Code>(isa: Isa, rule: &Dequantizer, x: &[T], y: &mut [f32]) -> Result<(), Error> {
    expect_len("output", y.len(), x.len())?;
    let rule = *rule;
    match rule.form {
        Difference => map(isa, x, y, move |q| real(Dequantizer { form: Difference, ..rule }, q)),
        DequantizeForm::Fused => map(isa, x, y, move |q| real(Dequantizer { form: DequantizeForm::Fused, ..rule }, q)),
        Double => map(isa, x, y, move |q| real(Dequantizer { form: Double, ..rule }, q)),
    }
    Ok(())
}

#[inline(always)]
fn real<T: Code>(rule: Dequantizer, q: T) -> f32 {
    rule.apply(q.into())
}
