//! Linear and convolution layers, recorded from PyTorch's fbgemm engine.

use super::error::{Part, Problem};
use super::file::{Case, Scalar};
use super::operator::{Explanation, Operator, Outputs, Recorded};
use super::report::Value;
use crate::explain;
use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::preset::{Scales, WeightScale, fbgemm};
use qexact_reference::{Axis, CodeType, Conv, Error, Input, Layer, Linear, Output, Rule, layout};
use serde::de::DeserializeOwned;

/// The largest padded image, in codes. A recording is far from it; a file that asks for more wants memory.
const LARGEST_IMAGE: usize = 1 << 26;

/// A recorded layer, channels last.
struct Recording {
    description: String,
    shape: Conv,
    input: Vec<u8>,
    input_zero_point: i32,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: Rule,
    output: [Recorded; 1],
    /// Nothing about the kernel's axes keeps the runtime from adding pairs of products in 16 bits.
    pairs_may_saturate: bool,
}

/// A layer and the logical shapes of its tensors.
struct Geometry {
    description: String,
    shape: Conv,
    input: Vec<usize>,
    weight: Vec<usize>,
    output: Vec<usize>,
    pairs_may_saturate: bool,
}

/// `x` [M, K], `w` [N, K], `y` [M, N].
pub(super) fn fbgemm_linear(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let input = case.dims("x", &["rows", "in_features"])?;
    let out_features = case.dims("w", &["out_features", "in_features"])?[0];
    let linear = Linear { rows: input[0], in_features: input[1], out_features };
    let shape = Conv::from(linear);
    shape.validate().map_err(Problem::refused("shape"))?;
    let geometry = Geometry {
        description: linear.to_string(),
        shape,
        weight: vec![out_features, input[1]],
        output: vec![input[0], out_features],
        input,
        pairs_may_saturate: false,
    };
    recording(case, geometry)
}

/// `x` [N, C, spatial…], `w` [O, C / groups, kernel…], `y` [N, O, spatial…] over `AXES` spatial axes.
pub(super) fn fbgemm_conv<const AXES: usize>(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let spatial = &["depth", "height", "width"][3 - AXES..];
    let input = case.dims("x", &[&["batch", "channels"], spatial].concat())?;
    let weight = case.dims("w", &[&["out_channels", "channels / groups"], spatial].concat())?;
    let [stride, padding, dilation] =
        [case.extents("stride", AXES)?, case.extents("padding", AXES)?, case.extents("dilation", AXES)?];
    let mut axes = [Axis::UNIT; 3];
    for (i, axis) in axes[3 - AXES..].iter_mut().enumerate() {
        *axis = Axis {
            input: input[2 + i],
            kernel: weight[2 + i],
            stride: stride[i],
            padding: [padding[i]; 2],
            dilation: dilation[i],
        };
    }
    let groups = case.field("groups", "an integer of at least 1")?;
    let shape = Conv { batch: input[0], in_channels: input[1], out_channels: weight[0], groups, axes };
    shape.validate().map_err(Problem::refused("shape, stride, padding, dilation and groups"))?;
    // Validation has shown that this fits.
    let padded = shape.axes.iter().map(|a| a.input + a.padding[0] + a.padding[1]).product::<usize>();
    if padded * shape.in_channels > LARGEST_IMAGE {
        let expected = format_args!("a padded image of at most {LARGEST_IMAGE} codes");
        return Err(Problem::wrong(Part::Field, "padding", format_args!("{padding:?}"), expected));
    }
    let extents = shape.output_extents().map_err(Problem::refused("shape"))?;
    let geometry = Geometry {
        description: shape.to_string(),
        shape,
        weight: [&[weight[0], shape.group_inputs()], &weight[2..]].concat(),
        output: [&[input[0], weight[0]], &extents[3 - AXES..]].concat(),
        input,
        // A three-dimensional kernel is on the depthwise path only if no extent is 1; two dimensions have no third.
        pairs_may_saturate: AXES < 3 || axes[0].kernel > 1,
    };
    recording(case, geometry)
}

