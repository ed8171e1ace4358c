//! What is malformed is refused.

use super::files::FILES;
use super::{bytes, edit, every_isa, header, span};
use qexact_verify::vectors::{run, run_bytes};
use quickcheck::QuickCheck;
use serde_json::{Value as Json, json};
use std::path::Path;

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
