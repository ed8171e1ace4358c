//! Operator vectors from other seeds than those of the first recordings, with ties and extremes.

use qexact_kernels::Isa;
use qexact_verify::vectors::{Options, Totals, run, run_bytes};
use std::path::{Path, PathBuf};

/// File, cases, outputs.
const FILES: &[(&str, usize, usize)] = &[
    ("aten.adaptive_avg_pool2d.more", 8, 710),
    ("aten.add.more", 8, 494),
    ("aten.avg_pool2d.more", 10, 1083),
    ("aten.cat.more", 8, 1226),
    ("aten.max_pool2d.more", 8, 410),
    ("aten.mul.more", 8, 332),
    ("aten.quantize_per_channel.more", 4, 970),
    ("aten.quantize_per_tensor.more", 8, 944),
    ("aten.unary.more", 4, 8192),
    ("fbgemm.linear_dynamic.more", 10, 318),
    ("onednn.conv2d_add.more", 8, 1689),
    ("ort.QLinearAdd.ties", 7, 385),
    ("ort.QLinearAveragePool.ties", 8, 1236),
    ("ort.QLinearGlobalAveragePool.ties", 8, 107),
    ("ort.QLinearMul.ties", 7, 390),
    ("ort.QuantizeLinear.ties", 7, 702),
    ("pt2e_onednn.qlinear_pointwise.more", 10, 833),
    ("qnnpack.adaptive_avg_pool2d.more", 8, 114),
    ("qnnpack.add.more", 5, 226),
    ("qnnpack.avg_pool2d.more", 10, 1197),
    ("qnnpack.linear_dynamic.more", 10, 234),
    ("tflite_ref.fully_connected.more", 8, 133),
    ("tflite_ref.quantize.more", 8, 372),
    ("tflite_ref.requantize.more", 9, 950),
    ("tflite_ruy.add.more", 9, 747),
    ("tflite_ruy.mul.more", 9, 430),
    ("tflite_ruy.average_pool_2d.more", 8, 1299),
    ("tflite_ruy.depthwise_conv2d.more", 8, 841),
    ("tflite_ruy.fully_connected.more", 8, 133),
    ("tflite_ruy.quantize.more", 8, 372),
    ("tflite_ruy.requantize.more", 9, 950),
    ("xnnpack.add.more", 9, 747),
    ("xnnpack.conv2d.more", 8, 1906),
    ("xnnpack.depthwise_conv2d.more", 8, 841),
    ("xnnpack.fully_connected.more", 8, 133),
    ("xnnpack.mul.more", 9, 430),
    ("xnnpack.quantize.more", 8, 372),
    ("xnnpack.requantize.more", 9, 950),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/vectors").join(format!("{name}.safetensors"))
}

#[test]
fn what_was_recorded_is_reproduced() {
    let options = Options { isas: Isa::available().collect(), strict: false };
    for &(name, cases, outputs) in FILES {
        let report = run(&path(name), &options, |_, _| ()).unwrap();
        println!("{report}");
        let equal = Totals { cases, outputs, equal: outputs, saturated: 0, differences: 0, kernel_differences: 0 };
        assert_eq!(report.totals, equal, "{name}");
    }
}

/// QNNPACK's taps in the padding read the nearest pixel, which a dilated window need not hold.
#[test]
fn dilated_maxima_of_qnnpack_are_refused() {
    let bytes = std::fs::read(path("qnnpack.max_pool2d")).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + len]).unwrap();
    let edited = header.replacen(r#"{\"kernel\""#, r#"{\"dilation\": [1, 2], \"kernel\""#, 1);
    assert_ne!(edited, header);
    let bytes = [&(edited.len() as u64).to_le_bytes(), edited.as_bytes(), &bytes[8 + len..]].concat();
    let error = run_bytes("memory", &bytes, &Options::default(), |_, _| ()).unwrap_err().to_string();
    assert!(error.contains(": field `dilation` is [1, 2], expected [1, 1]"), "{error}");
}
