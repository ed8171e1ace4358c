//! Operator vectors: what was recorded is reproduced, what was altered is noticed, what is malformed is refused.

use qexact_kernels::{Isa, IsaName};
use qexact_verify::explain::Reason;
use qexact_verify::vectors::{FileReport, Options, Totals, Value, run, run_bytes};
use quickcheck::QuickCheck;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

/// File, cases, outputs, and how many of them saturated in the recording.
const FILES: &[(&str, usize, usize, usize)] = &[
    ("fbgemm.conv_transpose2d", 10, 9818, 0),
    ("qnnpack.conv_transpose2d", 10, 9818, 0),
    ("aten.upsample_nearest2d", 10, 61790, 0),
    ("fbgemm.linear", 14, 2202, 0),
    ("fbgemm.conv1d", 10, 2004, 0),
    ("fbgemm.conv2d", 14, 10556, 1133),
    ("fbgemm.conv3d", 10, 57158, 3105),
    ("fbgemm_avx2.linear", 14, 2202, 334),
    ("fbgemm_avx2.conv2d", 14, 10556, 2140),
    ("ort_avx2.QGemm", 13, 1934, 170),
    ("ort_avx2.QLinearMatMul", 13, 1934, 167),
    ("ort_avx2.QLinearConv2d", 12, 8680, 519),
    ("onednn.linear", 14, 2202, 0),
    ("onednn.conv1d", 10, 2004, 0),
    ("onednn.conv2d", 14, 8216, 0),
    ("onednn.conv3d", 10, 54718, 0),
    ("onednn.conv2d_add", 10, 4940, 0),
    ("x86.linear", 14, 2202, 0),
    ("x86.conv2d", 14, 8216, 0),
    ("pt2e_onednn.qlinear_pointwise", 14, 2462, 0),
    ("pt2e_onednn.qconv2d_pointwise", 14, 14254, 0),
    ("qnnpack.linear", 14, 2202, 0),
    ("qnnpack.conv2d", 14, 10556, 0),
    ("ort.QGemm", 13, 1934, 0),
    ("ort.QLinearMatMul", 13, 1934, 0),
    ("ort.QLinearConv1d", 12, 2071, 0),
    ("ort.QLinearConv2d", 12, 8680, 0),
    ("ort.QLinearConv3d", 12, 57422, 0),
    ("onnx_reference.QLinearConv2d", 10, 8078, 0),
    ("tflite_ref.conv2d", 10, 1480, 0),
    ("tflite_ref.depthwise_conv2d", 10, 2408, 0),
    ("tflite_ref.fully_connected", 10, 188, 0),
    ("tflite_ruy.conv2d", 10, 1480, 0),
    ("tflite_ruy.depthwise_conv2d", 10, 2408, 0),
    ("tflite_ruy.fully_connected", 10, 188, 0),
    ("xnnpack.conv2d", 10, 1480, 0),
    ("xnnpack.depthwise_conv2d", 10, 2408, 0),
    ("xnnpack.fully_connected", 10, 188, 0),
    ("brevitas.linear_fixed_point", 12, 1332, 0),
    ("aten.quantize_per_tensor", 12, 4158, 0),
    ("aten.max_pool2d", 12, 7888, 0),
    ("aten.avg_pool2d", 12, 7888, 0),
    ("aten.adaptive_avg_pool2d", 12, 1966, 0),
    ("fbgemm.linear_dynamic", 12, 814, 0),
    ("onednn.linear_dynamic", 12, 814, 0),
    ("qnnpack.linear_dynamic", 12, 814, 0),
    ("ort.DynamicQuantizeMatMul", 10, 1872, 0),
    ("aten.quantize_per_channel", 10, 3300, 0),
    ("aten.add", 10, 8522, 0),
    ("aten.mul", 10, 8522, 0),
    ("aten.cat", 10, 3744, 0),
    ("aten.unary", 10, 20480, 0),
    ("qnnpack.add", 10, 8522, 0),
    ("qnnpack.mul", 10, 8522, 0),
    ("qnnpack.max_pool2d", 12, 7888, 0),
    ("qnnpack.avg_pool2d", 12, 7824, 0),
    ("qnnpack.adaptive_avg_pool2d", 12, 520, 0),
    ("ort.QLinearAdd", 10, 8032, 0),
    ("ort.QLinearMul", 10, 8032, 0),
    ("ort.QLinearAveragePool", 10, 2316, 0),
    ("ort.QLinearGlobalAveragePool", 10, 144, 0),
    ("ort.QuantizeLinear", 10, 2520, 0),
    ("tflite_ref.add", 10, 7360, 0),
    ("tflite_ref.mul", 10, 7360, 0),
    ("tflite_ref.average_pool_2d", 10, 1494, 0),
    ("tflite_ref.quantize", 10, 2025, 0),
    ("tflite_ref.requantize", 10, 7360, 0),
    ("tflite_ruy.add", 10, 7360, 0),
    ("tflite_ruy.mul", 10, 7360, 0),
    ("tflite_ruy.average_pool_2d", 10, 1494, 0),
    ("tflite_ruy.quantize", 10, 2025, 0),
    ("tflite_ruy.requantize", 10, 7360, 0),
    ("xnnpack.add", 10, 7360, 0),
    ("xnnpack.mul", 10, 7360, 0),
    ("xnnpack.average_pool_2d", 10, 1494, 0),
    ("xnnpack.quantize", 10, 2025, 0),
    ("xnnpack.requantize", 10, 7360, 0),
    ("fbgemm.conv1d.more", 6, 719, 0),
    ("fbgemm.conv2d.more", 12, 3402, 0),
    ("fbgemm.conv3d.more", 4, 742, 0),
    ("fbgemm.linear.extreme", 30, 1440, 0),
    ("fbgemm.linear.more", 10, 833, 0),
    ("onednn.conv1d.more", 6, 719, 0),
    ("onednn.conv2d.more", 12, 3402, 0),
    ("onednn.conv3d.more", 4, 742, 0),
    ("onednn.linear.extreme", 30, 1440, 0),
    ("onednn.linear.more", 10, 833, 0),
    ("ort.QGemm.extreme", 24, 864, 0),
    ("ort.QGemm.more", 10, 833, 0),
    ("ort.QLinearAdd.more", 8, 1302, 0),
    ("ort.QLinearConv1d.more", 6, 730, 0),
    ("ort.QLinearConv2d.more", 12, 3395, 0),
    ("ort.QLinearConv3d.more", 4, 760, 0),
    ("ort.QLinearGlobalAveragePool.more", 6, 102, 0),
    ("ort.QLinearMatMul.more", 10, 833, 0),
    ("ort.QLinearMul.more", 8, 1302, 0),
    ("ort.QuantizeLinear.more", 5, 1008, 0),
    ("qnnpack.conv2d.more", 12, 3402, 0),
    ("qnnpack.linear.extreme", 10, 480, 0),
    ("qnnpack.linear.more", 10, 833, 0),
    ("x86.conv2d.more", 12, 3402, 0),
    ("x86.linear.extreme", 30, 1440, 0),
    ("x86.linear.more", 10, 833, 0),
];

