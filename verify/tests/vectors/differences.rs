//! What was altered is noticed, and explained.

use super::files::{FILES, outputs};
use super::{bytes, reference, span};
use qexact_verify::explain::Reason;
use qexact_verify::vectors::Value;

#[test]
fn a_changed_byte_of_an_expected_output_is_noticed() {
    for &(name, cases, ..) in FILES {
        let original = bytes(name);
        let clean = reference(&original, false);
        for (case, output) in (0..cases).flat_map(|case| outputs(name).iter().map(move |output| (case, output))) {
            let span = span(&original, &format!("case{case:02}.{output}"));
            let step = (span.len() / 8).max(1) | 1;
            for (turn, position) in span.clone().step_by(step).chain([span.end - 1]).enumerate() {
                let mut bytes = original.clone();
                bytes[position] ^= [0x01, 0x80, 0xff, 0x10][turn % 4];
                let (before, after) = (&clean.cases[case], &reference(&bytes, false).cases[case]);
                // A code that saturated may be changed into the exact one; then it is no longer excused.
                let noticed = after.differences > 0 || after.saturated + 1 == before.saturated;
                assert!(noticed, "{name} case {case} {output}: byte {position}");
                assert_eq!(after.differences > 0, after.first_difference.is_some());
            }
        }
    }
}

#[test]
fn a_difference_is_explained() {
    let mut bytes = bytes("fbgemm.linear");
    let span = span(&bytes, "case08.y");
    let ties = span.enumerate().filter_map(|(channel, position)| {
        bytes[position] ^= 1;
        let report = reference(&bytes, false);
        bytes[position] ^= 1;
        let first = report.cases[8].first_difference.as_ref().unwrap();
        assert_eq!((first.tensor, &first.index), ("y", &vec![0, channel]));
        assert!(first.accumulator.is_some() && !first.expected.same(first.got));
        match first.reason {
            Some(Reason::RoundingTie { scaled }) => Some(scaled),
            _ => None,
        }
    });
    let ties: Vec<f32> = ties.collect();
    assert!(!ties.is_empty() && ties.iter().all(|v| (v - v.floor()) == 0.5), "{ties:?}");
}

#[test]
fn a_report_survives_json() {
    let mut bytes = bytes("aten.quantize_per_tensor");
    let at = span(&bytes, "case04.x_dequant").start;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let report = reference(&bytes, false);
    let first = report.cases[4].first_difference.as_ref().unwrap();
    assert!(first.expected.same(Value::Real(f32::NAN)) && first.tensor == "x_dequant");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["totals"]["differences"], 1);
    assert_eq!(json["cases"][4]["first_difference"]["expected"], "NaN (0x7fc00000)");
}
