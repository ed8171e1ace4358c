//! Linear and convolution layers: accumulators (rule R4) and the rule applied to them (R5).

use crate::operand::{Code, expect_len, expect_one_or, per_channel};
use crate::requantize::Rule;
use crate::shape::product;
use crate::{Addend, CodeType, Conv, Error, Input, Output};
use core::ops::Range;

/// A linear or convolution layer: shape, weights, zero points and rule.
///
/// A linear layer is a convolution over images of one pixel: `Conv::from(Linear { .. })`.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    shape: Conv,
    output_extents: [usize; 3],
    input: CodeType,
    input_zero_point: i32,
    weight: &'a [i8],
    weight_zero_point: &'a [i32],
    rule: &'a Rule,
}

/// The parts of a [`Layer`].
#[derive(Clone, Copy, Debug)]
pub struct LayerParts<'a> {
    /// Geometry.
    pub shape: Conv,
    /// Type of the input's codes: [`CodeType::U8`] or [`CodeType::I8`], or narrower.
    pub input: CodeType,
    /// The code of zero in the input; what padding holds.
    pub input_zero_point: i32,
    /// OHWI: `[out_channels, depth, height, width, in_channels / groups]`.
    pub weight: &'a [i8],
    /// One element, or one an output channel, each a code of an i8.
    pub weight_zero_point: &'a [i32],
    /// What becomes of the accumulators.
    pub rule: &'a Rule,
}

/// Rows and channels of a layer's output, to be computed by one call.
///
/// Rows are output pixels counted through the batch: `((n · depth + z) · height + y) · width + x`; for a
/// linear layer, rows of the input. The output slice of a region is dense: `[rows, channels]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Output pixels.
    pub rows: Range<usize>,
    /// Output channels.
    pub channels: Range<usize>,
}

impl Region {
    /// Number of outputs.
    pub fn len(&self) -> usize {
        self.rows.len() * self.channels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Layer<'a> {
    /// A checked layer.
    ///
    /// # Errors
    /// A shape that [`Conv::validate`] refuses, zero points out of range, slices of the wrong length.
    pub fn new(parts: LayerParts<'a>) -> Result<Layer<'a>, Error> {
        let LayerParts { shape, input, input_zero_point, weight, weight_zero_point, rule } = parts;
        shape.validate()?;
        let output_extents = shape.output_extents()?;
        input.check("input zero point", input_zero_point)?;
        expect_len("weight", weight.len(), shape.weight_len())?;
        expect_one_or("weight zero point", weight_zero_point.len(), shape.out_channels)?;
        for &zero_point in weight_zero_point {
            CodeType::I8.check("weight zero point", zero_point)?;
        }
        rule.validate(shape.out_channels)?;
        Ok(Layer { shape, output_extents, input, input_zero_point, weight, weight_zero_point, rule })
    }

    /// Geometry.
    pub fn shape(&self) -> &Conv {
        &self.shape
    }

    /// Type of the input's codes.
    pub fn input(&self) -> CodeType {
        self.input
    }

    /// The code of zero in the input.
    pub fn input_zero_point(&self) -> i32 {
        self.input_zero_point
    }

    /// OHWI codes.
    pub fn weight(&self) -> &'a [i8] {
        self.weight
    }

    /// The code of zero in the weights of an output channel.
    pub fn weight_zero_point(&self, channel: usize) -> i32 {
        per_channel(self.weight_zero_point, channel)
    }

    /// What becomes of the accumulators.
    pub fn rule(&self) -> &'a Rule {
        self.rule
    }

    /// All outputs of a batch.
    ///
    /// # Errors
    /// A batch whose sizes overflow.
    pub fn region(&self, batch: usize) -> Result<Region, Error> {
        let rows = product("rows of the output", &[batch, self.shape.pixels()])?;
        product("elements of the output", &[rows, self.shape.out_channels])?;
        Ok(Region { rows: 0..rows, channels: 0..self.shape.out_channels })
    }

