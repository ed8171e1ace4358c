//! Rule R24: the range of codes that a fused activation leaves.

use crate::Quantization;
use crate::float::{cvt, round_ties_away_f64};

/// An activation fused into another operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// There is none.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
}

impl Activation {
    /// The smallest and the largest code left, in TFLite.
    ///
    /// ```text
    /// lo = z_Y with a ReLU, else the smallest code
    /// hi = min(largest code, z_Y + away(f32(6) / f32(S_Y))) with a ReLU6, else the largest code
    /// ```
    pub fn clamp(self, output: Quantization) -> [i32; 2] {
        let (codes, zero_point) = (output.codes(), output.zero_point());
        let lo = if self == Activation::None { codes.lo() } else { zero_point };
        let hi = match self {
            // Saturates: a small scale puts 6 far beyond all codes.
            Activation::Relu6 => {
                zero_point.saturating_add(round_ties_away_f64((6.0 / output.scale() as f32).into()) as i32)
            }
            _ => codes.hi(),
        };
        [lo, hi.min(codes.hi())]
    }

    /// The same in XNNPACK, which adds the zero point before it rounds, to even: its parity turns ties.
    ///
    /// ```text
    /// hi = rne(min(f32(6) / f32(S_Y) + f32(z_Y), f32(largest code))) with a ReLU6
    /// ```
    pub fn clamp_of_xnnpack(self, output: Quantization) -> [i32; 2] {
        let [lo, hi] = self.clamp(output);
        if self != Activation::Relu6 {
            return [lo, hi];
        }
        let six = 6.0 / output.scale() as f32 + output.zero_point() as f32;
        [lo, cvt(six.min(output.codes().hi() as f32))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    #[test]
    fn ranges() {
        let q = |scale| Quantization::new(scale, -5, CodeType::I8).unwrap();
        assert_eq!(Activation::None.clamp(q(1.0)), [-128, 127]);
        assert_eq!(Activation::Relu.clamp(q(1.0)), [-5, 127]);
        assert_eq!(Activation::Relu6.clamp(q(1.0)), [-5, 1]);
        assert_eq!(Activation::Relu6.clamp(q(4.0)), [-5, -3], "1.5 rounds away from zero");
        assert_eq!(Activation::Relu6.clamp(q(2.4)), [-5, -2], "2.5 too");
        assert_eq!(Activation::Relu6.clamp(q(4.000000001)), [-5, -3], "a little less than 1.5, but not in f32");
        assert_eq!(Activation::Relu6.clamp(q(1e-20)), [-5, 127]);
    }

    #[test]
    fn ranges_of_xnnpack() {
        let hi = |scale, z| {
            let y = Quantization::new(scale, z, CodeType::I8).unwrap();
            assert_eq!(Activation::Relu.clamp_of_xnnpack(y), [z, 127]);
            let [lo, hi] = Activation::Relu6.clamp_of_xnnpack(y);
            assert_eq!(lo, z);
            hi
        };
        assert_eq!([hi(4.0, -5), hi(4.0, -4), hi(2.4, -5), hi(2.4, -4)], [-4, -2, -2, -2], "1.5 and 2.5 more, to even");
        assert_eq!([hi(1e-20, -5), hi(3e38, -5)], [127, -5]);
        assert_eq!(hi(4.0000002, 0), 2, "a little less than 1.5, but not in f32");
        assert_eq!(hi(4.0000005, 100), 102, "a little less than 1.5 in f32, but not with 100");
        // Products with the reciprocal are 15.5, a tie, and a little more than 12.5.
        assert_eq!([0.3870968f32, 0.48].map(|s| hi(s.into(), 0)), [15, 12], "a quotient");
    }
}
