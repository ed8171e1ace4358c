//! A sample of `qexact exhaust`: many sets, few accumulators; and that it finds what is wrong.

use qexact_kernels::Isa;
use qexact_reference::Rule;
use qexact_reference::requantize::{Bias, F32Real, Overflow, RealOutput, Rounding, Sum, ZeroPoint};
use qexact_verify::exhaust::{self, ALL, Options, RuleName, parameters};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Sets that go through every combination of switches.
const SETS: u64 = 108;

fn options(from: i32, count: u64) -> Options {
    let isas = Isa::available().filter(|&isa| isa != Isa::REFERENCE).collect();
    Options { rules: RuleName::ALL.to_vec(), sets: 0..SETS, from, count, threads: 2, isas }
}

#[test]
fn a_sample_of_all_accumulators() {
    for (from, count) in [(i32::MIN, 3000), (-(1 << 24) - 1500, 3000), (-12_000, 24_000), (i32::MAX - 2999, ALL)] {
        let reached = Mutex::new((0, 0));
        let progress = |done, total| {
            let mut reached = reached.lock().unwrap();
            *reached = (reached.0.max(done), total);
        };
        let outcomes = exhaust::run(&options(from, count), progress, |_| ()).unwrap();
        assert_eq!(outcomes.len(), RuleName::ALL.len());
        for outcome in &outcomes {
            assert!(outcome.is_clean(), "{:?}", outcome.failures);
            // What lies beyond the largest is left out.
            assert_eq!((outcome.sets, outcome.outputs), (SETS, SETS * if count == ALL { 3000 } else { count }));
        }
        let all = RuleName::ALL.len() as u64 * outcomes[0].outputs;
        assert_eq!(*reached.lock().unwrap(), (all, all));
    }
}

/// The names of a rule's switches.
fn switches(rule: &Rule) -> String {
    let bias = |bias: &[i32]| !bias.is_empty();
    match rule {
        Rule::F32Mul(r) => {
            let kind = match r.bias() {
                Bias::None => "none",
                Bias::I32(_) => "i32",
                Bias::Addend(_) => "addend",
                Bias::Fused { .. } => "fused",
            };
            format!("{kind} {:?} {}", r.output(), r.overflow_mode() == Overflow::Convert)
        }
        Rule::F32Out(r) => format!("{} {} {}", r.fused, r.relu, r.bias.is_empty()),
        Rule::F32Real(F32Real { sum, clip, output, .. }) => {
            let sum = match sum {
                Sum::None => "none".into(),
                Sum::Codes { codes, .. } => format!("{codes:?}"),
                Sum::Reals => "reals".into(),
            };
            format!("{sum} {} {}", clip.is_some(), matches!(output, RealOutput::Reals))
        }
        Rule::Q31Double(r) => format!("{:?} {}", r.last, bias(&r.bias)),
        Rule::Q31Single(r) => format!("{}", bias(&r.bias)),
        Rule::F64(r) => format!("{:?} {} {}", r.rounding, r.zero_point == ZeroPoint::BeforeRounding, bias(&r.bias)),
        Rule::Pow2(r) => format!("{:?} {}", r.rounding, bias(&r.bias)),
        _ => String::new(),
    }
}

#[test]
fn sets_turn_every_switch() {
    let all = [8, 8, 8, 16, 6, 2, 12, 6];
    for (name, all) in RuleName::ALL.into_iter().zip(all) {
        let rules: Vec<Rule> = (0..SETS).map(|set| parameters(name, set).unwrap()).collect();
        let found: BTreeSet<String> = rules.iter().map(switches).collect();
        assert_eq!(found.len(), all, "{name}: {found:?}");
        let codes: BTreeSet<_> = rules.iter().filter_map(|rule| rule.codes().map(|c| c.range())).collect();
        assert!(codes.len() > 20 || name == RuleName::F32Out, "{name}: {} ranges", codes.len());
    }
    let shifts: BTreeSet<i32> = (0..SETS)
        .filter_map(|set| match parameters(RuleName::Pow2, set) {
            Ok(Rule::Pow2(rule)) => Some(rule.shift[0]),
            _ => None,
        })
        .collect();
    assert_eq!(shifts.into_iter().collect::<Vec<_>>(), (-31..=62).collect::<Vec<_>>());
    let away_32 = |set| matches!(parameters(RuleName::Pow2, set), Ok(Rule::Pow2(r)) if r.shift == [32] && r.rounding == Rounding::Away);
    // The one that no vector computes; it need not be among the first.
    assert!((0..1000).any(away_32));
}

/// The functions that vectorised loops call are compared as they are compiled for every CPU.
#[test]
fn scalar_functions_have_the_same_bits_however_they_are_compiled() {
    // All magnitudes, ties of small ones; 1000 is no whole number of blocks.
    let spread = (0..500).map(|i| i32::MIN.wrapping_add(8_589_934i32.wrapping_mul(i)));
    let accumulators: Vec<i32> = spread.chain((0..500).map(|i| (i - 250) << (i % 12))).collect();
    let addends: Vec<f32> = (0..1000).map(|i| (i % 256) as f32).collect();
    for (name, set) in RuleName::ALL.into_iter().flat_map(|name| (0..SETS).map(move |set| (name, set))) {
        let rule = parameters(name, set).unwrap();
        let inputs = accumulators.iter().zip(&addends);
        let want: Vec<u32> = inputs.map(|(&accumulator, &addend)| rule.apply(accumulator, 0, addend).bits()).collect();
        for isa in Isa::available() {
            let mut got = vec![0; want.len()];
            exhaust::scalar(isa, &rule, &accumulators, &addends, &mut got);
            let nan = |bits| rule.codes().is_none() && f32::from_bits(bits).is_nan();
            let equal = |(&got, &want)| got == want || nan(got) && nan(want);
            assert!(got.iter().zip(&want).all(equal), "{name} {set} {isa}");
        }
    }
}
