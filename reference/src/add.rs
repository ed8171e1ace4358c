//! Rule R25: the sum of two quantized numbers.

use crate::activation::Activation;
use crate::fixed_point::{FixedPoint, Rounding};
use crate::float::{cvt, fma, round_ties_even};
use crate::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use crate::{Error, Quantization};

/// Which of PyTorch's two formulas: vectors of 64 elements, or the elements that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The vector body: what networks use for all elements.
    Body,
    /// The scalar tail: only to replay recordings.
    Tail,
}

impl Form {
    pub(crate) fn dequantize(self) -> DequantizeForm {
        match self {
            Form::Body => DequantizeForm::Fused,
            Form::Tail => DequantizeForm::Difference,
        }
    }

    pub(crate) fn quantize(self) -> QuantizeForm {
        match self {
            Form::Body => QuantizeForm::Wrapping,
            Form::Tail => QuantizeForm::Saturating,
        }
    }
}

/// How the sum is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sum {
    /// In f32: `quantize(dequantize(a) + dequantize(b))`, forms as R22 and R23 say.
    Real {
        /// For a and b.
        dequantize: [Dequantizer; 2],
        /// The smallest sum: 0 with a ReLU, else −∞. NaN stays NaN.
        least: f32,
        /// For the sum.
        quantize: Quantizer,
    },
    /// In int32: `round((a − z_A)·m_A + (b − z_B)·m_B) / 2^shift) + z_Y`.
    Shifted {
        /// m_A and m_B, of at most 22 bits.
        multiplier: [i32; 2],
        /// z_A and z_B.
        zero_points: [i32; 2],
        /// 0 to 31.
        shift: u32,
        /// Of the quotient.
        rounding: Rounding,
        /// z_Y
        zero_point: i32,
    },
    /// `cvt(fma(f32(a), r_A, fma(f32(b), r_B, fixed)))`: the zero point takes part in the rounding.
    Fused {
        /// r_A and r_B.
        ratio: [f32; 2],
        /// Everything that does not depend on a and b.
        fixed: f32,
    },
    /// Three fixed-point products, each rounded twice, ties of the second rounding away from zero:
    /// `M_Y(M_A((a − z_A)·2²⁰) + M_B((b − z_B)·2²⁰)) + z_Y`.
    FixedPoint {
        /// M_A and M_B.
        multiplier: [FixedPoint; 2],
        /// M_Y
        output: FixedPoint,
        /// z_A and z_B.
        zero_points: [i32; 2],
        /// z_Y
        zero_point: i32,
        /// Whether the result wraps in int16 before it is clamped.
        narrow: bool,
    },
}

/// R25: the code of the sum of two codes, clamped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// How the sum is computed.
    pub sum: Sum,
    /// Smallest and largest code.
    pub clamp: [i32; 2],
}

impl Add {
    /// PyTorch's own kernel.
    ///
    /// ```text
    /// body: quantize (Wrapping) of fma(s_A, f32(a), −(s_A·f32(z_A))) + fma(s_B, f32(b), −(s_B·f32(z_B)))
    /// tail: quantize (Saturating) of s_A·f32(a − z_A) + s_B·f32(b − z_B)
    /// ```
    pub fn aten(a: Quantization, b: Quantization, y: Quantization, form: Form) -> Add {
        let dequantize = [a, b].map(|from| Dequantizer::new(form.dequantize(), from));
        let quantize = Quantizer::new(form.quantize(), y);
        Add { sum: Sum::Real { dequantize, least: f32::NEG_INFINITY, quantize }, clamp: quantize.clamp }
    }

    /// QNNPACK: integer multipliers of 22 bits, ties away from zero.
    ///
    /// ```text
    /// r_A = f32(S_A) / f32(S_Y),  r_B likewise;   shift = 21 − floor(log2(max(r_A, r_B)))
    /// m_A = rne(r_A · 2^shift),   m_B likewise
    /// ```
    ///
    /// # Errors
    /// Ratios outside 2⁻¹⁴..2⁸, or both below 2⁻¹⁰.
    pub fn qnnpack(a: Quantization, b: Quantization, y: Quantization) -> Result<Add, Error> {
        Add::shifted(a, b, y, 21, 113, Rounding::Away)
    }

    /// XNNPACK: as [`qnnpack`](Add::qnnpack) with `shift = 20 − floor(log2(max(r_A, r_B)))`, ties up.
    ///
    /// # Errors
    /// Ratios outside 2⁻¹⁰..2⁸.
    pub fn xnnpack(a: Quantization, b: Quantization, y: Quantization) -> Result<Add, Error> {
        Add::shifted(a, b, y, 20, 117, Rounding::Up)
    }