    /// Checks a call: the input holds whole images of the right type and, of those that the region's rows see,
    /// no codes but those of a narrower type; the region lies inside the output, the output slice holds it exactly.
    /// Returns the number of images.
    ///
    /// # Errors
    /// Each violation, by name.
    pub fn check_call(&self, region: &Region, input: Input<'_>, output: &Output<'_>) -> Result<usize, Error> {
        let pixels = self.output_extents.iter().product();
        check_call((&self.shape, pixels), self.input, self.rule.element_type(), region, input, output)
    }

    /// R4: the accumulator of one output, `Σ (q_X − z_X)(q_W − z_W)`, wrapping in int32.
    ///
    /// # Panics
    /// If row or channel lie outside the output of `input`.
    pub fn accumulator<X: Code>(&self, input: &[X], row: usize, channel: usize) -> i32 {
        let Conv { in_channels, axes, .. } = self.shape;
        let inputs = self.shape.group_inputs();
        let group = channel / self.shape.group_outputs();
        let weight = &self.weight[channel * self.shape.depth()..][..self.shape.depth()];
        let (zx, zw) = (self.input_zero_point, self.weight_zero_point(channel));
        let window = self.window(row);
        let mut sum = 0i32;
        for (tap, weight) in weight.chunks_exact(inputs).enumerate() {
            // Padding holds z_X and contributes nothing.
            if let Some(pixel) = window.source(&axes, tap) {
                let x = &input[pixel * in_channels + group * inputs..][..inputs];
                sum = sum.wrapping_add(dot(x, zx, weight, zw));
            }
        }
        sum
    }

    /// The window of input pixels behind an output row.
    pub(crate) fn window(&self, row: usize) -> Window {
        let [depth, height, width] = self.output_extents;
        let (row, x) = (row / width, row % width);
        let (row, y) = (row / height, row % height);
        Window { image: row / depth, at: [row % depth, y, x] }
    }

    /// R5: the outputs of a region, each its accumulator (R4) taken through the layer's rule.
    ///
    /// # Errors
    /// As [`check_call`](Layer::check_call); a rule that adds a tensor.
    pub fn run(&self, region: &Region, input: Input<'_>, output: Output<'_>) -> Result<(), Error> {
        self.run_adding(region, input, Addend::None, output)
    }

    /// [`run`](Layer::run) with the tensor that the rule adds, laid out as the output.
    ///
    /// # Errors
    /// As [`check_call`](Layer::check_call), and an addend that the rule does not have, or of another type or length.
    pub fn run_adding(
        &self,
        region: &Region,
        input: Input<'_>,
        addend: Addend<'_>,
        output: Output<'_>,
    ) -> Result<(), Error> {
        self.check_call(region, input, &output)?;
        check_addend(self.rule, region, &addend)?;
        match input {
            Input::U8(x) => self.run_typed(region, x, addend, output),
            Input::I8(x) => self.run_typed(region, x, addend, output),
        }
        Ok(())
    }

    fn run_typed<X: Code>(&self, region: &Region, x: &[X], addend: Addend<'_>, output: Output<'_>) {
        let bits = |row, channel| {
            let index = (row - region.rows.start) * region.channels.len() + channel - region.channels.start;
            self.rule.apply(self.accumulator(x, row, channel), channel, addend.get(index)).bits()
        };
        // `check_call` compared the output's type with the rule's.
        match output {
            Output::U8(y) => fill(region, y, |r, c| bits(r, c) as u8),
            Output::I8(y) => fill(region, y, |r, c| bits(r, c) as i8),
            Output::I32(y) => fill(region, y, |r, c| bits(r, c) as i32),
            Output::F32(y) => fill(region, y, |r, c| f32::from_bits(bits(r, c))),
        }
    }
}

/// Checks that a call brings the tensor that a rule adds, if it adds one, and brings all of it.
///
/// # Errors
/// Each violation, by name.
pub fn check_addend(rule: &Rule, region: &Region, addend: &Addend<'_>) -> Result<(), Error> {
    let expected = rule.addend_type().unwrap_or("nothing");
    if addend.element_type() != expected {
        return Err(Error::ElementType { what: "addend", got: addend.element_type(), expected });
    }
    if rule.addend_type().is_some() { expect_len("addend", addend.len(), region.len()) } else { Ok(()) }
}