/// The tensors that a runtime returned.
fn outputs(file: &str) -> &'static [&'static str] {
    match file {
        "aten.quantize_per_tensor" | "aten.quantize_per_channel" | "ort.QuantizeLinear" | "ort.QuantizeLinear.more" => {
            &["q", "x_dequant"]
        }
        "aten.unary" => &["hardswish", "leaky_relu", "elu", "sigmoid", "hardsigmoid", "tanh", "relu", "relu6"],
        "ort.DynamicQuantizeMatMul" => &["y", "q", "q_scale", "q_zero_point", "acc"],
        _ => &["y"],
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/vectors").join(format!("{name}.safetensors"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn every_isa() -> Options {
    Options { isas: Isa::available().collect(), strict: false }
}

/// The report of the reference alone.
fn reference(bytes: &[u8], strict: bool) -> FileReport {
    run_bytes("memory", bytes, &Options { isas: Vec::new(), strict }, |_, _| ()).unwrap()
}

#[test]
fn what_was_recorded_is_reproduced() {
    for name in IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err()) {
        println!("SKIPPED {name}: this CPU lacks it");
    }
    for &(name, cases, outputs, saturated) in FILES {
        let mut steps = Vec::new();
        let report = run(&path(name), &every_isa(), |done, total| steps.push((done, total))).unwrap();
        println!("{report}");
        assert!(report.is_clean(), "{name}");
        let equal = outputs - saturated;
        let expected = Totals { cases, outputs, equal, saturated, differences: 0, kernel_differences: 0 };
        assert_eq!(report.totals, expected, "{name}");
        assert_eq!(steps, (0..=cases).map(|done| (done, cases)).collect::<Vec<_>>());
        for isa in report.cases.iter().flat_map(|case| &case.isas) {
            // Moving codes needs no kernel.
            let portable = isa.isa == "reference" || name.contains("upsample");
            assert_eq!(isa.kernel == "reference", portable, "{name}: {} on {}", isa.kernel, isa.isa);
        }
    }
}

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

