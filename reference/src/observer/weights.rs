//! Rule R36: weights to codes.

use super::CodeRange;
use crate::operand::{expect_multiple, expect_one_or, per_channel};
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// The codes of weights `[channels, …]`: R2, then clamped to the codes that the observer used, as PyTorch does.
///
/// `parameters` holds one quantization, or one a channel.
///
/// # Errors
/// Codes that are not signed; a number of weights that is no positive multiple of the channels.
pub fn quantize_weights(
    weight: &[f32],
    channels: usize,
    parameters: &[Quantization],
    codes: CodeRange,
) -> Result<Vec<i8>, Error> {
    expect_multiple("weight", weight.len(), channels)?;
    expect_one_or("quantization of the weight", parameters.len(), channels)?;
    if !codes.codes().is_signed() || parameters.iter().any(|q| !q.codes().is_signed()) {
        return Err(Error::ElementType {
            what: "codes of the weight",
            got: "unsigned integers",
            expected: "signed ones",
        });
    }
    let channel = |(channel, weights): (usize, &[f32])| {
        let rule = per_channel(parameters, channel).quantize();
        let code = move |&w| rule.apply(w).clamp(codes.lo(), codes.hi()) as i8;
        weights.iter().map(code).collect::<Vec<_>>()
    };
    Ok(weight.chunks_exact(weight.len() / channels).enumerate().flat_map(channel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;
    use crate::observer::{EPS, Range, symmetric};

    #[test]
    fn weights_by_hand() {
        let codes = CodeRange::all(CodeType::I8);
        let weight = [1.0, -0.5, 0.1, 2.0, -4.0, 0.0];
        let q = |range| symmetric(range, codes, EPS).unwrap();
        let per_tensor = [q(Range::of(&weight).unwrap())];
        assert_eq!(quantize_weights(&weight, 2, &per_tensor, codes).unwrap(), [32, -16, 3, 64, -127, 0]);
        let per_channel: Vec<_> = Range::per_channel(&weight, 2).unwrap().into_iter().map(q).collect();
        assert_eq!(quantize_weights(&weight, 2, &per_channel, codes).unwrap(), [127, -64, 13, 64, -127, 0]);
        let narrow = CodeRange::new(CodeType::I8, -64, 63).unwrap();
        assert_eq!(quantize_weights(&weight, 2, &per_channel, narrow).unwrap(), [63, -64, 13, 63, -64, 0]);
        assert!(quantize_weights(&weight, 4, &per_tensor, codes).is_err());
        assert!(quantize_weights(&weight, 0, &per_tensor, codes).is_err());
        assert!(quantize_weights(&weight, 3, &per_channel, codes).is_err());
        let unsigned = CodeRange::all(CodeType::U8);
        assert!(matches!(quantize_weights(&weight, 2, &per_tensor, unsigned), Err(Error::ElementType { .. })));
    }
}
