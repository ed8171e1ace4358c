//! Rule R26: the product of two quantized numbers.

use crate::Quantization;
use crate::activation::Activation;
use crate::add::Form;
use crate::fixed_point::{FixedPoint, Rounding};
use crate::float::{cvt, round_ties_even, saturate};

/// How the integer product `p = (a − z_A)(b − z_B)`, which is exact, becomes a code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// `cvt(f32(p) · m) + z_Y`: R6 without a bias.
    ZeroPointAfter(f32),
    /// The same, rounded to an int64 and saturated: what int32 cannot hold goes to its own side, what int64 cannot hold
    /// and NaN to the smallest code.
    Wide(f32),
    /// `cvt(f32(p) · m + f32(z_Y))`, two roundings: the parity of z_Y turns ties.
    ZeroPointBefore(f32),
    /// A fixed-point product rounded twice, ties of the second rounding away from zero.
    FixedPoint(FixedPoint),
    /// The same, saturated in int16 before z_Y is added, which wraps there.
    Narrow(FixedPoint),
}

/// R26: the code of the product of two codes, clamped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mul {
    /// z_A and z_B.
    pub zero_points: [i32; 2],
    /// From the integer product to the code.
    pub scaling: Scaling,
    /// z_Y
    pub zero_point: i32,
    /// Smallest and largest code.
    pub clamp: [i32; 2],
}

impl Mul {
    /// PyTorch, with every engine: `m = (f32(S_A) · f32(S_B)) · (f32(1) / f32(S_Y))`, a reciprocal. The tail rounds to
    /// int64.
    pub fn aten(a: Quantization, b: Quantization, y: Quantization, form: Form) -> Mul {
        let multiplier = a.scale() as f32 * b.scale() as f32 * (1.0 / y.scale() as f32);
        let scaling = match form {
            Form::Body => Scaling::ZeroPointAfter(multiplier),
            Form::Tail => Scaling::Wide(multiplier),
        };
        Mul::new(a, b, y, scaling)
    }

    /// XNNPACK: `m = (f32(S_A) · f32(S_B)) / f32(S_Y)`, a division.
    pub fn xnnpack(a: Quantization, b: Quantization, y: Quantization) -> Mul {
        Mul::new(a, b, y, Scaling::ZeroPointAfter(quotient(a, b, y)))
    }

    /// ONNX Runtime's QLinearMul: m as in [`xnnpack`](Mul::xnnpack), the zero point before the rounding.
    pub fn ort(a: Quantization, b: Quantization, y: Quantization) -> Mul {
        Mul::new(a, b, y, Scaling::ZeroPointBefore(quotient(a, b, y)))
    }

    /// TFLite, reference and optimised: the fixed-point number of m as in [`xnnpack`](Mul::xnnpack), computed in f32. The
    /// optimised kernel's vectors, the body, hold the result in int16.
    pub fn tflite(a: Quantization, b: Quantization, y: Quantization, form: Form) -> Mul {
        let multiplier = FixedPoint::of(quotient(a, b, y).into());
        let scaling = match form {
            Form::Body => Scaling::Narrow(multiplier),
            Form::Tail => Scaling::FixedPoint(multiplier),
        };
        Mul::new(a, b, y, scaling)
    }

    fn new(a: Quantization, b: Quantization, y: Quantization, scaling: Scaling) -> Mul {
        let zero_points = [a.zero_point(), b.zero_point()];
        Mul { zero_points, scaling, zero_point: y.zero_point(), clamp: Activation::None.clamp(y) }
    }

    /// The same rule, clamped to what an [`Activation`] leaves.
    #[must_use]
    pub fn clamped(mut self, [lo, hi]: [i32; 2]) -> Mul {
        self.clamp = [lo, hi.max(lo)];
        self
    }

    /// The code of the product of two codes.
    #[inline(always)]
    pub fn apply(&self, a: i32, b: i32) -> i32 {
        let [z_a, z_b] = self.zero_points;
        let product = a.wrapping_sub(z_a).wrapping_mul(b.wrapping_sub(z_b));
        let code = match self.scaling {
            Scaling::ZeroPointAfter(m) => cvt(product as f32 * m).saturating_add(self.zero_point),
            Scaling::Wide(m) => {
                let r = round_ties_even(product as f32 * m);
                // The lower ends of int32 and int64 lead to the same code.
                let code = if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN };
                code.saturating_add(self.zero_point)
            }
            Scaling::ZeroPointBefore(m) => cvt(product as f32 * m + self.zero_point as f32),
            Scaling::FixedPoint(m) => m.multiply(product, Rounding::Away).saturating_add(self.zero_point),
            Scaling::Narrow(m) => {
                let product = m.multiply(product, Rounding::Away).clamp(i16::MIN.into(), i16::MAX.into());
                (product.wrapping_add(self.zero_point) as i16).into()
            }
        };
        let [lo, hi] = self.clamp;
        code.clamp(lo, hi)
    }
}