/// The header, and where the data begins.
fn header(bytes: &[u8]) -> (Json, usize) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), end)
}

/// Where a tensor's bytes lie in the file.
fn span(bytes: &[u8], tensor: &str) -> std::ops::Range<usize> {
    let (header, data) = header(bytes);
    let offset = |i: usize| data + header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

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

/// A file with another header.
fn edit(bytes: &[u8], change: impl Fn(&mut Json)) -> Vec<u8> {
    let (mut header, data) = header(bytes);
    change(&mut header);
    let text = header.to_string();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[data..]].concat()
}

/// What is said of a file, which must be refused.
fn refusal(bytes: &[u8]) -> String {
    run_bytes("memory", bytes, &every_isa(), |_, _| ()).map(|report| report.to_string()).unwrap_err().to_string()
}

#[test]
fn metadata_is_checked() {
    let conv = bytes("fbgemm.conv2d");
    for (key, value, complaint) in [
        (
            "dialect",
            json!("fbgemm_avx3"),
            "operator `conv2d` of dialect `fbgemm_avx3` is not supported, expected one of fbgemm.linear,",
        ),
        ("op", json!("conv4d"), "operator `conv4d` of dialect `fbgemm` is not supported"),
        ("op", Json::Null, "metadata key `op` is missing"),
        ("runtime", Json::Null, "metadata key `runtime` is missing"),
        ("cases", Json::Null, "metadata key `cases` is missing, expected the number of cases"),
        ("cases", json!("0"), "metadata key `cases` is `0`, expected the number of cases, at least 1"),
        ("cases", json!("-1"), "metadata key `cases` is `-1`"),
        ("cases", json!("13"), "metadata key `case13` is not one that this operator has"),
        ("cases", json!("99999999999999"), "metadata key `case14` is missing, expected a JSON object"),
        ("format_version", json!("2"), "metadata key `format_version` is `2`, expected 1"),
        ("case07", json!("{"), "metadata key `case07` is malformed"),
        ("case07", json!("[]"), "metadata key `case07` is malformed"),
        ("case07", json!("{\"x_scale\": 1e999}"), "metadata key `case07` is malformed"),
    ] {
        let changed = edit(&conv, |header| {
            let metadata = header["__metadata__"].as_object_mut().unwrap();
            if value.is_null() {
                metadata.remove(key)
            } else {
                metadata.insert(key.into(), value.clone())
            };
        });
        let text = refusal(&changed);
        assert!(text.starts_with("memory: ") && text.contains(complaint), "{key} {value}: {text}");
    }
}

/// The file with a field of a case replaced, or removed where there is no value.
fn edit_field(bytes: &[u8], case: &str, field: &str, value: Option<&Json>) -> Vec<u8> {
    edit(bytes, |header| {
        let mut fields: Json = serde_json::from_str(header["__metadata__"][case].as_str().unwrap()).unwrap();
        let object = fields.as_object_mut().unwrap();
        match value {
            Some(value) => object.insert(field.into(), value.clone()),
            None => object.remove(field),
        };
        header["__metadata__"][case] = fields.to_string().into();
    })
}

