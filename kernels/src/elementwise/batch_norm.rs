//! Rule R10: BatchNorm of codes.

use super::expect_len;
use crate::Isa;
use qexact_reference::batch_norm::BatchNorm;
use qexact_reference::{Code, Error};

/// R10 of `[pixels, channels]`.
///
/// # Errors
/// Slices of different lengths, or whose length is no multiple of the rule's channels.
pub fn batch_norm<X: Code, Y: Code>(isa: Isa, rule: &BatchNorm, x: &[X], y: &mut [Y]) -> Result<(), Error> {
    expect_len("output", y.len(), x.len())?;
    let channels = rule.channels();
    if channels == 0 || !x.len().is_multiple_of(channels) {
        let expected = alloc::format!("a multiple of {channels}, the channels");
        return Err(Error::Length { what: "input", got: x.len(), expected });
    }
    let (rule, alpha, beta) = rule.parts();
    isa.compile(
        #[inline(always)]
        move || {
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                for (((y, &x), &alpha), &beta) in y.iter_mut().zip(x).zip(alpha).zip(beta) {
                    *y = Y::from_i32(rule.apply(x.into(), alpha, beta));
                }
            }
        },
    );
    Ok(())
}
