//! Recordings of machines whose kernels add pairs of products with saturation.

use super::{bytes, edit, header, reference};
use qexact_verify::explain::Reason;
use serde_json::json;

#[test]
fn saturated_pairs_excuse_outputs_one_by_one_and_strictly_none() {
    for (name, cases) in [("fbgemm.conv2d", &[(12, 495), (13, 638)][..]), ("fbgemm.conv3d", &[(4, 3105)])] {
        let (lenient, strict) = (reference(&bytes(name), false), reference(&bytes(name), true));
        assert!(lenient.is_clean() && !strict.is_clean());
        for (index, (lenient, strict)) in lenient.cases.iter().zip(&strict.cases).enumerate() {
            let expected = cases.iter().find(|case| case.0 == index).map_or(0, |case| case.1);
            assert_eq!((lenient.saturated, lenient.differences), (expected, 0), "{name} {index}");
            assert_eq!((strict.saturated, strict.differences), (0, expected), "{name} {index}");
            for first in [&lenient.first_saturated, &strict.first_difference] {
                assert_eq!(first.is_some(), expected > 0);
                let reason = first.as_ref().and_then(|first| first.reason);
                assert_eq!(reason.is_some(), expected > 0);
                if let Some(Reason::PairSaturation(s)) = reason {
                    let sum = s.input[0] * s.weight[0] + s.input[1] * s.weight[1];
                    assert!(s.sum == sum && i16::try_from(sum).is_err(), "{s:?}");
                }
            }
        }
    }
    let report = reference(&bytes("fbgemm.conv2d"), false);
    let text = "case12: 495 outputs saturated in the recording, the first y[0, 0, 0, 1]: recorded 127, exact 128, \
                accumulator -2142; pair saturation of fbgemm's depthwise path: products 0 and 1, 209·-90 + 209·-90 = -37620";
    assert!(report.to_string().contains(text), "{report}");
}

#[test]
fn without_vnni_the_same_cases_saturate_where_they_were_exact() {
    for (with, without) in [("fbgemm.linear", "fbgemm_avx2.linear"), ("fbgemm.conv2d", "fbgemm_avx2.conv2d")] {
        let renamed = edit(&bytes(without), |header| header["__metadata__"]["dialect"] = json!("fbgemm"));
        let (with, without, renamed) = (
            reference(&bytes(with), false),
            reference(&bytes(without), false),
            // The dialect names the machine; a machine with VNNI explains its depthwise path alone.
            reference(&renamed, false),
        );
        for ((with, without), renamed) in with.cases.iter().zip(&without.cases).zip(&renamed.cases) {
            let depthwise = without.description.contains("kh3ph1iw8") || without.description.contains("kh5ph2iw8");
            assert_eq!(with.saturated > 0, depthwise, "{}", without.description);
            if depthwise {
                assert_eq!((with.saturated, renamed.saturated), (without.saturated, without.saturated));
            } else {
                assert_eq!((renamed.saturated, renamed.differences), (0, without.saturated));
            }
            if let Some(Reason::PairSaturation(s)) = without.first_saturated.as_ref().and_then(|first| first.reason) {
                assert_eq!(s.machine, "fbgemm without VNNI");
                assert_eq!((s.pairs > 0, s.positions[1]), (true, s.positions[0] + 1));
            }
        }
    }
}

#[test]
fn onnx_runtime_saturates_for_u8_by_i8_codes_alone() {
    for name in ["ort_avx2.QGemm", "ort_avx2.QLinearMatMul", "ort_avx2.QLinearConv2d"] {
        let bytes = bytes(name);
        let (header, _) = header(&bytes);
        let mut seen = [false; 2];
        for (index, case) in reference(&bytes, false).cases.iter().enumerate() {
            let dtype = |tensor: &str| header[format!("case{index:02}.{tensor}")]["dtype"].as_str().unwrap().to_owned();
            let pairs = dtype("x") == "U8" && dtype("w") == "I8";
            assert!(pairs || case.saturated == 0, "{name} {index}");
            seen[usize::from(pairs)] = true;
        }
        assert_eq!(seen, [true; 2]);
    }
}
