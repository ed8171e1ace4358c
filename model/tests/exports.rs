//! Exports as recorded load and run; anything else gets an error that names the place.

mod parts;

use parts::{EditDocument, EditTensors, Parts, named, refused};
use qexact_kernels::Isa;
use qexact_model::{Data, Executor, Export, LoadError, Tensor, read_tensors, write_tensors};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const SIMPLE: &[u8] = include_bytes!("../../fixtures/networks/simple_fused.safetensors");
const CNN: &[u8] = include_bytes!("../../fixtures/networks/cnn_bn_per_channel_unfolded.safetensors");
const ODD: &[u8] = include_bytes!("../../fixtures/networks/odd.safetensors");

#[test]
fn the_originals_load_unaltered() {
    for bytes in [SIMPLE, CNN, ODD] {
        let export = Export::from_bytes(bytes).unwrap();
        assert_eq!(export.altered, Vec::<String>::new());
        let again = Export::from_bytes(&Parts::of(bytes).bytes()).unwrap();
        assert_eq!(again.altered, Vec::<String>::new());
    }
}

#[test]
fn the_document_is_checked() {
    let document = |edit: &dyn Fn(&mut Value)| refused(SIMPLE, |d, _| edit(d));
    let cases: [(&str, EditDocument<'_>); 21] = [
        ("the export's format version is 2, expected 1", &|d| d["format"] = json!(2)),
        ("missing field `format`", &|d| drop(d.as_object_mut().unwrap().remove("format"))),
        ("missing field `values`", &|d| drop(d.as_object_mut().unwrap().remove("values"))),
        ("unknown field `surprise`", &|d| d["surprise"] = json!(1)),
        ("node `fc1`: unknown operator `gelu`, expected one of quantize", &|d| {
            named(&mut d["nodes"], "fc1")["op"] = json!("gelu")
        }),
        ("node `fc1`: attributes malformed: unknown field `groups`", &|d| {
            named(&mut d["nodes"], "fc1")["attributes"]["groups"] = json!(1)
        }),
        ("node `fc1`: rule malformed: unknown variant `f64_mul`", &|d| {
            named(&mut d["nodes"], "fc1")["rule"]["kind"] = json!("f64_mul")
        }),
        ("node `fc1`: kind of the rule is dequantize, expected f32_mul", &|d| {
            named(&mut d["nodes"], "fc1")["rule"] = json!({"kind": "dequantize"})
        }),
        ("node `fc1`: rule is missing", &|d| {
            drop(named(&mut d["nodes"], "fc1").as_object_mut().unwrap().remove("rule"))
        }),
        ("node `fc1`: number of weight scales is 1, expected 100 (bias addend)", &|d| {
            named(&mut d["nodes"], "fc1")["rule"]["bias"] = json!("addend")
        }),
        ("node `fc1`: `bias` of the rule is none, expected addend or fused", &|d| {
            named(&mut d["nodes"], "fc1")["rule"]["bias"] = json!("none")
        }),
        ("the node `fc1` appears more than once", &|d| named(&mut d["nodes"], "fc2")["name"] = json!("fc1")),
        ("the value `fc1` appears more than once", &|d| named(&mut d["values"], "fc2")["name"] = json!("fc1")),
        ("node `fc2` refers to the value `nothing`, which does not exist", &|d| {
            named(&mut d["nodes"], "fc2")["inputs"] = json!(["nothing"])
        }),
        ("node `fc2`: number of inputs is 2, expected 1", &|d| {
            named(&mut d["nodes"], "fc2")["inputs"] = json!(["fc1", "fc1"])
        }),
        ("value `fc1`: scale is 0, expected a finite number greater than zero", &|d| {
            named(&mut d["values"], "fc1")["scale"] = json!(0.0)
        }),
        ("value `fc1`: scale is -1, expected a finite number greater than zero", &|d| {
            named(&mut d["values"], "fc1")["scale"] = json!(-1.0)
        }),
        ("value `fc1`: zero point is 256, expected a value in 0..=255", &|d| {
            named(&mut d["values"], "fc1")["zero_point"] = json!(256)
        }),
        ("value `fc1`: scale or zero point is missing, expected both for u8 codes", &|d| {
            drop(named(&mut d["values"], "fc1").as_object_mut().unwrap().remove("scale"))
        }),
        ("value `fc1`: shape is [0], expected extents of at least 1", &|d| {
            named(&mut d["values"], "fc1")["shape"] = json!([0])
        }),
        (
            "value `fc1`: shape is [4294967296, 4294967296], expected extents of at least 1 whose product is at most 67108864",
            &|d| {
                named(&mut d["values"], "fc1")["shape"] = json!([4294967296u64, 4294967296u64]);
            },
        ),
    ];
    for (expected, edit) in cases {
        let error = document(edit);
        assert!(error.contains(expected), "expected `{expected}`\n     got `{error}`");
    }
}

#[test]
fn the_graph_must_be_in_execution_order() {
    let cycle = refused(SIMPLE, |d, _| named(&mut d["nodes"], "fc1")["inputs"] = json!(["fc2"]));
    assert!(cycle.contains("node `fc1` reads `fc2`, which only node `fc2`, not before it, produces"), "{cycle}");
    let twice = refused(SIMPLE, |d, _| named(&mut d["nodes"], "fc2")["outputs"] = json!(["fc1"]));
    assert!(twice.contains("`fc1` appears more than once"), "{twice}");
    let origin = refused(SIMPLE, |d, _| {
        d["values"].as_array_mut().unwrap().push(json!({"name": "orphan", "dtype": "f32", "shape": [1]}));
    });
    assert!(origin.contains("value `orphan`: origin is unknown"), "{origin}");
}

#[test]
fn tensors_are_checked() {
    let scale = |v: f64| (Dtype::F64, vec![1], v.to_le_bytes().to_vec());
    let cases: [(&str, EditTensors<'_>); 14] = [
        ("node `fc1` refers to the tensor `fc1.weight`, which does not exist", &|t| drop(t.remove("fc1.weight"))),
        ("tensor `fc1.weight`: dtype is U8, expected I8", &|t| t.get_mut("fc1.weight").unwrap().0 = Dtype::U8),
        ("tensor `fc1.weight`: shape is [784, 100], expected [100, 784]", &|t| {
            t.get_mut("fc1.weight").unwrap().1.reverse()
        }),
        ("tensor `fc1.weight_scale`: a weight scale is NaN, expected a finite number", &|t| {
            drop(t.insert("fc1.weight_scale".into(), scale(f64::NAN)))
        }),
        ("tensor `fc1.weight_scale`: a weight scale is 0,", &|t| drop(t.insert("fc1.weight_scale".into(), scale(0.0)))),
        ("tensor `fc1.weight_scale`: a weight scale is inf,", &|t| {
            drop(t.insert("fc1.weight_scale".into(), scale(f64::INFINITY)))
        }),
        ("tensor `fc1.weight_scale`: a weight scale is -0.5,", &|t| {
            drop(t.insert("fc1.weight_scale".into(), scale(-0.5)))
        }),
        ("tensor `fc1.weight_scale`: shape is [2], expected [1] or [100]", &|t| {
            t.insert("fc1.weight_scale".into(), (Dtype::F64, vec![2], vec![1; 16]));
        }),
        ("node `fc1`: weight zero point is 200, expected a value in -128..=127", &|t| {
            t.insert("fc1.weight_zero_point".into(), (Dtype::I32, vec![1], 200i32.to_le_bytes().to_vec()));
        }),
        ("node `fc1` refers to the tensor `fc1.bias`, which does not exist", &|t| drop(t.remove("fc1.bias"))),
        ("the tensor `stranger` belongs to no node", &|t| {
            drop(t.insert("stranger".into(), (Dtype::U8, vec![1], vec![0])))
        }),
        ("refers to the tensor `record.fc1`, which does not exist", &|t| drop(t.remove("record.fc1"))),
        ("tensor `digest.fc1`: shape is [10, 31], expected [10, 32]", &|t| {
            t.insert("digest.fc1".into(), (Dtype::U8, vec![10, 31], vec![0; 310]));
        }),
        ("tensor `record.fc1`: dtype is I8, expected U8", &|t| t.get_mut("record.fc1").unwrap().0 = Dtype::I8),
    ];
    for (expected, edit) in cases {
        let error = refused(SIMPLE, |_, tensors| edit(tensors));
        assert!(error.contains(expected), "expected `{expected}`\n     got `{error}`");
    }
}

#[test]
fn shapes_follow_from_the_graph() {
    let cases: [(&str, EditDocument<'_>); 7] = [
        ("node `conv1`: elements of the padded input is", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["padding"] = json!([[100_000, 1], [100_000, 1]]);
        }),
        ("node `conv1`: shape of the output is", &|d| named(&mut d["values"], "conv1")["shape"][1] = json!(31)),
        ("node `conv1`: stride is 0, expected at least 1", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["stride"][0] = json!(0)
        }),
        ("node `conv1`: number of groups is 0, expected at least 1", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["groups"] = json!(0)
        }),
        ("node `conv1`: number of input channels is 3, expected a multiple of the 2 groups", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["groups"] = json!(2);
        }),
        ("node `conv1`: the number of elements along an axis does not fit the address space", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["padding"][0] = json!([u64::MAX, 1]);
        }),
        ("node `conv1`: number of strides is 1, expected 2", &|d| {
            named(&mut d["nodes"], "conv1")["attributes"]["stride"] = json!([1])
        }),
    ];
    for (expected, edit) in cases {
        let error = refused(CNN, |d, _| edit(d));
        assert!(error.contains(expected), "expected `{expected}`\n     got `{error}`");
    }
}

