//! Kernels against the reference, on generated cases: accumulators, then outputs, then what surrounds the buffers.
//!
//! Every output of every case is compared bit for bit, on every instruction set; any two NaNs count as equal,
//! because the bits of a NaN that an operation makes are not defined. Each case is computed as a whole, in
//! buffers that begin and that end at protected pages, and again as a random region in several parts, the way
//! threads would share it. Operators that are not layers are computed as a whole.

mod examine;
mod generate;
mod material;
mod operators;
mod report;
mod shrink;

pub use report::{Failure, Fault, IsaSummary, Summary};

use crate::case::{Case, Operator};
use crate::fill::Random;
use crate::guard::{GuardError, Guarded};
use examine::examine;
use material::Material;
use qexact_kernels::{Isa, IsaError, IsaName};

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// These cases, in this order. If there are none, cases are generated: a fixed list, then random ones.
    pub cases: Vec<Case>,
    /// At least so many outputs an instruction set are generated.
    pub outputs: u64,
    /// Generated cases follow from it.
    pub seed: u64,
    /// For cases that do not name one; if empty, all that this CPU has.
    pub isas: Vec<Isa>,
}

/// Why a check could not be made. (That kernels are wrong is a [`Failure`].)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A case asks for an instruction set that this CPU lacks.
    #[error("{case}: {source}")]
    Isa {
        /// The case.
        case: Box<Case>,
        /// What is missing.
        source: IsaError,
    },
    /// A case is too large to be computed by the reference.
    #[error("{case}: more than 2^31 codes or outputs, expected a case that fits into memory")]
    TooLarge {
        /// The case.
        case: Box<Case>,
    },
    /// The reference refuses a case.
    #[error("{case}: {source}")]
    Layer {
        /// The case.
        case: Box<Case>,
        /// Its reason.
        source: qexact_reference::Error,
    },
    /// This platform has no protected pages.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// Failures that are shrunk and shown for each instruction set; further ones are counted.
const SHOWN: u64 = 5;

/// Runs a check. `progress` is told the outputs done and to be done of each instruction set, `fail` each of the
/// first failures.
///
/// # Errors
/// What keeps a case from being checked at all.
pub fn run(
    options: &Options,
    mut progress: impl FnMut(u64, u64),
    mut fail: impl FnMut(&Failure),
) -> Result<Summary, Error> {
    run_tampered(options, &mut progress, &mut fail, &|_, _, _, _| ())
}

/// Changes what a kernel has computed: the output's buffer and the scratch memory of one call.
#[doc(hidden)]
pub type Tamper<'t> = dyn Fn(&Case, Isa, &mut Guarded, &mut Guarded) + 't;

/// [`run`] with kernels that go wrong in a known way, to check the check.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
pub fn run_tampered(
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
    fail: &mut dyn FnMut(&Failure),
    tamper: &Tamper<'_>,
) -> Result<Summary, Error> {
    let isas = if options.isas.is_empty() { Isa::available().collect() } else { options.isas.clone() };
    let mut summary = Summary::new();
    let mut random = Random::new(options.seed);
    let (least, total, cases): (usize, u64, Box<dyn Iterator<Item = Case>>) = if options.cases.is_empty() {
        let always = generate::always(&mut random);
        let generated = std::iter::from_fn(|| Some(Case::random(&mut random)));
        (always.len(), options.outputs, Box::new(always.into_iter().chain(generated)))
    } else {
        let total = options.cases.iter().map(outputs).fold(0, u64::saturating_add);
        (options.cases.len(), total, Box::new(options.cases.iter().copied()))
    };
    let mut done = 0;
    for (at, case) in cases.enumerate() {
        if at >= least && done >= total {
            break;
        }
        let material = Material::new(&case)?;
        for isa in case.isa.map_or(Ok(isas.clone()), |name| named(&case, name).map(|isa| vec![isa]))? {
            let failure = examine(&material, isa, tamper)?;
            let tally = summary.of(isa);
            tally.count(&case, &material, isa, failure.as_ref());
            if let Some(failure) = failure.filter(|_| tally.failures <= SHOWN) {
                let again = |case: &Case| examine(&Material::new(case).ok()?, isa, tamper).ok()?;
                let failure = shrink::shrink(failure, again);
                summary.failures.push(failure.to_string());
                fail(&failure);
            }
        }
        if material.is_weak() {
            summary.weak.push(case.to_string());
        }
        done += outputs(&case);
        progress(done.min(total), total);
    }
    Ok(summary)
}

fn outputs(case: &Case) -> u64 {
    let pixels: usize = extents(case).iter().product();
    (case.shape.batch * pixels * case.shape.out_channels) as u64
}

/// Extents of the output: depth, height, width.
fn extents(case: &Case) -> [usize; 3] {
    match case.operator {
        Operator::Transposed => {
            let shape = operators::transposed(case);
            shape.output_len().and_then(|_| shape.output_extents())
        }
        _ => case.shape.output_extents(),
    }
    // Of a shape that the reference refuses.
    .unwrap_or([0; 3])
}

fn named(case: &Case, name: IsaName) -> Result<Isa, Error> {
    Isa::new(name).map_err(|source| Error::Isa { case: Box::new(*case), source })
}
