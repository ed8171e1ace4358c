//! Files that claim to be exports, or float networks to make exports of.

use crate::{File, edit};
use arbitrary::{Arbitrary, Result, Unstructured};
use qexact_kernels::Isa;
use qexact_model::{Executor, Export, Operator, QuantizeOptions, quantize, read_tensors, write_tensors};
use qexact_reference::Axis;
use qexact_verify::network::{NetworkReport, Options, verify};
use qexact_verify::{analyze, inspect, render};

/// Small exports, one operator or a few each, recorded by the reference; and a float network.
pub const SEEDS: [&[u8]; 8] = [
    include_bytes!("../corpus_seed/load/batch_norm.safetensors"),
    include_bytes!("../corpus_seed/load/codes.safetensors"),
    include_bytes!("../corpus_seed/load/conv1d.safetensors"),
    include_bytes!("../corpus_seed/load/conv2d.safetensors"),
    include_bytes!("../corpus_seed/load/conv3d.safetensors"),
    include_bytes!("../corpus_seed/load/float.safetensors"),
    include_bytes!("../corpus_seed/load/linear.safetensors"),
    include_bytes!("../corpus_seed/load/pools.safetensors"),
];

/// One of [`SEEDS`], edited.
#[derive(Debug)]
pub struct Edited(pub File);

impl<'a> Arbitrary<'a> for Edited {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Edited> {
        Ok(Edited(File(edit::file(u, &SEEDS)?)))
    }
}

/// Loads a file as the commands `inspect`, `verify`, `analyze`, `run` and `quantize` do.
///
/// # Panics
/// If a kernel disagrees with the reference, whatever the file says. (That the reference disagrees with an export is no
/// failure: the file may say anything.) If what a float network was made into is not verified.
pub fn run(File(bytes): File) {
    drop(check(&bytes));
    for per_channel in [false, true] {
        if let Ok(quantized) = quantize(&bytes, QuantizeOptions { per_channel }) {
            let report = check(&quantized.bytes);
            assert!(report.is_none_or(|report| report.is_clean()), "per channel: {per_channel}");
        }
    }
    if let Ok(tensors) = read_tensors(&bytes) {
        let again = write_tensors(&tensors).and_then(|bytes| read_tensors(&bytes)).expect("it was read before");
        assert_eq!(format!("{again:?}"), format!("{tensors:?}"));
    }
}

/// [`run`] on a file that is nearly well-formed.
///
/// # Panics
/// As [`run`].
pub fn run_edited(Edited(file): Edited) {
    run(file);
}

/// The report on an export, if it is well-formed, has a recording and is [cheap](COST) to verify.
///
/// # Panics
/// As [`run`].
pub fn check(bytes: &[u8]) -> Option<NetworkReport> {
    let export = match Export::from_bytes(bytes) {
        Ok(export) => export,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "refused without a reason");
            return None;
        }
    };
    if cost(&export) > COST {
        return None;
    }
    let executor = Executor::new(&export.network, Isa::best()).expect("a loaded network can be planned");
    let _inspected = inspect::inspect("fuzzed", &export, &executor).to_string();
    let _analyzed = analyze::analyze("fuzzed", &export).to_string();
    let options = Options { isas: Isa::available().collect(), strict: false };
    let report = verify("fuzzed", &export, &options, |_, _| ()).ok()?;
    let text = render::network(&report);
    for isa in report.nodes.iter().flat_map(|node| &node.isas) {
        assert_eq!(isa.differences, 0, "{text}");
    }
    for isa in &report.end_to_end {
        assert_eq!(isa.different_samples, report.end_to_end[0].different_samples, "{text}");
        assert_eq!(isa.correct, report.end_to_end[0].correct, "{text}");
    }
    Some(report)
}

/// The most that running a network on all samples of a recording may cost.
pub const COST: usize = 1 << 18;

/// About how many elements are touched.
fn cost(export: &Export) -> usize {
    let product = |factors: &[usize]| factors.iter().fold(1, |a: usize, &b| a.saturating_mul(b));
    let padded = |axes: &[Axis; 3]| product(&axes.map(|a| a.input + a.padding[0] + a.padding[1]));
    let network = &export.network;
    let values = network.values().iter().map(|value| value.sample_len());
    let nodes = network.nodes().iter().map(|node| match &node.operator {
        Operator::Layer(layer) => {
            let shape = layer.shape();
            shape.macs().saturating_add(product(&[padded(&shape.axes), shape.in_channels]))
        }
        Operator::Transposed(layer) => {
            let phases = product(&layer.shape().axes.map(|axis| axis.stride));
            product(&[
                phases.saturating_add(1),
                layer.macs().saturating_add(network.values()[node.inputs[0]].sample_len()),
            ])
        }
        Operator::MaxPool(pool) => {
            let windows = product(&pool.axes.map(|a| a.kernel));
            product(&[network.values()[node.output].sample_len(), windows])
        }
        _ => 0,
    });
    let sample = values.chain(nodes).fold(0, usize::saturating_add);
    sample.saturating_mul(export.recording.as_ref().map_or(1, |recording| recording.samples()))
}
