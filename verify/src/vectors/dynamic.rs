//! Linear layers whose input is quantized as it arrives: range, scale and zero point, codes, accumulators, reals.

use super::error::{Part, Problem};
use super::file::Case;
use super::layer::one_or_each;
use super::operator::{Operator, Outputs, Recorded};
use super::report::Value;
use qexact_kernels::{Isa, Plan};
use qexact_reference::dynamic;
use qexact_reference::layer::LayerParts;
use qexact_reference::preset::{DynamicEngine, WeightScale, torch_linear_dynamic};
use qexact_reference::quantizer::{QuantizeForm, Quantizer};
use qexact_reference::requantize::F32Out;
use qexact_reference::{CodeType, Conv, Error, Input, Layer, Linear, Output, Quantization, Rule, layout};

/// A recorded call.
struct Recording {
    linear: Linear,
    quantization: Quantization,
    /// Codes of the input.
    codes: Vec<u8>,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: F32Out,
    /// `y`; where the runtime shows them also `q`, `q_scale`, `q_zero_point` and `acc`.
    output: Vec<Recorded>,
}

/// `torch.ops.quantized.linear_dynamic` with the engine fbgemm.
pub(super) fn fbgemm(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    torch(case, DynamicEngine::Fbgemm)
}

/// `torch.ops.quantized.linear_dynamic` with the engine onednn.
pub(super) fn onednn(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    torch(case, DynamicEngine::Onednn)
}

/// `torch.ops.quantized.linear_dynamic` with the engine qnnpack, which does not read `reduce_range`.
pub(super) fn qnnpack(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    torch(case, DynamicEngine::Qnnpack)
}

/// `x` [M, K], `w` [N, K], `y` [M, N].
fn torch(case: &mut Case<'_>, engine: DynamicEngine) -> Result<Box<dyn Operator>, Problem> {
    let x_shape = case.dims("x", &["rows", "in_features"])?;
    let out_features = case.dims("w", &["out_features", "in_features"])?[0];
    let linear = Linear { rows: x_shape[0], in_features: x_shape[1], out_features };
    let x: Vec<f32> = case.tensor("x", &x_shape)?;
    let weight = case.tensor("w", &[out_features, x_shape[1]])?;
    let bias = if case.has("bias") { case.tensor("bias", &[out_features])? } else { Vec::new() };
    let (weight_scale, each) = one_or_each::<f64>(case, "w_scale", out_features)?;
    let per_channel: bool = case.field("per_channel", "true or false")?;
    if per_channel != each {
        let expected = if each { "true with a tensor `w_scale`" } else { "false without a tensor `w_scale`" };
        return Err(Problem::wrong(Part::Field, "per_channel", per_channel, expected));
    }
    let (weight_zero_point, _) = one_or_each(case, "w_zero_point", out_features)?;
    let relu = case.field("relu", "true or false")?;
    let reduce_range: bool = case.field("reduce_range", "true or false")?;
    let range = dynamic::range(&x);
    let quantization = dynamic::torch(range, reduce_range && engine != DynamicEngine::Qnnpack)
        .map_err(Problem::refused("range of x"))?;
    let scale = if each { WeightScale::PerChannel(&weight_scale) } else { WeightScale::PerTensor(weight_scale[0]) };
    let (quantizer, rule) =
        torch_linear_dynamic(engine, quantization, scale, &bias, relu).map_err(Problem::refused("w_scale"))?;
    let output = vec![Recorded::take::<f32>(case, "y", vec![linear.rows, out_features])?];
    checked(Recording { linear, quantization, codes: codes(quantizer, &x), weight, weight_zero_point, rule, output })
}

