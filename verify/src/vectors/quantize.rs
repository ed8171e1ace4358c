//! Quantizing and dequantizing, recorded from PyTorch's ATen kernels.

use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Explanation, Operator, Outputs, Recorded};
use super::report::Value;
use crate::explain::Reason;
use qexact_reference::{CodeType, Error, Quantization};

/// A recorded tensor: reals, their codes and what the codes stand for.
struct Recording {
    quantization: Quantization,
    input: Vec<f32>,
    /// `q` and `x_dequant`.
    output: [Recorded; 2],
}

/// `q = quantize_per_tensor(x)` and `x_dequant = dequantize(q)`, both of the shape of `x`.
pub(super) fn per_tensor(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let dtype: String = case.field("dtype", "`quint8` or `qint8`")?;
    let codes = match dtype.as_str() {
        "quint8" => CodeType::U8,
        "qint8" => CodeType::I8,
        _ => return Err(Problem::wrong(Part::Field, "dtype", format_args!("`{dtype}`"), "`quint8` or `qint8`")),
    };
    let quantization = case.quantization("", codes)?;
    let shape = case.any_dims("x")?;
    Ok(Box::new(Recording {
        quantization,
        input: case.tensor("x", &shape)?,
        output: [
            Recorded::take_codes(case, "q", shape.clone(), codes)?,
            Recorded::take::<f32>(case, "x_dequant", shape)?,
        ],
    }))
}

impl Operator for Recording {
    fn describe(&self) -> String {
        format!("{} of {:?}", self.quantization.codes(), self.output[0].shape)
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let rule = self.quantization.quantize();
        let codes = self.input.iter().map(|&x| Value::Code(rule.apply(x))).collect();
        // Of the recorded codes: a wrong code is one difference, not two.
        let reals = self.output[0].values.iter().map(|&q| match q {
            Value::Code(code) => Value::Real(self.quantization.dequantize(code)),
            Value::Real(_) => q,
        });
        Ok(vec![codes, reals.collect()])
    }

    fn explain(&self, tensor: usize, index: usize) -> Explanation {
        let scaled = self.input[index] * self.quantization.quantize().multiplier;
        let tie = tensor == 0 && scaled.fract().abs() == 0.5;
        Explanation { tie: tie.then_some(Reason::RoundingTie { scaled }), ..Explanation::default() }
    }
}
