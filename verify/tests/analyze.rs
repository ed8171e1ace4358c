//! `qexact analyze`: what is called safe never saturates, what is not does.

use qexact_kernels::Isa;
use qexact_model::{Data, Export, LayerNode, Operator, open};
use qexact_reference::layer::LayerParts;
use qexact_reference::preset;
use qexact_reference::saturation::{Machine, in_pairs};
use qexact_reference::{CodeType, Conv, Layer, Linear, Rule};
use qexact_verify::analyze::{Pairs, Verdict, analyze};
use qexact_verify::explain::{self, Reason};
use qexact_verify::network::{NodeReport, Options, verify};
use quickcheck::QuickCheck;
use std::path::Path;

const SHAPES: [&str; 8] = [
    "linear m1k7n3",
    "linear m1k8n3",
    "conv ic3oc2ih3kh3ph1",
    "conv ic8oc8g8ih3kh3ph1",
    "conv ic4oc4g2ih4kh2sh2",
    "conv ic1oc2ih1kh3ph1",
    "conv ic2oc2ih5kh3dh2ph2",
    "conv ic1oc1ih4kh4ph3:2sh3iw2kw2pw1",
];

fn shape(text: &str) -> Conv {
    text.parse::<Conv>().or_else(|_| text.parse::<Linear>().map(Conv::from)).unwrap()
}

/// The property, on one layer: an unsafe pair breaks, and nothing breaks where no pair is unsafe.
fn holds(shape: Conv, weight: &[i8], codes: [i32; 2], zero_point: i32, inputs: &[Vec<u8>]) -> Verdict {
    let rule = Rule::Accumulator;
    let parts = LayerParts {
        shape,
        input: CodeType::U8,
        input_zero_point: zero_point,
        weight,
        weight_zero_point: &[0],
        rule: &rule,
    };
    let layer = Layer::new(parts).unwrap();
    let pairs = Pairs::of(&layer, codes);
    if let Some(worst) = pairs.worst {
        let saturated = in_pairs(&layer, &worst.input(&layer), worst.row, worst.channel);
        assert!(saturated.pairs > 0, "{shape} {worst:?}");
        assert!(worst.input.iter().all(|&code| (codes[0]..=codes[1]).contains(&code) || code == zero_point));
    }
    for input in inputs {
        for channel in 0..shape.out_channels {
            for row in 0..shape.pixels() {
                let saturated = in_pairs(&layer, input, row, channel);
                let predicted = pairs.channels_affected.contains(&channel);
                assert!(predicted || saturated.pairs == 0, "{shape} row {row} channel {channel} {saturated:?}");
                assert_eq!(saturated.pairs == 0, saturated.pair.is_none());
                if saturated.pairs == 0 {
                    assert_eq!(saturated.accumulator, layer.accumulator(input, row, channel));
                }
                if let Some(pair) = saturated.pair {
                    let worst = pairs.worst.unwrap();
                    let beyond = |sum: i32| (sum - i32::from(i16::MAX)).max(i32::from(i16::MIN) - sum);
                    assert!(beyond(pair.sum) <= beyond(worst.sum), "{pair:?} is worse than {worst:?}");
                }
            }
        }
    }
    match pairs.can_saturate {
        _ if pairs.safe_by_codes => Verdict::SafeByCodes,
        0 => Verdict::SafeByWeights,
        _ => Verdict::CanSaturate,
    }
}

#[test]
fn safe_layers_never_saturate_and_unsafe_ones_do() {
    fn property(which: usize, limit: u8, bounds: (u8, u8), zero_point: u8, seed: u64) -> bool {
        let shape = shape(SHAPES[which % SHAPES.len()]);
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let limit = [127, 100, 66, 64][usize::from(limit % 4)];
        let weight: Vec<i8> = (0..shape.weight_len()).map(|_| (random() as i8).clamp(-limit - 1, limit)).collect();
        let lo = bounds.0.min(bounds.1) / 2;
        let hi = [255, 128, 129, bounds.0.max(bounds.1)][usize::from(bounds.1 % 4)].max(lo);
        let zero_point = zero_point.clamp(lo, hi);
        let extreme = |random: &mut dyn FnMut() -> u8| if random() & 1 == 0 { lo } else { hi };
        let inputs: Vec<Vec<u8>> = (0..20)
            .map(|kind| {
                (0..shape.image_len())
                    .map(|_| if kind % 2 == 0 { extreme(&mut random) } else { random().clamp(lo, hi) })
                    .collect()
            })
            .chain([vec![lo; shape.image_len()], vec![hi; shape.image_len()]])
            .collect();
        holds(shape, &weight, [lo.into(), hi.into()], zero_point.into(), &inputs);
        true
    }
    QuickCheck::new().tests(3000).quickcheck(property as fn(usize, u8, (u8, u8), u8, u64) -> bool);
}

