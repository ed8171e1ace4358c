//! Transposed convolutions over two axes, recorded from PyTorch. Shapes are logical: `x` [N, C, H, W],
//! `w` [C, O / groups, H, W].

use super::super::error::{Part, Problem};
use super::super::file::Case;
use super::super::operator::{Operator, Outputs, Recorded};
use super::super::report::Value;
use super::dialect::{Derived, Dialect};
use super::geometry::{Geometry, LARGEST_IMAGE, Order};
use qexact_kernels::{Isa, TransposedPlan};
use qexact_reference::layer::LayerParts;
use qexact_reference::transposed::{self, TransposedAxis, TransposedConv, weight_from_torch};
use qexact_reference::{CodeType, Conv, Error, Input, Linear, Output, Rule, layout};

/// A recorded layer, in the order of layers.
struct Recording {
    shape: TransposedConv,
    input: Vec<u8>,
    input_zero_point: i32,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: Rule,
    output: [Recorded; 1],
}

/// `torch.ops.quantized.conv_transpose2d`
pub(in super::super) fn conv_transpose2d(case: &mut Case<'_>, dialect: &Dialect) -> Result<Box<dyn Operator>, Problem> {
    let input = case.dims("x", &["batch", "channels", "height", "width"])?;
    let weight = case.dims("w", &["channels", "out_channels / groups", "height", "width"])?;
    let [stride, padding] = [case.extents("stride", 2)?, case.extents("padding", 2)?];
    let [output_padding, dilation] = [case.extents("output_padding", 2)?, case.extents("dilation", 2)?];
    let groups: usize = case.field("groups", "an integer of at least 1")?;
    let axis = |i: usize| TransposedAxis {
        input: input[2 + i],
        kernel: weight[2 + i],
        stride: stride[i],
        padding: [padding[i]; 2],
        output_padding: output_padding[i],
        dilation: dilation[i],
    };
    let out_channels = weight[1].saturating_mul(groups);
    let axes = [TransposedAxis::UNIT, axis(0), axis(1)];
    let shape = TransposedConv { batch: input[0], in_channels: input[1], out_channels, groups, axes };
    let refused = || Problem::refused("shape, stride, padding, output_padding, dilation and groups");
    let w = weight_from_torch(&case.tensor::<i8>("w", &weight)?, &shape).map_err(refused())?;
    let mut largest = shape.output_len().map_err(refused())?;
    for phase in shape.phases().map_err(refused())? {
        // Validation has shown that this fits.
        let padded = phase.shape.axes.iter().map(|a| a.input + a.padding[0] + a.padding[1]).product::<usize>();
        largest = largest.max(padded * shape.in_channels);
    }
    if largest > LARGEST_IMAGE {
        let expected = format_args!("a padded input and an output of at most {LARGEST_IMAGE} codes");
        return Err(Problem::wrong(Part::Field, "padding", format_args!("{padding:?}"), expected));
    }
    let [_, height, width] = shape.output_extents().map_err(refused())?;
    let x = layout::channels_last(&case.tensor::<u8>("x", &input)?, input[1], input[2] * input[3]);
    let output = vec![input[0], out_channels, height, width];
    // All that rules depend on is the number of channels.
    let geometry = Geometry {
        description: String::new(),
        shape: pointwise(&shape),
        input,
        weight,
        output: output.clone(),
        order: Order::ChannelsFirst,
        may_be_depthwise: false,
    };
    let types = dialect.codes.types(case)?;
    let Derived { input_zero_point, weight_zero_point, rule, .. } = (dialect.derive)(case, &geometry, types)?;
    let output = [Recorded::take::<u8>(case, "y", output)?];
    Ok(Box::new(Recording { shape, input: x, input_zero_point, weight: w, weight_zero_point, rule, output }))
}

/// A layer with the same channels.
fn pointwise(shape: &TransposedConv) -> Conv {
    Conv::from(Linear { rows: 1, in_features: shape.in_channels, out_features: shape.out_channels })
}

impl Recording {
    fn parts(&self) -> LayerParts<'_> {
        LayerParts {
            shape: pointwise(&self.shape),
            input: CodeType::U8,
            input_zero_point: self.input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        }
    }

    /// What `run` writes, in the order of the file.
    fn outputs(&self, run: impl FnOnce(Input<'_>, Output<'_>) -> Result<(), Error>) -> Result<Outputs, Error> {
        let Recorded { values, shape, .. } = &self.output[0];
        let mut y = vec![0u8; values.len()];
        run(Input::U8(&self.input), Output::U8(&mut y))?;
        let y = layout::channels_first(&y, shape[1], shape[2] * shape[3]);
        Ok(vec![y.into_iter().map(Value::from).collect()])
    }
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let TransposedConv { batch, in_channels, out_channels, groups, axes: [_, h, w] } = self.shape;
        format!(
            "n{batch}ic{in_channels}oc{out_channels}g{groups}ih{}iw{}kh{}kw{}sh{}sw{}ph{}pw{} transposed",
            h.input, w.input, h.kernel, w.kernel, h.stride, w.stride, h.padding[0], w.padding[0]
        )
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        self.outputs(|x, y| transposed::run(&self.shape, &self.parts(), x, y))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let plan = TransposedPlan::new(&self.shape, &self.parts(), isa)?;
        let outputs = self.outputs(|x, y| plan.run(x, y, &mut plan.scratch()))?;
        Ok((plan.plans()[0].kernel().to_string(), outputs))
    }
}
