//! Operators that compute each code from the codes at its place.

use super::Context;
use crate::document::{self, Multiplier, QuantizeMultiplier, QuantizeOverflow, Rule, Sum};
use crate::error::{At, LoadError, invalid};
use crate::network::Operator;
use qexact_reference::activation::Activation;
use qexact_reference::add::{Add, Form};
use qexact_reference::batch_norm::{self, BatchNorm};
use qexact_reference::broadcast::broadcast_shape;
use qexact_reference::mul::Mul;
use qexact_reference::quantizer::{QuantizeForm, Quantizer};
use qexact_reference::table::Table;

impl Context<'_> {
    pub(super) fn quantize(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.expect_f32(self.input)?;
        self.expect_output_shape(&self.input.shape)?;
        let output = self.codes(self.output)?;
        let Rule::Quantize { multiplier, overflow, zero_point: document::ZeroPoint::After } = self.rule()? else {
            return self.wrong_rule(&self.rule()?, "quantize");
        };
        let form = match overflow {
            QuantizeOverflow::Wrap => QuantizeForm::Wrapping,
            QuantizeOverflow::Saturate => QuantizeForm::Saturating,
        };
        let mut quantizer = Quantizer::new(form, output);
        if multiplier == QuantizeMultiplier::F64Reciprocal {
            quantizer.factor = (1.0 / output.scale()) as f32;
        }
        Ok(Operator::Quantize(quantizer))
    }

    pub(super) fn dequantize(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.expect_f32(self.output)?;
        self.expect_output_shape(&self.input.shape)?;
        let input = self.codes(self.input)?;
        match self.rule()? {
            Rule::Dequantize {} => Ok(Operator::Dequantize(input)),
            rule => self.wrong_rule(&rule, "dequantize"),
        }
    }

    pub(super) fn batch_norm(&self) -> Result<Operator, LoadError> {
        let a: document::BatchNorm = self.attributes()?;
        let [channels, ..] = self.image()?;
        self.expect_output_shape(&self.input.shape)?;
        let parameter = |name| -> Result<Vec<f32>, LoadError> {
            let values: Vec<f32> = self.parameter(name, &[channels])?;
            match values.iter().find(|v| !v.is_finite()) {
                None => Ok(values),
                Some(v) => {
                    Err(invalid(format!("tensor `{}.{name}`", self.node.name), "an element", v, "a finite number"))
                }
            }
        };
        let (weight, bias) = (parameter("weight")?, parameter("bias")?);
        let (mean, var) = (parameter("running_mean")?, parameter("running_var")?);
        if let Some(v) = var.iter().find(|&&v| v + (a.eps as f32) <= 0.0) {
            let place = format!("tensor `{}.running_var`", self.node.name);
            return Err(invalid(place, "an element", v, "more than −eps"));
        }
        match self.rule()? {
            Rule::BatchNorm { fma: true } => {}
            Rule::BatchNorm { fma: false } => return Err(self.wrong("`fma` of the rule", false, true)),
            rule => return self.wrong_rule(&rule, "batch_norm"),
        }
        let parameters =
            batch_norm::Parameters { weight: &weight, bias: &bias, running_mean: &mean, running_var: &var, eps: a.eps };
        let (input, output) = (self.codes(self.input)?, self.codes(self.output)?);
        self.expect_one_type()?;
        Ok(Operator::BatchNorm(BatchNorm::new(&parameters, input, output, a.relu).at(|| self.place.clone())?))
    }

    pub(super) fn relu(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.no_rule()?;
        self.expect_output_shape(&self.input.shape)?;
        self.expect_same_quantization()?;
        Ok(Operator::Relu(self.input.quantization.map(|q| q.zero_point())))
    }

    /// R27, the codes as the runtime gave them for every code of the input.
    pub(super) fn table(&self) -> Result<Operator, LoadError> {
        let document::Table { function: _ } = self.attributes()?;
        self.no_rule()?;
        self.expect_output_shape(&self.input.shape)?;
        let (from, to) = (self.codes(self.input)?.codes(), self.codes(self.output)?.codes());
        let len = [1 << from.bits()];
        let entries: Vec<i32> = if to.is_signed() {
            self.parameter::<i8>("table", &len)?.into_iter().map(i32::from).collect()
        } else {
            self.parameter::<u8>("table", &len)?.into_iter().map(i32::from).collect()
        };
        let table = Table::recorded(from, to, entries).at(|| format!("tensor `{}.table`", self.node.name))?;
        Ok(Operator::Table(table))
    }

    /// The two inputs fit each other and the output. The batch stands before both, so they have as many axes.
    fn expect_broadcast(&self) -> Result<(), LoadError> {
        self.expect_one_type()?;
        let (a, b) = (&self.inputs[0].shape, &self.inputs[1].shape);
        if a.len() != b.len() {
            return Err(self.wrong("number of axes of the second input", b.len(), a.len()));
        }
        self.expect_output_shape(&broadcast_shape(a, b).at(|| self.place.clone())?)
    }

    pub(super) fn add(&self) -> Result<Operator, LoadError> {
        let document::Relu { relu } = self.attributes()?;
        self.expect_broadcast()?;
        let [a, b, y] = [self.inputs[0], self.inputs[1], self.output].map(|value| self.codes(value));
        let (a, b, y) = (a?, b?, y?);
        let add = match self.rule()? {
            // Networks use the form of the vector body for every element.
            Rule::Add { sum: Sum::Real } => Add::aten(a, b, y, Form::Body),
            Rule::Add { sum: Sum::Shifted } => Add::qnnpack(a, b, y).at(|| self.place.clone())?,
            rule => return self.wrong_rule(&rule, "add"),
        };
        Ok(Operator::Add(if relu { add.relu(y) } else { add }))
    }

    pub(super) fn mul(&self) -> Result<Operator, LoadError> {
        let document::Relu { relu } = self.attributes()?;
        self.expect_broadcast()?;
        let [a, b, y] = [self.inputs[0], self.inputs[1], self.output].map(|value| self.codes(value));
        let (a, b, y) = (a?, b?, y?);
        let mul = match self.rule()? {
            Rule::Mul { multiplier: Multiplier::Reciprocal } => Mul::aten(a, b, y, Form::Body),
            Rule::Mul { multiplier: Multiplier::Quotient } => Mul::xnnpack(a, b, y),
            rule => return self.wrong_rule(&rule, "mul"),
        };
        Ok(Operator::Mul(if relu { mul.clamped(Activation::Relu.clamp(y)) } else { mul }))
    }
}