#[test]
fn the_edges_of_safety() {
    let shape = shape("linear m1k2n1");
    let verdict = |weight: [i8; 2], hi: i32| {
        holds(shape, &weight, [0, hi], 0, &[vec![hi as u8; 2], vec![0, hi as u8], vec![hi as u8, 0]])
    };
    assert_eq!(verdict([-128, -128], 128), Verdict::SafeByCodes);
    assert_eq!(verdict([-128, -128], 129), Verdict::CanSaturate);
    assert_eq!(verdict([127, 127], 129), Verdict::SafeByWeights);
    assert_eq!(verdict([127, 127], 130), Verdict::CanSaturate);
    assert_eq!(verdict([64, 64], 255), Verdict::SafeByWeights);
    assert_eq!(verdict([-64, -64], 255), Verdict::SafeByWeights);
    assert_eq!(verdict([64, 65], 255), Verdict::CanSaturate);
    assert_eq!(verdict([127, -128], 255), Verdict::SafeByWeights);
    // A kernel's two taps that are never over the image at once.
    let shape = self::shape("conv ic1oc1ih1kh1iw1kw2pw1");
    assert_eq!(holds(shape, &[127, 127], [0, 255], 0, &[vec![255], vec![0]]), Verdict::SafeByWeights);
    assert_eq!(holds(shape, &[127, 127], [0, 255], 10, &[vec![255], vec![0]]), Verdict::CanSaturate);
}

fn odd() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/networks/odd.safetensors")).unwrap()
}

/// A recording of a linear layer that saturated, its CPU with VNNI or without, in the eyes of `verify`.
fn token_fc(saturated: bool, vnni: bool) -> NodeReport {
    const NODE: &str = "token_fc";
    let mut bytes = odd();
    if saturated {
        let export = Export::from_bytes(&bytes).unwrap();
        let node = export.network.nodes().iter().find(|node| node.name == NODE).unwrap();
        let Operator::Layer(layer) = &node.operator else { unreachable!("a linear layer") };
        let input = export.recording.as_ref().unwrap().value(node.inputs[0]).unwrap();
        let Data::U8(codes) = input.data().into_owned() else { unreachable!("u8 codes") };
        let tensor = format!("record.{}", export.network.values()[node.output].name);
        let view = open(&bytes).unwrap().tensor(&tensor).unwrap().data().as_ptr() as usize;
        let at = view - bytes.as_ptr() as usize;
        let channels = layer.shape().out_channels;
        for output in 0..codes.len() / layer.shape().in_channels * channels {
            let (row, channel) = (output / channels, output % channels);
            let machine = explain::saturated(Machine::FbgemmWithoutVnni, &layer.layer(), &codes, row, channel);
            bytes[at + output] = machine.map_or(bytes[at + output], |machine| machine.code as u8);
        }
    }
    if !vnni {
        let (from, to) = (b"avx512_vnni", b"avx512_none");
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    let export = Export::from_bytes(&bytes).unwrap();
    let options = Options { isas: vec![Isa::REFERENCE], strict: false };
    let report = verify("odd", &export, &options, |_, _| ()).unwrap();
    report.nodes.into_iter().find(|node| node.name == NODE).unwrap()
}

#[test]
fn verify_excuses_pairs_along_k_unless_the_recording_had_vnni() {
    let changed = analyze("odd", &Export::from_bytes(&odd()).unwrap())
        .layers
        .into_iter()
        .find_map(|layer| (layer.name == "token_fc").then_some(layer.recorded.unwrap().changed))
        .unwrap();
    assert!(changed > 0);
    for (saturated, vnni, expected) in
        [(false, true, (0, 0)), (false, false, (0, 0)), (true, true, (0, changed)), (true, false, (changed, 0))]
    {
        let node = token_fc(saturated, vnni);
        assert_eq!((node.saturated, node.differences), expected, "saturated {saturated}, VNNI {vnni}");
        if expected.0 > 0 {
            let Some(Reason::PairSaturation(why)) = node.first_saturated.unwrap().reason else { panic!("no reason") };
            assert_eq!(why.machine, "fbgemm without VNNI");
        }
    }
}

#[test]
fn recorded_codes_lie_in_the_range_that_was_proven() {
    let (mut raised, mut layers) = (0, 0);
    for directory in ["../fixtures/networks", "networks"] {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            let export = Export::read(&path).unwrap();
            for layer in analyze("network", &export).layers {
                let node = export.network.nodes().iter().find(|node| node.name == layer.name).unwrap();
                let input = export.recording.as_ref().unwrap().value(node.inputs[0]).unwrap();
                let [lo, hi] = layer.codes;
                let within = |code: i32| (lo..=hi).contains(&code);
                let all = match input.data().as_ref() {
                    Data::U8(codes) => codes.iter().all(|&code| within(code.into())),
                    Data::I8(codes) => codes.iter().all(|&code| within(code.into())),
                    Data::F32(_) => unreachable!("layers read codes"),
                };
                assert!(all, "{} {lo}..{hi}", layer.name);
                raised += usize::from(lo > 0);
                layers += 1;
            }
        }
    }
    assert!(raised > 0 && layers > 20, "{raised} of {layers} layers follow a ReLU with a zero point above 0");
}

