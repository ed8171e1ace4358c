//! Files that claim to be recorded operator vectors.

use crate::{File, edit};
use arbitrary::{Arbitrary, Result, Unstructured};
use qexact_kernels::Isa;
use qexact_verify::vectors::{FileReport, Options, run_bytes};

/// Recorded by a real runtime: one small case of each operator.
pub const SEEDS: [&[u8]; 13] = [
    include_bytes!("../corpus_seed/vectors/aten.adaptive_avg_pool2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/aten.avg_pool2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/aten.max_pool2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/aten.quantize_per_tensor.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm.conv1d.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm.conv2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm.conv3d.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm.linear.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm_avx2.conv2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/fbgemm_avx2.linear.safetensors"),
    include_bytes!("../corpus_seed/vectors/ort_avx2.QGemm.safetensors"),
    include_bytes!("../corpus_seed/vectors/ort_avx2.QLinearConv2d.safetensors"),
    include_bytes!("../corpus_seed/vectors/ort_avx2.QLinearMatMul.safetensors"),
];

/// One of [`SEEDS`], edited.
#[derive(Debug)]
pub struct Edited(pub File);

impl<'a> Arbitrary<'a> for Edited {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Edited> {
        Ok(Edited(File(edit::file(u, &SEEDS)?)))
    }
}

/// Checks a file as `qexact vectors` does.
///
/// # Panics
/// If a kernel disagrees with the reference, whatever the file says. (That the reference disagrees with the file is no
/// failure: the file may say anything.)
pub fn run(File(bytes): File) {
    drop(check(&bytes));
}

/// [`run`] on a file that is nearly well-formed.
///
/// # Panics
/// As [`run`].
pub fn run_edited(Edited(file): Edited) {
    run(file);
}

/// The report on a file, if it is well-formed.
///
/// # Panics
/// As [`run`].
pub fn check(bytes: &[u8]) -> Option<FileReport> {
    let options = Options { isas: Isa::available().collect(), strict: false };
    match run_bytes("fuzzed", bytes, &options, |_, _| ()) {
        Ok(report) => {
            let text = report.to_string();
            assert_eq!(report.totals.kernel_differences, 0, "{text}");
            Some(report)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "refused without a reason");
            None
        }
    }
}
