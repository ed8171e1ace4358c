//! Rule R38: a BatchNorm folded into the convolution or linear layer before it.

use crate::Error;
use crate::batch_norm::Parameters;
use crate::float::sqrt;
use crate::operand::{expect_len, expect_multiple};
use alloc::string::ToString;
use alloc::vec::Vec;

/// Weights and bias that compute layer and BatchNorm in one.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// In the order of the weights given.
    pub weight: Vec<f32>,
    /// One an output channel.
    pub bias: Vec<f32>,
}

/// PyTorch's `fuse_conv_bn_weights`, for weights `[channels, …]`, all in f32:
///
/// ```text
/// inverse = 1 / sqrt(var + f32(eps))
/// weight' = weight · (γ · inverse)
/// bias'   = ((bias − mean) · inverse) · γ + β                a bias that is absent is 0
/// ```
///
/// # Errors
/// Slices of the wrong length; a variance that is not greater than −eps.
pub fn into_convolution(weight: &[f32], bias: Option<&[f32]>, p: &Parameters<'_>) -> Result<Folded, Error> {
    fold(weight, bias, p, |centred, inverse, gamma| (centred * inverse) * gamma)
}

/// PyTorch's `fuse_linear_bn_weights`, for weights `[channels, inputs]`: as [`into_convolution`], except that
///
/// ```text
/// bias'   = (bias − mean) · (γ · inverse) + β
/// ```
///
/// # Errors
/// As [`into_convolution`].
pub fn into_linear(weight: &[f32], bias: Option<&[f32]>, p: &Parameters<'_>) -> Result<Folded, Error> {
    fold(weight, bias, p, |centred, inverse, gamma| centred * (gamma * inverse))
}

fn fold(
    weight: &[f32],
    bias: Option<&[f32]>,
    p: &Parameters<'_>,
    scaled: impl Fn(f32, f32, f32) -> f32,
) -> Result<Folded, Error> {
    let channels = p.weight.len();
    expect_len("batch norm bias", p.bias.len(), channels)?;
    expect_len("batch norm running mean", p.running_mean.len(), channels)?;
    expect_len("batch norm running variance", p.running_var.len(), channels)?;
    expect_multiple("weight", weight.len(), channels)?;
    if let Some(bias) = bias {
        expect_len("bias", bias.len(), channels)?;
    }
    let mut folded = Folded { weight: Vec::with_capacity(weight.len()), bias: Vec::with_capacity(channels) };
    for (c, weight) in weight.chunks_exact(weight.len() / channels).enumerate() {
        let variance = p.running_var[c] + p.eps as f32;
        if variance.is_nan() || variance <= 0.0 {
            let (got, expected) = (variance.into(), "a number greater than 0".to_string());
            return Err(Error::Number { what: "batch norm variance plus eps", got, expected });
        }
        let inverse = 1.0 / sqrt(variance);
        let factor = p.weight[c] * inverse;
        folded.weight.extend(weight.iter().map(|w| w * factor));
        let centred = bias.map_or(0.0, |bias| bias[c]) - p.running_mean[c];
        folded.bias.push(scaled(centred, inverse, p.weight[c]) + p.bias[c]);
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_norm_by_hand() {
        let p = Parameters { weight: &[3.0], bias: &[0.5], running_mean: &[1.0], running_var: &[3.0], eps: 1.0 };
        let folded = into_convolution(&[2.0, -1.0], Some(&[5.0]), &p).unwrap();
        assert_eq!(folded, Folded { weight: alloc::vec![3.0, -1.5], bias: alloc::vec![6.5] });
        assert_eq!(into_linear(&[2.0, -1.0], Some(&[5.0]), &p).unwrap(), folded);
        assert_eq!(into_linear(&[2.0], None, &p).unwrap().bias, [-1.0]);
    }

    #[test]
    fn products_associate_as_they_say() {
        let p = Parameters { weight: &[6.5], bias: &[0.7], running_mean: &[1.1], running_var: &[0.3], eps: 1.0 };
        let convolution = into_convolution(&[2.3], Some(&[5.0]), &p).unwrap();
        let linear = into_linear(&[2.3], Some(&[5.0]), &p).unwrap();
        assert_eq!((convolution.weight[0], linear.weight[0]), (13.112016, 13.112016));
        assert_eq!((convolution.bias[0], linear.bias[0]), (22.933422, 22.93342));
    }

    #[test]
    fn parameters_without_meaning_are_refused() {
        let p = Parameters { weight: &[1.0], bias: &[0.0], running_mean: &[0.0], running_var: &[-1.0], eps: 1e-5 };
        assert!(matches!(into_linear(&[1.0], None, &p), Err(Error::Number { .. })));
        let p = Parameters { running_var: &[1.0], ..p };
        assert!(into_linear(&[1.0], None, &p).is_ok());
        assert!(into_linear(&[], None, &p).is_err());
        assert!(into_linear(&[1.0], Some(&[]), &p).is_err());
        assert!(into_linear(&[1.0], None, &Parameters { bias: &[], ..p }).is_err());
        assert!(
            into_linear(&[1.0], None, &Parameters { weight: &[], bias: &[], running_mean: &[], running_var: &[], ..p })
                .is_err()
        );
    }
}
