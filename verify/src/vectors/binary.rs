//! Sums and products of two quantized tensors.

use super::activation;
use super::codes::{elementwise, narrow, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Operator, Outputs, Recorded};
use super::report::Value;
use qexact_kernels::Isa;
use qexact_kernels::elementwise as kernels;
use qexact_reference::activation::Activation;
use qexact_reference::add::{Add, Form};
use qexact_reference::broadcast::{broadcast, broadcast_shape};
use qexact_reference::mul::Mul;
use qexact_reference::{Code, CodeType, Error, Quantization};

/// A recorded call. All elements before `body` follow the first rule, the others the second.
struct Recording {
    rules: [Rule; 2],
    body: usize,
    /// Types of a, b and y.
    types: [CodeType; 3],
    a: (Vec<i32>, Vec<usize>),
    b: (Vec<i32>, Vec<usize>),
    output: [Recorded; 1],
}

#[derive(Clone, Copy)]
enum Rule {
    Add(Add),
    Mul(Mul),
}

impl Rule {
    fn apply(&self, a: i32, b: i32) -> i32 {
        match self {
            Rule::Add(rule) => rule.apply(a, b),
            Rule::Mul(rule) => rule.apply(a, b),
        }
    }
}

/// `torch.ops.quantized.add(a, b)`: whole groups of `simd_granule` elements and the elements left have two formulas.
pub(super) fn aten_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let granule = granule(case)?;
    let relu = relu(case)?;
    recording(case, granule, |[a, b, y]| {
        let rule = |form| Add::aten(a, b, y, form);
        Ok([Form::Body, Form::Tail].map(|form| Rule::Add(if relu { rule(form).relu(y) } else { rule(form) })))
    })
}

/// `torch.ops.quantized.mul(a, b)`, the same kernel with the engines fbgemm and qnnpack.
pub(super) fn aten_mul(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let granule = granule(case)?;
    let relu = relu(case)?;
    recording(case, granule, |[a, b, y]| {
        let rule = |form| Mul::aten(a, b, y, form);
        let relu_of = |rule: Mul| if relu { rule.clamped(Activation::Relu.clamp(y)) } else { rule };
        Ok([Form::Body, Form::Tail].map(|form| Rule::Mul(relu_of(rule(form)))))
    })
}

/// `torch.ops.quantized.add(a, b)` with the engine qnnpack.
pub(super) fn qnnpack_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let granule = granule(case)?;
    let relu = relu(case)?;
    recording(case, granule, |[a, b, y]| {
        let rule = Add::qnnpack(a, b, y)?;
        Ok([Rule::Add(if relu { rule.relu(y) } else { rule }); 2])
    })
}

/// `com.microsoft.QLinearAdd`
pub(super) fn ort_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    recording(case, 1, |[a, b, y]| Ok([Rule::Add(Add::ort(a, b, y)); 2]))
}

/// `com.microsoft.QLinearMul`
pub(super) fn ort_mul(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    recording(case, 1, |[a, b, y]| Ok([Rule::Mul(Mul::ort(a, b, y)); 2]))
}

/// TFLite's `ADD`, the reference kernel.
pub(super) fn tflite_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    lite(case, 1, [Form::Tail; 2], |[a, b, y], form, clamp| Rule::Add(Add::tflite(a, b, y, form).clamped(clamp)))
}

/// TFLite's `MUL`, the reference kernel.
pub(super) fn tflite_mul(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    lite(case, 1, [Form::Tail; 2], |[a, b, y], form, clamp| Rule::Mul(Mul::tflite(a, b, y, form).clamped(clamp)))
}

/// TFLite's `ADD`, the optimised kernel on x86: vectors of 16.
pub(super) fn tflite_optimised_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let forms = [Form::Body, Form::Tail];
    lite(case, 16, forms, |[a, b, y], form, clamp| Rule::Add(Add::tflite(a, b, y, form).clamped(clamp)))
}

/// TFLite's `MUL`, the optimised kernel on x86: vectors of 16.
pub(super) fn tflite_optimised_mul(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let forms = [Form::Body, Form::Tail];
    lite(case, 16, forms, |[a, b, y], form, clamp| Rule::Mul(Mul::tflite(a, b, y, form).clamped(clamp)))
}

/// An operator of TFLite, by the rules of its body and its tail.
fn lite(
    case: &mut Case<'_>,
    granule: usize,
    forms: [Form; 2],
    rule: impl Fn([Quantization; 3], Form, [i32; 2]) -> Rule,
) -> Result<Box<dyn Operator>, Problem> {
    let activation = activation(case)?;
    recording(case, granule, |q| Ok(forms.map(|form| rule(q, form, activation.clamp(q[2])))))
}

