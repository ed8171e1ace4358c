//! Rule R29: concatenation along the channels.

use super::{Lookup, expect_len};
use crate::Isa;
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::concat::Part;
use qexact_reference::{Code, Error};

/// R29: `[pixels, Σ channels]`, the channels of all parts, pixel by pixel.
///
/// # Errors
/// A part of another length than `pixels · channels`, sizes that overflow.
pub fn concat<T: Code>(isa: Isa, pixels: usize, parts: &[Part<'_, T>]) -> Result<Vec<T>, Error> {
    for part in parts {
        let expected = pixels.checked_mul(part.channels).ok_or(Error::TooLarge { what: "elements of a part" })?;
        expect_len("part", part.codes.len(), expected)?;
    }
    // All parts exist, so that their sum does not overflow; without pixels there is nothing to interleave.
    let mut output = vec![T::MIN; parts.iter().map(|part| part.codes.len()).sum()];
    let width = output.len().checked_div(pixels).unwrap_or(0);
    let mut first = 0;
    for part in parts.iter().filter(|part| !part.codes.is_empty()) {
        // Whole vectors, also of parts with few channels.
        let mut codes = vec![T::MIN; part.codes.len()];
        Lookup::of_recode(&part.recode).run(isa, part.codes, &mut codes)?;
        for (y, x) in output.chunks_exact_mut(width).zip(codes.chunks_exact(part.channels)) {
            y[first..][..part.channels].copy_from_slice(x);
        }
        first += part.channels;
    }
    Ok(output)
}