#[test]
fn containers_are_checked() {
    assert!(matches!(Export::from_bytes(b""), Err(LoadError::Container(_))));
    for len in [1, 7, 8, 9, 100, 1000, 10_000, SIMPLE.len() - 1] {
        let error = Export::from_bytes(&SIMPLE[..len]).unwrap_err();
        let named = matches!(error, LoadError::Container(_) | LoadError::Invalid { what: "end in the file", .. });
        assert!(named, "{len} bytes: {error}");
    }
    let mut longer = SIMPLE.to_vec();
    longer[..8].copy_from_slice(&(SIMPLE.len() as u64).to_le_bytes());
    assert!(matches!(Export::from_bytes(&longer), Err(LoadError::Container(_))));
    // Eight tensors whose sizes add up to 2^64: the sum of a careless reader wraps to the length of the file.
    let tensor = |i: u64| {
        format!(
            r#""t{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}"#,
            1u64 << 61,
            i << 61,
            (i + 1).wrapping_shl(61).wrapping_sub(u64::from(i == 7) * 8)
        )
    };
    let header = format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(","));
    let wrapping = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    assert!(matches!(Export::from_bytes(&wrapping), Err(LoadError::Invalid { what: "end in the file", .. })));
    let plain = write_tensors(&[("x".into(), Tensor::new(1, vec![2], Data::U8(vec![1, 2])).unwrap())]).unwrap();
    assert!(matches!(Export::from_bytes(&plain), Err(LoadError::NoDocument)));
}

