//! Rule R32: ranges of real numbers that were seen.

use crate::Error;
use crate::operand::expect_multiple;
use alloc::string::ToString;
use alloc::vec::Vec;

/// The smallest and the largest of the real numbers that were seen. Both are finite, and in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    min: f32,
    max: f32,
}

impl Range {
    /// A checked range.
    ///
    /// # Errors
    /// [`Error::Number`]: an end that is not finite, or a minimum above the maximum.
    pub fn new(min: f32, max: f32) -> Result<Range, Error> {
        let number = |what, got: f32, expected| Err(Error::Number { what, got: got.into(), expected });
        if !min.is_finite() {
            return number("minimum of a range", min, "a finite number".to_string());
        }
        if !max.is_finite() {
            return number("maximum of a range", max, "a finite number".to_string());
        }
        if min > max {
            return number("minimum of a range", min, alloc::format!("at most the maximum, {max}"));
        }
        Ok(Range { min, max })
    }

    /// The range of some numbers. The sign of a zero at its ends is not specified, and changes no parameter.
    ///
    /// # Errors
    /// No numbers at all; a number that is NaN or infinite.
    pub fn of(numbers: &[f32]) -> Result<Range, Error> {
        let Some((&first, rest)) = numbers.split_first() else {
            return Err(Error::Length { what: "data of a range", got: 0, expected: "at least 1".to_string() });
        };
        if let Some(&got) = numbers.iter().find(|x| !x.is_finite()) {
            let expected = "a finite number".to_string();
            return Err(Error::Number { what: "an element of the data of a range", got: got.into(), expected });
        }
        let (min, max) = rest.iter().fold((first, first), |(min, max), &x| (min.min(x), max.max(x)));
        Ok(Range { min, max })
    }

    /// The range of each channel of `[channels, …]`.
    ///
    /// # Errors
    /// As [`of`](Range::of); a number of elements that is no positive multiple of the channels.
    pub fn per_channel(numbers: &[f32], channels: usize) -> Result<Vec<Range>, Error> {
        expect_multiple("data of a range", numbers.len(), channels)?;
        numbers.chunks_exact(numbers.len() / channels).map(Range::of).collect()
    }

    /// The smallest number.
    pub fn min(self) -> f32 {
        self.min
    }

    /// The largest number.
    pub fn max(self) -> f32 {
        self.max
    }

    /// What was seen in either range: `[min(a, b), max(a, b)]`, PyTorch's `MinMaxObserver`.
    #[must_use]
    pub fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// PyTorch's `MovingAverageMinMaxObserver`: each end moves towards the newer one by a share, in f32.
    ///
    /// ```text
    /// end = end + averaging_constant · (newer − end)
    /// ```
    ///
    /// # Errors
    /// A share outside 0..=1; ends whose difference overflows, or that rounding puts out of order.
    pub fn moving_average(self, newer: Range, averaging_constant: f32) -> Result<Range, Error> {
        if !(0.0..=1.0).contains(&averaging_constant) {
            let (got, expected) = (averaging_constant.into(), "a number in 0..=1".to_string());
            return Err(Error::Number { what: "averaging constant", got, expected });
        }
        let moved = |end: f32, newer: f32| end + averaging_constant * (newer - end);
        Range::new(moved(self.min, newer.min), moved(self.max, newer.max))
    }

    /// The range, extended to hold 0: the number 0 then has a code of its own.
    #[must_use]
    pub fn with_zero(self) -> Range {
        Range { min: self.min.min(0.0), max: self.max.max(0.0) }
    }

    /// The largest magnitude: `max(|min|, |max|)`.
    pub fn magnitude(self) -> f32 {
        self.max.max(-self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_meaning_is_refused() {
        for (min, max) in [(f32::NAN, 0.0), (0.0, f32::NAN), (f32::NEG_INFINITY, 0.0), (0.0, f32::INFINITY), (1.0, 0.5)]
        {
            assert!(matches!(Range::new(min, max), Err(Error::Number { .. })), "{min} {max}");
        }
        assert!(matches!(Range::of(&[]), Err(Error::Length { .. })));
        assert!(matches!(Range::of(&[0.0, f32::NAN, 1.0]), Err(Error::Number { .. })));
        assert!(matches!(Range::of(&[f32::INFINITY]), Err(Error::Number { .. })));
        assert!(Range::per_channel(&[0.0; 6], 4).is_err());
        assert!(Range::per_channel(&[], 4).is_err());
        assert!(Range::per_channel(&[0.0; 6], 0).is_err());
    }

    #[test]
    fn ranges_grow_and_move() {
        let (a, b) = (Range::new(1.0, 2.0).unwrap(), Range::of(&[-4.0, 1.5]).unwrap());
        assert_eq!(a.union(b), Range::new(-4.0, 2.0).unwrap());
        assert_eq!(a.with_zero(), Range::new(0.0, 2.0).unwrap());
        assert_eq!(b.magnitude(), 4.0);
        assert_eq!(a.moving_average(b, 0.5).unwrap(), Range::new(-1.5, 1.75).unwrap());
        let widest = Range::new(-f32::MAX, f32::MAX).unwrap();
        let other = Range::new(f32::MAX, f32::MAX).unwrap();
        assert!(widest.moving_average(other, 0.5).is_err(), "the difference overflows");
        for share in [-0.1, 1.5, f32::NAN] {
            assert!(a.moving_average(b, share).is_err());
        }
        let channels = Range::per_channel(&[1.0, -1.0, 5.0, 3.0], 2).unwrap();
        assert_eq!(channels, [Range::new(-1.0, 1.0).unwrap(), Range::new(3.0, 5.0).unwrap()]);
    }
}