/// `com.microsoft.DynamicQuantizeMatMul`: `x` [M, K], `w` [K, N], `y` [M, N].
pub(super) fn ort(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let x_shape = case.dims("x", &["rows", "in_features"])?;
    let out_features = case.dims("w", &["in_features", "out_features"])?[1];
    let linear = Linear { rows: x_shape[0], in_features: x_shape[1], out_features };
    let x: Vec<f32> = case.tensor("x", &x_shape)?;
    let weight: Vec<i8> = case.tensor("w", &[x_shape[1], out_features])?;
    let bias = if case.has("bias") { case.tensor("bias", &[out_features])? } else { Vec::new() };
    let per_channel: bool = case.field("per_channel", "true or false")?;
    let scales = if per_channel { out_features } else { 1 };
    let weight_scale: Vec<f32> = case.tensor("w_scale", &[scales])?;
    let (weight_zero_point, _) = one_or_each(case, "w_zero_point", out_features)?;
    let quantization = dynamic::onnx(dynamic::range(&x)).map_err(Problem::refused("range of x"))?;
    let scale = weight_scale.iter().map(|w| quantization.scale() as f32 * w).collect();
    let rule = F32Out { scale, bias, fused: false, relu: false };
    let y_shape = vec![linear.rows, out_features];
    let output = vec![
        Recorded::take::<f32>(case, "y", y_shape.clone())?,
        Recorded::take::<u8>(case, "q", x_shape)?,
        Recorded::take::<f32>(case, "q_scale", vec![1])?,
        Recorded::take::<u8>(case, "q_zero_point", vec![1])?,
        Recorded::take::<i32>(case, "acc", y_shape)?,
    ];
    let codes = codes(Quantizer::new(QuantizeForm::Divided, quantization), &x);
    let weight = layout::transpose(&weight, linear.in_features, out_features);
    checked(Recording { linear, quantization, codes, weight, weight_zero_point, rule, output })
}

fn codes(quantizer: Quantizer, x: &[f32]) -> Vec<u8> {
    x.iter().map(|&x| quantizer.apply(x) as u8).collect()
}

fn checked(recording: Recording) -> Result<Box<dyn Operator>, Problem> {
    recording.layer(&Rule::F32Out(recording.rule.clone())).map_err(Problem::refused("layer"))?;
    Ok(Box::new(recording))
}

impl Recording {
    fn layer<'a>(&'a self, rule: &'a Rule) -> Result<Layer<'a>, Error> {
        Layer::new(LayerParts {
            shape: Conv::from(self.linear),
            input: CodeType::U8,
            input_zero_point: self.quantization.zero_point(),
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule,
        })
    }

    fn len(&self) -> usize {
        self.output[0].values.len()
    }

    /// Everything that was recorded, given `y` and the accumulators.
    fn outputs(&self, y: Vec<f32>, accumulators: Vec<i32>) -> Outputs {
        let reals = y.into_iter().map(Value::from).collect();
        if self.output.len() == 1 {
            return vec![reals];
        }
        vec![
            reals,
            self.codes.iter().copied().map(Value::from).collect(),
            vec![Value::Real(self.quantization.scale() as f32)],
            vec![Value::Code(self.quantization.zero_point())],
            accumulators.into_iter().map(Value::from).collect(),
        ]
    }
}

impl Operator for Recording {
    fn describe(&self) -> String {
        self.linear.to_string()
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let rule = Rule::F32Out(self.rule.clone());
        let (layer, accumulate) = (self.layer(&rule)?, self.layer(&Rule::Accumulator)?);
        let (mut y, mut accumulators) = (vec![f32::NAN; self.len()], vec![0; self.len()]);
        layer.run(&layer.region(self.linear.rows)?, Input::U8(&self.codes), Output::F32(&mut y))?;
        accumulate.run(&layer.region(self.linear.rows)?, Input::U8(&self.codes), Output::I32(&mut accumulators))?;
        Ok(self.outputs(y, accumulators))
    }

    /// Packs the weights before anything is known about the input.
    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let shape = Conv::from(self.linear);
        let mut plan = Plan::new(
            &Layer::new(LayerParts {
                shape,
                input: CodeType::U8,
                input_zero_point: 0,
                weight: &self.weight,
                weight_zero_point: &self.weight_zero_point,
                rule: &Rule::Accumulator,
            })?,
            isa,
        )?;
        let (mut y, mut accumulators) = (vec![f32::NAN; self.len()], vec![0; self.len()]);
        let region = plan.region(self.linear.rows)?;
        plan.requantize(self.quantization.zero_point(), &Rule::Accumulator)?;
        let mut scratch = plan.scratch();
        plan.run(&region, Input::U8(&self.codes), Output::I32(&mut accumulators), &mut scratch)?;
        plan.requantize(self.quantization.zero_point(), &Rule::F32Out(self.rule.clone()))?;
        let mut scratch = plan.scratch();
        plan.run(&region, Input::U8(&self.codes), Output::F32(&mut y), &mut scratch)?;
        Ok((plan.kernel().to_string(), self.outputs(y, accumulators)))
    }
}
