//! Rule R42: transposed convolutions, as ordinary ones.
//!
//! Outputs whose index leaves the same remainder modulo the stride are reached by the same taps: each such *phase* is a
//! convolution with stride 1, with those taps in reverse. All of a phase's accumulators are R4's, so that any kernel
//! that computes convolutions computes transposed ones; nothing is multiplied by stuffed zeros.

use crate::layer::{Layer, LayerParts, Region};
use crate::operand::expect_len;
use crate::shape::{at_least_one, product};
use crate::{Axis, Conv, Error, Input, Output};
use alloc::vec;
use alloc::vec::Vec;

/// One spatial axis of a transposed convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransposedAxis {
    /// Extent of the input.
    pub input: usize,
    /// Number of taps.
    pub kernel: usize,
    /// Distance between the outputs that neighbouring inputs begin at.
    pub stride: usize,
    /// Outputs cut off before the first and after the last.
    pub padding: [usize; 2],
    /// Outputs added after the last; less than the stride or the dilation.
    pub output_padding: usize,
    /// Distance between neighbouring taps.
    pub dilation: usize,
}

impl TransposedAxis {
    /// An axis that is not there.
    pub const UNIT: TransposedAxis =
        TransposedAxis { input: 1, kernel: 1, stride: 1, padding: [0, 0], output_padding: 0, dilation: 1 };

    /// Extent of the output: `(input − 1)·stride − padding + dilation·(kernel − 1) + output_padding + 1`.
    ///
    /// # Errors
    /// Zero extents, an output padding that is not less than the stride or the dilation, a padding that leaves nothing,
    /// sizes that overflow.
    pub fn output(&self) -> Result<usize, Error> {
        at_least_one(&[
            ("input extent", self.input),
            ("kernel extent", self.kernel),
            ("stride", self.stride),
            ("dilation", self.dilation),
        ])?;
        let most = self.stride.max(self.dilation);
        if self.output_padding >= most {
            let expected = alloc::format!("less than {most}, the larger of stride and dilation");
            return Err(Error::Extent { what: "output padding", got: self.output_padding, expected });
        }
        const LARGEST: usize = isize::MAX as usize / 8;
        let reach = |n: usize, step: usize| (n - 1).checked_mul(step).filter(|&v| v <= LARGEST / 4);
        let whole = reach(self.input, self.stride)
            .zip(reach(self.kernel, self.dilation))
            .map(|(inputs, taps)| inputs + taps)
            .and_then(|v| v.checked_add(self.output_padding)?.checked_add(1))
            .filter(|&v| v <= LARGEST)
            .ok_or(Error::TooLarge { what: "elements along an axis" })?;
        let cut = self.padding[0].saturating_add(self.padding[1]);
        whole.checked_sub(cut).filter(|&v| v > 0).ok_or_else(|| Error::Extent {
            what: "padding of a transposed convolution",
            got: cut,
            expected: alloc::format!("less than {whole}, the outputs without it"),
        })
    }

    /// Outputs `first`, `first + stride`, …, as a convolution.
    fn phase(&self, first: usize, output: usize) -> AxisPhase {
        let (stride, dilation, padding) = (self.stride as i64, self.dilation as i64, self.padding[0] as i64);
        let count = (output - first).div_ceil(self.stride);
        // Output o is reached from input (o + padding − tap·dilation) / stride, if that is a whole number.
        let shifted = |tap: usize| first as i64 + padding - tap as i64 * dilation;
        let taps: Vec<usize> = (0..self.kernel).rev().filter(|&tap| shifted(tap) % stride == 0).collect();
        let Some(&leading) = taps.first() else {
            // Reached from nowhere: one tap, of weights that are 0.
            let padding = [0, count.saturating_sub(self.input)];
            let axis = Axis { input: self.input, padding, ..Axis::UNIT };
            return AxisPhase { axis, taps, skip: 0, first, step: self.stride, count };
        };
        // Neighbours among the taps are equally far apart, and so are the inputs that they read.
        let apart = taps.get(1).map_or(1, |next| (leading - next) as i64 * dilation / stride) as usize;
        let window = (taps.len() - 1) * apart;
        // What the leading tap of the first output reads; before the input that takes padding, within it the
        // convolution has outputs more than are asked for.
        let reads = shifted(leading) / stride;
        let (before, skip) = if reads < 0 { (reads.unsigned_abs() as usize, 0) } else { (0, reads as usize) };
        let after = (skip + count + window).saturating_sub(self.input + before);
        let axis = Axis { input: self.input, kernel: taps.len(), stride: 1, padding: [before, after], dilation: apart };
        AxisPhase { axis, taps, skip, first, step: self.stride, count }
    }
}

