//! Linear and convolution layers, recorded from ONNX Runtime on a CPU without VNNI.
//!
//! R6 with an int32 bias (R8a) and "clamp first". Activations are u8 or i8, weights i8 or u8. u8 weights are read as
//! w − 128 with z_W − 128 in place of z_W, which changes no difference; the runtime adds their products exactly.

use super::error::{Part, Problem};
use super::file::Case;
use super::layer::{Geometry, one_or_each};
use super::operator::{Explanation, Operator, Outputs, Recorded};
use super::report::Value;
use crate::explain;
use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, F32Mul, Overflow};
use qexact_reference::saturation::Machine;
use qexact_reference::{CodeType, Conv, Error, Input, Layer, Output, Rule, layout};

/// A recorded layer, channels last.
struct Recording {
    description: String,
    shape: Conv,
    input: Codes,
    input_zero_point: i32,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: Rule,
    output: [Recorded; 1],
    machine: Option<Machine>,
}

enum Codes {
    U8(Vec<u8>),
    I8(Vec<i8>),
}

/// `QGemm` and `QLinearMatMul`.
pub(super) fn linear(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::linear(case)?;
    recording(case, geometry)
}

/// `QLinearConv` over two spatial axes.
pub(super) fn conv2d(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::conv::<2>(case)?;
    recording(case, geometry)
}

fn recording(case: &mut Case<'_>, geometry: Geometry) -> Result<Box<dyn Operator>, Problem> {
    let Geometry { description, shape, input, weight, output } = geometry;
    let (channels, pixels) = (shape.out_channels, shape.axes.iter().map(|a| a.input).product());
    let [x_codes, w_codes, y_codes] = [case.code_type("x")?, case.code_type("w")?, case.code_type("y")?];
    let bias = if case.has("bias") { Bias::I32(case.tensor("bias", &[channels])?) } else { Bias::None };
    let (weight_scale, each) = one_or_each::<f32>(case, "w_scale", channels)?;
    let per_channel: bool = case.field("per_channel", "true or false")?;
    if per_channel != each {
        let expected = if each { "true with a tensor `w_scale`" } else { "false without a tensor `w_scale`" };
        return Err(Problem::wrong(Part::Field, "per_channel", per_channel, expected));
    }
    let (mut weight_zero_point, _) = one_or_each::<i32>(case, "w_zero_point", channels)?;
    for &zero_point in &weight_zero_point {
        w_codes.check("weight zero point", zero_point).map_err(Problem::refused("w_zero_point"))?;
    }
    let (x, y) = (case.quantization("x_", x_codes)?, case.quantization("y_", y_codes)?);
    let multiplier = weight_scale.iter().map(|s_w| x.scale() as f32 * s_w / y.scale() as f32).collect();
    let rule = F32Mul::new(multiplier, bias, y.zero_point(), y_codes).map_err(Problem::refused("y_zero_point"))?;
    let w: Vec<i8> = if w_codes.is_signed() {
        case.tensor("w", &weight)?
    } else {
        weight_zero_point.iter_mut().for_each(|zero_point| *zero_point -= 128);
        case.tensor::<u8>("w", &weight)?.into_iter().map(|w| (w ^ 0x80).cast_signed()).collect()
    };
    let recording = Recording {
        description,
        shape,
        input: if x_codes.is_signed() {
            Codes::I8(layout::channels_last(&case.tensor("x", &input)?, shape.in_channels, pixels))
        } else {
            Codes::U8(layout::channels_last(&case.tensor("x", &input)?, shape.in_channels, pixels))
        },
        input_zero_point: x.zero_point(),
        weight: layout::channels_last(&w, shape.group_inputs(), shape.taps()),
        weight_zero_point,
        rule: Rule::F32Mul(rule.overflow(Overflow::ClampFirst)),
        output: [Recorded::take_codes(case, "y", output, y_codes)?],
        machine: w_codes.is_signed().then_some(Machine::OnnxRuntimeWithoutVnni),
    };
    recording.layer().map_err(Problem::refused("layer"))?;
    Ok(Box::new(recording))
}

impl Recording {
    fn layer(&self) -> Result<Layer<'_>, Error> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: if matches!(self.input, Codes::I8(_)) { CodeType::I8 } else { CodeType::U8 },
            input_zero_point: self.input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        })
    }

    fn input(&self) -> Input<'_> {
        match &self.input {
            Codes::U8(x) => Input::U8(x),
            Codes::I8(x) => Input::I8(x),
        }
    }

    /// Runs a layer into codes other than the recorded ones: an output that is not written cannot look right.
    fn run(&self, run: impl FnOnce(Output<'_>) -> Result<(), Error>) -> Result<Outputs, Error> {
        let (channels, pixels) = (self.shape.out_channels, self.shape.pixels());
        let zero = |value: &Value| matches!(value, Value::Code(0));
        let unwritten: Vec<bool> = self.output[0].values.iter().map(zero).collect();
        let unwritten = layout::channels_last(&unwritten, channels, pixels);
        let y: Vec<Value> = if self.rule.element_type() == "i8" {
            let mut y: Vec<i8> = unwritten.into_iter().map(i8::from).collect();
            run(Output::I8(&mut y))?;
            y.into_iter().map(Value::from).collect()
        } else {
            let mut y: Vec<u8> = unwritten.into_iter().map(u8::from).collect();
            run(Output::U8(&mut y))?;
            y.into_iter().map(Value::from).collect()
        };
        Ok(vec![layout::channels_first(&y, channels, pixels)])
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
        let region = layer.region(self.shape.batch)?;
        self.run(|y| layer.run(&region, self.input(), y))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let plan = Plan::new(&self.layer()?, isa)?;
        let (region, mut scratch) = (plan.region(self.shape.batch)?, plan.scratch());
        let outputs = self.run(|y| plan.run(&region, self.input(), y, &mut scratch))?;
        Ok((plan.kernel().to_string(), outputs))
    }

    fn explain(&self, _tensor: usize, index: usize) -> Explanation {
        let Ok(layer) = self.layer() else { return Explanation::default() };
        let (pixels, channels) = (self.shape.pixels(), self.shape.out_channels);
        let (image, channel, pixel) = (index / pixels / channels, index / pixels % channels, index % pixels);
        let row = image * pixels + pixel;
        let (accumulator, saturated) = match &self.input {
            Codes::I8(x) => (layer.accumulator(x, row, channel), None),
            Codes::U8(x) => (
                layer.accumulator(x, row, channel),
                self.machine.and_then(|machine| explain::saturated(machine, &layer, x, row, channel)),
            ),
        };
        let tie = explain::rounding_tie(&self.rule, accumulator, channel);
        Explanation { accumulator: Some(accumulator), tie, saturated }
    }
}