/// TFLite's `ADD` given to XNNPACK.
pub(super) fn xnnpack_add(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let activation = activation(case)?;
    recording(case, 1, |[a, b, y]| Ok([Rule::Add(Add::xnnpack(a, b, y)?.clamped(activation.clamp_of_xnnpack(y))); 2]))
}

/// TFLite's `MUL` given to XNNPACK.
pub(super) fn xnnpack_mul(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let activation = activation(case)?;
    recording(case, 1, |[a, b, y]| Ok([Rule::Mul(Mul::xnnpack(a, b, y).clamped(activation.clamp_of_xnnpack(y))); 2]))
}

/// How many elements PyTorch's vector body takes at a time.
fn granule(case: &mut Case<'_>) -> Result<usize, Problem> {
    let expected = "an integer of at least 1";
    match case.field("simd_granule", expected)? {
        0 => Err(Problem::wrong(Part::Field, "simd_granule", 0, expected)),
        granule => Ok(granule),
    }
}

fn relu(case: &mut Case<'_>) -> Result<bool, Problem> {
    case.field("relu", "true or false")
}

/// The parts that all cases have; `rules` are those of body and tail.
fn recording(
    case: &mut Case<'_>,
    granule: usize,
    rules: impl Fn([Quantization; 3]) -> Result<[Rule; 2], Error>,
) -> Result<Box<dyn Operator>, Problem> {
    let (a_shape, b_shape) = (case.any_dims("a")?, case.any_dims("b")?);
    let shape = broadcast_shape(&a_shape, &b_shape).map_err(Problem::refused("shapes of a and b"))?;
    let types = [case.code_type("a")?, case.code_type("b")?, case.code_type("y")?];
    let mut quantization = |prefix, codes: CodeType| case.quantization(prefix, codes);
    let [a, b, y] = [quantization("a_", types[0])?, quantization("b_", types[1])?, quantization("y_", types[2])?];
    let rules = rules([a, b, y]).map_err(Problem::refused("a_scale, b_scale and y_scale"))?;
    let output = [Recorded::take_codes(case, "y", shape, types[2])?];
    let len = output[0].values.len();
    Ok(Box::new(Recording {
        rules,
        body: len / granule * granule,
        types,
        a: (case.codes("a", &a_shape, types[0])?, a_shape),
        b: (case.codes("b", &b_shape, types[1])?, b_shape),
        output,
    }))
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let (len, body) = (self.output[0].values.len(), self.body);
        let tail = if body < len { format!(", the last {} in the tail", len - body) } else { String::new() };
        format!("{:?}{tail}", self.output[0].shape)
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let mut index = 0;
        let y = broadcast((&self.a.0, &self.a.1), (&self.b.0, &self.b.1), |a, b| {
            let rule = &self.rules[usize::from(index >= self.body)];
            index += 1;
            Value::Code(rule.apply(a, b))
        })?;
        Ok(vec![y])
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let [a, b, y] = self.types.map(CodeType::is_signed);
        let y = match (a, b, y) {
            (false, false, false) => self.run::<u8, u8, u8>(isa),
            (false, false, true) => self.run::<u8, u8, i8>(isa),
            (false, true, false) => self.run::<u8, i8, u8>(isa),
            (false, true, true) => self.run::<u8, i8, i8>(isa),
            (true, false, false) => self.run::<i8, u8, u8>(isa),
            (true, false, true) => self.run::<i8, u8, i8>(isa),
            (true, true, false) => self.run::<i8, i8, u8>(isa),
            (true, true, true) => self.run::<i8, i8, i8>(isa),
        };
        elementwise(isa, y.map(|y| vec![y]))
    }
}

impl Recording {
    fn run<A: Code, B: Code, Y: Code>(&self, isa: Isa) -> Result<Vec<Value>, Error> {
        let (a, b): (Vec<A>, Vec<B>) = (narrow(&self.a.0), narrow(&self.b.0));
        let (a, b) = ((a.as_slice(), self.a.1.as_slice()), (b.as_slice(), self.b.1.as_slice()));
        let all = |rule: &Rule| -> Result<Vec<Y>, Error> {
            match rule {
                Rule::Add(rule) => kernels::broadcast(isa, rule, a, b),
                Rule::Mul(rule) => kernels::broadcast(isa, rule, a, b),
            }
        };
        let [mut y, tail] = [all(&self.rules[0])?, all(&self.rules[1])?];
        y[self.body..].copy_from_slice(&tail[self.body..]);
        Ok(values(y))
    }
}
