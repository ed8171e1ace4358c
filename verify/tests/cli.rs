//! The `qexact` command as a user meets it: what it prints and its exit codes.

use qexact_model::{Data, Export, Tensor, open, read_tensors, write_tensors};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NETWORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/networks/cnn_bn_per_tensor_folded.safetensors");
const SATURATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/networks/odd.safetensors");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vectors/fbgemm.linear.safetensors");

fn qexact(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qexact")).args(arguments).output().expect("the command starts")
}

/// Runs the command and checks its exit code; the result is what it printed.
fn expect(code: i32, arguments: &[&str]) -> String {
    let output = qexact(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?} printed\n{text}");
    text
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in\n{text}");
    }
}

/// A file in a directory of this test run's own.
fn file(name: &str, bytes: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_string()
}

/// Position of an element of a tensor in a safetensors file.
fn position(bytes: &[u8], tensor: &str, element: usize) -> usize {
    let data = open(bytes).unwrap().tensor(tensor).unwrap().data().as_ptr() as usize;
    data - bytes.as_ptr() as usize + element
}

fn flipped(path: &str, tensor: &str, element: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let at = position(&bytes, tensor, element);
    bytes[at] ^= 0x40;
    bytes
}

#[test]
fn without_arguments_the_embedded_networks_are_verified() {
    let text = expect(0, &[]);
    contains(&text, &["cnn_bn", "mlp", "conv1", "codes compared", "end to end on reference", "accuracy", "PASS"]);
    assert!(!text.contains("FAIL") && !text.contains("DIFFERS"), "{text}");
}

#[test]
fn a_flipped_weight_is_named_and_so_is_what_it_changed() {
    let path = file("weight.safetensors", &flipped(NETWORK, "conv2.weight", 100));
    let text = expect(1, &["verify", &path]);
    contains(
        &text,
        &["ALTERED: the digest of `conv2.weight`", "DIFFERS: `conv2` against the recording, first at index ["],
    );
    contains(&text, &["accumulator ", ": expected ", ", got ", "FAIL"]);
}

#[test]
fn a_flipped_recording_is_named() {
    for (tensor, element, named) in
        [("record.conv1", 77, "`conv1`"), ("digest.fc", 5, "`fc`"), ("record.x", 4000, "`record.x`")]
    {
        let path = file("recording.safetensors", &flipped(NETWORK, tensor, element));
        let text = expect(1, &["verify", &path]);
        contains(&text, &[&format!("ALTERED: the digest of `{tensor}`"), named, "FAIL"]);
    }
}

#[test]
fn saturated_recordings_are_explained_and_strict_excuses_nothing() {
    let text = expect(0, &["verify", SATURATED]);
    contains(&text, &["SATURATED in the recording: `depthwise3`", "does not fit 16 bits", "excused", "PASS"]);
    contains(&expect(1, &["verify", SATURATED, "--strict"]), &["not excused", "FAIL"]);
}

#[test]
fn json_reports_are_written() {
    let json = file("report.json", b"");
    expect(0, &["verify", NETWORK, "--json", &json, "--isa", "reference"]);
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(report["nodes"][1]["name"], "conv1");
    assert_eq!(report["nodes"][1]["differences"], 0);
    expect(0, &["inspect", NETWORK, "--json", &json]);
    assert!(std::fs::read_to_string(&json).unwrap().contains("\"macs\""));
}

#[test]
fn networks_are_analyzed() {
    let json = file("analysis.json", b"");
    let text = expect(0, &["analyze", SATURATED, "--json", &json]);
    contains(&text, &["`depthwise3`: worst in channel ", "can saturate", "exact", "int32 bias", "recorded in full"]);
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let layers = report["layers"].as_array().unwrap();
    let layer = layers.iter().find(|layer| layer["name"] == "depthwise3").unwrap();
    assert_eq!(layer["machines"][0]["machine"], "fbgemm's depthwise path");
    assert_eq!(layer["machines"][0]["verdict"], "can_saturate");
    assert!(layer["recorded"]["saturated"].as_u64().unwrap() >= layer["recorded"]["changed"].as_u64().unwrap());
    contains(&expect(2, &["analyze", "no such file"]), &["no such file"]);
    contains(&expect(2, &["analyze", VECTORS]), &["no key `qexact`"]);
}

