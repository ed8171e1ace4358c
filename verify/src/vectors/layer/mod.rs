//! Linear and convolution layers, recorded from any runtime.

mod dialect;
mod geometry;
mod transposed;

pub(super) use dialect::*;
pub(super) use geometry::LARGEST_IMAGE;
pub(super) use transposed::conv_transpose2d;

use super::codes::Codes;
use super::error::Problem;
use super::file::Case;
use super::operator::{Explanation, Operator, Outputs, Recorded};
use super::report::Value;
use crate::explain;
use dialect::{Added, CodesOf, Derived, Dialect};
use geometry::{Geometry, Order};
use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::quantization::signed_weights;
use qexact_reference::saturation::Machine;
use qexact_reference::{Addend, CodeType, Conv, Error, Input, Layer, Output, Rule};

/// A recorded layer, in the order of layers.
struct Recording {
    description: String,
    shape: Conv,
    order: Order,
    input: Codes,
    input_zero_point: i32,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: Rule,
    /// The rule of the channels from this one on, where it is another.
    tail: Option<(usize, Rule)>,
    addend: Added,
    output: [Recorded; 1],
    /// What it was recorded on, if that may add pairs of products in 16 bits.
    machine: Option<Machine>,
}

/// A linear layer.
pub(super) fn linear(case: &mut Case<'_>, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::linear(case)?;
    recording(case, geometry, dialect)
}

/// A convolution over so many axes.
pub(super) fn conv(case: &mut Case<'_>, axes: usize, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::conv(case, axes)?;
    recording(case, geometry, dialect)
}

/// A convolution of TFLite.
pub(super) fn lite_conv2d(case: &mut Case<'_>, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::lite_conv2d(case)?;
    recording(case, geometry, dialect)
}

/// A depthwise convolution of TFLite.
pub(super) fn lite_depthwise_conv2d(case: &mut Case<'_>, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::lite_depthwise_conv2d(case)?;
    recording(case, geometry, dialect)
}

/// A fully connected layer of TFLite.
pub(super) fn lite_linear(case: &mut Case<'_>, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let geometry = Geometry::linear_of_lite(case)?;
    recording(case, geometry, dialect)
}

/// The parts that all layers have.
fn recording(case: &mut Case<'_>, geometry: Geometry, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let Geometry { shape, order, .. } = geometry;
    let types = dialect.codes.types(case)?;
    let pixels: usize = shape.axes.iter().map(|a| a.input).product();
    let input = if types.input.is_signed() {
        Codes::I8(order.to_layer(case.tensor("x", &geometry.input)?, shape.in_channels, pixels))
    } else {
        Codes::U8(order.to_layer(case.tensor("x", &geometry.input)?, shape.in_channels, pixels))
    };
    let unsigned_weights = dialect.codes == CodesOf::Onnx && case.code_type("w")? == CodeType::U8;
    let weight = if unsigned_weights {
        Codes::U8(order.weight(case.tensor("w", &geometry.weight)?, &shape))
    } else {
        Codes::I8(order.weight(case.tensor("w", &geometry.weight)?, &shape))
    };
    let Derived { input_zero_point, weight_zero_point, rule, tail, addend, machine } =
        (dialect.derive)(case, &geometry, types)?;
    let machine = machine.filter(|&machine| match machine {
        Machine::FbgemmDepthwise => geometry.may_be_depthwise,
        // Products of two unsigned codes are added exactly.
        Machine::OnnxRuntimeWithoutVnni => !unsigned_weights,
        _ => true,
    });
    let (weight, weight_zero_point) = match weight {
        Codes::I8(weight) => (weight, weight_zero_point),
        Codes::U8(weight) => signed_weights(&weight, &weight_zero_point).map_err(Problem::refused("w_zero_point"))?,
    };
    let (pixels, channels) = (shape.pixels(), shape.out_channels);
    let recording = Recording {
        addend: match addend {
            Added::Nothing => Added::Nothing,
            Added::Codes(a) => Added::Codes(order.to_layer(a, channels, pixels)),
            Added::Reals(a) => Added::Reals(order.to_layer(a, channels, pixels)),
        },
        output: [recorded_output(case, &geometry, dialect, &rule)?],
        description: geometry.description,
        shape,
        order,
        input,
        input_zero_point,
        weight,
        weight_zero_point,
        rule,
        tail,
        machine,
    };
    recording.layer(&recording.rule).map_err(Problem::refused("layer"))?;
    Ok(Box::new(recording))
}

