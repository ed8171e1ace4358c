//! What can be checked: one module an operator, one line here.

use super::error::Problem;
use super::file::{Case, Scalar};
use super::report::Value;
use super::{layer, ort_avx2, pool, quantize};
use crate::explain::{Reason, SaturatedOutput};
use qexact_kernels::Isa;
use qexact_reference::{CodeType, Error};

/// One call of an operator, with everything it needs and everything it returned.
pub(super) trait Operator {
    /// Its geometry in one line.
    fn describe(&self) -> String;
    /// What the runtime returned.
    fn recorded(&self) -> &[Recorded];
    /// What the rules say, in the same order.
    fn exact(&self) -> Result<Outputs, Error>;
    /// The kernel of an instruction set, by name, and what it computes.
    fn on(&self, _isa: Isa) -> Result<(String, Outputs), Error> {
        Ok(("reference".into(), self.exact()?))
    }
    /// What is known about the output at flat index `index` of the recorded tensor number `tensor`.
    fn explain(&self, _tensor: usize, _index: usize) -> Explanation {
        Explanation::default()
    }
}

/// One vector for every recorded tensor.
pub(super) type Outputs = Vec<Vec<Value>>;

/// A tensor that the runtime returned.
pub(super) struct Recorded {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<Value>,
}

impl Recorded {
    /// Takes the tensor `name`.
    pub(super) fn take<T: Scalar + Into<Value>>(
        case: &mut Case<'_>,
        name: &'static str,
        shape: Vec<usize>,
    ) -> Result<Recorded, Problem> {
        let values = case.tensor::<T>(name, &shape)?.into_iter().map(Into::into).collect();
        Ok(Recorded { name, shape, values })
    }

    /// Takes the tensor `name`, which holds codes.
    pub(super) fn take_codes(
        case: &mut Case<'_>,
        name: &'static str,
        shape: Vec<usize>,
        codes: CodeType,
    ) -> Result<Recorded, Problem> {
        if codes.is_signed() { Self::take::<i8>(case, name, shape) } else { Self::take::<u8>(case, name, shape) }
    }
}

/// Why an output is what it is.
#[derive(Default)]
pub(super) struct Explanation {
    /// The exact accumulator.
    pub(super) accumulator: Option<i32>,
    /// The number that was rounded lies half-way between two integers.
    pub(super) tie: Option<Reason>,
    /// What a machine returns whose pairs of products saturate, if any of this output's do.
    pub(super) saturated: Option<SaturatedOutput>,
}

/// Takes a case apart.
pub(super) type Parse = fn(&mut Case<'_>) -> Result<Box<dyn Operator>, Problem>;

/// Dialect, operator and how to read a case.
const OPERATORS: [(&str, &str, Parse); 13] = [
    ("fbgemm", "linear", layer::fbgemm_linear),
    ("fbgemm", "conv1d", layer::fbgemm_conv::<1>),
    ("fbgemm", "conv2d", layer::fbgemm_conv::<2>),
    ("fbgemm", "conv3d", layer::fbgemm_conv::<3>),
    ("fbgemm_avx2", "linear", layer::fbgemm_avx2_linear),
    ("fbgemm_avx2", "conv2d", layer::fbgemm_avx2_conv::<2>),
    ("ort_avx2", "QGemm", ort_avx2::linear),
    ("ort_avx2", "QLinearMatMul", ort_avx2::linear),
    ("ort_avx2", "QLinearConv2d", ort_avx2::conv2d),
    ("aten", "quantize_per_tensor", quantize::per_tensor),
    ("aten", "max_pool2d", pool::max),
    ("aten", "avg_pool2d", pool::average),
    ("aten", "adaptive_avg_pool2d", pool::adaptive_average),
];

/// How to read the cases of an operator.
pub(super) fn find(dialect: &str, op: &str) -> Result<Parse, Problem> {
    let found = OPERATORS.iter().find(|known| (known.0, known.1) == (dialect, op));
    found.map(|&(_, _, parse)| parse).ok_or_else(|| {
        let supported = OPERATORS.map(|(dialect, op, _)| format!("{dialect}.{op}")).join(", ");
        Problem::Unsupported { dialect: dialect.to_owned(), op: op.to_owned(), supported }
    })
}
