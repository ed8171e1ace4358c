//! The parameters of a set.

use super::RuleName;
use crate::fill::Random;
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, RealOutput, Rounding,
    Sum, ZeroPoint,
};
use qexact_reference::{CodeType, Error, Rule};

/// The parameters of a set, one for all channels.
///
/// Successive sets turn output type, rounding, clamp and bias, so that 108 of them hold every combination of a rule's
/// switches; magnitudes cycle through the ordinary (outputs spread over the codes around 0, most with few bits, so that
/// there are ties), multipliers of 1 and more, those that leave nothing of most accumulators, subnormal ones and, where
/// a rule allows them, negative, infinite and NaN.
///
/// # Errors
/// None: every set is a valid rule.
pub fn parameters(name: RuleName, set: u64) -> Result<Rule, Error> {
    let mut r = Random::new(set.wrapping_mul(RuleName::ALL.len() as u64) + name as u64);
    let n = set as usize;
    // A digit turns every `below` sets.
    let digit = |below: usize, count: usize| n / below % count;
    let code_type = [CodeType::U8, CodeType::I8][digit(1, 2)];
    let rounding = [Rounding::Away, Rounding::Up, Rounding::Even][digit(2, 3)];
    let code = |r: &mut Random| match r.below(3) {
        0 => r.choose(&[code_type.lo(), code_type.hi()]),
        _ => r.between(code_type.lo(), code_type.hi()),
    };
    let codes = Codes::new(code(&mut r), code_type)?;
    let codes = match digit(6, 3) {
        0 => codes,
        1 => codes.relu(),
        _ => {
            let (a, b) = (code(&mut r), code(&mut r));
            codes.clamped(a.min(b), a.max(b))?
        }
    };
    let form = digit(18, 4);
    let mut numbers = Numbers { r, kind: (n + n / 7) % 8 };
    let integers = |numbers: &mut Numbers| vec![numbers.integer()];
    let maybe = |numbers: &mut Numbers| if form % 2 == 0 { vec![] } else { vec![numbers.integer()] };
    Ok(match name {
        RuleName::F32Mul | RuleName::F32MulClampFirst => {
            let multiplier = numbers.real();
            let bias = match form {
                0 => Bias::None,
                1 => Bias::I32(integers(&mut numbers)),
                2 => Bias::Addend(vec![numbers.bias()]),
                _ => {
                    let reciprocal = numbers.r.real(1.0, 2000.0) as f32;
                    Bias::Fused { bias: vec![numbers.bias() / reciprocal], reciprocal: vec![reciprocal] }
                }
            };
            let overflow = if name == RuleName::F32Mul { Overflow::Convert } else { Overflow::ClampFirst };
            let [lo, hi] = codes.range();
            let rule = F32Mul::new(vec![multiplier], bias, codes.zero_point(), code_type)?;
            Rule::F32Mul(rule.clamped(lo, hi)?.overflow(overflow))
        }
        RuleName::F32Out => {
            let bias = if form % 2 == 0 { vec![] } else { vec![numbers.bias()] };
            Rule::F32Out(F32Out { scale: vec![numbers.real()], bias, fused: digit(2, 2) == 0, relu: digit(4, 2) == 0 })
        }
        RuleName::F32Real => {
            let (scale, step) = (numbers.real(), numbers.r.real(0.25, 4.0) as f32);
            let addend = [CodeType::U8, CodeType::I8][digit(5, 2)];
            let zero_point = numbers.r.between(addend.lo(), addend.hi());
            let sum = match form {
                0 | 1 => Sum::None,
                2 => Sum::Codes { scale: numbers.r.real(0.1, 2.0) as f32, zero_point, codes: addend },
                _ => Sum::Reals,
            };
            let clip = [None, F32Real::RELU, Some([-3.5, 99.25])][digit(4, 3)];
            let bias = if n.is_multiple_of(5) { vec![] } else { vec![numbers.bias()] };
            let output = match n % 4 {
                3 => RealOutput::Reals,
                _ => RealOutput::Codes { multiplier: 1.0 / step, codes },
            };
            Rule::F32Real(F32Real { scale: vec![scale], bias, sum, clip, output })
        }
        RuleName::Q31Double => {
            let multiplier = vec![numbers.fixed()];
            Rule::Q31Double(Q31Double { multiplier, bias: maybe(&mut numbers), last: rounding, codes })
        }
        RuleName::Q31Single => {
            Rule::Q31Single(Q31Single { multiplier: vec![numbers.fixed()], bias: maybe(&mut numbers), codes })
        }
        RuleName::F64 => {
            let zero_point = [ZeroPoint::AfterRounding, ZeroPoint::BeforeRounding][form / 2];
            let multiplier = vec![numbers.real64()];
            Rule::F64(F64 { multiplier, bias: maybe(&mut numbers), rounding, zero_point, codes })
        }
        // All shifts there are, from the middle.
        RuleName::Pow2 => {
            let shift = vec![(n as i32 * 35 + 8 + 31) % 94 - 31];
            Rule::Pow2(Pow2 { shift, bias: maybe(&mut numbers), rounding, codes })
        }
    })
}

/// Draws the numbers of a set.
struct Numbers {
    r: Random,
    kind: usize,
}

impl Numbers {
    /// A multiplier with all bits of an f64.
    fn real64(&mut self) -> f64 {
        let r = &mut self.r;
        // 2⁻²⁴ to 2⁻¹: outputs leave the codes at about 2²⁴ times a few hundred, or at a few hundred.
        let exponent = -(1 + r.below(24) as i32);
        match self.kind {
            0..3 => r.real(1.0, 2.0) * 2f64.powi(exponent),
            // Few bits: ties.
            3 => (1 + r.below(15)) as f64 / 8.0 * 2f64.powi(exponent),
            4 => -r.real(1.0, 2.0) * 2f64.powi(exponent),
            5 => r.real(1.0, 4.0) * 2f64.powi(r.below(29) as i32),
            6 => r.real(1.0, 2.0) * 2f64.powi(-(25 + r.below(16) as i32)),
            _ => r.choose(&[1e-40, -1e-45, 5e-324, 0.0, -0.0, 1e38, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
        }
    }

    fn real(&mut self) -> f32 {
        self.real64() as f32
    }

    fn fixed(&mut self) -> FixedPoint {
        // What no fixed-point number is, is one of the extreme ones.
        let least = FixedPoint { mantissa: 1 << 30, exponent: -31 };
        let most = FixedPoint { mantissa: i32::MAX, exponent: 30 };
        let number = self.real64().abs();
        FixedPoint::nearest(number).unwrap_or_else(|_| self.r.choose(&[least, most, FixedPoint::ZERO]))
    }

    fn integer(&mut self) -> i32 {
        let any = self.r.bits() as i32;
        any >> self.r.below(24)
    }

    fn bias(&mut self) -> f32 {
        match self.kind {
            7 => self.r.choose(&[f32::INFINITY, f32::NAN, -0.0, 0.5]),
            3 => (self.r.below(2001) as f32 - 1000.0) / 2.0,
            _ => self.r.real(-1e4, 1e4) as f32,
        }
    }
}