fn recorded_output(
    case: &mut Case<'_>,
    geometry: &Geometry,
    dialect: &Dialect,
    rule: &Rule,
) -> Result<Recorded, Problem> {
    let shape = geometry.output.clone();
    match rule.codes() {
        _ if dialect.codes == CodesOf::Brevitas => Recorded::take::<i16>(case, "y", shape),
        Some(codes) => Recorded::take_codes(case, "y", shape, codes.code_type()),
        None => Recorded::take::<f32>(case, "y", shape),
    }
}

impl Recording {
    fn layer<'a>(&'a self, rule: &'a Rule) -> Result<Layer<'a>, Error> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: match self.input {
                Codes::U8(_) => CodeType::U8,
                Codes::I8(_) => CodeType::I8,
            },
            input_zero_point: self.input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule,
        })
    }

    fn input(&self) -> Input<'_> {
        match &self.input {
            Codes::U8(x) => Input::U8(x),
            Codes::I8(x) => Input::I8(x),
        }
    }

    fn addend(&self) -> Addend<'_> {
        match &self.addend {
            Added::Nothing => Addend::None,
            Added::Codes(a) => Addend::U8(a),
            Added::Reals(a) => Addend::F32(a),
        }
    }

    /// What `run` returns for the rule of each channel.
    fn by_channel(&self, run: impl Fn(&Rule) -> Result<Outputs, Error>) -> Result<Outputs, Error> {
        let mut outputs = run(&self.rule)?;
        if let Some((start, rule)) = &self.tail {
            let tail = run(rule)?;
            for (index, (value, other)) in outputs[0].iter_mut().zip(&tail[0]).enumerate() {
                if self.order.place(index, &self.shape).1 >= *start {
                    *value = *other;
                }
            }
        }
        Ok(outputs)
    }

    /// What `run` writes, in the order of the file.
    fn outputs(&self, run: impl FnOnce(Output<'_>) -> Result<(), Error>) -> Result<Outputs, Error> {
        let values = match self.rule.element_type() {
            "u8" => self.written(run, |y| Output::U8(y))?,
            "i8" => self.written(run, |y| Output::I8(y))?,
            _ => self.written(run, |y| Output::F32(y))?,
        };
        Ok(vec![self.order.to_file(values, self.shape.out_channels, self.shape.pixels())])
    }

    fn written<T: Copy + From<bool> + Into<Value>>(
        &self,
        run: impl FnOnce(Output<'_>) -> Result<(), Error>,
        output: impl FnOnce(&mut [T]) -> Output<'_>,
    ) -> Result<Vec<Value>, Error> {
        // Values other than the recorded ones, everywhere: an output that is not written cannot look right.
        let other = |value: &Value| match value {
            Value::Code(code) => T::from(*code == 0),
            Value::Real(real) => T::from(*real == 0.0),
        };
        let other: Vec<T> = self.output[0].values.iter().map(other).collect();
        let mut y = self.order.to_layer(other, self.shape.out_channels, self.shape.pixels());
        run(output(&mut y))?;
        Ok(y.into_iter().map(Into::into).collect())
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
        self.by_channel(|rule| {
            let layer = self.layer(rule)?;
            let region = layer.region(self.shape.batch)?;
            self.outputs(|y| layer.run_adding(&region, self.input(), self.addend(), y))
        })
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let kernel = Plan::new(&self.layer(&self.rule)?, isa)?.kernel().to_string();
        let outputs = self.by_channel(|rule| {
            let plan = Plan::new(&self.layer(rule)?, isa)?;
            let region = plan.region(self.shape.batch)?;
            let mut scratch = plan.scratch();
            self.outputs(|y| plan.run_adding(&region, self.input(), self.addend(), y, &mut scratch))
        })?;
        Ok((kernel, outputs))
    }

    fn explain(&self, _tensor: usize, index: usize) -> Explanation {
        let (row, channel) = self.order.place(index, &self.shape);
        let rule = match &self.tail {
            Some((start, rule)) if channel >= *start => rule,
            _ => &self.rule,
        };
        let Ok(layer) = self.layer(rule) else { return Explanation::default() };
        let (accumulator, saturated) = match &self.input {
            Codes::U8(x) => {
                let saturated = self.machine.and_then(|machine| explain::saturated(machine, &layer, x, row, channel));
                (layer.accumulator(x, row, channel), saturated)
            }
            Codes::I8(x) => (layer.accumulator(x, row, channel), None),
        };
        let addend = self.addend().get(row * self.shape.out_channels + channel);
        let tie = explain::rounding_tie(rule, accumulator, channel, addend);
        Explanation { accumulator: Some(accumulator), tie, saturated }
    }
}