/// The parts that all layers have.
fn recording(case: &mut Case<'_>, geometry: Geometry) -> Result<Box<dyn Operator>, Problem> {
    let Geometry { description, shape, input, weight, output, pairs_may_saturate } = geometry;
    let channels = shape.out_channels;
    let x = case.tensor("x", &input)?;
    let w = case.tensor("w", &weight)?;
    let bias = if case.has("bias") { Some(case.tensor("bias", &[channels])?) } else { None };
    let (weight_scale, each) = one_or_each::<f64>(case, "w_scale", channels)?;
    let per_channel: bool = case.field("per_channel", "true or false")?;
    if per_channel != each {
        let expected = if each { "true with a tensor `w_scale`" } else { "false without a tensor `w_scale`" };
        return Err(Problem::wrong(Part::Field, "per_channel", per_channel, expected));
    }
    let (weight_zero_point, _) = one_or_each(case, "w_zero_point", channels)?;
    let quantized_input = case.quantization("x_", CodeType::U8)?;
    let scales = Scales {
        input: quantized_input.scale(),
        weight: if each { WeightScale::PerChannel(&weight_scale) } else { WeightScale::PerTensor(weight_scale[0]) },
        output: case.quantization("y_", CodeType::U8)?,
    };
    let relu = case.field("relu", "true or false")?;
    let rule = fbgemm(scales, bias.as_deref(), relu).map_err(Problem::refused("w_scale"))?;
    let pixels: usize = shape.axes.iter().map(|a| a.input).product();
    let recording = Recording {
        description,
        shape,
        input: layout::channels_last(&x, shape.in_channels, pixels),
        input_zero_point: quantized_input.zero_point(),
        weight: layout::channels_last(&w, shape.group_inputs(), shape.taps()),
        weight_zero_point,
        rule: Rule::F32Mul(rule),
        output: [Recorded::take::<u8>(case, "y", output)?],
        pairs_may_saturate,
    };
    recording.layer().map_err(Problem::refused("layer"))?;
    Ok(Box::new(recording))
}

impl Recording {
    fn layer(&self) -> Result<Layer<'_>, Error> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: CodeType::U8,
            input_zero_point: self.input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        })
    }

    /// Codes other than the recorded ones, everywhere: an output that is not written cannot look right.
    fn unwritten(&self) -> Vec<u8> {
        let other: Vec<u8> = self.output[0].values.iter().map(|y| matches!(y, Value::Code(0)).into()).collect();
        layout::channels_last(&other, self.shape.out_channels, self.shape.pixels())
    }

    fn recorded_order(&self, y: &[u8]) -> Outputs {
        let y = layout::channels_first(y, self.shape.out_channels, self.shape.pixels());
        vec![y.into_iter().map(Value::from).collect()]
    }
}

impl Operator for Recording {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let layer = self.layer()?;
        let mut y = self.unwritten();
        layer.run(&layer.region(self.shape.batch)?, Input::U8(&self.input), Output::U8(&mut y))?;
        Ok(self.recorded_order(&y))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let plan = Plan::new(&self.layer()?, isa)?;
        let (mut y, mut scratch) = (self.unwritten(), plan.scratch());
        let region = plan.region(self.shape.batch)?;
        plan.run(&region, Input::U8(&self.input), Output::U8(&mut y), &mut scratch)?;
        Ok((plan.kernel().to_string(), self.recorded_order(&y)))
    }

    fn explain(&self, _tensor: usize, index: usize) -> Explanation {
        let Ok(layer) = self.layer() else { return Explanation::default() };
        let (pixels, channels) = (self.shape.pixels(), self.shape.out_channels);
        let (image, channel, pixel) = (index / pixels / channels, index / pixels % channels, index % pixels);
        let row = image * pixels + pixel;
        let accumulator = layer.accumulator(&self.input, row, channel);
        Explanation {
            accumulator: Some(accumulator),
            tie: explain::rounding_tie(&self.rule, accumulator, channel),
            saturated: self.pairs_may_saturate.then(|| explain::saturated(&layer, &self.input, row, channel)).flatten(),
        }
    }
}

/// A parameter of the weights: a field for all of them, or a tensor with one element an output channel. Tells
/// which it is.
pub(super) fn one_or_each<T: Scalar + DeserializeOwned>(
    case: &mut Case<'_>,
    name: &str,
    channels: usize,
) -> Result<(Vec<T>, bool), Problem> {
    let one = case.nullable_field(name, "a number, or null beside a tensor")?;
    let each = if case.has(name) { Some(case.tensor(name, &[channels])?) } else { None };
    match (one, each) {
        (Some(one), None) => Ok((vec![one], false)),
        (None, Some(each)) => Ok((each, true)),
        (None, None) => Err(Problem::missing(Part::Field, name, "a number where there is no tensor")),
        (Some(_), Some(_)) => Err(Problem::wrong(Part::Field, name, "a number", "null beside a tensor")),
    }
}