/// No byte of the header may lead to a panic, whatever it becomes.
#[test]
fn flipped_header_bytes_never_panic() {
    let header = 8 + u64::from_le_bytes(ODD[..8].try_into().unwrap()) as usize;
    for at in (0..header).step_by(5) {
        let mut bytes = ODD.to_vec();
        bytes[at] ^= 1 << (at % 8);
        if at.is_multiple_of(7) {
            bytes[at] = b'9';
        }
        if let Ok(export) = Export::from_bytes(&bytes) {
            assert!(!export.altered.is_empty() || bytes == ODD, "byte {at} changed and nothing noticed");
        }
    }
}

#[test]
fn an_altered_tensor_is_named_and_loads() {
    let mut parts = Parts::of(SIMPLE);
    parts.tensors.get_mut("fc2.weight").unwrap().2[5] ^= 1;
    let export = Export::from_bytes(&parts.bytes_as_is()).unwrap();
    assert_eq!(export.altered, ["fc2.weight"]);
}

#[test]
fn inputs_are_checked() {
    let export = Export::from_bytes(SIMPLE).unwrap();
    let executor = Executor::new(&export.network, Isa::best()).unwrap();
    let digit = |batch: usize, shape: Vec<usize>| {
        let len = batch * shape.iter().product::<usize>();
        Tensor::new(batch, shape, Data::F32(vec![0.5; len])).unwrap()
    };
    let input = &export.network.values()[export.network.inputs()[0]];
    let run = |tensors: &[Tensor]| executor.run(tensors).map(|_| ()).unwrap_err().to_string();
    assert_eq!(run(&[]), "0 inputs were given, expected 1");
    let wrong = run(&[digit(1, vec![3])]);
    assert_eq!(wrong, format!("the value `{}`: shape of a sample is [3], expected {:?}", input.name, input.shape));
    let empty = run(&[digit(0, input.shape.clone())]);
    assert_eq!(empty, format!("the value `{}`: batch is 0, expected at least 1", input.name));
    let codes = Tensor::new(1, input.shape.clone(), Data::U8(vec![0; input.sample_len()])).unwrap();
    assert_eq!(run(&[codes]), format!("the value `{}`: type is u8, expected f32", input.name));
    // NaN and infinities have codes by rule R2.
    let wild = Tensor::new(1, input.shape.clone(), Data::F32(vec![f32::NAN; input.sample_len()])).unwrap();
    assert_eq!(executor.run(&[wild]).unwrap().len(), 1);
    assert!(Tensor::new(usize::MAX, vec![2], Data::U8(vec![])).is_none());
}

