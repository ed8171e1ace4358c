//! Taps that outputs see: the others lie in the padding.

use core::ops::Range;
use qexact_reference::{Axis, Conv};

/// Taps of an axis that an output sees.
pub(crate) fn taps_seen(axis: &Axis, output: usize) -> Range<usize> {
    let seen = |tap: &usize| axis.source(output, *tap).is_some();
    let first = (0..axis.kernel).find(seen).unwrap_or(0);
    first..first + (first..axis.kernel).take_while(seen).count()
}

/// Outputs of each axis that see a tap of the kernel; maybe none.
pub(crate) fn outputs_seeing(shape: &Conv, tap: usize) -> [Range<usize>; 3] {
    let [_, height, width] = shape.axes;
    let taps = [tap / width.kernel / height.kernel, tap / width.kernel % height.kernel, tap % width.kernel];
    core::array::from_fn(|i| {
        let (axis, outputs) = (&shape.axes[i], shape.axes[i].output().unwrap_or(0));
        // Output y reads `y · stride + at − padding`.
        let at = taps[i] * axis.dilation;
        let first_not_below = |input: usize| (axis.padding[0] + input).saturating_sub(at).div_ceil(axis.stride);
        first_not_below(0).min(outputs)..first_not_below(axis.input).min(outputs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_see_the_taps_that_are_seen_by_them() {
        for shape in [
            "conv ic1oc1ih4kh3ph1",
            "conv ic1oc1id3ih7iw5kd2kh3kw5sh2sw1sd3pd1:0ph0:2pw3:1",
            "conv ic1oc1ih9kh3ph4:7dh3dw2",
            // Taps that no output sees, outputs that see no tap.
            "conv ic1oc1ih1kh4ph3sh2",
            "conv ic1oc1ih2kh1ph5sh3",
        ] {
            let shape: Conv = shape.parse().unwrap();
            let [depth, height, width] = shape.axes.map(|axis| axis.kernel);
            for tap in 0..depth * height * width {
                let taps = [tap / width / height, tap / width % height, tap % width];
                for (i, outputs) in outputs_seeing(&shape, tap).into_iter().enumerate() {
                    for output in 0..shape.axes[i].output().unwrap() {
                        let seen = taps_seen(&shape.axes[i], output).contains(&taps[i]);
                        assert_eq!(outputs.contains(&output), seen, "{shape}, tap {tap}, axis {i}, output {output}");
                    }
                }
            }
        }
    }
}