/// A phase along one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AxisPhase {
    axis: Axis,
    /// The kernel's tap for each tap of the convolution; none if the phase is reached from nowhere.
    taps: Vec<usize>,
    /// Outputs of the convolution that are not wanted, before those that are.
    skip: usize,
    /// Where the wanted outputs go: `first + i·step` for `i < count`.
    first: usize,
    step: usize,
    count: usize,
}

/// A transposed convolution over one to three spatial axes (depth, height, width); the axes that it lacks are
/// [`TransposedAxis::UNIT`].
///
/// ```text
/// acc[i·stride − padding + tap·dilation] += (q_X[i] − z_X)·(q_W[tap] − z_W)          along every axis
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransposedConv {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Number of groups; divides both numbers of channels.
    pub groups: usize,
    /// Depth, height, width.
    pub axes: [TransposedAxis; 3],
}

/// The outputs that one convolution computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The convolution; some of its outputs may not be wanted.
    pub shape: Conv,
    axes: [AxisPhase; 3],
    kernel: [usize; 3],
    output: [usize; 3],
}

impl TransposedConv {
    /// Extents of the output: depth, height, width.
    ///
    /// # Errors
    /// As [`TransposedAxis::output`].
    pub fn output_extents(&self) -> Result<[usize; 3], Error> {
        Ok([self.axes[0].output()?, self.axes[1].output()?, self.axes[2].output()?])
    }

    /// Elements of the output.
    ///
    /// # Errors
    /// As [`output_extents`](TransposedConv::output_extents); sizes that overflow.
    pub fn output_len(&self) -> Result<usize, Error> {
        let [d, h, w] = self.output_extents()?;
        product("elements of the output", &[self.batch, d, h, w, self.out_channels])
    }

    /// The convolutions that together compute every output once.
    ///
    /// # Errors
    /// As [`output_len`](TransposedConv::output_len) and [`Conv::validate`].
    pub fn phases(&self) -> Result<Vec<Phase>, Error> {
        self.output_len()?;
        let output = self.output_extents()?;
        let kernel = self.axes.map(|axis| axis.kernel);
        let along = |i: usize| (0..self.axes[i].stride.min(output[i])).map(move |first| (i, first));
        let mut phases = Vec::new();
        for first in along(0).flat_map(|z| along(1).flat_map(move |y| along(2).map(move |x| [z, y, x]))) {
            let axes = first.map(|(i, first)| self.axes[i].phase(first, output[i]));
            let shape = Conv {
                batch: self.batch,
                in_channels: self.in_channels,
                out_channels: self.out_channels,
                groups: self.groups,
                axes: [axes[0].axis, axes[1].axis, axes[2].axis],
            };
            shape.validate()?;
            phases.push(Phase { shape, axes, kernel, output });
        }
        Ok(phases)
    }
}

