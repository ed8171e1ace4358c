//! Writes the seeds of `load` and `vectors`: small exports, a float network, and the smallest case of every file of
//! recorded vectors.
//!
//! Run from the root of the repository: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`

use qexact_fuzz::edit::Parts;
use qexact_kernels::Isa;
use qexact_model::{Data, Digest, Executor, Export, Tensor};
use qexact_verify::fill::Random;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::Path;

/// Samples of a recording, and how many of them in full: numbers that mean nothing else in these files, so that an edit
/// of all equal numbers fits together.
const SAMPLES: usize = 7;
const FULL: usize = 5;

type Failable<T> = Result<T, Box<dyn Error>>;

fn main() -> Failable<()> {
    let seeds = Path::new("fuzz/corpus_seed");
    for (name, network) in networks() {
        std::fs::write(seeds.join("load").join(format!("{name}.safetensors")), network.recorded()?.bytes())?;
    }
    std::fs::write(seeds.join("load/float.safetensors"), float_network().bytes())?;
    for file in std::fs::read_dir("fixtures/vectors")? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let name = path.file_name().ok_or("a directory")?;
            std::fs::write(seeds.join("vectors").join(name), smallest_case(&std::fs::read(&path)?).bytes())?;
        }
    }
    Ok(())
}

/// A file with only its smallest case.
fn smallest_case(file: &[u8]) -> Parts {
    let all = Parts::of(file);
    let case = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    let size =
        |of: &str| all.data.iter().filter(|(name, _)| case(name) == of).map(|(_, data)| data.len()).sum::<usize>();
    let smallest = all.data.keys().map(|name| case(name)).min_by_key(|name| size(name)).unwrap_or_default();
    let mut metadata = Map::from_iter([("cases".to_owned(), json!("1"))]);
    for key in ["dialect", "op", "runtime", "format_version"] {
        metadata.insert(key.to_owned(), all.tree["__metadata__"][key].clone());
    }
    metadata.insert("case00".into(), all.tree["__metadata__"][&smallest].clone());
    let mut parts = Parts::default();
    parts.tree.insert("__metadata__".into(), metadata.into());
    for (name, data) in all.data.iter().filter(|(name, _)| case(name) == smallest) {
        let renamed = name.replace(&smallest, "case00");
        parts.tree.insert(renamed.clone(), all.tree[name].clone());
        parts.data.insert(renamed, data.clone());
    }
    parts
}

/// A float network with every operator but one.
fn float_network() -> Parts {
    let node = |name: &str, op: &str, input: &str, attributes: Value| json!({"name": name, "op": op, "input": input, "attributes": attributes});
    let conv = json!({"stride": [1, 1], "padding": [[1, 1], [1, 1]], "dilation": [1, 1], "groups": 1});
    let max = json!({"kernel": [2, 2], "stride": [2, 1], "padding": [0, 0], "dilation": [1, 1], "ceil_mode": false});
    let average = json!({"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "ceil_mode": false,
        "count_include_pad": true, "divisor_override": null});
    let document = json!({
        "format": 1,
        "input": {"name": "x", "shape": [2, 4, 6]},
        "nodes": [
            node("conv", "conv2d", "x", conv),
            node("bn", "batch_norm2d", "conv", json!({"eps": 1e-5})),
            node("relu", "relu", "bn", json!({})),
            node("max", "max_pool2d", "relu", max),
            node("average", "avg_pool2d", "max", average),
            node("flatten", "flatten", "average", json!({})),
            node("linear", "linear", "flatten", json!({})),
        ],
        "outputs": ["linear"],
        "ranges": {"x": [-1.5, 2.5]},
    });
    let mut parts = Parts::default();
    parts.tree.insert("__metadata__".into(), json!({"qexact_float": document}));
    let mut random = Random::new(1);
    let mut insert = |name: &str, shape: &[usize], least: f32| {
        let mut real = || (least + (random.bits() % 256) as f32 / 128.0).to_le_bytes();
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_| real()).collect();
        parts.insert(name, "F32", shape, &bytes);
    };
    insert("samples", &[SAMPLES, 2, 4, 6], -1.0);
    insert("conv.weight", &[3, 2, 3, 3], -1.0);
    insert("linear.weight", &[5, 30], -1.0);
    insert("linear.bias", &[5], -1.0);
    for parameter in ["weight", "bias", "running_mean", "running_var"] {
        insert(&format!("bn.{parameter}"), &[3], 0.5);
    }
    parts
}

