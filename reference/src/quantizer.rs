//! Rules R22 (quantize) and R23 (dequantize): the forms that runtimes use besides R2 and R3, and those two among them.

use crate::Quantization;
use crate::float::{cvt, fma, round_ties_away_f64, round_ties_even, saturate};
use crate::quantization::Quantize;

/// The formula of a [`Quantizer`]. `m` is the reciprocal of the scale `s`, `z` the zero point, all f32 unless it says
/// otherwise; `limit` is 2147483520, the largest f32 below 2³¹.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantizeForm {
    /// R2, PyTorch's vector body: `clamp(wrap(cvt(min(x·m, limit)) + z))`.
    Wrapping,
    /// PyTorch's scalar tail: `clamp(f32(z) + rne(x·m))`, NaN → 0.
    Saturating,
    /// fbgemm's dynamic linear: `clamp(cvt(min(fma(x, m, z), limit)))`: z inside the rounding. NaN → hi.
    Fused,
    /// oneDNN's dynamic linear: `rne(clamp(x·m + z, lo, hi))`: z before the rounding, two roundings. NaN → lo.
    ZeroPointFirst,
    /// ONNX's QuantizeLinear: `rne(clamp(x / s, lo − z, hi − z)) + z`: a division. NaN → lo.
    Divided,
    /// XNNPACK: `clamp(cvt(min(x·m, hi − z)) + z)`. NaN → hi.
    Bounded,
    /// TFLite's vector body on x86: `clamp(cvt(x·m) + z)`; what int32 cannot hold, also +∞ and NaN, → lo.
    Converted,
    /// TFLite's reference: `clamp(away(x / s) + z)`. NaN → z.
    DividedAway,
    /// TFLite's scalar tail on x86: `clamp(away(f64(x) / f64(s)) + z)`. NaN → z.
    DividedAwayF64,
}

/// R22: from a real number to a code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// The formula.
    pub form: QuantizeForm,
    /// s for the forms that divide, m for the others.
    pub factor: f32,
    /// z
    pub zero_point: i32,
    /// Smallest and largest code.
    pub clamp: [i32; 2],
}

impl Quantizer {
    /// `s = f32(scale)`, `m = f32(1) / s`.
    pub fn new(form: QuantizeForm, to: Quantization) -> Quantizer {
        let scale = to.scale() as f32;
        let divides = matches!(form, QuantizeForm::Divided | QuantizeForm::DividedAway | QuantizeForm::DividedAwayF64);
        let factor = if divides { scale } else { 1.0 / scale };
        Quantizer { form, factor, zero_point: to.zero_point(), clamp: [to.codes().lo(), to.codes().hi()] }
    }

    /// The code of `x`.
    #[inline(always)]
    pub fn apply(&self, x: f32) -> i32 {
        const LIMIT: f32 = 2147483520.0;
        let Quantizer { form, factor, zero_point, clamp: [lo, hi] } = *self;
        let z = zero_point as f32;
        match form {
            QuantizeForm::Wrapping => Quantize { multiplier: factor, zero_point, lo, hi }.apply(x),
            // All codes are f32 numbers.
            QuantizeForm::Saturating => saturate((z + round_ties_even(x * factor)).into()).clamp(lo, hi),
            QuantizeForm::Fused => cvt(minimum(fma(x, factor, z), LIMIT)).clamp(lo, hi),
            QuantizeForm::ZeroPointFirst => cvt(minimum(maximum(x * factor + z, lo as f32), hi as f32)),
            QuantizeForm::Divided => {
                let t = maximum(x / factor, (lo - zero_point) as f32);
                cvt(minimum(t, (hi - zero_point) as f32)) + zero_point
            }
            QuantizeForm::Bounded => {
                let t = minimum(x * factor, (hi - zero_point) as f32);
                cvt(t).saturating_add(zero_point).clamp(lo, hi)
            }
            QuantizeForm::Converted => cvt(x * factor).saturating_add(zero_point).clamp(lo, hi),
            QuantizeForm::DividedAway => away(f64::from(x / factor)).saturating_add(zero_point).clamp(lo, hi),
            QuantizeForm::DividedAwayF64 => {
                away(f64::from(x) / f64::from(factor)).saturating_add(zero_point).clamp(lo, hi)
            }
        }
    }
}

/// Ties away from zero, saturated; 0 for NaN.
#[inline(always)]
fn away(v: f64) -> i32 {
    saturate(round_ties_away_f64(v))
}