#[test]
fn fields_are_checked() {
    for (file, case, field, value, complaint) in [
        ("fbgemm.conv2d", "case00", "x_scale", None, "field `x_scale` is missing, expected a number"),
        ("fbgemm.conv2d", "case00", "x_scale", Some(json!("a")), "field `x_scale` is \"a\", expected a number"),
        ("fbgemm.conv2d", "case00", "x_scale", Some(json!(0.0)), "x_scale and x_zero_point: scale is 0"),
        ("fbgemm.conv2d", "case00", "y_scale", Some(json!(-1)), "y_scale and y_zero_point: scale is -1"),
        ("fbgemm.conv2d", "case00", "y_scale", Some(json!(1e-60)), "also after rounding to f32"),
        ("fbgemm.conv2d", "case00", "w_scale", Some(json!(0)), "weight scale is 0"),
        ("fbgemm.conv2d", "case00", "w_scale", Some(Json::Null), "field `w_scale` is missing"),
        ("fbgemm.conv2d", "case04", "w_scale", Some(json!(1)), "field `w_scale` is a number, expected null beside a"),
        ("fbgemm.conv2d", "case04", "per_channel", Some(json!(false)), "field `per_channel` is false, expected true"),
        ("fbgemm.conv2d", "case00", "x_zero_point", Some(json!(256)), "zero point is 256, expected a value in 0..=255"),
        ("fbgemm.conv2d", "case00", "y_zero_point", Some(json!(-1)), "zero point is -1, expected a value in 0..=255"),
        ("fbgemm.conv2d", "case00", "y_zero_point", Some(json!(0.5)), "field `y_zero_point` is 0.5, expected an"),
        ("fbgemm.conv2d", "case00", "w_zero_point", Some(json!(128)), "weight zero point is 128"),
        ("fbgemm.conv2d", "case00", "w_zero_point", Some(json!(1u64 << 40)), "field `w_zero_point` is 1099511627776"),
        ("fbgemm.conv2d", "case00", "relu", Some(json!(1)), "field `relu` is 1, expected true or false"),
        ("fbgemm.conv2d", "case00", "post", Some(json!("sum")), "field `post` is not one that this operator has"),
        ("fbgemm.conv2d", "case00", "stride", Some(json!([1])), "field `stride` is [1], expected 2 integers"),
        ("fbgemm.conv2d", "case00", "stride", Some(json!([0, 1])), "stride is 0, expected at least 1"),
        (
            "fbgemm.conv2d",
            "case00",
            "stride",
            Some(json!([2, 1])),
            "tensor `case00.y` is U8 [1, 33, 6, 8], expected U8",
        ),
        ("fbgemm.conv2d", "case00", "padding", Some(json!([-1, 0])), "field `padding` is [-1,0], expected 2 integers"),
        ("fbgemm.conv2d", "case00", "padding", Some(json!([1u64 << 40, 1])), "expected a padded image of at most"),
        ("fbgemm.conv2d", "case00", "padding", Some(json!([u64::MAX, 1])), "does not fit the address space"),
        ("fbgemm.conv2d", "case00", "dilation", Some(json!([1, 9])), "dilated kernel is 19, expected at most 12"),
        ("fbgemm.conv2d", "case00", "groups", Some(json!(0)), "number of groups is 0, expected at least 1"),
        ("fbgemm.conv2d", "case00", "groups", Some(json!(2)), "is 3, expected a multiple of the 2 groups"),
        (
            "fbgemm.conv2d",
            "case00",
            "groups",
            Some(json!(3)),
            "tensor `case00.w` is I8 [33, 3, 1, 3], expected I8 [33, 1",
        ),
        (
            "ort_avx2.QGemm",
            "case02",
            "w_zero_point",
            Some(json!(256)),
            "w_zero_point: weight zero point is 256, expected",
        ),
        ("ort_avx2.QGemm", "case02", "w_zero_point", Some(json!(i32::MIN)), "weight zero point is -2147483648"),
        (
            "ort_avx2.QGemm",
            "case01",
            "x_zero_point",
            Some(json!(128)),
            "zero point is 128, expected a value in -128..=127",
        ),
        ("ort_avx2.QGemm", "case01", "relu", Some(json!(true)), "field `relu` is not one that this operator has"),
        ("ort_avx2.QLinearConv2d", "case00", "groups", Some(json!(2)), "is 3, expected a multiple of the 2 groups"),
        ("aten.quantize_per_tensor", "case00", "dtype", Some(json!("qint32")), "field `dtype` is `qint32`, expected"),
        (
            "aten.quantize_per_tensor",
            "case00",
            "dtype",
            Some(json!("quint8")),
            "tensor `case00.q` is I8 [100], expected U8",
        ),
        (
            "aten.quantize_per_tensor",
            "case00",
            "zero_point",
            Some(json!(200)),
            "scale and zero_point: zero point is 200",
        ),
        ("aten.max_pool2d", "case00", "ceil_mode", None, "field `ceil_mode` is missing"),
        ("aten.max_pool2d", "case00", "kernel", Some(json!([1u64 << 32, 1u64 << 32])), "field `kernel` is [4294967296"),
        ("aten.max_pool2d", "case00", "kernel", Some(json!([9, 3])), "dilated kernel is 9, expected at most 7"),
        ("aten.max_pool2d", "case00", "padding", Some(json!([2, 1])), "padding of a pool is 2, expected at most half"),
        ("aten.avg_pool2d", "case00", "divisor_override", Some(json!(0)), "divisor is 0, expected at least 1"),
        ("aten.avg_pool2d", "case00", "divisor_override", Some(json!(-2)), "field `divisor_override` is -2"),
        ("aten.avg_pool2d", "case00", "dilation", Some(json!([1, 2])), "dilation of an average is 2, expected 1"),
        ("aten.adaptive_avg_pool2d", "case00", "output_size", Some(json!([0, 1])), "expected U8 [2, 64, 0, 1]"),
        ("aten.adaptive_avg_pool2d", "case00", "scale", Some(Json::Null), "field `scale` is null, expected a number"),
        ("aten.add", "case00", "simd_granule", Some(json!(0)), "field `simd_granule` is 0, expected an integer of at"),
        ("aten.add", "case00", "a_zero_point", Some(json!(256)), "a_scale and a_zero_point: zero point is 256"),
        ("aten.add", "case00", "b_scale", None, "field `b_scale` is missing, expected a number"),
        ("aten.unary", "case00", "tanh_out", Some(json!([1])), "field `tanh_out` is [1], expected [scale, zero point]"),
        (
            "aten.unary",
            "case00",
            "relu_out",
            Some(json!("y_scale")),
            "field `relu_out` is `y_scale`, expected x_scale,",
        ),
        ("aten.quantize_per_channel", "case00", "axis", Some(json!(1)), "field `axis` is 1, expected 0"),
        ("qnnpack.add", "case00", "y_scale", Some(json!(1e30)), "ratio of the scales of a and y is"),
        ("qnnpack.avg_pool2d", "case00", "ceil_mode", Some(json!(true)), "field `ceil_mode` is true, expected false"),
        (
            "qnnpack.adaptive_avg_pool2d",
            "case00",
            "output_size",
            Some(json!([2, 1])),
            "`output_size` is [2, 1], expected",
        ),
        (
            "ort.QLinearAveragePool",
            "case00",
            "pads",
            Some(json!([1, 1])),
            "field `pads` is [1, 1], expected 4 integers",
        ),
        (
            "ort.QLinearAveragePool",
            "case00",
            "count_include_pad",
            Some(json!(2)),
            "`count_include_pad` is 2, expected 0",
        ),
        ("tflite_ref.mul", "case00", "activation", Some(json!("tanh")), "field `activation` is `tanh`, expected null,"),
        ("xnnpack.requantize", "case00", "x_scale", Some(json!(1e9)), "ratio of the scales of x and y is 16000000000"),
    ] {
        let text = refusal(&edit_field(&bytes(file), case, field, value.as_ref()));
        assert!(
            text.starts_with(&format!("memory: {case}: ")) && text.contains(complaint),
            "{field} {value:?}: {text}"
        );
    }
}

