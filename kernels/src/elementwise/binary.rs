//! Rules R25 and R26: sums and products of codes.

use super::compile::{map, zip};
use super::expect_len;
use crate::Isa;
use qexact_reference::add::{Add, Sum};
use qexact_reference::mul::{Mul, Scaling};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::requantize::Rounding;
use qexact_reference::{Code, Error};

/// One side of a sum or product.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T> {
    /// A code for each output.
    Each(&'a [T]),
    /// The same code for all outputs.
    One(T),
}

impl<T> Operand<'_, T> {
    fn check(&self, what: &'static str, len: usize) -> Result<(), Error> {
        match self {
            Operand::Each(codes) => expect_len(what, codes.len(), len),
            Operand::One(_) => Ok(()),
        }
    }
}

/// A rule for two codes: [`Add`] or [`Mul`], with or without the clamp of a ReLU.
pub trait Binary {
    /// The codes of all pairs.
    ///
    /// # Errors
    /// An operand of another length than the output.
    fn run<A: Code, B: Code, Y: Code>(
        &self,
        isa: Isa,
        a: Operand<'_, A>,
        b: Operand<'_, B>,
        y: &mut [Y],
    ) -> Result<(), Error>;
}

/// The loop over pairs.
#[inline(always)]
fn pairs<A: Code, B: Code, Y: Code>(
    isa: Isa,
    a: Operand<'_, A>,
    b: Operand<'_, B>,
    y: &mut [Y],
    f: impl Fn(i32, i32) -> i32,
) -> Result<(), Error> {
    a.check("a", y.len())?;
    b.check("b", y.len())?;
    match (a, b) {
        (Operand::Each(a), Operand::Each(b)) => zip(
            isa,
            a,
            b,
            y,
            #[inline(always)]
            move |a, b| Y::from_i32(f(a.into(), b.into())),
        ),
        (Operand::Each(a), Operand::One(b)) => map(
            isa,
            a,
            y,
            #[inline(always)]
            move |a| Y::from_i32(f(a.into(), b.into())),
        ),
        (Operand::One(a), Operand::Each(b)) => map(
            isa,
            b,
            y,
            #[inline(always)]
            move |b| Y::from_i32(f(a.into(), b.into())),
        ),
        (Operand::One(a), Operand::One(b)) => y.fill(Y::from_i32(f(a.into(), b.into()))),
    }
    Ok(())
}

// Each arm builds the rule anew inside its loop: there its form is a constant, and only numbers are variables.

impl Binary for Add {
    fn run<A: Code, B: Code, Y: Code>(
        &self,
        isa: Isa,
        a: Operand<'_, A>,
        b: Operand<'_, B>,
        y: &mut [Y],
    ) -> Result<(), Error> {
        let clamp = self.clamp;
        match self.sum {
            Sum::Real { dequantize: [from_a, from_b], least, quantize } => {
                let real = move |dequantize: DequantizeForm, form: QuantizeForm| {
                    let from = |rule| Dequantizer { form: dequantize, ..rule };
                    let (dequantize, quantize) = ([from(from_a), from(from_b)], Quantizer { form, ..quantize });
                    Add { sum: Sum::Real { dequantize, least, quantize }, clamp }
                };
                match (from_a.form, from_b.form, quantize.form) {
                    (DequantizeForm::Fused, DequantizeForm::Fused, QuantizeForm::Wrapping) => pairs(
                        isa,
                        a,
                        b,
                        y,
                        #[inline(always)]
                        move |a, b| real(DequantizeForm::Fused, QuantizeForm::Wrapping).apply(a, b),
                    ),
                    (DequantizeForm::Difference, DequantizeForm::Difference, QuantizeForm::Saturating) => pairs(
                        isa,
                        a,
                        b,
                        y,
                        #[inline(always)]
                        move |a, b| real(DequantizeForm::Difference, QuantizeForm::Saturating).apply(a, b),
                    ),
                    // No runtime's: as it is.
                    _ => {
                        let rule = *self;
                        pairs(
                            isa,
                            a,
                            b,
                            y,
                            #[inline(always)]
                            move |a, b| rule.apply(a, b),
                        )
                    }
                }
            }
            Sum::Shifted { multiplier, zero_points, shift, rounding, zero_point } => {
                let shifted = move |rounding| Add {
                    sum: Sum::Shifted { multiplier, zero_points, shift, rounding, zero_point },
                    clamp,
                };
                match rounding {
                    Rounding::Away => pairs(
                        isa,
                        a,
                        b,
                        y,
                        #[inline(always)]
                        move |a, b| shifted(Rounding::Away).apply(a, b),
                    ),
                    Rounding::Up => pairs(
                        isa,
                        a,
                        b,
                        y,
                        #[inline(always)]
                        move |a, b| shifted(Rounding::Up).apply(a, b),
                    ),
                    Rounding::Even => pairs(
                        isa,
                        a,
                        b,
                        y,
                        #[inline(always)]
                        move |a, b| shifted(Rounding::Even).apply(a, b),
                    ),
                }
            }
            Sum::Fused { ratio, fixed } => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| Add { sum: Sum::Fused { ratio, fixed }, clamp }.apply(a, b),
            ),
            Sum::FixedPoint { multiplier, output, zero_points, zero_point, narrow } => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| {
                    let sum = Sum::FixedPoint { multiplier, output, zero_points, zero_point, narrow };
                    Add { sum, clamp }.apply(a, b)
                },
            ),
        }
    }
}

impl Binary for Mul {
    fn run<A: Code, B: Code, Y: Code>(
        &self,
        isa: Isa,
        a: Operand<'_, A>,
        b: Operand<'_, B>,
        y: &mut [Y],
    ) -> Result<(), Error> {
        let Mul { zero_points, scaling, zero_point, clamp } = *self;
        let rule = move |scaling| Mul { zero_points, scaling, zero_point, clamp };
        match scaling {
            Scaling::ZeroPointAfter(m) => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| rule(Scaling::ZeroPointAfter(m)).apply(a, b),
            ),
            Scaling::Wide(m) => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| rule(Scaling::Wide(m)).apply(a, b),
            ),
            Scaling::ZeroPointBefore(m) => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| rule(Scaling::ZeroPointBefore(m)).apply(a, b),
            ),
            Scaling::Narrow(m) => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| rule(Scaling::Narrow(m)).apply(a, b),
            ),
            Scaling::FixedPoint(m) => pairs(
                isa,
                a,
                b,
                y,
                #[inline(always)]
                move |a, b| rule(Scaling::FixedPoint(m)).apply(a, b),
            ),
        }
    }
}
