//! What each operator and each rule of an export has to be like: bad parameters are named.

mod parts;

use parts::{EditDocument, EditTensors, Parts, named, refused};
use qexact_kernels::Isa;
use qexact_model::{Data, Executor, Export, Tensor};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const FUNCTIONS: &[u8] = include_bytes!("../../fixtures/networks/functions_fbgemm.safetensors");
const DECODER: &[u8] = include_bytes!("../../fixtures/networks/decoder_fbgemm.safetensors");
const DECODER_FX: &[u8] = include_bytes!("../../fixtures/networks/decoder_fx_fbgemm.safetensors");
const ONEDNN: &[u8] = include_bytes!("../../fixtures/networks/residual_onednn.safetensors");
const QNNPACK: &[u8] = include_bytes!("../../fixtures/networks/residual_qnnpack.safetensors");
const DYNAMIC: &[u8] = include_bytes!("../../fixtures/networks/simple_dynamic_onednn.safetensors");
const SIMPLE: &[u8] = include_bytes!("../../fixtures/networks/simple_fused.safetensors");

fn node<'d>(document: &'d mut Value, name: &str) -> &'d mut Value {
    named(&mut document["nodes"], name)
}

fn value<'d>(document: &'d mut Value, name: &str) -> &'d mut Value {
    named(&mut document["values"], name)
}

