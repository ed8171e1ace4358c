//! Rule R15: what a machine computes that adds pairs of products in 16 bits.
//!
//! The instruction VPMADDUBSW multiplies u8 by i8 codes and adds neighbouring products with signed
//! 16-bit saturation. Runtimes that use it on unrestricted codes compute
//!
//! ```text
//! acc = exact + Σ over pairs ( sat16(p0 + p1) − (p0 + p1) ),   p = q_X · q_W, zero points not subtracted
//! ```
//!
//! This module explains such recordings. It never serves an inference.

use crate::{Axis, Conv, Layer};

/// An accumulator of a pair-saturating machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saturated {
    /// What the machine accumulates.
    pub accumulator: i32,
    /// The first pair that saturated, if any did.
    pub pair: Option<Pair>,
}

/// Two products whose sum does not fit 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The two positions along the reduction; the second is absent for a lone last product.
    pub taps: [usize; 2],
    /// The input codes.
    pub input: [i32; 2],
    /// The weight codes.
    pub weight: [i32; 2],
    /// The exact sum of the two products.
    pub sum: i32,
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

/// The accumulator of one output on fbgemm's depthwise path: taps in depth, height, width order are paired
/// (0, 1), (2, 3), …; an odd last tap stands alone; taps in the padding hold z_X and take part.
///
/// # Panics
/// If row or channel lie outside the output of `input`, or the layer is not depthwise.
pub fn fbgemm_depthwise(layer: &Layer<'_>, input: &[u8], row: usize, channel: usize) -> Saturated {
    let shape = layer.shape();
    assert_eq!(shape.group_inputs(), 1, "a depthwise layer has one input channel a group");
    let (taps, group) = (shape.taps(), channel / shape.group_outputs());
    let window = layer.window(row);
    let code = |tap| match window.source(&shape.axes, tap) {
        Some(pixel) => i32::from(input[pixel * shape.in_channels + group]),
        None => layer.input_zero_point(),
    };
    let weight = |tap| i32::from(layer.weight()[channel * taps + tap]);
    let mut saturated = Saturated { accumulator: layer.accumulator(input, row, channel), pair: None };
    for first in (0..taps).step_by(2) {
        let second = first + 1;
        let (x, w) = if second < taps {
            ([code(first), code(second)], [weight(first), weight(second)])
        } else {
            ([code(first), 0], [weight(first), 0])
        };
        let sum = x[0] * w[0] + x[1] * w[1];
        let excess = sum.clamp(i16::MIN.into(), i16::MAX.into()) - sum;
        saturated.accumulator = saturated.accumulator.wrapping_add(excess);
        if excess != 0 {
            saturated.pair = saturated.pair.or(Some(Pair { taps: [first, second], input: x, weight: w, sum }));
        }
    }
    saturated
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
        let got = fbgemm_depthwise(&layer, &[255; 8], 0, 0);
        let sum = 255 * 127 + 200 * 127;
        assert_eq!(got.accumulator, (255 - 200) * 127 + 32767 - sum);
        assert_eq!(got.pair, Some(Pair { taps: [4, 5], input: [255, 200], weight: [127, 127], sum }));
        assert_eq!(fbgemm_depthwise(&layer, &[255; 8], 0, 1).pair, None);
    }
}
