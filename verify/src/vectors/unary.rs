//! Operators whose codes depend on one code each: functions as tables, and requantization.

use super::codes::{elementwise, narrow, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Operator, Outputs, Recorded};
use super::report::Value;
use qexact_kernels::Isa;
use qexact_kernels::elementwise::Lookup;
use qexact_reference::activation::Activation;
use qexact_reference::recode::Recode;
use qexact_reference::requantize::Rounding;
use qexact_reference::table::{Function, Table};
use qexact_reference::{Code, CodeType, Error, Quantization};

/// Tables, and what was recorded of each.
struct Functions {
    tables: Vec<Table>,
    output: Vec<Recorded>,
}

/// Quantized activation functions of PyTorch, for the codes 0 to 255 in order: all of them in the vector body.
pub(super) fn aten_unary(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let codes = CodeType::U8;
    let (x, y) = (case.quantization("x_", codes)?, case.quantization("y_", codes)?);
    for (name, expected) in [("hardswish_leaky_elu_out", "y_scale,y_zero_point"), ("relu_out", "x_scale,x_zero_point")]
    {
        let found: String = case.field(name, expected)?;
        if found != expected {
            return Err(Problem::wrong(Part::Field, name, format_args!("`{found}`"), expected));
        }
    }
    let mut own = |name: &str| {
        let (scale, zero_point) = case.field(name, "[scale, zero point]")?;
        Quantization::new(scale, zero_point, codes).map_err(Problem::refused("scale and zero point of an output"))
    };
    let (sigmoid, hardsigmoid, tanh) = (own("sigmoid_out")?, own("hardsigmoid_out")?, own("tanh_out")?);
    // Scalars are f64 in Python, and f32 in the kernels.
    let slope: f64 = case.field("leaky_slope", "a number")?;
    let alpha: f64 = case.field("elu_alpha", "a number")?;
    let real = |function: Function, to| Table::aten(function, x, to);
    let (tables, names): (Vec<Table>, Vec<&'static str>) = [
        (real(Function::Hardswish, y), "hardswish"),
        (real(Function::LeakyRelu(slope as f32), y), "leaky_relu"),
        (real(Function::Elu(alpha as f32), y), "elu"),
        (real(Function::Sigmoid, sigmoid), "sigmoid"),
        (real(Function::Hardsigmoid, hardsigmoid), "hardsigmoid"),
        (real(Function::Tanh, tanh), "tanh"),
        (Table::new(codes, |q| q.max(Activation::Relu.clamp(x)[0])), "relu"),
        (Table::aten_relu6(x), "relu6"),
    ]
    .into_iter()
    .unzip();
    let output = names.into_iter().map(|name| Recorded::take::<u8>(case, name, vec![256])).collect::<Result<_, _>>()?;
    Ok(Box::new(Functions { tables, output }))
}

impl Operator for Functions {
    fn describe(&self) -> String {
        format!("{} tables", self.tables.len())
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let values = |table: &Table| table.entries().iter().map(|&q| Value::Code(q)).collect();
        Ok(self.tables.iter().map(values).collect())
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let codes: Vec<u8> = (0..=255).collect();
        let look_up = |table: &Table| {
            let mut y = vec![0u8; codes.len()];
            Lookup::of_table(table).run(isa, &codes, &mut y)?;
            Ok(values(y))
        };
        elementwise(isa, self.tables.iter().map(look_up).collect())
    }
}

/// A recorded requantization. All elements before `body` follow the first rule, the others the second.
struct Recoding {
    rules: [Recode; 2],
    body: usize,
    /// Types of x and y.
    types: [CodeType; 2],
    input: Vec<i32>,
    output: [Recorded; 1],
}

/// TFLite's `QUANTIZE` of codes, the reference kernel.
pub(super) fn tflite_ref(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    recoding(case, 1, |x, y| Ok([Recode::tflite(x, y, Rounding::Away); 2]))
}

/// TFLite's `QUANTIZE` of codes, the optimised kernel on x86: vectors of 16.
pub(super) fn tflite_optimised(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    recoding(case, 16, |x, y| Ok([Rounding::Up, Rounding::Away].map(|last| Recode::tflite(x, y, last))))
}

/// TFLite's `QUANTIZE` of codes given to XNNPACK.
pub(super) fn xnnpack(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    recoding(case, 1, |x, y| Ok([Recode::xnnpack(x, y)?; 2]))
}

fn recoding(
    case: &mut Case<'_>,
    granule: usize,
    rules: impl Fn(Quantization, Quantization) -> Result<[Recode; 2], Error>,
) -> Result<Box<dyn Operator>, Problem> {
    let shape = case.any_dims("x")?;
    let (from, to) = (case.code_type("x")?, case.code_type("y")?);
    let (x, y) = (case.quantization("x_", from)?, case.quantization("y_", to)?);
    let input = case.codes("x", &shape, from)?;
    Ok(Box::new(Recoding {
        rules: rules(x, y).map_err(Problem::refused("x_scale and y_scale"))?,
        body: input.len() / granule * granule,
        types: [from, to],
        input,
        output: [Recorded::take_codes(case, "y", shape, to)?],
    }))
}

impl Operator for Recoding {
    fn describe(&self) -> String {
        format!("{:?}", self.output[0].shape)
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let (body, tail) = self.input.split_at(self.body);
        let [vector, scalar] = self.rules;
        let body = body.iter().map(|&q| vector.apply(q));
        Ok(vec![body.chain(tail.iter().map(|&q| scalar.apply(q))).map(Value::Code).collect()])
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let [x, y] = self.types.map(CodeType::is_signed);
        let y = match (x, y) {
            (false, false) => self.run::<u8, u8>(isa),
            (false, true) => self.run::<u8, i8>(isa),
            (true, false) => self.run::<i8, u8>(isa),
            (true, true) => self.run::<i8, i8>(isa),
        };
        elementwise(isa, y.map(|y| vec![y]))
    }
}

impl Recoding {
    fn run<X: Code, Y: Code>(&self, isa: Isa) -> Result<Vec<Value>, Error> {
        let (x, mut y): (Vec<X>, _) = (narrow(&self.input), vec![Y::MIN; self.input.len()]);
        let [body, tail] = self.rules.map(|rule| Lookup::of_recode(&rule));
        body.run(isa, &x[..self.body], &mut y[..self.body])?;
        tail.run(isa, &x[self.body..], &mut y[self.body..])?;
        Ok(values(y))
    }
}