/// 2⁶³
const BEYOND_INT64: f32 = 9_223_372_036_854_775_808.0;

fn quotient(a: Quantization, b: Quantization, y: Quantization) -> f32 {
    a.scale() as f32 * b.scale() as f32 / y.scale() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    fn u8(scale: f64, zero_point: i32) -> Quantization {
        Quantization::new(scale, zero_point, CodeType::U8).unwrap()
    }

    #[test]
    fn ties() {
        let (a, b, y) = (u8(1.0, 10), u8(0.5, 9), u8(1.0, 7));
        // Products ±1 and ±3 of half a step.
        let ties = |rule: Mul| [11, 13, 9, 7].map(|a| rule.apply(a, 10));
        assert_eq!(ties(Mul::aten(a, b, y, Form::Body)), [7, 9, 7, 5]);
        assert_eq!(ties(Mul::aten(a, b, y, Form::Tail)), [7, 9, 7, 5]);
        assert_eq!(ties(Mul::xnnpack(a, b, y)), [7, 9, 7, 5]);
        assert_eq!(ties(Mul::ort(a, b, y)), [8, 8, 6, 6]);
        // The first of two roundings is exact here.
        assert_eq!(ties(Mul::tflite(a, b, y, Form::Tail)), [8, 9, 7, 6]);
        let (a, b, y) = (u8(0.5, 10), u8(0.25, 9), u8(1.0, 7));
        let ties = |rule: Mul| [14, 22, 6, 254].map(|a| rule.apply(a, 10));
        for form in [Form::Body, Form::Tail] {
            assert_eq!(ties(Mul::tflite(a, b, y, form))[..3], [8, 9, 6], "away");
        }
    }

    /// As LiteRT showed, in whole groups of 16 elements.
    #[test]
    fn vectors_of_tflite_saturate_and_wrap() {
        let i8 = |zero_point| Quantization::new(1.0, zero_point, CodeType::I8).unwrap();
        let at = |form, z_y| {
            let rule = |z_b| Mul::tflite(i8(-128), i8(z_b), i8(z_y), form);
            [rule(-128).apply(127, 127), rule(127).apply(127, -128)]
        };
        // ±255² saturate, and 5 more or less leads back into int16 or around it.
        assert_eq!((at(Form::Body, 5), at(Form::Body, -5)), ([-128, -128], [127, 127]));
        assert_eq!((at(Form::Tail, 5), at(Form::Tail, -5)), ([127, -128], [127, -128]));
    }

    #[test]
    fn a_reciprocal_is_not_a_division() {
        let separated = (1..400).any(|i| {
            let (a, b, y) = (u8(0.01 + f64::from(i) * 1e-4, 0), u8(0.018, 0), u8(0.0207, 0));
            Mul::aten(a, b, y, Form::Body).scaling != Mul::xnnpack(a, b, y).scaling
        });
        assert!(separated);
    }

    /// Beside ties.
    #[test]
    fn every_rounding_matters() {
        let (a, b) = (u8(0.23994599282741547, 0), u8(0.02660183422267437, 0));
        assert_eq!(Mul::ort(a, b, u8(0.06383003294467926, 39)).apply(77, 15), 154, "not fused");
        let (a, b) = (u8(0.5004807114601135, 0), u8(0.45499616861343384, 0));
        assert_eq!(
            Mul::tflite(a, b, u8(0.1821734458208084, 0), Form::Tail).apply(101, 2),
            253,
            "the multiplier is an f32"
        );
    }

    #[test]
    fn overflow_goes_to_the_bottom_and_relu_is_a_clamp() {
        let y = u8(1e-30, 3);
        let rule = Mul::aten(u8(1.0, 0), u8(1.0, 0), y, Form::Body);
        assert_eq!(rule.apply(1, 1), 0);
        assert_eq!(rule.clamped(Activation::Relu.clamp(y)).apply(1, 1), 3);
        // The tail holds 32 more bits, and then overflows to the bottom too.
        let ends = |form, scale| [0, 2].map(|a| Mul::aten(u8(1.0, 1), u8(1.0, 0), u8(scale, 3), form).apply(a, 1));
        let tail = |scale| ends(Form::Tail, scale);
        assert_eq!((ends(Form::Body, 1e-15), tail(1e-15), tail(1e-30)), ([0, 0], [0, 255], [0, 0]));
        let power = |n| 2.0f64.powi(n);
        assert_eq!((tail(power(-62)), tail(power(-63))), ([0, 255], [0, 0]), "the end of int64");
        let infinite = Mul::aten(u8(3e38, 0), u8(3e38, 0), u8(1.0, 3), Form::Tail);
        assert_eq!([[0, 1], [1, 1]].map(|[a, b]| infinite.apply(a, b)), [0, 0], "0 · ∞ is NaN");
    }
}