#[track_caller]
fn check_document(original: &[u8], cases: &[(&str, EditDocument<'_>)]) {
    for (expected, edit) in cases {
        let error = refused(original, |d, _| edit(d));
        assert!(error.contains(expected), "expected `{expected}`\n     got `{error}`");
    }
}

#[test]
fn sums_and_products() {
    check_document(
        FUNCTIONS,
        &[
            ("node `add`: number of inputs is 1, expected 2", &|d| node(d, "add")["inputs"] = json!(["conv"])),
            ("node `add`: number of inputs is 3, expected 2", &|d| {
                node(d, "add")["inputs"] = json!(["conv", "conv", "conv"])
            }),
            ("node `add`: kind of the rule is mul, expected add", &|d| {
                node(d, "add")["rule"] = json!({"kind": "mul", "multiplier": "quotient"})
            }),
            ("node `mul`: kind of the rule is add, expected mul", &|d| {
                node(d, "mul")["rule"] = json!({"kind": "add", "sum": "real"})
            }),
            ("node `add`: rule malformed: unknown variant `exact`", &|d| {
                node(d, "add")["rule"]["sum"] = json!("exact")
            }),
            ("node `add`: type of a value is f32 (`image`), expected codes", &|d| {
                node(d, "add")["inputs"] = json!(["image", "conv"])
            }),
            ("node `add`: type of an input is f32 (`image`), expected u8, as of the first", &|d| {
                node(d, "add")["inputs"] = json!(["conv", "image"])
            }),
            ("node `add`: number of axes of the second input is 2, expected 3", &|d| {
                node(d, "add")["inputs"] = json!(["conv", "quant_tokens"])
            }),
            ("node `add`: extent of b is 4, expected 1 or 13 as in a", &|d| {
                node(d, "add")["inputs"] = json!(["conv", "quant_image"])
            }),
            ("node `add`: ratio of the scales of a and y", &|d| {
                node(d, "add")["rule"]["sum"] = json!("shifted");
                value(d, "add")["scale"] = json!(1e6);
            }),
        ],
    );
}

#[test]
fn tables() {
    check_document(
        FUNCTIONS,
        &[
            ("node `table`: rule is present, expected none for the operator `table`", &|d| {
                node(d, "table")["rule"] = json!({"kind": "dequantize"})
            }),
            ("node `table`: attributes malformed: missing field `function`", &|d| {
                node(d, "table")["attributes"] = json!({})
            }),
            ("node `table_5`: type of a value is f32 (`tokens`)", &|d| {
                node(d, "table_5")["inputs"] = json!(["tokens"])
            }),
            ("tensor `functions.0.table`: shape is [256], expected [16]", &|d| {
                value(d, "conv")["bits"] = json!(4);
                value(d, "conv")["zero_point"] = json!(3);
            }),
            ("tensor `table.table`: dtype is U8, expected I8", &|d| {
                value(d, "table")["dtype"] = json!("i8");
                value(d, "table")["zero_point"] = json!(0);
            }),
        ],
    );
    let cases: [(&str, EditTensors<'_>); 2] = [
        ("refers to the tensor `table.table`, which does not exist", &|t| drop(t.remove("table.table"))),
        ("tensor `table.table`: shape is [2], expected [256]", &|t| {
            t.insert("table.table".into(), (Dtype::U8, vec![2], vec![1, 2]));
        }),
    ];
    for (expected, edit) in cases {
        let error = refused(FUNCTIONS, |_, tensors| edit(tensors));
        assert!(error.contains(expected), "expected `{expected}`\n     got `{error}`");
    }
    let narrow = refused(FUNCTIONS, |d, _| {
        value(d, "table")["bits"] = json!(3);
        value(d, "table")["zero_point"] = json!(0);
    });
    assert!(narrow.contains("tensor `table.table`: entry of a table is"), "{narrow}");
}

#[test]
fn moves() {
    check_document(
        FUNCTIONS,
        &[
            ("node `concat`: `axis` is 3, expected less than 3", &|d| {
                node(d, "concat")["attributes"]["axis"] = json!(3)
            }),
            (
                "node `concat`: shape of an input is [4, 6, 6] (`quant_image`), expected [13, 6, 6] except along axis 2",
                &|d| {
                    node(d, "concat")["attributes"]["axis"] = json!(2);
                    node(d, "concat")["inputs"] = json!(["conv", "quant_image"]);
                },
            ),
            ("node `concat`: shape of the output is [39, 6, 6] (`concat`), expected [17, 6, 6]", &|d| {
                node(d, "concat")["inputs"] = json!(["conv", "quant_image"]);
            }),
            ("node `concat`: number of inputs is 0, expected at least 1", &|d| node(d, "concat")["inputs"] = json!([])),
            ("node `concat_2`: `memory` of the rule is channels_last along axis 1 of 2 axes", &|d| {
                node(d, "concat_2")["rule"]["memory"] = json!("channels_last")
            }),
            ("node `concat`: kind of the rule is dequantize, expected concat", &|d| {
                node(d, "concat")["rule"] = json!({"kind": "dequantize"})
            }),
            ("node `permute`: `axes` is [1, 1, 2, 3], expected each of 0..4 once", &|d| {
                node(d, "permute")["attributes"]["axes"] = json!([1, 1, 2, 3])
            }),
            ("node `permute`: shape of the output is", &|d| {
                node(d, "permute")["attributes"]["axes"] = json!([0, 1, 2, 3])
            }),
            ("node `slice`: `axis` is 7, expected less than 3", &|d| node(d, "slice")["attributes"]["axis"] = json!(7)),
            ("node `slice`: `step` is 0, expected at least 1", &|d| node(d, "slice")["attributes"]["step"] = json!(0)),
            ("node `slice`: `start` is 32 with 7 steps of 1, expected a last index of less than 39", &|d| {
                node(d, "slice")["attributes"]["start"] = json!(32)
            }),
            ("node `slice`: `start` is 0 with 7 steps of", &|d| {
                node(d, "slice")["attributes"]["step"] = json!(usize::MAX / 2)
            }),
            ("node `slice`: quantization of the output is", &|d| value(d, "slice")["scale"] = json!(1.0)),
        ],
    );
}

#[test]
fn choices_of_elements() {
    fn attributes<'d>(d: &'d mut Value, name: &str) -> &'d mut Value {
        &mut node(d, name)["attributes"]
    }
    check_document(
        DECODER,
        &[
            ("node `zeros`: number of paddings is 2, expected 3", &|d| {
                attributes(d, "zeros")["padding"] = json!([[0, 0], [2, 1]])
            }),
            ("node `zeros`: shape of the output is [12, 8, 7] (`zeros`), expected [12, 8, 8]", &|d| {
                attributes(d, "zeros")["padding"] = json!([[0, 0], [2, 1], [1, 1]])
            }),
            ("node `zeros`: elements of the padded input is 18446744073709551615, expected at most", &|d| {
                attributes(d, "zeros")["padding"] = json!([[0, 0], [2, u64::MAX], [1, 1]])
            }),
            ("node `zeros`: `value` is 256, expected a code, from 0 to 255", &|d| {
                attributes(d, "zeros")["value"] = json!(256)
            }),
            ("node `zeros`: `value` is 0.5, expected a code", &|d| attributes(d, "zeros")["value"] = json!(0.5)),
            ("node `zeros`: attributes malformed: missing field `value`", &|d| {
                drop(attributes(d, "zeros").as_object_mut().unwrap().remove("value"))
            }),
            ("node `zeros`: rule is present, expected none for the operator `pad`", &|d| {
                node(d, "zeros")["rule"] = json!({"kind": "dequantize"})
            }),
            ("node `zeros`: quantization of the output is", &|d| value(d, "zeros")["scale"] = json!(1.0)),
            ("node `reflection_pad`: padding that reflects is 30, expected less than 30", &|d| {
                attributes(d, "reflection_pad")["padding"] = json!([[0, 0], [30, 4]])
            }),
            ("node `reflection_pad`: elements of the padded input is", &|d| {
                attributes(d, "reflection_pad")["padding"] = json!([[0, 0], [2, u64::MAX]])
            }),
            ("node `larger`: number of scale factors is 1, expected 2", &|d| {
                attributes(d, "larger")["scale_factors"] = json!([2.0])
            }),
            ("node `larger`: scale factor is -2, expected a finite number greater than zero", &|d| {
                attributes(d, "larger")["scale_factors"] = json!([2.0, -2.0])
            }),
            ("node `larger`: shape of the output is [6, 10, 14] (`larger`), expected [6, 10, 15]", &|d| {
                attributes(d, "larger")["scale_factors"] = json!([2.0, 2.2])
            }),
            ("node `larger`: output extent is 0, expected at least 1", &|d| {
                attributes(d, "larger")["scale_factors"] = json!([2.0, 0.01])
            }),
            ("node `larger`: number of axes of the output is 2, expected 3", &|d| {
                value(d, "larger")["shape"] = json!([10, 84]);
                value(d, "larger").as_object_mut().unwrap().remove("memory");
            }),
            ("node `shuffle`: `groups` is 5, expected a divisor of the 12 channels", &|d| {
                attributes(d, "shuffle")["groups"] = json!(5)
            }),
            ("node `shuffle`: `groups` is 0", &|d| attributes(d, "shuffle")["groups"] = json!(0)),
        ],
    );
    check_document(DECODER_FX, &[("node `zeros`: `value` is 1", &|d| attributes(d, "zeros")["value"] = json!(1e300))]);
}

#[test]
fn transposed_convolutions() {
    fn attributes<'d>(d: &'d mut Value, name: &str) -> &'d mut Value {
        &mut node(d, name)["attributes"]
    }
    check_document(
        DECODER,
        &[
            ("node `grow`: number of strides is 1, expected 2", &|d| attributes(d, "grow")["stride"] = json!([2])),
            ("node `grow`: number of output paddings is 0, expected 2", &|d| {
                attributes(d, "grow")["output_padding"] = json!([])
            }),
            ("node `grow`: output padding is 2, expected less than 2", &|d| {
                attributes(d, "grow")["output_padding"] = json!([1, 2])
            }),
            ("node `grow`: stride is 0, expected at least 1", &|d| attributes(d, "grow")["stride"] = json!([0, 2])),
            ("node `grow`: shape of the output is", &|d| attributes(d, "grow")["stride"] = json!([3, 2])),
            ("node `grow`: the number of elements along an axis does not fit the address space", &|d| {
                attributes(d, "grow")["stride"] = json!([u64::MAX, 2]);
            }),
            ("node `grow`: `groups` is 2, expected a divisor of the 12 and 9 channels", &|d| {
                attributes(d, "grow")["groups"] = json!(2)
            }),
            ("tensor `grow.weight`: shape is [12, 9, 3, 3], expected [12, 3, 3, 3]", &|d| {
                attributes(d, "grow")["groups"] = json!(3)
            }),
            ("node `grow`: kind of the rule is dequantize, expected f32_mul", &|d| {
                node(d, "grow")["rule"] = json!({"kind": "dequantize"})
            }),
            ("node `grow`: number of weight scales is 1, expected 9 (bias addend)", &|d| {
                node(d, "grow")["rule"]["bias"] = json!("addend")
            }),
            ("node `grow`: number of inputs is 2, expected 1", &|d| {
                node(d, "grow")["inputs"] = json!(["zeros", "zeros"])
            }),
            ("node `rows`: number of spatial axes of the input is 1, expected 2", &|d| {
                node(d, "rows")["op"] = json!("conv_transpose2d");
                for field in ["stride", "output_padding", "dilation"] {
                    attributes(d, "rows")[field] = json!([1, 1]);
                }
                attributes(d, "rows")["padding"] = json!([[0, 0], [0, 0]]);
            }),
        ],
    );
    let error = refused(DECODER, |_, tensors| {
        tensors.get_mut("grow.weight").unwrap().1 = vec![12 * 9, 9];
    });
    assert!(error.contains("tensor `grow.weight`: shape is [108, 9], expected 4 axes"), "{error}");
    let phases = refused(DECODER, |d, _| {
        attributes(d, "grow")["stride"] = json!([100, 100]);
        attributes(d, "grow")["output_padding"] = json!([0, 0]);
        value(d, "grow")["shape"] = json!([9, 701, 601]);
    });
    assert!(
        phases.contains("node `grow`: phases (the product of the strides) is 10000, expected at most 4096"),
        "{phases}"
    );
}

