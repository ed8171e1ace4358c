//! Rule R37: biases to int32.

use crate::Error;
use crate::float::round_ties_even;
use crate::operand::expect_one_or;
use crate::preset::WeightScale;
use crate::quantization::check_scale;
use alloc::vec::Vec;

/// How the scale of an integer bias, S_X · S_W, is computed and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// PyTorch's QNNPACK engine: `rne( b · (1 / f32(S_X · S_W)) )`, the product of scales in f64.
    Reciprocal,
    /// ONNX and TFLite models: `rne( b / (f32(S_X) · f32(S_W)) )`, all in f32.
    Quotient,
}

/// The int32 codes of a bias, one an output channel: for R8a.
///
/// What does not fit an int32 saturates; a NaN becomes −2³¹.
///
/// # Errors
/// Scales that are not finite and positive, or are so no longer after the product; weight scales that are neither one
/// nor one a channel.
pub fn quantize_bias(
    bias: &[f32],
    input_scale: f64,
    weight_scale: WeightScale<'_>,
    form: BiasForm,
) -> Result<Vec<i32>, Error> {
    let weight_scales = weight_scale.as_slice();
    expect_one_or("weight scale", weight_scales.len(), bias.len())?;
    check_scale("input scale", input_scale)?;
    let mut codes = Vec::with_capacity(bias.len());
    for (channel, &b) in bias.iter().enumerate() {
        let weight_scale = crate::operand::per_channel(weight_scales, channel);
        check_scale("weight scale", weight_scale)?;
        let scale = match form {
            BiasForm::Reciprocal => (weight_scale * input_scale) as f32,
            BiasForm::Quotient => input_scale as f32 * weight_scale as f32,
        };
        check_scale("scale of the bias", scale.into())?;
        codes.push(match form {
            BiasForm::Reciprocal => saturate(b * (1.0 / scale)),
            BiasForm::Quotient => saturate(b / scale),
        });
    }
    Ok(codes)
}

fn saturate(v: f32) -> i32 {
    // The conversion saturates.
    if v.is_nan() { i32::MIN } else { round_ties_even(v) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_by_hand() {
        let bias = [1.0, 0.25, -0.75, 1e30, -1e30, f32::NAN];
        for form in [BiasForm::Reciprocal, BiasForm::Quotient] {
            let codes = quantize_bias(&bias, 1.0, WeightScale::PerTensor(0.5), form).unwrap();
            assert_eq!(codes, [2, 0, -2, i32::MAX, i32::MIN, i32::MIN]);
            let codes = quantize_bias(&[1.0, 1.0], 2.0, WeightScale::PerChannel(&[0.5, 0.125]), form).unwrap();
            assert_eq!(codes, [1, 4]);
            let refused = |x, w| quantize_bias(&bias, x, WeightScale::PerTensor(w), form).is_err();
            assert!(refused(0.0, 1.0) && refused(1.0, f64::NAN) && refused(1e-30, 1e-30) && refused(1e30, 1e30));
            assert!(quantize_bias(&bias, 1.0, WeightScale::PerChannel(&[1.0, 1.0]), form).is_err());
        }
    }

    /// 1464.5 and 934.5 steps, as quotients; a little more as products with the reciprocal.
    #[test]
    fn one_form_multiplies_and_the_other_divides() {
        let code = |b, x, w, form| quantize_bias(&[b], x, WeightScale::PerTensor(w), form).unwrap()[0];
        let codes = |form| [code(640.4976, 0.457, 0.957, form), code(26.100586, 0.133, 0.21, form)];
        assert_eq!(codes(BiasForm::Reciprocal), [1465, 934]);
        assert_eq!(codes(BiasForm::Quotient), [1464, 935]);
    }

    #[test]
    fn the_two_forms_differ() {
        let scale = |form| quantize_bias(&[12.3], 0.3, WeightScale::PerTensor(1e-7), form).unwrap();
        assert_ne!(scale(BiasForm::Reciprocal), scale(BiasForm::Quotient));
    }
}
