//! Operators on single codes.

use crate::operand::Code;

/// Rule R13: `max(q, zero_point)`.
pub fn relu<T: Code>(codes: &mut [T], zero_point: T) {
    for q in codes {
        *q = (*q).max(zero_point);
    }
}

/// Rule R13 of real numbers: 0 for what is less than 0. A NaN and −0 stay what they are.
pub fn relu_real(reals: &mut [f32]) {
    for x in reals {
        if *x < 0.0 {
            *x = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn codes_are_bounded_by_the_zero_point() {
        let (mut u8s, mut i8s) = ([0u8, 6, 7, 8, 255], [-128i8, -8, -7, -6, 127]);
        relu(&mut u8s, 7);
        relu(&mut i8s, -7);
        assert_eq!((u8s, i8s), ([7, 7, 7, 8, 255], [-7, -7, -7, -6, 127]));
    }

    #[test]
    fn of_real_numbers_nan_and_negative_zero_stay() {
        let mut reals = [-1.0, -0.0, 0.0, 1.0, f32::NAN, f32::NEG_INFINITY];
        relu_real(&mut reals);
        assert_eq!(reals[..4].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0, 1 << 31, 0, 0x3f80_0000]);
        assert!(reals[4].is_nan() && reals[5] == 0.0);
    }
}