/// Plans of transposed convolutions are those of one sample.
#[test]
fn a_sample_of_a_decoder_does_not_see_its_batch() {
    let export = Export::from_bytes(DECODER).unwrap();
    let inputs = export.recording.as_ref().unwrap().inputs();
    for isa in Isa::available() {
        let executor = Executor::new(&export.network, isa).unwrap();
        let (all, each) = (executor.run(inputs).unwrap(), executor.run_in_batches(inputs, 1).unwrap());
        assert!(all.iter().zip(&each).all(|(all, each)| all.batch() == 4 && all.data() == each.data()), "{isa}");
    }
}

#[test]
fn rules_of_layers() {
    check_document(
        ONEDNN,
        &[
            ("node `fc`: number of weight scales is 10, expected 1 (per_tensor)", &|d| {
                node(d, "fc")["rule"]["weight"] = json!("per_tensor")
            }),
            ("node `fc`: `clip` of the rule is [1, 0], expected none with `relu`", &|d| {
                node(d, "fc")["rule"]["clip"] = json!([1.0, 0.0])
            }),
            ("node `conv1`: `clip` of the rule is [0, 6], expected none with `relu`", &|d| {
                node(d, "conv1")["rule"]["clip"] = json!([0.0, 6.0])
            }),
            ("node `fc`: rule malformed: missing field `scales`", &|d| {
                node(d, "fc")["rule"] = json!({"kind": "f32_real", "weight": "per_channel"})
            }),
            ("node `fc`: kind of the rule is f32_out, expected f32_mul, f32_real or pow2", &|d| {
                node(d, "fc")["rule"] = json!({"kind": "f32_out", "quantize": "fused", "weight": "per_channel"})
            }),
            ("node `block1.conv2`: shape of the output is [8, 14, 14] (`block1.conv2`), expected [1, 28, 28]", &|d| {
                node(d, "block1.conv2")["inputs"] = json!(["block1.conv1", "x"])
            }),
            ("tensor `fc.bias`: dtype is F32, expected I32", &|d| {
                node(d, "fc")["rule"] = json!({"kind": "pow2", "rounding": "even"})
            }),
            ("node `block1.conv2`: rule malformed: unknown variant `up`", &|d| {
                node(d, "block1.conv2")["rule"] = json!({"kind": "pow2", "rounding": "up"})
            }),
            ("node `fc`: bit width of a code is 9, expected a value in 1..=8", &|d| {
                node(d, "fc")["attributes"]["weight_bits"] = json!(9)
            }),
            ("tensor `fc.weight`: a weight is", &|d| node(d, "fc")["attributes"]["weight_bits"] = json!(2)),
            ("value `fc`: bit width of a code is 0, expected a value in 1..=8", &|d| value(d, "fc")["bits"] = json!(0)),
            ("value `x`: bit width is present, expected none for f32", &|d| value(d, "x")["bits"] = json!(4)),
        ],
    );
    check_document(
        QNNPACK,
        &[
            ("node `fc`: `bias` of the rule is addend, expected rounded (multiplier reciprocal)", &|d| {
                node(d, "fc")["rule"]["bias"] = json!("addend")
            }),
            ("node `fc`: `bias` of the rule is rounded, expected none, addend or fused", &|d| {
                node(d, "fc")["rule"]["multiplier"] = json!("quotient")
            }),
            ("node `fc`: multiplier (S_X · S_W / S_Y) is 0", &|d| value(d, "fc")["scale"] = json!(1e38)),
            ("node `fc`: number of inputs is 2, expected 1 with the rule f32_mul", &|d| {
                node(d, "fc")["inputs"] = json!(["flatten", "flatten"])
            }),
            ("node `avgpool`: `multiplier` of the rule is reciprocal, expected quotient", &|d| {
                node(d, "avgpool")["rule"]["multiplier"] = json!("reciprocal")
            }),
        ],
    );
    let not_a_power = refused(QNNPACK, |d, t| {
        node(d, "fc")["rule"] = json!({"kind": "pow2", "rounding": "even"});
        t.get_mut("fc.bias").unwrap().0 = Dtype::I32;
    });
    assert!(not_a_power.contains("node `fc`: input scale is"), "{not_a_power}");
    let no_bias = refused(QNNPACK, |_, t| drop(t.remove("fc.bias")));
    assert!(no_bias.contains("node `fc` refers to the tensor `fc.bias`, which does not exist"), "{no_bias}");
}

