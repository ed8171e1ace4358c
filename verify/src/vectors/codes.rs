//! Codes of either type.

use super::error::Problem;
use super::file::Case;
use super::operator::Outputs;
use super::report::Value;
use qexact_kernels::Isa;
use qexact_reference::{Code, CodeType, Error};

/// The codes of a tensor.
pub(super) enum Codes {
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Codes {
    /// Takes the tensor `name` and brings it into the order that `order` gives it, whatever its type.
    pub(super) fn take(
        case: &mut Case<'_>,
        name: &str,
        shape: &[usize],
        codes: CodeType,
        order: impl Fn(&[i32]) -> Vec<i32>,
    ) -> Result<Codes, Problem> {
        let x = order(&case.codes(name, shape, codes)?);
        Ok(if codes.is_signed() { Codes::I8(narrow(&x)) } else { Codes::U8(narrow(&x)) })
    }
}

/// Codes of a type that holds them.
pub(super) fn narrow<T: Code>(codes: &[i32]) -> Vec<T> {
    codes.iter().map(|&q| T::from_i32(q)).collect()
}

/// Codes as outputs.
pub(super) fn values<T: Code>(codes: Vec<T>) -> Vec<Value> {
    codes.into_iter().map(|q| Value::Code(q.into())).collect()
}

/// What an operator of `kernels::elementwise` returned, with the name of its kernels.
pub(super) fn elementwise(isa: Isa, outputs: Result<Outputs, Error>) -> Result<(String, Outputs), Error> {
    let name = if isa == Isa::REFERENCE { "reference".into() } else { format!("elementwise_{isa}") };
    Ok((name, outputs?))
}
