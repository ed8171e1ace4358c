//! Whole networks, one sample.

use super::clock::{self, Timed};
use super::layer::codes;
use super::peak::Peak;
use super::{Bench, Error, Outcome, SAMPLE, Wrong};
use qexact_kernels::Isa;
use qexact_model::document::Dtype;
use qexact_model::{Data, Executor, Export, Operator, Tensor, Value};

/// What the row of a whole network is called.
const NAME: &str = "whole network";

/// Times all of a network on one sample, where each instruction set computes what the reference does. One thread
/// runs it, and its weights lie wherever the layers before have left room for them.
pub(super) fn whole(bench: &Bench, group: &str, export: &Export) -> Result<Vec<Outcome>, Error> {
    let network = &export.network;
    let inputs: Vec<Tensor> = match export.recording.as_ref().filter(|recording| recording.samples() > 0) {
        Some(recording) => recording.inputs().iter().map(|input| input.samples(0..1)).collect(),
        None => network.inputs().iter().map(|&value| sample(&network.values()[value])).collect(),
    };
    let want = Executor::new(network, Isa::REFERENCE)?.run(&inputs)?;
    let macs = network.nodes().iter().map(|node| match &node.operator {
        Operator::Layer(layer) => layer.shape().macs(),
        Operator::Transposed(layer) => layer.macs(),
        _ => 0,
    });
    let macs = macs.sum();
    let mut outcomes = Vec::new();
    for &isa in &bench.options.isas {
        let executor = Executor::new(network, isa)?;
        if let Some(difference) = difference(&want, &executor.run(&inputs)?) {
            let (name, line, kernel) = (NAME.to_string(), group.to_string(), "all".to_string());
            outcomes.push(Outcome::Wrong(Wrong { name, line, isa: isa.to_string(), kernel, difference }));
            continue;
        }
        let call = || drop(executor.run(&inputs).expect("it ran before"));
        let mut row = bench.row(Timed::new(SAMPLE, |calls| clock::calls(calls, call)), (isa, Peak::of(isa)), macs, 1);
        (row.name, row.group, row.class) = (NAME.into(), group.into(), format!("{group} whole"));
        (row.op, row.mode) = ("network", "warm");
        outcomes.push(Outcome::Timed(Box::new(row)));
    }
    Ok(outcomes)
}

/// The first byte of the outputs that differs.
fn difference(want: &[Tensor], got: &[Tensor]) -> Option<String> {
    let bytes = |tensors: &[Tensor]| tensors.iter().flat_map(|t| t.data().bytes().to_vec()).collect::<Vec<u8>>();
    let (want, got) = (bytes(want), bytes(got));
    let at = want.iter().zip(&got).position(|(want, got)| want != got)?;
    Some(format!("byte {at} of the outputs want={} got={}", want[at], got[at]))
}

/// A sample for a network without a recording.
fn sample(value: &Value) -> Tensor {
    let codes = codes(4, value.sample_len());
    let data = match value.dtype {
        Dtype::U8 => Data::U8(codes.collect()),
        Dtype::I8 => Data::I8(codes.map(|code| code as i8).collect()),
        Dtype::F32 => Data::F32(codes.map(|code| f32::from(code) / 64.0 - 2.0).collect()),
    };
    Tensor::new(1, value.shape.clone(), data).expect("a sample's elements")
}