#[test]
fn dynamic_layers() {
    check_document(
        DYNAMIC,
        &[
            ("the recording: samples of a batch is not given, expected 1", &|d| {
                drop(d["recording"].as_object_mut().unwrap().remove("batch"))
            }),
            ("the recording: samples of a batch is 2, expected 1", &|d| d["recording"]["batch"] = json!(2)),
            ("node `0`: kind of the rule is dequantize, expected f32_out", &|d| {
                node(d, "0")["rule"] = json!({"kind": "dequantize"})
            }),
            ("node `0`: number of weight scales is 1, expected 100 (per_channel)", &|d| {
                node(d, "0")["rule"]["weight"] = json!("per_channel")
            }),
            ("node `0`: attributes malformed: missing field `reduce_range`", &|d| {
                node(d, "0")["attributes"] = json!({"relu": false})
            }),
        ],
    );
    let export = Export::from_bytes(DYNAMIC).unwrap();
    let executor = Executor::new(&export.network, Isa::best()).unwrap();
    let input = |x: f32| Tensor::new(1, vec![784], Data::F32(vec![x; 784])).unwrap();
    let error = executor.run(&[input(f32::INFINITY)]).unwrap_err().to_string();
    assert!(error.starts_with("node `0`: "), "{error}");
    // Without a range, and with numbers so small that their scale would be none.
    for x in [0.0, f32::NAN, f32::MIN_POSITIVE] {
        assert_eq!(executor.run(&[input(x)]).unwrap().len(), 1);
    }
}

