//! Rule R10: a BatchNorm that was not folded into the convolution before it. The multiply-add is fused.

use crate::float::{fma, sqrt};
use crate::operand::expect_len;
use crate::quantization::Quantize;
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// The trained parameters, one element a channel each.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// γ
    pub weight: &'a [f32],
    /// β
    pub bias: &'a [f32],
    /// μ
    pub running_mean: &'a [f32],
    /// σ²
    pub running_var: &'a [f32],
    /// Added to the variance, as f32.
    pub eps: f64,
}

/// `fma(alpha, f32(q_X − z_X), beta)` quantized by R2 with multiplier 1, one alpha and beta a channel; a fused ReLU
/// keeps the code from falling below z_Y.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    alpha: Vec<f32>,
    beta: Vec<f32>,
    shared: Shared,
}

/// What all channels of a [`BatchNorm`] have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    input_zero_point: i32,
    quantize: Quantize,
    /// z_Y where a ReLU is fused, else the smallest code.
    least: i32,
}

impl Shared {
    /// The code of one element of a channel with these coefficients.
    #[inline(always)]
    pub fn apply(&self, code: i32, alpha: f32, beta: f32) -> i32 {
        let x = code.wrapping_sub(self.input_zero_point) as f32;
        self.quantize.apply(fma(alpha, x, beta)).max(self.least)
    }
}

impl BatchNorm {
    /// PyTorch's alpha and beta:
    ///
    /// ```text
    /// inverse = 1 / sqrt(var + f32(eps))                                          f32
    /// alpha   = f32( f64(inverse · weight) · (S_X / S_Y) )                        the quotient in f64
    /// beta    = f32( f64(bias − (mean · inverse) · weight) / S_Y )
    /// ```
    ///
    /// # Errors
    /// Parameters of different lengths.
    pub fn new(p: &Parameters<'_>, input: Quantization, output: Quantization, relu: bool) -> Result<BatchNorm, Error> {
        let channels = p.weight.len();
        expect_len("batch norm bias", p.bias.len(), channels)?;
        expect_len("batch norm running mean", p.running_mean.len(), channels)?;
        expect_len("batch norm running variance", p.running_var.len(), channels)?;
        let ratio = input.scale() / output.scale();
        let (alpha, beta) = (0..channels)
            .map(|c| {
                let inverse = 1.0 / sqrt(p.running_var[c] + p.eps as f32);
                let alpha = f64::from(inverse * p.weight[c]) * ratio;
                let beta = f64::from(p.bias[c] - p.running_mean[c] * inverse * p.weight[c]) / output.scale();
                (alpha as f32, beta as f32)
            })
            .unzip();
        let (codes, zero_point) = (output.codes(), output.zero_point());
        let quantize = Quantize { multiplier: 1.0, zero_point, lo: codes.lo(), hi: codes.hi() };
        let least = if relu { zero_point } else { codes.lo() };
        Ok(BatchNorm { alpha, beta, shared: Shared { input_zero_point: input.zero_point(), quantize, least } })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.alpha.len()
    }

    /// What the channels share, and alpha and beta of each.
    pub fn parts(&self) -> (Shared, &[f32], &[f32]) {
        (self.shared, &self.alpha, &self.beta)
    }

    /// The code of one element of a channel.
    #[inline]
    pub fn apply(&self, code: i32, channel: usize) -> i32 {
        self.shared.apply(code, self.alpha[channel], self.beta[channel])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    fn one(eps: f64, [weight, bias, mean, var]: [f32; 4], [x, y]: [f64; 2], relu: bool) -> BatchNorm {
        let p = Parameters { weight: &[weight], bias: &[bias], running_mean: &[mean], running_var: &[var], eps };
        let q = |scale| Quantization::new(scale, 7, CodeType::U8).unwrap();
        BatchNorm::new(&p, q(x), q(y), relu).unwrap()
    }

    #[test]
    fn the_multiply_add_is_fused_and_a_relu_bounds_it() {
        // 3·(1 + ε) is 3 + 3ε, in f32 3 + 4ε: less 3.5 + 4ε that is −0.5 − ε, or the tie −0.5.
        let norm = BatchNorm {
            alpha: [1.0 + f32::EPSILON].into(),
            beta: [-(1.0 + f32::EPSILON) * 3.0 - 0.5].into(),
            ..one(0.0, [1.0, 0.0, 0.0, 1.0], [1.0; 2], false)
        };
        assert_eq!(norm.apply(10, 0), 6, "below the tie");
        assert_eq!((1.0 + f32::EPSILON) * 3.0 + norm.beta[0], -0.5, "and on it with two roundings");
        let relu = one(0.0, [1.0, -100.0, 0.0, 1.0], [1.0; 2], true);
        assert_eq!((relu.apply(0, 0), relu.apply(255, 0)), (7, 155));
    }

    /// Every rounding of alpha and beta, in the order that PyTorch has.
    #[test]
    fn alpha_and_beta_are_rounded_where_they_say() {
        let mut apart = [0; 4];
        for i in 1..2000u16 {
            let t = f32::from(i);
            let [weight, bias, mean, var] = [0.3 + t * 0.0017, t * 0.011 - 3.0, 1.3 - t * 0.0023, 0.01 + t * 0.0007];
            let (x, y, eps) = (0.0123456789 + f64::from(t) * 1e-6, 0.0345678912, 1e-5);
            let norm = one(eps, [weight, bias, mean, var], [x, y], false);
            let inverse = 1.0 / sqrt(var + eps as f32);
            let alpha = (f64::from(inverse * weight) * (x / y)) as f32;
            let beta = (f64::from(bias - mean * inverse * weight) / y) as f32;
            assert_eq!((norm.alpha[0], norm.beta[0]), (alpha, beta));
            apart[0] += u32::from(alpha != (f64::from(inverse * weight) * f64::from(x as f32 / y as f32)) as f32);
            apart[1] += u32::from(alpha != inverse * weight * (x / y) as f32);
            apart[2] += u32::from(beta != (f64::from(bias - mean * (inverse * weight)) / y) as f32);
            apart[3] += u32::from(beta != (bias - mean * inverse * weight) / y as f32);
        }
        assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    }
}