    /// `least` is the biased exponent of the smallest ratio allowed.
    fn shifted(
        a: Quantization,
        b: Quantization,
        y: Quantization,
        bits: i32,
        least: i32,
        rounding: Rounding,
    ) -> Result<Add, Error> {
        let ratio = [a, b].map(|from| from.scale() as f32 / y.scale() as f32);
        // Of a positive f32; a subnormal has 0, an infinity 255.
        let exponent = |r: f32| (r.to_bits() >> 23) as i32;
        let expected =
            if least == 113 { "at least 2^-14 and less than 2^8" } else { "at least 2^-10 and less than 2^8" };
        for (what, r) in ["ratio of the scales of a and y", "ratio of the scales of b and y"].into_iter().zip(ratio) {
            if !(least..127 + 8).contains(&exponent(r)) {
                return Err(Error::Ratio { what, got: r.into(), expected });
            }
        }
        let shift = bits - (exponent(ratio[0].max(ratio[1])) - 127);
        if shift > 31 {
            let got = f64::from(ratio[0].max(ratio[1]));
            return Err(Error::Ratio { what: "larger ratio of scales", got, expected: "at least 2^-10" });
        }
        // At most 2²², an exact product with a power of two, hence one rounding.
        let power = f32::from_bits(((127 + shift) as u32) << 23);
        let multiplier = ratio.map(|r| round_ties_even(r * power) as i32);
        let zero_points = [a.zero_point(), b.zero_point()];
        let sum = Sum::Shifted { multiplier, zero_points, shift: shift as u32, rounding, zero_point: y.zero_point() };
        Ok(Add { sum, clamp: Activation::None.clamp(y) })
    }

    /// ONNX Runtime's QLinearAdd. The multiply-add in `fixed` is fused too.
    ///
    /// ```text
    /// r_A = f32(S_A) / f32(S_Y),  r_B likewise
    /// fixed = f32(z_Y) − fma(r_A, f32(z_A), r_B · f32(z_B))
    /// ```
    pub fn ort(a: Quantization, b: Quantization, y: Quantization) -> Add {
        let ratio = [a, b].map(|from| from.scale() as f32 / y.scale() as f32);
        let fixed = y.zero_point() as f32 - fma(ratio[0], a.zero_point() as f32, ratio[1] * b.zero_point() as f32);
        Add { sum: Sum::Fused { ratio, fixed }, clamp: Activation::None.clamp(y) }
    }

    /// TFLite, reference and optimised; the optimised kernel's vectors, the body, hold the result in int16, where it wraps.
    ///
    /// ```text
    /// t = 2 · max(S_A, S_B);   M_A = S_A / t,   M_B = S_B / t,   M_Y = t / (2²⁰ · S_Y)          f64 of f32 scales
    /// ```
    pub fn tflite(a: Quantization, b: Quantization, y: Quantization, form: Form) -> Add {
        let [s_a, s_b, s_y] = [a, b, y].map(|q| f64::from(q.scale() as f32));
        let twice = 2.0 * s_a.max(s_b);
        let sum = Sum::FixedPoint {
            multiplier: [s_a, s_b].map(|s| FixedPoint::of(s / twice)),
            output: FixedPoint::of(twice / (1048576.0 * s_y)),
            zero_points: [a.zero_point(), b.zero_point()],
            zero_point: y.zero_point(),
            narrow: form == Form::Body,
        };
        Add { sum, clamp: Activation::None.clamp(y) }
    }

    /// The same rule, clamped to what an [`Activation`] leaves.
    #[must_use]
    pub fn clamped(mut self, [lo, hi]: [i32; 2]) -> Add {
        self.clamp = [lo, hi.max(lo)];
        self
    }

    /// The same rule and a ReLU of its output `y`. PyTorch's own kernel rectifies the real sum, and what it makes of sums
    /// beyond int32 may still be a code below `z_Y`; the others clamp codes.
    #[must_use]
    pub fn relu(mut self, y: Quantization) -> Add {
        match &mut self.sum {
            Sum::Real { least, .. } => *least = 0.0,
            _ => self.clamp[0] = y.zero_point(),
        }
        self
    }

