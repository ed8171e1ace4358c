//! Rule R24: the range of codes that a fused activation leaves.

use crate::Quantization;
use crate::float::round_ties_away_f64;

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
    /// The smallest and the largest code left.
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
}