#[test]
fn bad_files_and_usage_exit_with_2() {
    let good = std::fs::read(NETWORK).unwrap();
    let truncated = file("truncated.safetensors", &good[..good.len() / 2]);
    contains(&expect(2, &["verify", &truncated]), &["truncated.safetensors: ", "end in the file"]);
    let mut header = good.clone();
    header[..8].copy_from_slice(&(good.len() as u64 + 1).to_le_bytes());
    contains(&expect(2, &["verify", &file("header.safetensors", &header)]), &["not a valid safetensors file"]);
    contains(&expect(2, &["verify", VECTORS]), &["no key `qexact`"]);
    contains(&expect(2, &["verify", "no such file"]), &["no such file"]);
    contains(&expect(2, &["verify", NETWORK, "--isa", "avx"]), &["expected one of reference, avx2"]);
    contains(&expect(2, &["vectors", NETWORK]), &["dialect"]);
    contains(&expect(2, &["check", "conv ic3oc4ih2kh3 seed=1"]), &["dilated kernel is 3, expected at most 2"]);
    expect(2, &["nonsense"]);
}

#[test]
fn an_export_without_a_recording_cannot_be_verified() {
    let bytes = std::fs::read(NETWORK).unwrap();
    let container = open(&bytes).unwrap();
    let metadata = safetensors::SafeTensors::read_metadata(&bytes).unwrap().1;
    let mut document: serde_json::Value =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["qexact"]).unwrap();
    document.as_object_mut().unwrap().remove("recording");
    let recorded = |name: &str| name.starts_with("record.") || name.starts_with("digest.");
    document["digests"].as_object_mut().unwrap().retain(|name, _| !recorded(name));
    let views: Vec<_> = container.tensors().into_iter().filter(|(name, _)| !recorded(name)).collect();
    let metadata = std::collections::HashMap::from([("qexact".to_string(), document.to_string())]);
    let path = file("no_recording.safetensors", &safetensors::serialize(views, Some(metadata)).unwrap());
    contains(&expect(2, &["verify", &path]), &["holds no recording"]);
    contains(&expect(0, &["inspect", &path]), &["no recording", "ALTERED: the digest of `document`"]);
}

#[test]
fn a_network_runs_on_inputs_of_ones_own() {
    let export = Export::read(Path::new(NETWORK)).unwrap();
    let recording = export.recording.as_ref().unwrap();
    let values = export.network.values();
    let (input, output) = (export.network.inputs()[0], export.network.outputs()[0]);
    let x = recording.inputs()[0].samples(0..2);
    let given = file("input.safetensors", &write_tensors(&[(values[input].name.clone(), x.clone())]).unwrap());
    let written = file("output.safetensors", b"");
    for isa in qexact_kernels::Isa::available() {
        expect(0, &["run", NETWORK, "--input", &given, "--output", &written, "--isa", isa.name().as_str()]);
        let outputs = read_tensors(&std::fs::read(&written).unwrap()).unwrap();
        assert_eq!(outputs[0].0, values[output].name);
        assert_eq!(outputs[0].1.data(), recording.value(output).unwrap().samples(0..2).data(), "{isa}");
    }
    let run = |name: &str, tensor: Tensor| {
        let given = file("bad_input.safetensors", &write_tensors(&[(name.to_string(), tensor)]).unwrap());
        expect(2, &["run", NETWORK, "--input", &given, "--output", &written])
    };
    let name = &values[input].name;
    let floats = |batch: usize, shape: &[usize]| {
        Tensor::new(batch, shape.to_vec(), Data::F32(vec![0.0; batch * shape.iter().product::<usize>()])).unwrap()
    };
    contains(&run(name, floats(1, &[3, 32, 31])), &["shape of a sample is [3, 32, 31], expected [3, 32, 32]"]);
    contains(&run(name, floats(0, &[3, 32, 32])), &["batch is 0, expected at least 1"]);
    contains(&run("y", floats(1, &[3, 32, 32])), &[&format!("has no tensor `{name}`")]);
}

#[test]
fn cases_and_vectors_run() {
    let case = "conv ic5oc7ih6kh3ph1 x=i8 zx=3 zw=channel rule=f32_mul:addend:channel:u8:relu:convert fill=full seed=7";
    contains(&expect(0, &["check", case]), &["PASS"]);
    let unquoted: Vec<&str> = std::iter::once("check").chain(case.split(' ')).collect();
    contains(&expect(0, &unquoted), &["PASS"]);
    contains(&expect(0, &["vectors", VECTORS]), &["0 differences"]);
    let path = file("vectors.safetensors", &flipped(VECTORS, "case03.y", 2));
    contains(&expect(1, &["vectors", &path]), &["case03"]);
}