impl Phase {
    /// The phase's weights, of those of the whole: OHWI, `[out_channels, depth, height, width, in_channels / groups]`.
    /// `weight_zero_point` has one element, or one an output channel.
    ///
    /// # Errors
    /// Weights or zero points of the wrong length, zero points that are no codes of an i8.
    pub fn weight(&self, weight: &[i8], weight_zero_point: &[i32]) -> Result<Vec<i8>, Error> {
        let (inputs, [kd, kh, kw]) = (self.shape.group_inputs(), self.kernel);
        let len = product("elements of the weights", &[self.shape.out_channels, kd, kh, kw, inputs])?;
        expect_len("weight", weight.len(), len)?;
        crate::operand::expect_one_or("weight zero point", weight_zero_point.len(), self.shape.out_channels)?;
        weight_zero_point.iter().try_for_each(|&z| crate::CodeType::I8.check("weight zero point", z))?;
        let [zs, ys, xs] = &self.axes;
        let mut taps = Vec::new();
        for z in &zs.taps {
            for y in &ys.taps {
                taps.extend(xs.taps.iter().map(|x| (z * kh + y) * kw + x));
            }
        }
        let mut packed = Vec::new();
        for (channel, weight) in weight.chunks_exact(len / self.shape.out_channels).enumerate() {
            for tap in &taps {
                packed.extend_from_slice(&weight[tap * inputs..][..inputs]);
            }
            if taps.is_empty() {
                let zero_point = crate::operand::per_channel(weight_zero_point, channel);
                packed.extend(core::iter::repeat_n(zero_point as i8, self.shape.depth()));
            }
        }
        Ok(packed)
    }

    /// Copies the convolution's outputs, NHWC, to their places in the whole output, NHWC.
    ///
    /// # Panics
    /// If either has another length than its shape.
    pub fn place<T: Copy>(&self, from: &[T], to: &mut [T]) {
        let channels = self.shape.out_channels;
        let [_, height, width] = self.shape.axes.map(|axis| axis.output().expect("a validated shape"));
        let depth = self.shape.pixels() / (height * width);
        let [zs, ys, xs] = &self.axes;
        for image in 0..self.shape.batch {
            for (z, y) in (0..zs.count).flat_map(|z| (0..ys.count).map(move |y| (z, y))) {
                let line = ((image * depth + zs.skip + z) * height + ys.skip + y) * width + xs.skip;
                let out = (image * self.output[0] + zs.first + z * zs.step) * self.output[1] + ys.first + y * ys.step;
                for x in 0..xs.count {
                    let out = out * self.output[2] + xs.first + x * xs.step;
                    to[out * channels..][..channels].copy_from_slice(&from[(line + x) * channels..][..channels]);
                }
            }
        }
    }
}