#[test]
fn recorded_outputs_are_counted_as_verify_finds_them() {
    let export = Export::from_bytes(&odd()).unwrap();
    let analysis = analyze("odd", &export);
    let report = verify("odd", &export, &Options { isas: vec![Isa::REFERENCE], strict: false }, |_, _| ()).unwrap();
    let mut saturated = 0;
    for layer in &analysis.layers {
        let node = report.nodes.iter().find(|node| node.name == layer.name).unwrap();
        let recorded = layer.recorded.as_ref().unwrap();
        assert!(recorded.changed <= recorded.saturated && recorded.saturated <= recorded.outputs);
        match layer.machines[0].verdict {
            Verdict::CanSaturate => assert_eq!(node.saturated, recorded.changed, "{}", layer.name),
            _ => assert_eq!(node.saturated, 0, "{}", layer.name),
        }
        saturated += node.saturated;
    }
    assert!(saturated > 0);
    println!("{analysis}");
}

/// The outputs of a layer that a rule changes, counted without the code under test.
fn changed(export: &Export, name: &str, other: impl Fn(&LayerNode) -> Rule) -> u64 {
    let node = export.network.nodes().iter().find(|node| node.name == name).unwrap();
    let Operator::Layer(layer) = &node.operator else { unreachable!("a layer") };
    let input = export.recording.as_ref().unwrap().value(node.inputs[0]).unwrap();
    let input = if layer.is_linear() { input.data() } else { input.channels_last() };
    let Data::U8(codes) = input.as_ref() else { unreachable!("u8 codes") };
    let (other, channels) = (other(layer), layer.shape().out_channels);
    let rows = codes.len() / layer.shape().image_len() * layer.shape().pixels();
    let differs = |&at: &usize| {
        let accumulator = layer.layer().accumulator(codes, at / channels, at % channels);
        layer.rule().apply(accumulator, at % channels, 0.0) != other.apply(accumulator, at % channels, 0.0)
    };
    (0..rows * channels).filter(differs).count() as u64
}

#[test]
fn other_rules_are_presets_of_the_layers_own_scales() {
    let export = Export::from_bytes(&odd()).unwrap();
    let analysis = analyze("odd", &export);
    let mut seen = 0;
    for layer in &analysis.layers {
        let rules = &layer.recorded.as_ref().unwrap().other_rules;
        assert_eq!(rules["fbgemm"], 0, "the layer's own rule: {}", layer.name);
        for name in ["qnnpack", "onednn", "pt2e", "ort", "tflite_reference", "tflite_ruy", "nearest power of two"] {
            assert!(rules.contains_key(name), "{} {name}", layer.name);
        }
        let qnnpack = changed(&export, &layer.name, |node| {
            let rule = preset::qnnpack(node.scales().unwrap(), node.bias(), false).unwrap();
            let [lo, hi] = node.rule().codes().unwrap().range();
            Rule::F32Mul(rule.clamped(lo, hi).unwrap())
        });
        assert_eq!(rules["qnnpack"], qnnpack, "{}", layer.name);
        assert!(rules["nearest power of two"] > layer.recorded.as_ref().unwrap().outputs / 10, "a coarse rule");
        seen += qnnpack;
    }
    assert!(seen > 0, "integer biases change something");
    let json = serde_json::to_value(&analysis).unwrap();
    assert!(json["layers"][0]["recorded"]["other_rules"]["tflite_ruy"].is_u64());
    assert!(analysis.to_string().contains("nearest power of two"));
}

#[test]
fn powers_of_two_tell_rules_apart_at_ties_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/networks/fixed_point_int4.safetensors");
    let mut analysis = analyze("int4", &Export::read(&path).unwrap());
    let fc = analysis.layers.pop().unwrap().recorded.unwrap();
    assert!(fc.outputs > 0 && fc.other_rules.is_empty(), "real numbers have no other rule: {:?}", fc.other_rules);
    let mut away = 0;
    for layer in &analysis.layers {
        let rules = &layer.recorded.as_ref().unwrap().other_rules;
        // Every product is exact: nothing but the rounding of ties is left.
        for name in ["nearest power of two", "ort", "onnx_reference", "qnnpack", "fbgemm", "onednn"] {
            assert_eq!(rules[name], 0, "{} {name}", layer.name);
        }
        away += rules["tflite_reference_fully_connected"];
    }
    assert!(away > 0, "ties away from zero");
}
