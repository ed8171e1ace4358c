//! Rule R9: real numbers.

use crate::Error;
use crate::float::fma;
use crate::operand::{expect_one_or, per_channel};
use alloc::vec::Vec;

/// Rule R9: `f32(acc) · scale + bias`, rounded once (`fused`) or twice, then an optional ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct F32Out {
    /// Of the accumulator: `S_X · S_W`; one element or one an output channel.
    pub scale: Vec<f32>,
    /// In real units; empty (no addition), one element or one an output channel.
    pub bias: Vec<f32>,
    /// Multiply and add with one rounding.
    pub fused: bool,
    /// Replace what is not greater than zero by zero.
    pub relu: bool,
}

impl F32Out {
    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("scale", self.scale.len(), channels)?;
        if self.bias.is_empty() { Ok(()) } else { expect_one_or("bias", self.bias.len(), channels) }
    }

    /// The real number of an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> f32 {
        let (v, scale) = (accumulator as f32, per_channel(&self.scale, channel));
        let y = match (self.bias.is_empty(), self.fused) {
            (true, _) => v * scale,
            (false, true) => fma(v, scale, per_channel(&self.bias, channel)),
            (false, false) => v * scale + per_channel(&self.bias, channel),
        };
        // A NaN, which is not greater than 0 either, becomes 0 too.
        let keep = y > 0.0 || !self.relu;
        if keep { y } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rule(bias: f32, fused: bool, relu: bool) -> F32Out {
        F32Out { scale: vec![1.0 + f32::EPSILON], bias: vec![bias], fused, relu }
    }

    #[test]
    fn one_rounding_or_two() {
        // 3·(1 + ε) − 3 is 3ε; rounded before the sum, the product is 3 + 4ε.
        assert_eq!(rule(-3.0, true, false).apply(3, 0), 3.0 * f32::EPSILON);
        assert_eq!(rule(-3.0, false, false).apply(3, 0), 4.0 * f32::EPSILON);
    }

    #[test]
    fn a_relu_takes_nan_and_negative_zero_to_zero() {
        for fused in [false, true] {
            assert_eq!(rule(f32::NAN, fused, true).apply(1, 0).to_bits(), 0);
            assert!(rule(f32::NAN, fused, false).apply(1, 0).is_nan());
            assert_eq!(rule(-9.0, fused, true).apply(1, 0).to_bits(), 0);
        }
        let negative = F32Out { scale: vec![-0.0], bias: vec![], fused: true, relu: true };
        assert_eq!(negative.apply(1, 0).to_bits(), 0);
    }
}