/// Computes every phase with `run(index, output of its convolution)` and puts the outputs in their places.
///
/// # Errors
/// An output of the wrong length; those of `run`.
fn run_phases(
    phases: &[Phase],
    output: Output<'_>,
    run: impl FnMut(usize, Output<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    fn each<T: Copy + Default>(
        phases: &[Phase],
        y: &mut [T],
        view: for<'a> fn(&'a mut [T]) -> Output<'a>,
        mut run: impl FnMut(usize, Output<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let expected = phases
            .first()
            .map_or(0, |phase| phase.shape.batch * phase.output.iter().product::<usize>() * phase.shape.out_channels);
        expect_len("output", y.len(), expected)?;
        for (index, phase) in phases.iter().enumerate() {
            let mut outputs = vec![T::default(); phase.shape.batch * phase.shape.pixels() * phase.shape.out_channels];
            run(index, view(&mut outputs))?;
            phase.place(&outputs, y);
        }
        Ok(())
    }
    match output {
        Output::U8(y) => each(phases, y, |y| Output::U8(y), run),
        Output::I8(y) => each(phases, y, |y| Output::I8(y), run),
        Output::I32(y) => each(phases, y, |y| Output::I32(y), run),
        Output::F32(y) => each(phases, y, |y| Output::F32(y), run),
    }
}

/// R42: a transposed convolution. `parts.shape` is not read; `parts.weight` is OHWI as for [`TransposedConv`]; `input`
/// and `output` are NHWC.
///
/// # Errors
/// As [`TransposedConv::phases`], [`Layer::new`] and [`Layer::run`].
pub fn run(shape: &TransposedConv, parts: &LayerParts<'_>, input: Input<'_>, output: Output<'_>) -> Result<(), Error> {
    let phases = shape.phases()?;
    run_phases(&phases, output, |index, output| {
        let phase = &phases[index];
        let weight = phase.weight(parts.weight, parts.weight_zero_point)?;
        let layer = Layer::new(LayerParts { shape: phase.shape, weight: &weight, ..*parts })?;
        let rows = phase.shape.batch * phase.shape.pixels();
        layer.run(&Region { rows: 0..rows, channels: 0..shape.out_channels }, input, output)
    })
}

/// PyTorch's weights of a transposed convolution, `[in_channels, out_channels / groups, kernel…]`, as OHWI:
/// `[out_channels, kernel…, in_channels / groups]`.
///
/// # Errors
/// Groups that do not divide the channels, weights of the wrong length.
pub fn weight_from_torch<T: Copy>(weight: &[T], shape: &TransposedConv) -> Result<Vec<T>, Error> {
    let TransposedConv { in_channels, out_channels, groups, axes, .. } = *shape;
    for (what, got) in [("number of input channels", in_channels), ("number of output channels", out_channels)] {
        if groups == 0 || got == 0 || got % groups != 0 {
            let expected = alloc::format!("a multiple of the {groups} groups, and at least 1");
            return Err(Error::Extent { what, got, expected });
        }
    }
    let [kd, kh, kw] = axes.map(|axis| axis.kernel);
    let taps = product("taps", &[kd, kh, kw])?;
    let (inputs, outputs) = (in_channels / groups, out_channels / groups);
    // Group by group: [inputs, outputs, taps] → [outputs, taps, inputs].
    crate::movement::permute(weight, &[groups, inputs, outputs, taps], &[0, 2, 3, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CodeType, Rule};

    /// The definition: every input is scattered.
    fn scattered(shape: &TransposedConv, x: &[u8], zx: i32, weight: &[i8], zw: i32) -> Vec<i32> {
        let [depth, height, width] = shape.output_extents().unwrap();
        let [d, h, w] = shape.axes;
        let (inputs, outputs) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
        let mut y = vec![0i32; shape.output_len().unwrap()];
        let places = |axis: TransposedAxis, at: usize, extent: usize| {
            let at = move |tap: usize| (at * axis.stride + tap * axis.dilation).checked_sub(axis.padding[0]);
            (0..axis.kernel).filter_map(move |tap| Some((tap, at(tap).filter(|&to| to < extent)?)))
        };
        let pixels = shape.batch * d.input * h.input * w.input;
        for (pixel, channel) in (0..pixels).flat_map(|pixel| (0..shape.in_channels).map(move |c| (pixel, c))) {
            let (line, column) = (pixel / w.input, pixel % w.input);
            let (plane, row) = (line / h.input, line % h.input);
            let q = i32::from(x[pixel * shape.in_channels + channel]) - zx;
            for (tap_z, z) in places(d, plane % d.input, depth) {
                for (tap_y, row) in places(h, row, height) {
                    for (tap_x, column) in places(w, column, width) {
                        let to = ((plane / d.input * depth + z) * height + row) * width + column;
                        for o in channel / inputs * outputs..(channel / inputs + 1) * outputs {
                            let tap = ((o * d.kernel + tap_z) * h.kernel + tap_y) * w.kernel + tap_x;
                            y[to * shape.out_channels + o] +=
                                q * (i32::from(weight[tap * inputs + channel % inputs]) - zw);
                        }
                    }
                }
            }
        }
        y
    }

    #[test]
    fn phases_compute_what_scattering_does() {
        let axis = |input, kernel, stride, padding, output_padding, dilation| TransposedAxis {
            input,
            kernel,
            stride,
            padding,
            output_padding,
            dilation,
        };
        let axes = [
            axis(4, 3, 2, [1, 1], 1, 1),
            // The padding before is another than that after, and each leaves a phase of its own.
            axis(4, 3, 2, [1, 0], 0, 1),
            axis(3, 4, 3, [0, 2], 2, 1),
            axis(3, 3, 2, [2, 1], 0, 3),
            // More outputs between the inputs than taps.
            axis(3, 2, 4, [0, 0], 1, 1),
            axis(1, 5, 1, [2, 1], 0, 1),
            // Stride and dilation have a divisor in common.
            axis(3, 3, 4, [1, 0], 0, 6),
            // More is cut off than the kernel is long.
            axis(5, 2, 2, [4, 0], 0, 1),
        ];
        for (i, &height) in axes.iter().enumerate() {
            for (j, &width) in axes.iter().enumerate() {
                let depth = if (i + j) % 5 == 0 { axes[0] } else { TransposedAxis::UNIT };
                let groups = 1 + (i + j) % 2;
                let (in_channels, out_channels) = (2 * groups, 3 * groups);
                let shape =
                    TransposedConv { batch: 2, in_channels, out_channels, groups, axes: [depth, height, width] };
                let taps = depth.kernel * height.kernel * width.kernel;
                let pixels = 2 * depth.input * height.input * width.input;
                let x: Vec<u8> = (0..pixels * in_channels).map(|i| (i * 37 % 256) as u8).collect();
                let weight: Vec<i8> = (0..out_channels * taps * 2).map(|i| (i * 91 % 256) as u8 as i8).collect();
                let parts = LayerParts {
                    shape: crate::Linear { rows: 1, in_features: 1, out_features: 1 }.into(),
                    input: CodeType::U8,
                    input_zero_point: 9,
                    weight: &weight,
                    weight_zero_point: &[-3],
                    rule: &Rule::Accumulator,
                };
                let mut y = vec![0; shape.output_len().unwrap()];
                run(&shape, &parts, Input::U8(&x), Output::I32(&mut y)).unwrap();
                assert_eq!(y, scattered(&shape, &x, 9, &weight, -3), "{height:?} {width:?}");
            }
        }
    }

    #[test]
    fn extents() {
        let axis = TransposedAxis { input: 4, kernel: 3, stride: 2, padding: [1, 0], output_padding: 1, dilation: 2 };
        // 3·2 between the first and the last input, 2·2 between taps, and one.
        assert_eq!(axis.output().unwrap(), 6 + 4 + 1 - 1 + 1);
        assert_eq!(TransposedAxis { padding: [0, 3], ..axis }.output().unwrap(), 9);
        let padded = |stride, dilation, output_padding| {
            TransposedAxis { stride, dilation, output_padding, padding: [0; 2], ..axis }.output().is_ok()
        };
        assert!(padded(2, 1, 1) && !padded(2, 1, 2) && padded(1, 3, 2) && !padded(1, 3, 3));
        assert!(TransposedAxis { padding: [6, 6], ..axis }.output().is_err(), "nothing is left");
    }

    /// Outputs that no tap reaches are 0, whatever the zero points are.
    #[test]
    fn phases_without_taps() {
        let axis = TransposedAxis { input: 2, stride: 2, output_padding: 1, ..TransposedAxis::UNIT };
        let axes = [TransposedAxis::UNIT, TransposedAxis::UNIT, axis];
        let shape = TransposedConv { batch: 1, in_channels: 1, out_channels: 2, groups: 1, axes };
        let parts = LayerParts {
            shape: crate::Linear { rows: 1, in_features: 1, out_features: 1 }.into(),
            input: CodeType::U8,
            input_zero_point: 1,
            weight: &[2, 3],
            weight_zero_point: &[-3, 5],
            rule: &Rule::Accumulator,
        };
        let mut y = [7; 8];
        run(&shape, &parts, Input::U8(&[11, 101]), Output::I32(&mut y)).unwrap();
        assert_eq!(y, [50, -20, 0, 0, 500, -200, 0, 0]);
    }

    #[test]
    fn weights_of_pytorch() {
        let axis = TransposedAxis { input: 5, kernel: 2, ..TransposedAxis::UNIT };
        let axes = [TransposedAxis::UNIT, TransposedAxis::UNIT, axis];
        let shape = TransposedConv { batch: 1, in_channels: 4, out_channels: 6, groups: 2, axes };
        // Digits: input channel, output channel of the group, tap.
        let torch: Vec<u16> =
            (0..4).flat_map(|i| (0..3).flat_map(move |o| [i * 100 + o * 10, i * 100 + o * 10 + 1])).collect();
        let ohwi = weight_from_torch(&torch, &shape).unwrap();
        assert_eq!(ohwi[..12], [0, 100, 1, 101, 10, 110, 11, 111, 20, 120, 21, 121]);
        assert_eq!(ohwi[12..16], [200, 300, 201, 301], "the second group reads its own inputs");
        assert!(weight_from_torch(&torch[1..], &shape).is_err());
        assert!(weight_from_torch(&torch, &TransposedConv { groups: 3, ..shape }).is_err());
    }
}
