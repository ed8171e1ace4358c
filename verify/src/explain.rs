//! Why an output differs from a recording.

use qexact_reference::saturation::{Pair, fbgemm_depthwise, fbgemm_takes_depthwise};
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
    /// Positions of the pair among the taps.
    pub taps: [usize; 2],
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
                "pair saturation: taps {} and {}, {}·{} + {}·{} = {} does not fit 16 bits; the runtime accumulated {}",
                s.taps[0], s.taps[1], s.input[0], s.weight[0], s.input[1], s.weight[1], s.sum, s.accumulator
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

/// What fbgemm stores for an output of a layer where one of its pairs of products saturates: `None` where none does,
/// or where fbgemm adds them exactly.
pub fn saturated(layer: &Layer<'_>, input: &[u8], row: usize, channel: usize) -> Option<SaturatedOutput> {
    let Rule::F32Mul(rule) = layer.rule() else { return None };
    if !fbgemm_takes_depthwise(layer.shape()) {
        return None;
    }
    let machine = fbgemm_depthwise(layer, input, row, channel);
    let Pair { taps, input, weight, sum } = machine.pair?;
    let accumulator = machine.accumulator;
    let saturation = Saturation { taps, input, weight, sum, accumulator };
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