/// The checks of [`Layer::check_call`], for those who keep a layer in another form: its shape and the pixels of an output
/// image ([`Conv::pixels`]), which cost as much as the checks.
///
/// # Errors
/// Each violation, by name.
pub fn check_call(
    (shape, pixels): (&Conv, usize),
    input_type: CodeType,
    output_type: &'static str,
    region: &Region,
    input: Input<'_>,
    output: &Output<'_>,
) -> Result<usize, Error> {
    let expected = input_type.element_type();
    if input.element_type() != expected {
        return Err(Error::ElementType { what: "input", got: input.element_type(), expected });
    }
    if output.element_type() != output_type {
        return Err(Error::ElementType { what: "output", got: output.element_type(), expected: output_type });
    }
    let image = shape.image_len();
    let batch = if input.len() == image { 1 } else { input.len() / image };
    if batch == 0 || batch * image != input.len() {
        let expected = alloc::format!("a positive multiple of {image}, the elements of one image");
        return Err(Error::Length { what: "input", got: input.len(), expected });
    }
    for (what, range, available) in
        [("rows", &region.rows, batch * pixels), ("channels", &region.channels, shape.out_channels)]
    {
        if range.is_empty() || range.end > available {
            return Err(Error::Range { what, start: range.start, end: range.end, available });
        }
    }
    expect_len("output", output.len(), region.len())?;
    if input_type.bits() < 8 {
        // The images that the region's rows see.
        let images = region.rows.start / pixels..region.rows.end.div_ceil(pixels);
        input.check_codes(input_type, images.start * image..images.end * image)?;
    }
    Ok(batch)
}

fn fill<T>(region: &Region, output: &mut [T], value: impl Fn(usize, usize) -> T) {
    let rows = output.chunks_exact_mut(region.channels.len());
    for (row, outputs) in region.rows.clone().zip(rows) {
        for (channel, output) in region.channels.clone().zip(outputs) {
            *output = value(row, channel);
        }
    }
}

/// The window of input pixels behind one output pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    image: usize,
    at: [usize; 3],
}

impl Window {
    /// The input pixel under a tap, counted through the batch, or `None` in the padding.
    pub(crate) fn source(&self, axes: &[crate::Axis; 3], tap: usize) -> Option<usize> {
        let [_, kh, kw] = axes.map(|a| a.kernel);
        let taps = [tap / (kh * kw), tap / kw % kh, tap % kw];
        let mut pixel = self.image;
        for ((axis, at), tap) in axes.iter().zip(self.at).zip(taps) {
            pixel = pixel * axis.input + axis.source(at, tap)?;
        }
        Some(pixel)
    }
}

