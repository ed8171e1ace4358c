//! Rule R15: what a machine computes that adds pairs of products in 16 bits.
//!
//! The instruction VPMADDUBSW multiplies u8 by i8 codes and adds neighbouring products with signed
//! 16-bit saturation. Runtimes that use it on unrestricted codes compute
//!
//! ```text
//! acc = exact + Σ over pairs ( sat16(p0 + p1) − (p0 + p1) ),   p = q_X · q_W, zero points not subtracted
//! ```
//!
//! All of them pair along K, the order of the weights: taps, then channels of the group, channels fastest. They
//! differ only in which layers they compute so: that is a [`Machine`].
//!
//! This module explains recordings. It never serves an inference.

use crate::{Axis, Conv, Layer};
use core::fmt;

/// A runtime and the layers whose products it adds in pairs of 16 bits; all other layers it computes exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Machine {
    /// fbgemm on a CPU with AVX-512-VNNI: its depthwise path alone, see [`fbgemm_takes_depthwise`].
    FbgemmDepthwise,
    /// fbgemm without VNNI: every layer.
    FbgemmWithoutVnni,
    /// ONNX Runtime without VNNI: every layer with u8 inputs and i8 weights, except those whose groups have one
    /// input and one output channel.
    OnnxRuntimeWithoutVnni,
}

impl Machine {
    /// All of them.
    pub const ALL: [Machine; 3] =
        [Machine::FbgemmDepthwise, Machine::FbgemmWithoutVnni, Machine::OnnxRuntimeWithoutVnni];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Machine::FbgemmDepthwise => "fbgemm's depthwise path",
            Machine::FbgemmWithoutVnni => "fbgemm without VNNI",
            Machine::OnnxRuntimeWithoutVnni => "ONNX Runtime without VNNI",
        }
    }

    /// Whether it adds the products of a layer in pairs of 16 bits.
    ///
    /// The layer's weights are the i8 codes that the machine had: weights given to it as u8 never meet a saturating
    /// instruction, and are for the caller to tell.
    pub fn pairs(self, layer: &Layer<'_>) -> bool {
        let shape = layer.shape();
        !layer.input().is_signed()
            && match self {
                Machine::FbgemmDepthwise => fbgemm_takes_depthwise(shape),
                Machine::FbgemmWithoutVnni => true,
                Machine::OnnxRuntimeWithoutVnni => shape.group_inputs() > 1 || shape.group_outputs() > 1,
            }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An accumulator whose products were added in pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saturated {
    /// What the machine accumulates.
    pub accumulator: i32,
    /// The first pair that saturated, if any did.
    pub pair: Option<Pair>,
    /// How many pairs saturated.
    pub pairs: usize,
}

/// Two products whose sum does not fit 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The two positions along K; the second is absent for a lone last product.
    pub positions: [usize; 2],
    /// The input codes.
    pub input: [i32; 2],
    /// The weight codes.
    pub weight: [i32; 2],
    /// The exact sum of the two products.
    pub sum: i32,
}

/// What 16-bit saturation adds to the sum of two products.
pub fn excess(sum: i32) -> i32 {
    sum.clamp(i16::MIN.into(), i16::MAX.into()) - sum
}

/// The accumulator of one output, its products added in pairs along K: positions (0, 1), (2, 3), …; an odd last
/// product stands alone; taps in the padding hold z_X and take part; pairs never cross groups.
///
/// # Panics
/// If row or channel lie outside the output of `input`.
pub fn in_pairs(layer: &Layer<'_>, input: &[u8], row: usize, channel: usize) -> Saturated {
    let shape = layer.shape();
    let (inputs, depth, zx) = (shape.group_inputs(), shape.depth(), layer.input_zero_point());
    let group = channel / shape.group_outputs();
    let window = layer.window(row);
    let pixels = (0..shape.taps()).map(|tap| window.source(&shape.axes, tap));
    let codes = pixels.flat_map(|pixel| {
        let first = pixel.map(|pixel| pixel * shape.in_channels + group * inputs);
        (0..inputs).map(move |i| first.map_or(zx, |first| input[first + i].into()))
    });
    let weight = layer.weight()[channel * depth..][..depth].iter().map(|&w| i32::from(w));
    let mut factors = codes.zip(weight);
    let mut saturated = Saturated { accumulator: layer.accumulator(input, row, channel), pair: None, pairs: 0 };
    for position in (0..depth).step_by(2) {
        let [(x0, w0), (x1, w1)] = [factors.next().unwrap_or_default(), factors.next().unwrap_or_default()];
        let sum = x0 * w0 + x1 * w1;
        let excess = excess(sum);
        if excess != 0 {
            let pair = Pair { positions: [position, position + 1], input: [x0, x1], weight: [w0, w1], sum };
            saturated.accumulator = saturated.accumulator.wrapping_add(excess);
            saturated.pair = saturated.pair.or(Some(pair));
            saturated.pairs += 1;
        }
    }
    saturated
}