#[test]
fn fields_of_other_runtimes_are_checked() {
    for (file, case, field, value, complaint) in [
        ("onednn.conv2d_add", "case00", "accum_scale", Some(json!(0)), "accum_scale: addend scale is 0"),
        ("onednn.conv2d_add", "case00", "accum_zero_point", Some(json!(300)), "addend zero point is 300"),
        ("onednn.conv2d_add", "case00", "accum_zero_point", None, "field `accum_zero_point` is missing"),
        (
            "pt2e_onednn.qlinear_pointwise",
            "case00",
            "post",
            Some(json!("gelu")),
            "field `post` is `gelu`, expected one",
        ),
        (
            "pt2e_onednn.qlinear_pointwise",
            "case00",
            "post",
            Some(json!("relu")),
            "`relu` is false, expected true beside",
        ),
        ("pt2e_onednn.qlinear_pointwise", "case00", "post", Some(json!("sum")), "field `accum_scale` is missing"),
        (
            "pt2e_onednn.qconv2d_pointwise",
            "case04",
            "hardtanh",
            Some(json!([1])),
            "field `hardtanh` is [1], expected two",
        ),
        ("qnnpack.linear", "case00", "y_scale", Some(json!(3e38)), "multiplier (S_X · S_W / S_Y) is"),
        (
            "ort.QGemm",
            "case02",
            "w_zero_point",
            Some(json!(256)),
            "weight zero point is 256, expected a value in 0..=255",
        ),
        ("ort.QGemm", "case00", "w_zero_point", Some(json!(128)), "weight zero point is 128"),
        ("ort.QGemm", "case01", "x_zero_point", Some(json!(128)), "zero point is 128, expected a value in -128..=127"),
        (
            "tflite_ref.conv2d",
            "case01",
            "activation",
            Some(json!("tanh")),
            "field `activation` is `tanh`, expected null",
        ),
        ("tflite_ref.conv2d", "case01", "y_scale", Some(json!(1e-30)), "scales: multiplier"),
        ("brevitas.linear_fixed_point", "case00", "x_scale", Some(json!(0.03)), "scales: input scale is 0.03"),
        ("brevitas.linear_fixed_point", "case00", "x_scale", Some(json!(0.5)), "tensor `shift` is"),
        ("brevitas.linear_fixed_point", "case00", "out_bits", Some(json!(9)), "bit width of a code is 9"),
        ("brevitas.linear_fixed_point", "case00", "out_max", Some(json!(8)), "upper clamp bound is 8"),
    ] {
        let text = refusal(&edit_field(&bytes(file), case, field, value.as_ref()));
        assert!(
            text.starts_with(&format!("memory: {case}: ")) && text.contains(complaint),
            "{file} {field} {value:?}: {text}"
        );
    }
}

