//! Operator vectors: inputs and outputs of single operators, recorded from real runtimes.
//!
//! A file holds cases of one operator (`fixtures/vectors/README.md` describes the format). For every case the
//! reference is held against the recording, bit for bit, and then every instruction set against the reference.
//!
//! Where a recording departs from the exact rule because the runtime adds pairs of products in 16 bits
//! ([`saturation`](qexact_reference::saturation)), the departure is recomputed output by output; only an output
//! that comes out as recorded is excused. Kernels never saturate: nothing excuses them.

mod binary;
mod codes;
mod compare;
mod concat;
mod dynamic;
mod error;
mod file;
mod layer;
mod mean;
mod operator;
mod pool;
mod quantize;
mod report;
mod resize;
mod unary;

pub use error::{Error, Part, Problem};
pub use report::{CaseReport, Difference, FileReport, IsaReport, Totals, Value};

use qexact_kernels::Isa;
use qexact_reference::activation::Activation;
use std::path::Path;

/// What to check, and how strictly.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Instruction sets held against the reference.
    pub isas: Vec<Isa>,
    /// Excuse nothing: outputs that pair saturation explains are differences.
    pub strict: bool,
}

/// Checks a file. `progress` is told, before each case and at the end, how many of all cases are done.
///
/// # Errors
/// A file that cannot be read or is not what it claims to be; an operator that is not supported.
pub fn run(path: &Path, options: &Options, progress: impl FnMut(usize, usize)) -> Result<FileReport, Error> {
    let file = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => run_bytes(&file, &bytes, options, progress),
        Err(source) => Err(Error { file, case: None, problem: Box::new(source.into()) }),
    }
}

/// [`run`] on the content of a file; `file` is what reports and errors call it.
///
/// # Errors
/// As [`run`].
pub fn run_bytes(
    file: &str,
    bytes: &[u8],
    options: &Options,
    mut progress: impl FnMut(usize, usize),
) -> Result<FileReport, Error> {
    let error = |case: Option<&str>| {
        let (file, case) = (file.to_owned(), case.map(str::to_owned));
        move |problem| Error { file, case, problem: Box::new(problem) }
    };
    let content = file::File::parse(bytes).map_err(error(None))?;
    let (dialect, op) = (content.key("dialect").map_err(error(None))?, content.key("op").map_err(error(None))?);
    let runtime = content.key("runtime").map_err(error(None))?;
    let parse = operator::find(&dialect, &op).map_err(error(None))?;
    let cases = content.cases().map_err(error(None))?;
    let total = cases.len();
    let mut reports = Vec::new();
    for (done, mut case) in cases.into_iter().enumerate() {
        progress(done, total);
        let (name, tag) = (case.name().to_owned(), case.tag());
        let operator = parse(&mut case).and_then(|operator| case.finish().map(|()| operator));
        let report = operator
            .and_then(|operator| compare::check(name.clone(), tag, operator.as_ref(), options))
            .map_err(error(Some(&name)))?;
        reports.push(report);
    }
    progress(total, total);
    Ok(FileReport::new(file.to_owned(), dialect, op, runtime, reports))
}

/// The activation that TFLite fuses into an operator.
fn activation(case: &mut file::Case<'_>) -> Result<Activation, Problem> {
    let expected = "null, `relu` or `relu6`";
    match case.nullable_field::<String>("activation", expected)?.as_deref() {
        None => Ok(Activation::None),
        Some("relu") => Ok(Activation::Relu),
        Some("relu6") => Ok(Activation::Relu6),
        Some(other) => Err(Problem::wrong(Part::Field, "activation", format_args!("`{other}`"), expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs that saturate are excused one by one; here every output, also those that equal the exact rule, is
    /// what its machine computes.
    #[test]
    fn every_output_is_what_its_machine_computes() {
        for name in [
            "fbgemm.conv2d",
            "fbgemm.conv3d",
            "fbgemm_avx2.linear",
            "fbgemm_avx2.conv2d",
            "ort_avx2.QGemm",
            "ort_avx2.QLinearMatMul",
            "ort_avx2.QLinearConv2d",
        ] {
            let path = format!("{}/../fixtures/vectors/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(path).unwrap();
            let content = file::File::parse(&bytes).unwrap();
            let parse = operator::find(&content.key("dialect").unwrap(), &content.key("op").unwrap()).unwrap();
            for mut case in content.cases().unwrap() {
                case.tag();
                let operator = parse(&mut case).unwrap();
                let exact = operator.exact().unwrap();
                for (index, (recorded, exact)) in operator.recorded()[0].values.iter().zip(&exact[0]).enumerate() {
                    let machine = operator.explain(0, index).saturated.map_or(*exact, |s| Value::Code(s.code));
                    assert!(recorded.same(machine), "{name} {} output {index}", case.name());
                }
            }
        }
    }
}
