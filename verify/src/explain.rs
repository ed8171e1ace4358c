//! Why an output differs from a recording.

use qexact_model::document::Producer;
use qexact_reference::saturation::{Machine, Pair, in_pairs};
use qexact_reference::{Layer, Rule};
use serde::Serialize;
use std::fmt;

/// A reason that the arithmetic itself gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The runtime added two products in 16 bits, and they do not fit: its output is that of R15.
    PairSaturation(Saturation),
    /// The value before rounding lies exactly between two codes: another rounding gives the other one.
    RoundingTie {
        /// That value, in codes; with the zero point where the rule adds it before rounding.
        scaled: f32,
    },
}

/// The first pair of products that saturated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Saturation {
    /// Name of the machine that does so.
    pub machine: &'static str,
    /// How many pairs of this output saturated.
    pub pairs: usize,
    /// Positions of the first of them along K: taps, then channels of the group, channels fastest.
    pub positions: [usize; 2],
    /// Codes of the input.
    pub input: [i32; 2],
    /// Codes of the weights.
    pub weight: [i32; 2],
    /// The exact sum of the two products.
    pub sum: i32,
    /// What the runtime accumulated.
    pub accumulator: i32,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::PairSaturation(s) => write!(
                f,
                "pair saturation of {}: products {} and {}, {}·{} + {}·{} = {} does not fit 16 bits; the runtime \
                 accumulated {}",
                s.machine,
                s.positions[0],
                s.positions[1],
                s.input[0],
                s.weight[0],
                s.input[1],
                s.weight[1],
                s.sum,
                s.accumulator
            ),
            Reason::RoundingTie { scaled } => write!(f, "a rounding tie at {scaled}"),
        }
    }
}

/// An output as a pair-saturating machine computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaturatedOutput {
    /// Its code.
    pub code: i32,
    /// The pair that saturated.
    pub saturation: Saturation,
}

/// The machines that may have made a recording, the least that explains it first.
///
/// fbgemm adds pairs along K in 16 bits where the CPU lacks AVX-512-VNNI, or where the environment told it to do
/// without. Only a recording that says it had VNNI rules that out.
pub fn machines(producer: &Producer) -> &'static [Machine] {
    const WITH_VNNI: &[Machine] = &[Machine::FbgemmDepthwise];
    const UNKNOWN: &[Machine] = &[Machine::FbgemmDepthwise, Machine::FbgemmWithoutVnni];
    // They add products in 32 bits. (oneDNN without VNNI does not, in ways that differ from kernel to kernel.)
    if matches!(producer.engine.as_str(), "qnnpack" | "onednn") {
        return &[];
    }
    if producer.framework == "onnxruntime" {
        return &[Machine::OnnxRuntimeWithoutVnni];
    }
    // The instruction sets of FBGEMM_ENABLE_INSTRUCTIONS with VNNI are AVX512_E1 and AVX512_E1_256.
    let told = producer.cpu_capability.split_once("FBGEMM_ENABLE_INSTRUCTIONS=").map(|(_, told)| told.trim());
    let vnni = match told {
        Some(told) => told.to_ascii_uppercase().starts_with("AVX512_E1"),
        None => producer.cpu_flags.iter().any(|flag| flag == "avx512_vnni" || flag == "avx512vnni"),
    };
    if vnni { WITH_VNNI } else { UNKNOWN }
}

/// What a machine stores for an output of a layer where one of its pairs of products saturates: `None` where none
/// does, or where the machine adds them exactly.
pub fn saturated(
    machine: Machine,
    layer: &Layer<'_>,
    input: &[u8],
    row: usize,
    channel: usize,
) -> Option<SaturatedOutput> {
    let Rule::F32Mul(rule) = layer.rule() else { return None };
    if !machine.pairs(layer) {
        return None;
    }
    let saturated = in_pairs(layer, input, row, channel);
    let Pair { positions, input, weight, sum } = saturated.pair?;
    let (accumulator, pairs) = (saturated.accumulator, saturated.pairs);
    let saturation = Saturation { machine: machine.as_str(), pairs, positions, input, weight, sum, accumulator };
    Some(SaturatedOutput { code: rule.apply(accumulator, channel), saturation })
}

/// Whether the last rounding of an output is that of a tie. `addend` is what the rule adds, if it adds a tensor.
pub fn rounding_tie(rule: &Rule, accumulator: i32, channel: usize, addend: f32) -> Option<Reason> {
    let scaled = match rule {
        Rule::F32Mul(rule) => rule.scaled(accumulator, channel).into(),
        Rule::F32Real(rule) => rule.scaled(accumulator, channel, addend)?.into(),
        Rule::Q31Double(rule) => rule.scaled(accumulator, channel),
        Rule::F64(rule) => rule.scaled(accumulator, channel),
        Rule::Pow2(rule) => rule.scaled(accumulator, channel),
        _ => return None,
    };
    let tie = scaled.is_finite() && scaled.fract().abs() == 0.5;
    tie.then_some(Reason::RoundingTie { scaled: scaled as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_names_its_machine() {
        let machines = |cpu_capability: &str, flags: &[&str]| {
            let cpu_flags = flags.iter().map(ToString::to_string).collect();
            let cpu_capability = cpu_capability.to_string();
            machines(&Producer { cpu_capability, cpu_flags, ..Producer::default() }).len()
        };
        assert_eq!(machines("AVX512", &["avx2", "avx512_vnni"]), 1);
        assert_eq!(machines("AVX512 FBGEMM_ENABLE_INSTRUCTIONS=AVX512_E1_256", &["avx2"]), 1);
        assert_eq!(machines("AVX512 FBGEMM_ENABLE_INSTRUCTIONS=AVX2", &["avx2", "avx512_vnni"]), 2);
        assert_eq!(machines("AVX512 FBGEMM_ENABLE_INSTRUCTIONS=AVX512", &["avx2", "avx512_vnni"]), 2);
        assert_eq!(machines("AVX2", &["avx2"]), 2);
        // fbgemm has no kernels for AVX-VNNI alone.
        assert_eq!(machines("AVX2", &["avx2", "avx_vnni"]), 2);
        assert_eq!(machines("", &[]), 2);
        let qnnpack = Producer { engine: "qnnpack".into(), ..Producer::default() };
        assert_eq!(super::machines(&qnnpack), []);
    }
}