#[test]
fn a_float_network_is_quantized_and_verified() {
    const FLOAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/quantize/float.safetensors");
    for options in [&[][..], &["--per-channel"]] {
        let export = file("quantized.safetensors", &[]);
        let text = expect(0, &[&["quantize", FLOAT, "-o", &export][..], options].concat());
        contains(&text, &["x: ", "relu1: 0 .. ", "(given)", "zero point", "wrote"]);
        contains(&expect(0, &["verify", &export]), &["recorded by qexact", "conv2", "PASS", "0 differences"]);
    }
    let text = expect(2, &["quantize", NETWORK, "-o", &file("unused.safetensors", &[])]);
    contains(&text, &["cnn_bn_per_tensor_folded.safetensors", "qexact_float"]);
}

#[test]
fn layers_are_timed_and_each_is_a_line_of_json() {
    let json = file("bench.json", b"");
    let cases = ["bench", "linear m2k30n20", "conv", "ic3oc8ih9kh3ph1", NETWORK, "--seconds", "0.001"];
    let text = expect(0, &[&cases[..], &["--json", &json, "--isa", "reference"]].concat());
    contains(
        &text,
        &["linear m2k30n20", "conv1", "whole network", "GMAC/s", "3-channel 3x3 stem", "compared with the reference"],
    );
    let lines = std::fs::read_to_string(&json).unwrap();
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["linear m2k30n20", "conv ic3oc8ih9kh3ph1", "conv1"]);
    assert_eq!(names.last(), Some(&"whole network"));
    for row in &rows {
        for key in ["op", "isa", "kernel", "mode"] {
            assert!(row[key].is_string(), "{key} in {row}");
        }
        for key in ["median_ns", "min_ns", "macs", "gmacs"] {
            assert!(row[key].as_f64() > Some(0.0), "{key} in {row}");
        }
        // The reference has no peak; the keys are there.
        assert!(row["peak_gmacs"].is_null() && row.as_object().unwrap().contains_key("percent_of_peak"), "{row}");
    }
    let shapes = br#"[{"name": "s", "op": "linear", "group": "g", "M": 1, "K": 9, "N": 5, "macs": 45}]"#;
    let shapes = file("shapes.json", shapes);
    for mode in ["warm", "cold", "pack"] {
        let text = expect(0, &["bench", "--shapes", &shapes, "--seconds", "0.001", "--mode", mode, "--core", "0"]);
        contains(&text, &["linear M=1", &format!("mode {mode}, 1 threads, cores 0")]);
    }
}

#[test]
fn bad_arguments_of_a_bench_exit_with_2() {
    for (arguments, reason) in [
        (&["linear m0k1n1"][..], "batch is 0, expected at least 1"),
        (&["linear"], "is not a linear shape"),
        (&["conv", "ic3"], "`conv ic3`"),
        (&["m4k768n10"], "m4k768n10"),
        (&["--shapes", "no such file"], "no such file: "),
        (&["--shapes", NETWORK], "cnn_bn_per_tensor_folded.safetensors: "),
        (&["--threads", "0"], "threads is 0, expected 1 to"),
        (&["--threads", "99999"], "threads is 99999"),
        (&["--core", "99999"], "core is 99999, expected one of"),
        (&["--seconds", "-1"], "-1"),
        (&["--seconds=-1"], "seconds is -1"),
        (&["--mode", "hot"], "[possible values: warm, cold, pack]"),
        (&["--weight-bits", "9"], "weight bits is 9, expected 1 to 8"),
        (&["--rule", "f32"], "f32_mul, f32_real, q31_double, pow2"),
        (&["linear m1k1n1", "--json", "no/such/directory"], "no/such/directory: "),
    ] {
        contains(&expect(2, &[&["bench"], arguments].concat()), &[reason]);
    }
    let shapes = file("wrong.json", br#"[{"name": "s", "op": "linear", "group": "g", "M": 1, "K": 9, "macs": 45}]"#);
    contains(&expect(2, &["bench", "--shapes", &shapes]), &["wrong.json: shape 0 (`s`): missing field `N`"]);
}