/// `Σ (x − zx)(w − zw)`, wrapping in int32. Each factor has at most 9 bits, so a product cannot overflow.
#[inline]
fn dot<X: Code>(x: &[X], zx: i32, w: &[i8], zw: i32) -> i32 {
    let (zx, zw) = (zx as i16, zw as i16);
    x.iter().zip(w).fold(0, |sum, (&x, &w)| {
        let x: i16 = x.into();
        sum.wrapping_add(i32::from(x - zx) * i32::from(i16::from(w) - zw))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Linear;
    use alloc::vec;

    const RAW: Rule = Rule::Accumulator;

    fn layer<'a>(shape: &str, zx: i32, weight: &'a [i8], zw: &'a [i32]) -> Result<Layer<'a>, Error> {
        let shape = shape.parse::<Conv>().or_else(|_| shape.parse::<Linear>().map(Conv::from))?;
        Layer::new(LayerParts {
            shape,
            input: CodeType::U8,
            input_zero_point: zx,
            weight,
            weight_zero_point: zw,
            rule: &RAW,
        })
    }

    #[test]
    fn a_linear_layer_by_hand() {
        let layer = layer("linear m2k2n2", 3, &[1, -2, 127, -128], &[0, 1]).unwrap();
        let mut y = [0; 4];
        let x = [3, 0, 255, 10];
        layer.run(&layer.region(2).unwrap(), Input::U8(&x), Output::I32(&mut y)).unwrap();
        assert_eq!(y, [6, 387, 252 - 14, 252 * 126 - 7 * 129]);
    }

    #[test]
    fn a_convolution_by_hand() {
        // One channel, 1×3 kernel, padding on the right only, dilation 2, stride 2.
        let layer = layer("conv ic1oc1ih1kh1iw5kw2pw0:2dw2sw2", 1, &[10, 1], &[0]).unwrap();
        let mut y = [0; 3];
        layer.run(&layer.region(1).unwrap(), Input::U8(&[1, 2, 3, 4, 5]), Output::I32(&mut y)).unwrap();
        assert_eq!(y, [2, 20 + 4, 40]);
    }

    #[test]
    fn groups_see_their_own_channels() {
        let layer = layer("conv ic4oc2g2ih1kh1", 0, &[1, 2, 3, 4], &[0]).unwrap();
        let mut y = [0; 2];
        layer.run(&layer.region(1).unwrap(), Input::U8(&[1, 10, 100, 200]), Output::I32(&mut y)).unwrap();
        assert_eq!(y, [21, 1100]);
    }

    #[test]
    fn accumulators_wrap() {
        let k = 140_000;
        let weight = vec![-128; k];
        let layer = layer("linear m1k140000n1", 0, &weight, &[0]).unwrap();
        let mut y = [0];
        layer.run(&layer.region(1).unwrap(), Input::U8(&vec![255; k]), Output::I32(&mut y)).unwrap();
        assert_eq!(y[0], (-128i64 * 255 * k as i64) as i32);
    }

    #[test]
    fn bad_calls_are_refused() {
        assert!(layer("linear m1k2n2", 256, &[0; 4], &[0]).is_err());
        assert!(layer("linear m1k2n2", 0, &[0; 3], &[0]).is_err());
        assert!(layer("linear m1k2n2", 0, &[0; 4], &[0; 3]).is_err());
        assert!(layer("linear m1k2n2", 0, &[0; 4], &[128]).is_err());
        let layer = layer("linear m1k2n2", 0, &[0; 4], &[0]).unwrap();
        let all = layer.region(1).unwrap();
        let run = |region: &Region, x: Input<'_>, y: Output<'_>| layer.run(region, x, y).unwrap_err();
        let x = [0u8; 2];
        assert!(matches!(run(&all, Input::I8(&[0; 2]), Output::I32(&mut [0; 2])), Error::ElementType { .. }));
        assert!(matches!(run(&all, Input::U8(&x), Output::U8(&mut [0; 2])), Error::ElementType { .. }));
        assert!(matches!(run(&all, Input::U8(&x[..1]), Output::I32(&mut [0; 2])), Error::Length { .. }));
        assert!(matches!(run(&all, Input::U8(&[]), Output::I32(&mut [])), Error::Length { .. }));
        assert!(matches!(run(&all, Input::U8(&x), Output::I32(&mut [0; 1])), Error::Length { .. }));
        let beyond = Region { rows: 0..2, channels: 0..2 };
        assert!(matches!(run(&beyond, Input::U8(&x), Output::I32(&mut [0; 4])), Error::Range { .. }));
        let empty = Region { rows: 0..0, channels: 0..2 };
        assert!(matches!(run(&empty, Input::U8(&x), Output::I32(&mut [])), Error::Range { .. }));
    }

    #[test]
    fn sums_over_taps_wrap() {
        // Two taps of 20000 products 255·255 each: every tap fits an int32, their sum does not.
        let weight = vec![-128; 40_000];
        let layer = layer("conv ic20000oc1ih1kh1iw2kw2", 255, &weight, &[127]).unwrap();
        assert_eq!(layer.accumulator(&[0u8; 40_000], 0, 0), (40_000i64 * 255 * 255) as i32);
    }
}