#[test]
fn tensors_are_checked() {
    let linear = bytes("fbgemm.linear");
    for (tensor, key, value, complaint) in [
        ("x", "dtype", json!("I8"), "tensor `case05.x` is I8 [10, 2], expected U8 [10, 2]"),
        ("y", "shape", json!([24, 10]), "tensor `case05.y` is U8 [24, 10], expected U8 [10, 24]"),
        ("y", "shape", json!([240]), "tensor `case05.y` is U8 [240], expected U8 [10, 24]"),
        ("x", "shape", json!([20]), "tensor `case05.x` is U8 [20], expected [rows, in_features], none of them zero"),
        ("w", "shape", json!([2, 24]), "expected I8 [2, 2]"),
        ("w", "shape", json!([0, 2]), "not a valid safetensors file"),
        ("bias", "dtype", json!("I32"), "tensor `case05.bias` is I32 [24], expected F32 [24]"),
        ("w_scale", "dtype", json!("I64"), "tensor `case05.w_scale` is I64 [24], expected F64 [24]"),
    ] {
        let tensor = format!("case05.{tensor}");
        let text = refusal(&edit(&linear, |header| header[&tensor][key] = value.clone()));
        assert!(text.contains(complaint), "{tensor} {key} {value}: {text}");
    }
    for (from, to, complaint) in [
        ("case05.y", "case05.z", "memory: case05: tensor `case05.y` is missing, expected U8 [10, 24]"),
        ("case05.bias", "case05.bia", "memory: case05: tensor `case05.bia` is not one that this operator has"),
        ("case05.bias", "case99.bias", "memory: tensor `case99.bias` is not one that this operator has"),
        ("case05.w_scale", "case99.w_scale", "memory: tensor `case99.w_scale`"),
    ] {
        let text = refusal(&edit(&linear, |header| {
            let tensor = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = tensor;
        }));
        assert!(text.contains(complaint), "{from} → {to}: {text}");
    }
    for (tensor, element, complaint) in [
        ("case05.w_scale", f64::NAN.to_le_bytes().to_vec(), "weight scale is NaN"),
        ("case05.w_scale", (-1.0f64).to_le_bytes().to_vec(), "weight scale is -1"),
        (
            "case05.w_zero_point",
            128i32.to_le_bytes().to_vec(),
            "weight zero point is 128, expected a value in -128..=127",
        ),
    ] {
        let mut bytes = linear.clone();
        let at = span(&bytes, tensor).start;
        bytes[at..at + element.len()].copy_from_slice(&element);
        let text = refusal(&bytes);
        assert!(text.starts_with("memory: case05: ") && text.contains(complaint), "{tensor}: {text}");
    }
    // No bytes at all are a valid tensor, but nothing was recorded.
    let text = refusal(&edit(&bytes("aten.quantize_per_tensor"), |header| {
        header["case01.x"]["shape"] = json!([0]);
        header["case01.x"]["data_offsets"] = json!([0, 0]);
    }));
    assert!(text.contains("not a valid safetensors file"), "{text}");
}