/// How many of the pairs of input codes in `lo..=hi` saturate with a pair of weights.
pub fn saturating_inputs(weight: [i8; 2], [lo, hi]: [i32; 2]) -> u64 {
    let [w0, w1] = weight.map(i32::from);
    // For one code of the first, those of the second whose sum with it stays within 16 bits are a range.
    let fitting = |x0: i32| {
        let (least, most) = (i32::from(i16::MIN) - x0 * w0, i32::from(i16::MAX) - x0 * w0);
        let [first, last] = match w1 {
            0 if least <= 0 && 0 <= most => [lo, hi],
            0 => return 0,
            1.. => [ceil_div(least, w1), most.div_euclid(w1)],
            _ => [ceil_div(-most, -w1), (-least).div_euclid(-w1)],
        };
        i64::from((last.min(hi) - first.max(lo) + 1).max(0))
    };
    let codes = i64::from(hi - lo + 1);
    (lo..=hi).map(|x0| (codes - fitting(x0)).unsigned_abs()).sum()
}

/// `⌈a / b⌉` for b > 0.
fn ceil_div(a: i32, b: i32) -> i32 {
    -(-a).div_euclid(b)
}

/// Whether fbgemm runs a convolution on its depthwise path, whose pairs saturate on every CPU.
///
/// That path is taken when every input channel is a group of its own, with one or two outputs; channels
/// are a multiple of 8; at least two spatial axes have kernels of 3, 5 or 7, equal in height and width;
/// strides are 1 or 2; nothing is dilated; and padding is that of a "same" convolution.
pub fn fbgemm_takes_depthwise(shape: &Conv) -> bool {
    let same = |a: &Axis| {
        matches!(a.kernel, 3 | 5 | 7)
            && matches!(a.stride, 1 | 2)
            && a.dilation == 1
            && a.padding == [(a.kernel - 1) / 2; 2]
    };
    let [depth, height, width] = &shape.axes;
    shape.groups == shape.in_channels
        && (shape.out_channels == shape.in_channels || shape.out_channels == 2 * shape.in_channels)
        && shape.groups.is_multiple_of(8)
        && height.kernel == width.kernel
        && same(height)
        && same(width)
        && (*depth == Axis::UNIT || same(depth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerParts;
    use crate::{CodeType, Rule};

    #[test]
    fn the_fast_path_is_recognised() {
        for (shape, taken) in [
            ("conv ic8oc8g8ih9kh3ph1", true),
            ("conv ic8oc16g8ih9kh5ph2sh2", true),
            ("conv ic8oc24g8ih9kh3ph1", false),
            ("conv ic4oc4g4ih9kh3ph1", false),
            ("conv ic8oc8g8ih9kh3", false),
            ("conv ic8oc8g8ih9kh3ph1sh3", false),
            ("conv ic8oc8g8ih9kh3ph1:0", false),
            ("conv ic8oc8g8ih9kh3ph1kw5pw2", false),
            ("conv ic8oc8g8ih9kh3ph2dh2", false),
            ("conv ic8oc8g8id5kd3pd1ih9kh3ph1", true),
            ("conv ic8oc8g8id5kd2ih9kh3ph1", false),
            ("conv ic8oc8g8ih1kh1iw9kw3pw1", false),
        ] {
            assert_eq!(fbgemm_takes_depthwise(&shape.parse().unwrap()), taken, "{shape}");
        }
    }

    #[test]
    fn a_pair_saturates() {
        let rule = Rule::Accumulator;
        let mut weight = [0i8; 8 * 9];
        weight[4] = 127;
        weight[5] = 127;
        let shape: Conv = "conv ic8oc8g8ih1kh3ph1".parse().unwrap();
        let parts = LayerParts {
            shape,
            input: CodeType::U8,
            input_zero_point: 200,
            weight: &weight,
            weight_zero_point: &[0],
            rule: &rule,
        };
        let layer = Layer::new(parts).unwrap();
        // Only the centre is a real pixel; its neighbour is padding and holds the zero point, 200.
        let got = in_pairs(&layer, &[255; 8], 0, 0);
        let sum = 255 * 127 + 200 * 127;
        assert_eq!(got.accumulator, (255 - 200) * 127 + 32767 - sum);
        assert_eq!(got.pair, Some(Pair { positions: [4, 5], input: [255, 200], weight: [127, 127], sum }));
        assert_eq!(got.pairs, 1);
        assert_eq!(in_pairs(&layer, &[255; 8], 0, 1).pair, None);
    }

    #[test]
    fn pairs_run_along_k_and_never_cross_groups() {
        let rule = Rule::Accumulator;
        // Two groups of three channels, two taps: K is (tap 0: a b c, tap 1: a b c), pairs ab, ca, bc.
        let shape: Conv = "conv ic6oc2g2ih1kh1iw2kw2".parse().unwrap();
        let weight = [1, 2, 127, 127, -128, -128, 127, 127, 0, 127, 127, 127];
        let parts = LayerParts {
            shape,
            input: CodeType::U8,
            input_zero_point: 0,
            weight: &weight,
            weight_zero_point: &[0],
            rule: &rule,
        };
        let layer = Layer::new(parts).unwrap();
        let x = [255; 12];
        let got = in_pairs(&layer, &x, 0, 0);
        // The weights of this channel sum to 1.
        assert_eq!(got.accumulator, 255 + (32767 - 255 * 254) + (-32768 + 255 * 256));
        let pair = Pair { positions: [2, 3], input: [255; 2], weight: [127; 2], sum: 255 * 254 };
        assert_eq!((got.pair, got.pairs), (Some(pair), 2));
        // The second group: pairs (127, 127), (0, 127), (127, 127).
        let got = in_pairs(&layer, &x, 0, 1);
        assert_eq!((got.pair.unwrap().positions, got.pairs), ([0, 1], 2));
    }

    #[test]
    fn machines_pair_what_they_are_known_to() {
        let rule = Rule::Accumulator;
        for (shape, input, expected) in [
            ("conv ic8oc8g8ih9kh3ph1", CodeType::U8, [true, true, false]),
            ("conv ic8oc16g8ih9kh3ph1", CodeType::U8, [true, true, true]),
            ("conv ic8oc8g8ih9kh3", CodeType::U8, [false, true, false]),
            ("conv ic8oc8g2ih9kh3ph1", CodeType::U8, [false, true, true]),
            ("conv ic8oc8g8ih9kh3ph1", CodeType::I8, [false; 3]),
            ("conv ic8oc8ih9kh3ph1", CodeType::I8, [false; 3]),
        ] {
            let shape: Conv = shape.parse().unwrap();
            let weight = alloc::vec![0; shape.weight_len()];
            let (weight, weight_zero_point) = (&weight[..], &[0][..]);
            let parts = LayerParts { shape, input, input_zero_point: 0, weight, weight_zero_point, rule: &rule };
            let layer = Layer::new(parts).unwrap();
            assert_eq!(Machine::ALL.map(|machine| machine.pairs(&layer)), expected, "{shape} {input:?}");
        }
    }

    #[test]
    fn saturating_quadruples_are_counted() {
        let mut count = 0;
        for w0 in i8::MIN..=i8::MAX {
            // The order of the two products does not matter.
            count += saturating_inputs([w0, w0], [0, 255]);
            count += 2 * (i8::MIN..w0).map(|w1| saturating_inputs([w0, w1], [0, 255])).sum::<u64>();
        }
        assert_eq!(count, 153_563_371);
    }

    #[test]
    fn counting_agrees_with_trying() {
        for weight in [[127, 127], [-128, -128], [0, 127], [127, 0], [-128, 64], [-1, -128], [1, 127], [90, 100]] {
            for [lo, hi] in [[0, 255], [0, 127], [0, 128], [0, 129], [100, 255], [255, 255]] {
                let [w0, w1] = weight.map(i32::from);
                let saturates = |x0, x1| u64::from(excess(x0 * w0 + x1 * w1) != 0);
                let tried = (lo..=hi).map(|x0| (lo..=hi).map(|x1| saturates(x0, x1)).sum::<u64>()).sum::<u64>();
                assert_eq!(saturating_inputs(weight, [lo, hi]), tried, "{weight:?} {lo}..={hi}");
            }
        }
    }

    #[test]
    fn fbgemm_takes_few_kernels_as_depthwise() {
        let takes = |shape: &str| fbgemm_takes_depthwise(&shape.parse().unwrap());
        assert!(takes("conv ic8oc8g8ih9kh3ph1") && takes("conv ic8oc8g8ih9kh7ph3"));
        assert!(!takes("conv ic8oc8g8ih9kh9ph4") && !takes("conv ic8oc8g8ih9kh3dh2ph1"));
    }
}