/// x86's MINPS: a NaN in the first place gives the second.
#[inline(always)]
fn minimum(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// x86's MAXPS: a NaN in the first place gives the second.
#[inline(always)]
fn maximum(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The formula of a [`Dequantizer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DequantizeForm {
    /// R3: `f32(s) · f32(q − z)`.
    Difference,
    /// PyTorch's vector bodies of elementwise operators: `fma(f32(s), f32(q), −(f32(s) · f32(z)))`; with a scale that
    /// has many bits the product with z is rounded, and 0 need not come out as 0.
    Fused,
    /// One scale per channel in PyTorch: `f32( f64(s) · f64(q − z) )`.
    Double,
}

/// R23: from a code to a real number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dequantizer {
    /// The formula.
    pub form: DequantizeForm,
    /// s
    pub scale: f64,
    /// z
    pub zero_point: i32,
}

impl Dequantizer {
    /// Scale and zero point of a quantization.
    pub fn new(form: DequantizeForm, from: Quantization) -> Dequantizer {
        Dequantizer { form, scale: from.scale(), zero_point: from.zero_point() }
    }

    /// The real number of `code`.
    #[inline(always)]
    pub fn apply(&self, code: i32) -> f32 {
        let scale = self.scale as f32;
        let difference = code.wrapping_sub(self.zero_point);
        match self.form {
            DequantizeForm::Difference => scale * difference as f32,
            DequantizeForm::Fused => fma(scale, code as f32, -(scale * self.zero_point as f32)),
            DequantizeForm::Double => (self.scale * f64::from(difference)) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;
    use QuantizeForm::*;

    fn code(form: QuantizeForm, scale: f64, zero_point: i32, x: f32) -> i32 {
        Quantizer::new(form, Quantization::new(scale, zero_point, CodeType::U8).unwrap()).apply(x)
    }

    #[test]
    fn ties() {
        // 0.5 and 2.5 steps above an odd zero point, and 0.5 below.
        let ties = |form| [0.5, 2.5, -0.5].map(|x| code(form, 1.0, 7, x));
        for form in [Wrapping, Saturating, Divided, Bounded, Converted] {
            assert_eq!(ties(form), [7, 9, 7], "{form:?}: even, zero point after");
        }
        for form in [Fused, ZeroPointFirst] {
            assert_eq!(ties(form), [8, 10, 6], "{form:?}: even, zero point before");
        }
        for form in [DividedAway, DividedAwayF64] {
            assert_eq!(ties(form), [8, 10, 6], "{form:?}: away");
            assert_eq!([0.5, 1.5, -0.5].map(|x| code(form, 1.0, 8, x)), [9, 10, 7], "{form:?}: away");
        }
    }

    #[test]
    fn ends() {
        let ends = |form, z| [f32::INFINITY, f32::NAN, f32::NEG_INFINITY].map(|x| code(form, 1.0, z, x));
        assert_eq!((ends(Wrapping, 127), ends(Wrapping, 128)), ([255, 255, 0], [0, 0, 0]));
        assert_eq!(ends(Saturating, 128), [255, 0, 0]);
        assert_eq!(ends(Fused, 128), [255, 255, 0]);
        assert_eq!(ends(ZeroPointFirst, 128), [255, 0, 0]);
        assert_eq!(ends(Divided, 128), [255, 0, 0]);
        assert_eq!(ends(Bounded, 128), [255, 255, 0]);
        assert_eq!(ends(Converted, 128), [0, 0, 0]);
        assert_eq!(ends(DividedAway, 128), [255, 128, 0]);
        assert_eq!(ends(DividedAwayF64, 128), [255, 128, 0]);
    }

    /// An x for which two forms give different codes.
    fn parts(a: QuantizeForm, b: QuantizeForm, scale: f64, x: f32) -> [i32; 2] {
        [code(a, scale, 0, x), code(b, scale, 0, x)]
    }

    #[test]
    fn a_division_is_not_a_product_with_the_reciprocal() {
        // Somewhere among the f32 neighbours of (k + 1/2)·s the two part.
        let scale = f64::from(0.1f32 * 0.7);
        let separated = (0..200).any(|k| {
            let x = (f64::from(k) + 0.5) * scale;
            let [a, b] = parts(Divided, Bounded, scale, x as f32);
            a != b
        });
        assert!(separated);
        // 247.5 steps in f32, a little less as a product.
        let to = Quantization::new(0.5057917237281799, 0, CodeType::U8).unwrap();
        let product = |q: Quantizer| Quantizer { form: DividedAway, factor: 1.0, ..q }.apply(125.18345 * q.factor);
        assert_eq!(Quantizer::new(DividedAway, to).apply(125.18345), 248);
        assert_eq!(product(Quantizer::new(Converted, to)), 247);
        // 192.5 steps in f32, a little more as a product.
        let at = |form| code(form, f64::from(0.15f32), 0, 28.875002);
        assert_eq!([Saturating, Converted, Divided].map(at), [193, 193, 192]);
        // The quotient in f64 does not round to the tie that the quotient in f32 is.
        let separated = (0..200).any(|k| {
            let x = (f64::from(k) + 0.5) * scale;
            let [a, b] = parts(DividedAway, DividedAwayF64, scale, x as f32);
            a != b
        });
        assert!(separated);
    }

    #[test]
    fn the_fused_form_rounds_once() {
        // With m = f32(1/3) the product x·m is rounded in one form and not in the other: beside a tie they part.
        let to = Quantization::new(3.0, 0, CodeType::U8).unwrap();
        let separated = (0..256).any(|k| {
            let tie = (k as f32 + 0.5) * 3.0;
            (-4..=4).any(|ulp| {
                let x = f32::from_bits((tie.to_bits() as i32 + ulp) as u32);
                let form = |form| Quantizer { zero_point: 1, ..Quantizer::new(form, to) }.apply(x);
                form(Fused) != form(ZeroPointFirst)
            })
        });
        assert!(separated);
    }

    #[test]
    fn dequantizing() {
        let from = |scale| Quantization::new(scale, 128, CodeType::U8).unwrap();
        let real = |form, scale, q| Dequantizer::new(form, from(scale)).apply(q);
        for form in [DequantizeForm::Difference, DequantizeForm::Fused, DequantizeForm::Double] {
            assert_eq!(real(form, 0.25, 129), 0.25);
        }
        // s·z is exact for z = 128; with z = 127 it is rounded, and the fused form keeps what is missing.
        let s = 0.1f64;
        let d = |form| Dequantizer { form, scale: s, zero_point: 127 }.apply(127);
        assert_eq!(d(DequantizeForm::Difference), 0.0);
        assert_ne!(d(DequantizeForm::Fused), 0.0);
        // The f64 scale has bits that the f32 scale lacks.
        let separated = (0..=255).any(|q| real(DequantizeForm::Double, s, q) != real(DequantizeForm::Difference, s, q));
        assert!(separated);
    }
}