/// A network in the making. Every node reads the value before it.
struct Network {
    values: Vec<Value>,
    nodes: Vec<Value>,
    parts: Parts,
    random: Random,
}

fn networks() -> [(&'static str, Network); 7] {
    let none = Value::Null;
    let conv = |stride: &[usize], padding: &[[usize; 2]], dilation: &[usize], groups: usize, relu: bool| json!({"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "relu": relu});
    let f32_mul = |bias| json!({"kind": "f32_mul", "multiplier": "quotient", "bias": bias, "overflow": "convert"});
    let pool = |memory| json!({"kind": "pool", "memory": memory});
    let quantize = json!({"kind": "quantize", "multiplier": "reciprocal", "zero_point": "after", "overflow": "wrap"});
    [
        (
            "codes",
            Network::of(json!({"dtype": "f32", "shape": [2, 3]}))
                .node("quantize", codes("i8", &[2, 3]), &json!({}), &quantize)
                .node("relu", codes("i8", &[2, 3]), &json!({}), &none)
                .node("reshape", codes("i8", &[3, 2]), &json!({}), &none)
                .node("flatten", codes("i8", &[6]), &json!({}), &none)
                .node("dequantize", json!({"dtype": "f32", "shape": [6]}), &json!({}), &json!({"kind": "dequantize"})),
        ),
        (
            "batch_norm",
            Network::of(codes("u8", &[3, 2, 2]))
                .reals("weight", 3)
                .reals("bias", 3)
                .reals("running_mean", 3)
                .reals("running_var", 3)
                .node(
                    "batch_norm2d",
                    codes("u8", &[3, 2, 2]),
                    &json!({"eps": 1e-5, "relu": true}),
                    &json!({"kind": "batch_norm", "fma": true}),
                ),
        ),
        (
            "pools",
            Network::of(codes("u8", &[2, 4, 6]))
                .node(
                    "max_pool2d",
                    codes("u8", &[2, 4, 6]),
                    &json!({"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "ceil_mode": false}),
                    &none,
                )
                .node(
                    "avg_pool2d",
                    codes("u8", &[2, 2, 3]),
                    &json!({"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "ceil_mode": true,
                        "count_include_pad": false, "divisor_override": null}),
                    &pool("channels_last"),
                )
                .node("adaptive_avg_pool2d", codes("u8", &[2, 2, 1]), &json!({"output_size": [2, 1]}), &pool("contiguous")),
        ),
        (
            "linear",
            Network::of(codes("u8", &[2, 6])).weights(&[9, 6], 1).reals("bias", 9).node(
                "linear",
                codes("u8", &[2, 9]),
                &json!({"relu": false}),
                &f32_mul("fused"),
            ),
        ),
        (
            "conv1d",
            Network::of(codes("u8", &[6, 8])).weights(&[10, 3, 3], 10).node(
                "conv1d",
                codes("u8", &[10, 4]),
                &conv(&[2], &[[0, 1]], &[1], 2, true),
                &f32_mul("none"),
            ),
        ),
        (
            // A depthwise layer that fbgemm would add in 16 bits.
            "conv2d",
            Network::of(codes("u8", &[8, 3, 3])).weights(&[8, 1, 3, 3], 8).reals("bias", 8).node(
                "conv2d",
                codes("u8", &[8, 3, 3]),
                &conv(&[1, 1], &[[1, 1], [1, 1]], &[1, 1], 8, false),
                &f32_mul("addend"),
            ),
        ),
        (
            "conv3d",
            Network::of(codes("u8", &[2, 3, 4, 6])).weights(&[9, 2, 2, 1, 3], 1).node(
                "conv3d",
                codes("u8", &[9, 2, 5, 4]),
                &conv(&[1, 1, 1], &[[0, 0], [0, 1], [1, 1]], &[1, 1, 2], 1, false),
                &f32_mul("none"),
            ),
        ),
    ]
}

/// A value of codes.
fn codes(dtype: &str, shape: &[usize]) -> Value {
    json!({"dtype": dtype, "shape": shape, "scale": 0.0625, "zero_point": if dtype == "u8" { 130 } else { -3 }})
}

impl Network {
    /// A network of no node, with this input.
    fn of(mut input: Value) -> Network {
        input["name"] = json!("x");
        Network { values: vec![input], nodes: Vec::new(), parts: Parts::default(), random: Random::new(1) }
    }

    /// One more node; its parameters were added before.
    fn node(mut self, op: &str, mut output: Value, attributes: &Value, rule: &Value) -> Network {
        let (input, name) = (self.values[self.nodes.len()]["name"].clone(), self.next_name());
        output["name"] = json!(name);
        let rule = if rule.is_null() { json!({}) } else { json!({"rule": rule}) };
        let mut node = json!({"name": name, "op": op, "inputs": [input], "outputs": [name], "attributes": attributes});
        node.as_object_mut().expect("a node").extend(rule.as_object().expect("a rule").clone());
        self.values.push(output);
        self.nodes.push(node);
        self
    }

    fn next_name(&self) -> String {
        format!("n{}", self.nodes.len())
    }

    fn random(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random.bits() as u8).collect()
    }

    /// A parameter of the next node: numbers of 1 to 2.
    fn reals(mut self, parameter: &str, len: usize) -> Network {
        let bytes: Vec<u8> =
            self.random(len).iter().flat_map(|&b| (1.0 + f32::from(b) / 256.0).to_le_bytes()).collect();
        self.parts.insert(&format!("{}.{parameter}", self.next_name()), "F32", &[len], &bytes);
        self
    }

    /// The weights of the next node.
    fn weights(mut self, shape: &[usize], scales: usize) -> Network {
        let name = self.next_name();
        let weight = self.random(shape.iter().product());
        let scale: Vec<u8> = (1..=scales).flat_map(|i| (i as f64 / 1024.0).to_le_bytes()).collect();
        let zero_point: Vec<u8> = (0..scales).flat_map(|i| (i as i32 - 1).to_le_bytes()).collect();
        self.parts.insert(&format!("{name}.weight"), "I8", shape, &weight);
        self.parts.insert(&format!("{name}.weight_scale"), "F64", &[scales], &scale);
        self.parts.insert(&format!("{name}.weight_zero_point"), "I32", &[scales], &zero_point);
        self
    }

    /// The export, recorded by the reference.
    fn recorded(mut self) -> Failable<Parts> {
        let outputs = json!([{"name": self.values[self.nodes.len()]["name"]}]);
        let producer = json!({"framework": "qexact", "version": "0", "engine": "reference", "cpu_capability": "any",
            "cpu_flags": [], "threads": 1, "exporter": "seeds"});
        let document = json!({"format": 1, "producer": producer, "numerics": "fbgemm", "inputs": [{"name": "x"}],
            "outputs": outputs, "values": self.values, "nodes": self.nodes, "digests": {}});
        self.parts.tree.insert("__metadata__".into(), json!({"qexact": document}));
        let export = Export::from_bytes(&self.parts.clone().bytes())?;
        let values = export.network.values();
        let len = SAMPLES * values[0].sample_len();
        let bytes = self.random(len);
        let data = match values[0].quantization {
            Some(_) => Data::U8(bytes),
            None => Data::F32(bytes.iter().map(|&b| f32::from(b as i8) / 64.0).collect()),
        };
        let input = Tensor::new(SAMPLES, values[0].shape.clone(), data).ok_or("a tensor of another length")?;
        let computed = Executor::new(&export.network, Isa::REFERENCE)?.run_all(&[input])?;
        for (i, (value, tensor)) in values.iter().zip(computed.into_iter().flatten()).enumerate() {
            let full = if i == 0 { tensor.clone() } else { tensor.samples(0..FULL) };
            let shape = [&[full.batch()], full.shape()].concat();
            let dtype = value.dtype.as_str().to_uppercase();
            self.parts.insert(&format!("record.{}", value.name), &dtype, &shape, full.data().bytes());
            if i > 0 {
                let digests: Vec<u8> = tensor.digests()[FULL..].iter().flat_map(|Digest(digest)| *digest).collect();
                self.parts.insert(&format!("digest.{}", value.name), "U8", &[SAMPLES - FULL, 32], &digests);
            }
        }
        self.parts.tree["__metadata__"]["qexact"]["recording"] = json!({"samples": SAMPLES, "full": FULL});
        Ok(self.parts)
    }
}