#[test]
fn networks_give_the_recorded_outputs_for_any_batch_on_every_instruction_set() {
    for bytes in [SIMPLE, CNN] {
        let export = Export::from_bytes(bytes).unwrap();
        let recording = export.recording.as_ref().unwrap();
        for isa in Isa::available() {
            let executor = Executor::new(&export.network, isa).unwrap();
            for batch in [1, recording.full(), recording.samples()] {
                let inputs: Vec<Tensor> = recording.inputs().iter().map(|x| x.samples(0..batch)).collect();
                let outputs = executor.run(&inputs).unwrap();
                for (&value, got) in export.network.outputs().iter().zip(&outputs) {
                    let compared = batch.min(recording.full());
                    let want = recording.value(value).unwrap().samples(0..compared);
                    assert_eq!(got.samples(0..compared).data(), want.data(), "{isa}, batch {batch}");
                    for (digest, want) in got.digests()[compared..].iter().zip(recording.digests(value)) {
                        assert_eq!(digest, want, "{isa}, batch {batch}");
                    }
                }
            }
        }
    }
}

#[test]
fn tensors_survive_a_file() {
    let x = Tensor::new(2, vec![2, 3], Data::F32((0..12).map(|v| v as f32 / 7.0).collect())).unwrap();
    let y = Tensor::new(3, vec![], Data::I8(vec![-1, 0, 127])).unwrap();
    let file = write_tensors(&[("x".into(), x.clone()), ("y".into(), y.clone())]).unwrap();
    let back = read_tensors(&file).unwrap();
    assert_eq!((back[0].1.data(), back[1].1.data()), (x.data(), y.data()));
    assert_eq!((back[0].1.batch(), back[1].1.shape()), (2, &[][..]));
}
