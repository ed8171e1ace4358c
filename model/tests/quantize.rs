//! A float network quantized here is the network that PyTorch quantizes it to, bit for bit (`fixtures/quantize`).

use qexact_kernels::Isa;
use qexact_model::{Executor, Export, QuantizeOptions, open, quantize};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

const FLOAT: &[u8] = include_bytes!("../../fixtures/quantize/float.safetensors");
const PER_TENSOR: &[u8] = include_bytes!("../../fixtures/quantize/pytorch_per_tensor.safetensors");
const PER_CHANNEL: &[u8] = include_bytes!("../../fixtures/quantize/pytorch_per_channel.safetensors");

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The float network, edited.
fn float(edit: impl FnOnce(&mut Value, &mut Tensors)) -> Vec<u8> {
    let (_, metadata) = SafeTensors::read_metadata(FLOAT).unwrap();
    let mut document = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["qexact_float"]).unwrap();
    let tensor =
        |(name, view): (String, TensorView<'_>)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    let mut tensors = open(FLOAT).unwrap().tensors().into_iter().map(tensor).collect();
    edit(&mut document, &mut tensors);
    let metadata = HashMap::from([("qexact_float".to_string(), document.to_string())]);
    let views = tensors.iter().map(|(name, t)| (name, TensorView::new(t.0, t.1.clone(), &t.2).unwrap()));
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn refused(edit: impl FnOnce(&mut Value, &mut Tensors)) -> String {
    match quantize(&float(edit), QuantizeOptions::default()) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

/// A window as wide as its padding allows, which is as wide as one likes.
fn huge_window(attributes: &mut Value) {
    attributes["kernel"] = json!([1u64 << 38, 2]);
    attributes["padding"] = json!([1u64 << 37, 1]);
}

#[test]
fn parameters_codes_and_results_are_those_of_pytorch() {
    for (pytorch, per_channel) in [(PER_TENSOR, false), (PER_CHANNEL, true)] {
        let quantized = quantize(FLOAT, QuantizeOptions { per_channel }).unwrap();
        assert!(quantized.observed.iter().all(|value| value.given));
        let (ours, theirs) = (open(&quantized.bytes).unwrap(), open(pytorch).unwrap());
        let mut compared = 0;
        for name in theirs.names().iter().filter(|name| !name.starts_with("record.")) {
            let bytes =
                |file: &SafeTensors<'_>| file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec();
            assert_eq!(bytes(&ours), bytes(&theirs), "{name}, per channel: {per_channel}");
            compared += 1;
        }
        assert!(compared >= 15, "only {compared} tensors");
        // PyTorch's values are called otherwise, but come in the same order.
        let [ours, theirs] = [&quantized.bytes, pytorch].map(|bytes| Export::from_bytes(bytes).unwrap());
        assert_eq!(ours.network.nodes().len(), theirs.network.nodes().len());
        for (our, their) in ours.network.nodes().iter().zip(theirs.network.nodes()) {
            assert_eq!(our.op, their.op);
            let (our_value, their_value) = (&ours.network.values()[our.output], &theirs.network.values()[their.output]);
            assert_eq!(our_value.quantization, their_value.quantization, "{}", our.name);
            let recorded = theirs.recording.as_ref().unwrap().value(their.output).unwrap().samples(0..4);
            let computed = ours.recording.as_ref().unwrap().value(our.output).unwrap();
            assert_eq!(computed.data(), recorded.data(), "{}, per channel: {per_channel}", our.name);
        }
    }
}

#[test]
fn ranges_are_seen_in_the_samples_where_none_is_given() {
    let given = quantize(FLOAT, QuantizeOptions::default()).unwrap();
    let seen = float(|document, _| document["ranges"] = json!({}));
    let seen = quantize(&seen, QuantizeOptions::default()).unwrap();
    for (seen, given) in seen.observed.iter().zip(&given.observed) {
        let tolerance = 1e-5 * given.range.magnitude();
        assert!((seen.range.min() - given.range.min()).abs() <= tolerance, "{}", seen.value);
        assert!((seen.range.max() - given.range.max()).abs() <= tolerance, "{}", seen.value);
        assert!(!seen.given);
    }
    let export = Export::from_bytes(&seen.bytes).unwrap();
    assert!(export.altered.is_empty());
    let recording = export.recording.as_ref().unwrap();
    assert_eq!((recording.samples(), recording.full()), (6, 4));
    let outputs = Executor::new(&export.network, Isa::best()).unwrap().run(recording.inputs()).unwrap();
    let digests: Vec<_> = outputs[0].samples(4..6).digests();
    assert_eq!(digests, recording.digests(export.network.outputs()[0]));
}

#[test]
fn a_value_that_is_read_twice_is_not_fused() {
    let file = float(|document, tensors| {
        document["ranges"] = json!({});
        // The BatchNorm's value is an output as well as the ReLU's input; a linear layer gets a BatchNorm, too.
        document["outputs"] = json!(["bn1", "relu5"]);
        let bn2 = json!({ "name": "bn2", "op": "batch_norm1d", "input": "fc2", "attributes": { "eps": 0.5 } });
        document["nodes"].as_array_mut().unwrap().extend([
            bn2,
            json!({ "name": "relu4", "op": "relu", "input": "bn2" }),
            json!({ "name": "relu5", "op": "relu", "input": "relu4" }),
        ]);
        for (name, value) in [("weight", 2.0f32), ("bias", 0.25), ("running_mean", -1.0), ("running_var", 0.5)] {
            let bytes = value.to_le_bytes().repeat(5);
            tensors.insert(format!("bn2.{name}"), (Dtype::F32, vec![5], bytes));
        }
    });
    let quantized = quantize(&file, QuantizeOptions { per_channel: true }).unwrap();
    let observed: Vec<_> = quantized.observed.iter().map(|o| o.value.as_str()).collect();
    assert_eq!(observed, ["x", "bn1", "conv2", "relu3", "relu4"]);
    assert!(quantized.observed[1].range.min() < 0.0 && quantized.observed[4].range.min() >= 0.0);
    let export = Export::from_bytes(&quantized.bytes).unwrap();
    let ops: Vec<_> = export.network.nodes().iter().map(|node| node.op.as_str()).collect();
    let [start, end] = [
        ["quantize", "conv2d", "relu", "max_pool2d", "conv2d", "avg_pool2d"],
        ["relu", "flatten", "linear", "linear", "relu", "dequantize"],
    ];
    assert_eq!(ops, [&start[..], &end, &["dequantize"]].concat());
    let recording = export.recording.as_ref().unwrap();
    let outputs = Executor::new(&export.network, Isa::best()).unwrap().run(recording.inputs()).unwrap();
    for (output, &value) in outputs.iter().zip(export.network.outputs()) {
        assert_eq!(output.samples(0..4).data(), recording.value(value).unwrap().data());
    }
}

#[test]
fn what_cannot_be_quantized_is_refused_by_name() {
    for (error, parts) in [
        (refused(|d, _| d["nodes"][0]["op"] = json!("conv9")), ["conv1", "unknown operator"]),
        (refused(|d, _| d["nodes"][4]["input"] = json!("nobody")), ["conv2", "nobody"]),
        (refused(|d, _| d["nodes"][4]["name"] = json!("conv1")), ["conv1", "more than once"]),
        (refused(|d, _| d["nodes"][1]["input"] = json!("x")), ["bn1", "folded in"]),
        (refused(|d, _| d["nodes"][0]["attributes"]["relu"] = json!(true)), ["conv1", "unknown field `relu`"]),
        (refused(|d, _| d["nodes"][5]["attributes"]["ceil_mode"] = json!(true)), ["pool2", "ceil_mode"]),
        (refused(|d, _| d["nodes"][5]["attributes"]["kernel"] = json!([1u64 << 40, 1])), ["pool2", ""]),
        (refused(|d, _| huge_window(&mut d["nodes"][5]["attributes"])), ["pool2", "window is 274877906944 ×"]),
        (refused(|d, _| d["nodes"][0]["name"] = json!("x")), ["x", "more than once"]),
        (refused(|d, _| d["outputs"] = json!([])), ["outputs", "at least 1"]),
        (refused(|d, _| d["outputs"] = json!(["nobody"])), ["outputs", "nobody"]),
        (refused(|d, _| d["outputs"] = json!(["conv1"])), ["bn1", "folded in"]),
        (refused(|d, _| d["ranges"]["pool1"] = json!([0, 1])), ["pool1", "parameters of their own"]),
        (refused(|d, _| d["ranges"]["fc2"] = json!([1, 0])), ["value `fc2`", "minimum of a range is 1"]),
        (refused(|d, _| d["ranges"]["fc2"] = json!([-3e38, 3e38])), ["value `fc2`", "scale is inf"]),
        (refused(|d, _| d["format"] = json!(2)), ["format version is 2", "expected 1"]),
        (refused(|d, _| d["more"] = json!(2)), ["unknown field `more`", "float network"]),
        (refused(|d, _| d["input"]["shape"] = json!([3, 13, 13])), ["tensor `samples`", "[3, 13, 13]"]),
        (refused(|_, t| drop(t.remove("samples"))), ["samples", "does not exist"]),
        (refused(|_, t| drop(t.insert("more".into(), t["fc1.bias"].clone()))), ["more", "belongs to no node"]),
        (refused(|_, t| t.get_mut("fc1.bias").unwrap().2[..4].fill(0xFF)), ["tensor `fc1.bias`", "NaN"]),
        (refused(|_, t| t.get_mut("fc1.weight").unwrap().2[..4].fill(0xFF)), ["fc1", "NaN"]),
        (refused(|_, t| t.get_mut("bn1.running_var").unwrap().2[3] |= 0x80), ["bn1", "variance"]),
        (refused(|_, t| t.get_mut("fc2.weight").unwrap().1 = vec![12, 5]), ["fc2", "shape of the input"]),
        (refused(|_, t| drop(t.remove("conv2.weight"))), ["conv2.weight", "does not exist"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "expected {parts:?} in\n{error}");
    }
    assert!(quantize(PER_TENSOR, QuantizeOptions::default()).unwrap_err().to_string().contains("qexact_float"));
}
