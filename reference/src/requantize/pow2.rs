//! Rule R20: powers of two.

use super::{Codes, Rounding, biased, expect_none_or};
use crate::Error;
use crate::operand::{expect_one_or, per_channel};
use alloc::vec::Vec;

/// Rule R20: the multiplier is 2^−shift, and nothing is lost but by the one rounding.
///
/// ```text
/// q = clamp( round( wrap(acc + bias) / 2^shift ) + zero_point, lo, hi )          shift < 0: a product
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pow2 {
    /// −31 ≤ shift ≤ 62; one element or one an output channel.
    pub shift: Vec<i32>,
    /// Empty (none), one element or one an output channel. Biases of fewer bits are used as they are.
    pub bias: Vec<i32>,
    /// Of the quotient.
    pub rounding: Rounding,
    /// What is stored.
    pub codes: Codes,
}

impl Pow2 {
    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("shift", self.shift.len(), channels)?;
        expect_none_or("bias", self.bias.len(), channels)?;
        match self.shift.iter().find(|shift| !(-31..=62).contains(*shift)) {
            Some(&shift) => Err(Error::OutOfRange { what: "shift", got: shift.into(), lo: -31, hi: 62 }),
            None => Ok(()),
        }
    }

    /// `wrap(acc + bias)`, shifted left where the shift is negative, and how far it is shifted right.
    #[inline(always)]
    fn shifted(&self, accumulator: i32, channel: usize) -> (i64, u32) {
        let shift = per_channel(&self.shift, channel);
        // 31 bits to the left of 32 fit.
        let v = i64::from(biased(accumulator, &self.bias, channel)) << (-shift).max(0);
        (v, shift.max(0) as u32)
    }

    /// The number that is rounded.
    pub fn scaled(&self, accumulator: i32, channel: usize) -> f64 {
        let (v, shift) = self.shifted(accumulator, channel);
        // 32 bits and a power of two: exact.
        v as f64 / (1u64 << shift) as f64
    }

    /// The code of an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let (v, shift) = self.shifted(accumulator, channel);
        self.codes.code(self.rounding.shift_right(v, shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CodeType, Rule};
    use alloc::vec;

    fn rule(shift: i32, rounding: Rounding) -> Pow2 {
        Pow2 { shift: vec![shift], bias: vec![], rounding, codes: Codes::new(-3, CodeType::I8).unwrap() }
    }

    #[test]
    fn ties_go_where_the_rounding_says() {
        for (rounding, want) in
            [(Rounding::Even, [0, 2, 2, 0, -2]), (Rounding::Away, [1, 2, 3, -1, -2]), (Rounding::Up, [1, 2, 3, 0, -1])]
        {
            let rule = rule(3, rounding);
            assert_eq!([4, 12, 20, -4, -12].map(|acc| rule.apply(acc, 0) + 3), want, "{rounding:?}");
        }
    }

    #[test]
    fn shifts_go_either_way_and_saturate() {
        assert_eq!(rule(-2, Rounding::Even).apply(5, 0), 17);
        assert_eq!(rule(-31, Rounding::Even).apply(i32::MIN, 0), -128);
        assert_eq!(rule(-31, Rounding::Even).apply(1, 0), 127);
        assert_eq!(rule(32, Rounding::Away).apply(i32::MIN, 0), -4, "a tie of one half");
        assert_eq!(rule(62, Rounding::Up).apply(i32::MIN, 0), -3);
        assert_eq!(Pow2 { bias: vec![i32::MAX], ..rule(27, Rounding::Even) }.apply(1, 0), -3 - 16);
    }

    #[test]
    fn shifts_out_of_range_are_refused() {
        for shift in [-32, 63, i32::MIN, i32::MAX] {
            assert!(Rule::Pow2(rule(shift, Rounding::Even)).validate(1).is_err());
        }
        assert!(Rule::Pow2(Pow2 { shift: vec![1; 3], ..rule(0, Rounding::Even) }).validate(4).is_err());
    }
}