#[test]
fn truncated_files_are_refused() {
    for &(name, ..) in FILES {
        let bytes = bytes(name);
        let (_, data) = header(&bytes);
        for len in (0..64).chain((64..bytes.len()).step_by(101)).chain(data - 2..data + 2).chain([bytes.len() - 1]) {
            let text = refusal(&bytes[..len]);
            let named = text.contains("not a valid safetensors file") || text.contains("end in the file");
            assert!(named, "{name} cut to {len}: {text}");
        }
        let longer = [&(bytes.len() as u64).to_le_bytes(), &bytes[8..]].concat();
        assert!(refusal(&longer).contains("not a valid safetensors file"), "{name}");
        let longest = [&u64::MAX.to_le_bytes(), &bytes[8..]].concat();
        assert!(refusal(&longest).contains("not a valid safetensors file"), "{name}");
    }
    let error = run(Path::new("no such file"), &every_isa(), |_, _| ()).unwrap_err();
    assert!(error.to_string().starts_with("no such file: cannot be read: "), "{error}");
}

/// A file, its header changed by `change`, is read to some end or other.
fn garbled(file: usize, change: impl FnOnce(&mut [u8])) -> bool {
    let mut bytes = bytes(FILES[file % FILES.len()].0);
    let (_, data) = header(&bytes);
    change(&mut bytes[..data]);
    let _ = run_bytes("memory", &bytes, &every_isa(), |_, _| ());
    true
}

#[test]
fn a_garbled_header_never_panics() {
    fn any_bits(file: usize, flips: Vec<(usize, u8)>) -> bool {
        garbled(file, |header| {
            for (position, mask) in flips {
                header[position % header.len()] ^= mask;
            }
        })
    }
    // Most of these are still well-formed.
    fn digits(file: usize, digits: Vec<(usize, u8)>) -> bool {
        garbled(file, |header| {
            let places: Vec<usize> = (8..header.len()).filter(|&i| header[i].is_ascii_digit()).collect();
            for (place, digit) in digits.into_iter().take(3) {
                header[places[place % places.len()]] = b'0' + digit % 10;
            }
        })
    }
    type Property = fn(usize, Vec<(usize, u8)>) -> bool;
    QuickCheck::new().tests(2000).quickcheck(any_bits as Property);
    QuickCheck::new().tests(2000).quickcheck(digits as Property);
}