    /// The code of the sum of two codes.
    #[inline(always)]
    pub fn apply(&self, a: i32, b: i32) -> i32 {
        let code = match self.sum {
            Sum::Real { dequantize: [a_form, b_form], least, quantize } => {
                let sum = a_form.apply(a) + b_form.apply(b);
                quantize.apply(if sum < least { least } else { sum })
            }
            Sum::Shifted { multiplier: [m_a, m_b], zero_points: [z_a, z_b], shift, rounding, zero_point } => {
                let sum = m_a.wrapping_mul(a.wrapping_sub(z_a)).wrapping_add(m_b.wrapping_mul(b.wrapping_sub(z_b)));
                (rounding.shift_right(sum.into(), shift) as i32).saturating_add(zero_point)
            }
            Sum::Fused { ratio: [r_a, r_b], fixed } => cvt(fma(a as f32, r_a, fma(b as f32, r_b, fixed))),
            Sum::FixedPoint { multiplier: [m_a, m_b], output, zero_points: [z_a, z_b], zero_point, narrow } => {
                let scaled = |m: FixedPoint, difference: i32| m.multiply(difference.wrapping_shl(20), Rounding::Away);
                let sum = scaled(m_a, a.wrapping_sub(z_a)).wrapping_add(scaled(m_b, b.wrapping_sub(z_b)));
                let sum = output.multiply(sum, Rounding::Away);
                if narrow { (sum.wrapping_add(zero_point) as i16).into() } else { sum.saturating_add(zero_point) }
            }
        };
        let [lo, hi] = self.clamp;
        code.clamp(lo, hi)
    }
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
        // (a − 0) + (b − 0) in halves: 1/2, 3/2, and with zero points −1/2, −3/2.
        let (a, b, y) = (u8(0.5, 10), u8(0.5, 10), u8(1.0, 7));
        let ties = |rule: Add| [11, 13, 9, 7].map(|a| rule.apply(a, 10));
        let even_after = [7, 9, 7, 5];
        assert_eq!(ties(Add::aten(a, b, y, Form::Body)), even_after);
        assert_eq!(ties(Add::aten(a, b, y, Form::Tail)), even_after);
        assert_eq!(ties(Add::ort(a, b, y)), [8, 8, 6, 6], "the zero point takes part");
        assert_eq!(ties(Add::qnnpack(a, b, y).unwrap()), [8, 9, 6, 5], "away");
        assert_eq!(ties(Add::xnnpack(a, b, y).unwrap()), [8, 9, 7, 6], "up");
        assert_eq!(ties(Add::tflite(a, b, y, Form::Tail)), [8, 9, 6, 5], "away");
    }

    /// Whether two rules differ on some pair of codes.
    fn parts(x: Add, y: Add) -> bool {
        (0..=255).any(|a| (0..=255).any(|b| x.apply(a, b) != y.apply(a, b)))
    }

    #[test]
    fn body_and_tail_part() {
        let s = 0.032258499413728714;
        let (a, b, y) = (u8(s, 3), u8(s, 127), u8(2.0 * s, 17));
        let body = Add::aten(a, b, y, Form::Body);
        assert!(parts(body, Add::aten(a, b, y, Form::Tail)), "fma against a difference");
        // Sums beyond int32 with the zero point wrap in one and saturate in the other.
        let vast = |form| Add::aten(u8(1e10, 0), u8(1.0, 0), u8(1.0, 200), form).apply(1, 0);
        assert_eq!([Form::Body, Form::Tail].map(vast), [0, 255]);
    }

    #[test]
    fn the_constant_of_ort_is_fused() {
        let separated = (1..400).any(|i| {
            let (a, b, y) = (u8(0.01 + f64::from(i) * 1e-4, 143), u8(0.018, 47), u8(0.0201, 231));
            let rule = Add::ort(a, b, y);
            let Sum::Fused { ratio, fixed } = rule.sum else { unreachable!() };
            fixed != 231.0 - (ratio[0] * 143.0 + ratio[1] * 47.0)
        });
        assert!(separated);
    }

    /// Beside ties, where one rounding more or in another place gives a neighbouring code.
    #[test]
    fn every_rounding_matters() {
        let ort = |[s_a, s_b, s_y]: [f64; 3], [z_a, z_b, z_y]: [i32; 3], a, b| {
            Add::ort(u8(s_a, z_a), u8(s_b, z_b), u8(s_y, z_y)).apply(a, b)
        };
        let outer = [0.29635143280029297, 1.4817571640014648, 2.9635143280029297];
        assert_eq!(ort(outer, [240, 240, 19], 100, 235), 3, "the outer multiply-add is fused");
        let inner = [0.26394373178482056, 0.26394373178482056, 2.639437198638916];
        assert_eq!(ort(inner, [165, 185, 18], 173, 142), 15, "the inner multiply-add is fused");
        let order = [0.23486994206905365, 0.7046098113059998, 1.4092196226119995];
        assert_eq!(ort(order, [79, 172, 168], 166, 200), 197, "b comes first");
        let quotient = [0.02464999817311764, 0.004350000061094761, 0.028999999165534973];
        assert_eq!(ort(quotient, [0, 0, 0], 0, 30), 4, "ratios are quotients: 4.5, a little more with the reciprocal");
        let qnnpack = Add::qnnpack(u8(0.7030976414680481, 0), u8(2.109292984008789, 0), u8(9.843366622924805, 0));
        assert_eq!(qnnpack.unwrap().apply(157, 202), 55, "21 bits, not 20");
        let xnnpack = Add::xnnpack(u8(0.6600181460380554, 0), u8(0.6600181460380554, 0), u8(3.960108757019043, 0));
        assert_eq!(xnnpack.unwrap().apply(233, 220), 75, "20 bits, not 19");
        let tflite =
            Add::tflite(u8(0.9404492974281311, 0), u8(0.6583145260810852, 0), u8(1.3166290521621704, 0), Form::Tail);
        assert_eq!(tflite.apply(21, 61), 46, "quotients in f64");
        // b is a quarter of a unit of the fixed-point sum, and the unit is half a code: −2 of them tie to −1.
        let power = |n| 2.0f64.powi(n);
        let tiny = Add::tflite(u8(1.0, 0), u8(power(-21), 10), u8(power(-20), 7), Form::Tail);
        assert_eq!([8, 12].map(|b| tiny.apply(0, b)), [5, 9], "operands are rounded away too");
    }

    #[test]
    fn ratios_are_checked_and_relu_is_a_clamp() {
        let one = u8(1.0, 0);
        assert!(matches!(Add::qnnpack(u8(1e-5, 0), one, one), Err(Error::Ratio { .. })));
        assert!(matches!(Add::qnnpack(u8(1e-4, 0), u8(1e-4, 0), one), Err(Error::Ratio { .. })));
        assert!(Add::qnnpack(u8(1e-4, 0), one, one).is_ok());
        assert!(Add::xnnpack(u8(1e-4, 0), one, one).is_err() && Add::xnnpack(u8(256.0, 0), one, one).is_err());
        let y = u8(1.0, 100);
        let relu = Add::tflite(u8(1.0, 50), one, y, Form::Tail).relu(y);
        assert_eq!((relu.apply(0, 20), relu.apply(60, 0)), (100, 110));
    }

    /// As LiteRT showed, in whole groups of 16 elements.
    #[test]
    fn vectors_of_tflite_wrap() {
        let i8 = |scale, zero_point| Quantization::new(scale, zero_point, CodeType::I8).unwrap();
        let (x, y) = (i8(1.0, 0), i8(1.0 / 512.0, 5));
        let at = |form| [[127, 127], [-128, -128]].map(|[a, b]| Add::tflite(x, x, y, form).apply(a, b));
        assert_eq!((at(Form::Body), at(Form::Tail)), ([-128, 5], [127, -128]));
        // 254·129 is an int16, and 5 more is none.
        assert_eq!(Add::tflite(x, x, i8(1.0 / 129.0, 5), Form::Body).apply(127, 127), -128, "the zero point wraps");
    }

    #[test]
    fn pytorch_rectifies_real_sums() {
        let huge = u8(3e38, 100);
        let at = |form, y, pairs: [[i32; 2]; 4]| {
            let rule = Add::aten(huge, huge, y, form).relu(y);
            pairs.map(|[a, b]| rule.apply(a, b))
        };
        // Sums of infinities: of one sign, and of two.
        let pairs = [[0, 0], [255, 255], [0, 255], [255, 0]];
        assert_eq!(at(Form::Tail, u8(1.0, 128), pairs), [128, 255, 0, 0], "NaN stays NaN");
        let wide = u8(3e37, 2);
        let body = |y| {
            let rule = Add::aten(wide, wide, y, Form::Body).relu(y);
            [[0, 0], [0, 11], [3, 3], [255, 255]].map(|[a, b]| rule.apply(a, b))
        };
        assert_eq!(body(u8(1.0, 128)), [128, 0, 0, 0], "the wrapped code is not clamped to the zero point");
        assert_eq!(body(u8(1.0, 127)), [127, 255, 255, 255]);
        assert_eq!(body(u8(3e37, 128)), [128, 135, 130, 0]);
    }
}
