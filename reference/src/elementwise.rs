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
