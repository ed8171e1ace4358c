//! Operators on single codes.

use crate::operand::Code;

/// Rule R13: `max(q, zero_point)`.
pub fn relu<T: Code>(codes: &mut [T], zero_point: T) {
    for q in codes {
        *q = (*q).max(zero_point);
    }
}