/// What a sample gives depends on its batch: on what it is quantized with.
#[test]
fn dynamic_layers_see_the_whole_batch() {
    let export = Export::from_bytes(DYNAMIC).unwrap();
    let executor = Executor::new(&export.network, Isa::best()).unwrap();
    let recording = export.recording.as_ref().unwrap();
    let all = executor.run(recording.inputs()).unwrap();
    let each = executor.run_in_batches(recording.inputs(), recording.batch()).unwrap();
    assert_ne!(all[0].data(), each[0].data());
    let value = recording.value(export.network.outputs()[0]).unwrap();
    assert_eq!(each[0].samples(0..recording.full()).data(), value.data());
}

#[test]
fn work_is_bounded() {
    let work = refused(SIMPLE, |d, _| {
        d["recording"]["samples"] = json!(1u64 << 40);
        d["recording"]["full"] = json!(0);
    });
    assert!(work.contains("operations of all samples up to here is"), "{work}");
}

/// Codes below eight bits are held to their range where they come in.
#[test]
fn narrow_codes() {
    let mut parts = Parts::of(FUNCTIONS);
    let keep = ["bounds.0"];
    parts.document["inputs"] = json!([{"name": "conv"}]);
    parts.document["outputs"] = json!([{"name": "bounds.0"}]);
    parts.document["nodes"].as_array_mut().unwrap().retain(|node| keep.contains(&node["name"].as_str().unwrap()));
    parts.document["values"].as_array_mut().unwrap().retain(|v| v["name"] == "conv" || v["name"] == "bounds.0");
    parts.document.as_object_mut().unwrap().remove("recording");
    for name in ["conv", "bounds.0"] {
        value(&mut parts.document, name)["bits"] = json!(4);
        value(&mut parts.document, name)["zero_point"] = json!(3);
    }
    parts.tensors.retain(|name, _| name == "bounds.0.table");
    parts.tensors.insert("bounds.0.table".into(), (Dtype::U8, vec![16], (0..16).rev().collect()));
    let export = Export::from_bytes(&parts.bytes()).unwrap();
    let executor = Executor::new(&export.network, Isa::best()).unwrap();
    let run = |code: u8| executor.run(&[Tensor::new(1, vec![13, 6, 6], Data::U8(vec![code; 468])).unwrap()]);
    assert_eq!(run(4).unwrap()[0].data().as_ref(), &Data::U8(vec![11; 468]));
    let error = run(16).unwrap_err().to_string();
    assert_eq!(error, "the value `conv`: a code is 16, expected a value in 0..=15");
}
