//! Every kernel of every instruction set that this CPU has, against the reference: full-range data, odd shapes,
//! all stores, any split of the output. An instruction set that the CPU lacks is printed as skipped.

mod case;

use self::case::{Case, agrees, outputs, pick};
use qexact_kernels::{Isa, IsaName, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, Codes, F32Mul, F32Out, F32Real, RealOutput, Sum};
use qexact_reference::{Addend, Axis, CodeType, Conv, Input, Layer, Output, Rule};
use quickcheck::{Arbitrary, Gen, QuickCheck};
#[test]
fn kernels_equal_the_reference() {
    for name in IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err()) {
        eprintln!("SKIPPED: this CPU does not have {name}");
    }
    QuickCheck::new().tests(3000).max_tests(3000).quickcheck((|case: Case| agrees(&case)) as fn(Case) -> bool);
}

/// Convolutions whose padding matrix kernels leave out, pixels at edges apart from others, and some near them.
#[derive(Clone, Debug)]
struct Edges(Case);

impl Arbitrary for Edges {
    fn arbitrary(g: &mut Gen) -> Edges {
        let mut axes = [Axis::UNIT; 3];
        for (axis, most) in axes.iter_mut().zip([2, 30, 30]) {
            let kernel = if most == 2 { pick(g, 1..=2) } else { *g.choose(&[1, 2, 3, 3, 3, 5, 7]).unwrap() };
            let dilation = if most == 30 && pick(g, 0..=3) == 0 { pick(g, 2..=3) } else { 1 };
            let window = (kernel - 1) * dilation + 1;
            let padding = [pick(g, 0..=window), pick(g, 0..=window / 2)];
            let least = window.saturating_sub(padding[0] + padding[1]).max(1);
            let stride = if pick(g, 0..=3) == 0 { 2 } else { 1 };
            *axis = Axis { input: pick(g, least..=most.max(least)), kernel, stride, padding, dilation };
        }
        if pick(g, 0..=3) > 0 {
            axes[0] = Axis::UNIT;
        }
        let groups = if pick(g, 0..=3) == 0 { 2 } else { 1 };
        let in_channels = groups * *g.choose(&[4, 6, 16, 32, 40, 64, 96]).unwrap();
        let shape = Conv { batch: pick(g, 1..=2), in_channels, out_channels: groups * pick(g, 1..=40), groups, axes };
        shape.validate().unwrap();
        let (signed, seed) = (bool::arbitrary(g), u64::arbitrary(g));
        Edges(Case { shape, signed, rule: pick(g, 0..=12), weight_zero_points: pick(g, 0..=2), seed })
    }
}

#[test]
fn padding_that_is_left_out_makes_no_difference() {
    QuickCheck::new().tests(250).max_tests(250).quickcheck((|Edges(case)| agrees(&case)) as fn(Edges) -> bool);
    // Among them those of a unit test that lines are divided.
    for (seed, shape) in [
        "conv ic64oc40ih7kh3ph1",
        "conv n2ic64oc33ih8kh3ph1",
        "conv ic64oc33ih9kh3ph1",
        "conv ic64oc17ih14kh3ph1",
        "conv ic96oc32ih28iw26kh3ph1",
        "conv ic64oc20ih28kh5ph2",
        "conv ic64oc16ih30kh3ph1sh2sw1",
        "conv ic32oc40id3ih12kd2kh3ph1",
        "conv ic64oc20ih20iw2kh3kw7ph0pw3",
        "conv ic128oc17ih16kh3ph2dh2",
        "conv ic64oc33ih24iw20kh3ph2dh2sw2",
        "conv ic32oc40id3ih12kd2kh3ph2dh2",
        "conv ic64oc20ih20iw9kh3kw2ph0pw4dw3",
        "conv ic64oc50ih30iw2kh3ph0pw6dw5",
        "conv ic128oc64g2ih14kh3ph1",
        "conv ic64oc64g2ih14kh3ph1",
        "conv ic67oc40ih14kh3ph3dh3",
        "conv ic198oc70g2ih14kh3ph1",
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shape.parse().unwrap();
        for rule in [1, 6, 7, 8] {
            let weight_zero_points = (seed + rule) % 3;
            assert!(agrees(&Case { shape, signed: rule > 6, rule, weight_zero_points, seed: seed as u64 }));
        }
    }
}

/// Convolutions with many channels over images hardly larger than their kernel, which are computed tap by tap.
#[derive(Clone, Debug)]
struct Small(Case);

impl Arbitrary for Small {
    fn arbitrary(g: &mut Gen) -> Small {
        let mut axes = [Axis::UNIT; 3];
        let first = if pick(g, 0..=3) == 0 { 0 } else { 1 };
        for axis in &mut axes[first..] {
            let kernel = pick(g, 1..=if first == 0 { 3 } else { 5 });
            let dilation = if pick(g, 0..=2) == 0 { pick(g, 2..=4) } else { 1 };
            let window = (kernel - 1) * dilation + 1;
            let padding = [pick(g, 0..=window), pick(g, 0..=window / 2)];
            let least = window.saturating_sub(padding[0] + padding[1]).max(1);
            let stride = if pick(g, 0..=2) == 0 { pick(g, 2..=3) } else { 1 };
            *axis = Axis { input: pick(g, least..=least.max(5)), kernel, stride, padding, dilation };
        }
        let groups = if pick(g, 0..=3) == 0 { 2 } else { 1 };
        let in_channels = groups * *g.choose(&[6, 32, 64, 65, 128, 256]).unwrap();
        let shape = Conv { batch: pick(g, 1..=4), in_channels, out_channels: groups * pick(g, 1..=40), groups, axes };
        shape.validate().unwrap();
        let (signed, seed) = (bool::arbitrary(g), u64::arbitrary(g));
        Small(Case { shape, signed, rule: pick(g, 0..=12), weight_zero_points: pick(g, 0..=2), seed })
    }
}

#[test]
fn sums_of_taps_equal_the_reference() {
    QuickCheck::new().tests(250).max_tests(250).quickcheck((|Small(case)| agrees(&case)) as fn(Small) -> bool);
    // Those of a unit test that taps are gone through one by one.
    for (seed, shape) in [
        "conv ic256oc40ih4kh3ph1",
        "conv n9ic256oc33ih4kh3ph1",
        "conv n2ic512oc17ih8kh3ph1sh2",
        "conv ic192oc70ih7kh5ph2",
        "conv ic64oc9ih7kh3ph4dh4",
        "conv ic64oc20ih20iw7kh3ph6dh6",
        "conv ic64oc16id3ih3kd3kh3pd1ph1",
        "conv n2ic128oc66g2ih2kh3ph1",
        "conv ic128oc20ih1iw20kh1kw3ph0pw12dw12",
        "conv ic256oc20g2ih2kh1ph3:4",
        "conv ic64oc20ih1iw700kh1kw3ph0pw400dw400",
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shape.parse().unwrap();
        for rule in [1, 5, 6, 7, 8, 9] {
            let weight_zero_points = (seed + rule) % 3;
            assert!(agrees(&Case { shape, signed: rule % 2 > 0, rule, weight_zero_points, seed: seed as u64 }));
        }
    }
}

/// Sums too long for generated cases, of so few outputs that registers hold codes of one row: in several pieces, with a
/// rest of all lengths, for tiles of one to six rows and the rest of a panel of one to three channels.
#[test]
fn long_sums_of_few_outputs_equal_the_reference() {
    for (seed, shape) in [
        "conv n1ic4231oc13ih1kh1",
        "conv n2ic8321oc1ih1kh1",
        "conv n3ic4097oc10ih1kh1",
        "conv n10ic700oc7ih1kh1",
        "conv n5ic4160oc3ih1kh1",
        "conv n13ic1500oc29ih1kh1",
        "conv n2ic70oc2ih5iw4kh3kw3ph1pw1",
        "conv n3ic130oc4g2ih3kh3ph1",
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shape.parse().unwrap();
        for rule in 0..9 {
            let weight_zero_points = (seed + rule) % 3;
            assert!(
                agrees(&Case { shape, signed: rule % 2 > 0, rule, weight_zero_points, seed: seed as u64 }),
                "{shape}"
            );
        }
    }
}

/// Kernels that read the input where it lies, of any padding, with registers full, half, a quarter and a part of them, images
/// smaller than the window, lines in several bands, each stride, signed and unsigned codes under every rule.
#[test]
fn direct_kernels_equal_the_reference() {
    for (seed, shape) in [
        "conv n2ic64oc64g64ih9iw12kh5ph2pw2",
        "conv ic144oc144g144ih12iw23kh5ph2:1pw2:1",
        "conv n2ic112oc112g112ih1iw2kh5ph4pw3",
        "conv ic70oc70g70ih2iw1kh5ph9pw11:6",
        "conv ic100oc100g100ih7iw40kh5ph0pw0",
        "conv n2ic5oc5g5ih31iw9kh5ph2pw5",
        "conv ic32oc32g32ih31iw61kh5ph2pw2",
        "conv ic176oc176g176ih40iw25kh5ph2pw2",
        "conv ic144oc144g144ih7iw23kh3ph1pw1",
        "conv ic112oc112g112ih8iw24kh3ph1:0pw1:0",
        "conv n2ic5oc5g5ih2iw1kh3ph4pw7",
    ]
    .into_iter()
    .flat_map(|shape| [shape.to_owned(), format!("{shape}sh2")])
    .enumerate()
    {
        let shape = shape.parse().unwrap();
        for rule in 0..=12 {
            for signed in [false, true] {
                let seed = (13 * seed + rule) as u64;
                assert!(agrees(&Case { shape, signed, rule, weight_zero_points: 0, seed }), "{shape}");
            }
        }
    }
}

/// Geometry that generated cases are too small for: rows in several pieces, padding wider than the image.
#[test]
fn row_kernels_equal_the_reference_on_wide_rows() {
    for (seed, shape) in [
        "conv ic5oc5g5ih3iw400kh3kw3ph1pw1",
        "conv ic70oc70g70ih5iw150kh5ph2kw5pw2sh2sw2",
        "conv ic3oc3g3ih2iw1kh2ph0pw9kw3",
        "conv ic17oc17g17ih2iw1kh3ph3pw40:35kw5",
        "conv ic20oc20g5ih3iw300kh3ph1pw1kw3",
        "conv n2ic36oc36g9ih2iw1kh3ph2pw20kw3sh2sw2",
        // Rows that share blocks, over several bands: folds of 2 × 2 with their edges inside and outside of the image,
        // blocks of four rows that are shared and not, dilated ones, strides that differ.
        "conv ic81oc81g81ih40iw61kh3kw3ph1pw1sh2sw2",
        "conv n2ic112oc112g112ih33iw62kh5kw5ph2:1pw1:2sh2sw2",
        "conv ic33oc33g33ih30iw40kh7kw4ph3pw5sh2sw2",
        "conv ic40oc40g40ih50iw35kh5kw5ph2pw2",
        "conv ic19oc19g19ih40iw31kh3kw3ph2dh2pw2dw2sh2sw1",
        "conv ic64oc64g64ih31iw30kh3kw3ph1pw1sh1sw2",
        "conv ic64oc64g8ih40iw33kh3kw3ph1pw1sh4sw2",
        // Groups that fill half of the last panel; merged ones; what is left of rows when tiles are full.
        "conv ic40oc40g5ih12iw25kh3kw3ph1pw1",
        "conv ic36oc36g18ih9iw30kh3kw3ph1pw1sh2sw2",
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shape.parse().unwrap();
        for rule in [1, 7] {
            let weight_zero_points = seed % 3;
            assert!(agrees(&Case { shape, signed: rule == 7, rule, weight_zero_points, seed: seed as u64 }));
        }
    }
}

#[test]
fn parameters_that_arrive_late_need_no_packing() {
    let weight: Vec<i8> = (0..40 * 70).map(|i| (i * 37 % 256) as u8 as i8).collect();
    let input: Vec<u8> = (0..3 * 70).map(|i| (i * 101 % 251) as u8).collect();
    let rules = [
        Rule::F32Mul(F32Mul::new(vec![0.002], Bias::I32((0..40).collect()), 7, CodeType::U8).unwrap()),
        Rule::F32Out(F32Out { scale: vec![0.25], bias: vec![], fused: false, relu: false }),
        Rule::Accumulator,
    ];
    for isa in Isa::available() {
        let layer = |zero_point, rule| {
            let shape = "linear m3k70n40".parse::<qexact_reference::Linear>().unwrap().into();
            let parts = LayerParts {
                shape,
                input: CodeType::U8,
                input_zero_point: zero_point,
                weight: &weight,
                weight_zero_point: &[3],
                rule,
            };
            Layer::new(parts).unwrap()
        };
        let mut plan = Plan::new(&layer(0, &rules[0]), isa).unwrap();
        for (zero_point, rule) in [(200, &rules[1]), (13, &rules[2]), (255, &rules[0])] {
            plan.requantize(zero_point, rule).unwrap();
            let region = plan.region(3).unwrap();
            let want =
                outputs(rule, region.len(), |y| layer(zero_point, rule).run(&region, Input::U8(&input), y).unwrap());
            let got =
                outputs(rule, region.len(), |y| plan.run(&region, Input::U8(&input), y, &mut plan.scratch()).unwrap());
            assert_eq!(got, want, "{isa} {}", plan.kernel());
        }
        assert!(plan.requantize(256, &rules[2]).is_err());
    }
}

#[test]
fn scratch_that_is_too_small_is_refused() {
    let rule = Rule::Accumulator;
    let parts = LayerParts {
        shape: "conv ic3oc5ih9kh3ph1".parse().unwrap(),
        input: CodeType::U8,
        input_zero_point: 0,
        weight: &[1; 135],
        weight_zero_point: &[0],
        rule: &rule,
    };
    let layer = Layer::new(parts).unwrap();
    for isa in Isa::available().filter(|&isa| isa != Isa::REFERENCE) {
        let plan = Plan::new(&layer, isa).unwrap();
        let mut y = vec![0; 5 * 81];
        let mut scratch = vec![0; plan.scratch_len() - 1];
        let error = plan.run(&plan.region(1).unwrap(), Input::U8(&[0; 243]), Output::I32(&mut y), &mut scratch);
        let text = error.unwrap_err().to_string();
        assert_eq!(text, format!("scratch has {} elements, expected at least {}", scratch.len(), scratch.len() + 1));
    }
}

#[test]
fn the_accumulator_bound_is_reached() {
    // All weights of the second channel are at an end, so the extreme input reaches the bound.
    let rule = Rule::Accumulator;
    let mut weight = vec![1i8; 2 * 50];
    weight[50..].fill(-128);
    let parts = LayerParts {
        shape: "linear m1k50n2".parse::<qexact_reference::Linear>().unwrap().into(),
        input: CodeType::U8,
        input_zero_point: 10,
        weight: &weight,
        weight_zero_point: &[0],
        rule: &rule,
    };
    let layer = Layer::new(parts).unwrap();
    for isa in Isa::available().filter(|&isa| isa != Isa::REFERENCE) {
        let bound = Plan::new(&layer, isa).unwrap().accumulator_bound().unwrap();
        assert_eq!(bound, 50 * 128 * 245);
        assert_eq!(bound, -i64::from(layer.accumulator(&[255u8; 50], 0, 1)));
    }
}

/// A dot product that saturates in 32 bits (VPDPBUSDS) would be right for everything but this.
#[test]
fn accumulators_wrap_and_do_not_saturate() {
    let rule = Rule::Accumulator;
    let k = 140_000;
    let weight = [vec![-128i8; k], vec![127; k]].concat();
    let parts = LayerParts {
        shape: qexact_reference::Linear { rows: 2, in_features: k, out_features: 2 }.into(),
        input: CodeType::U8,
        input_zero_point: 0,
        weight: &weight,
        weight_zero_point: &[0],
        rule: &rule,
    };
    let layer = Layer::new(parts).unwrap();
    let input = vec![255u8; 2 * k];
    let want = [-128i64, 127].map(|w| (w * 255 * k as i64) as i32);
    for isa in Isa::available() {
        let plan = Plan::new(&layer, isa).unwrap();
        let mut y = [0; 4];
        plan.run(&plan.region(2).unwrap(), Input::U8(&input), Output::I32(&mut y), &mut plan.scratch()).unwrap();
        assert_eq!(y, [want, want].concat()[..], "{isa} {}", plan.kernel());
        assert!(plan.accumulator_bound().is_none_or(|bound| bound > 1 << 31));
    }
}

#[test]
fn addends_must_be_the_rules() {
    let codes = Codes::new(0, CodeType::U8).unwrap();
    let sum = Sum::Codes { scale: 1.0, zero_point: 0, codes: CodeType::U8 };
    let output = RealOutput::Codes { multiplier: 1.0, codes };
    let rule = Rule::F32Real(F32Real { scale: vec![1.0], bias: vec![], sum, clip: None, output });
    let shape = "linear m1k2n2".parse::<qexact_reference::Linear>().unwrap().into();
    let layer = |rule| {
        let parts = LayerParts {
            shape,
            input: CodeType::U8,
            input_zero_point: 0,
            weight: &[1, 0, 0, 1],
            weight_zero_point: &[0],
            rule,
        };
        Layer::new(parts).unwrap()
    };
    let (all, x) = (layer(&rule).region(1).unwrap(), Input::U8(&[3, 4]));
    for isa in Isa::available() {
        let plan = Plan::new(&layer(&rule), isa).unwrap();
        let run = |addend: Addend<'_>| {
            let mut y = [0; 2];
            plan.run_adding(&all, x, addend, Output::U8(&mut y), &mut plan.scratch()).map(|()| y)
        };
        assert_eq!(run(Addend::U8(&[10, 20])), Ok([13, 24]));
        let refused = |addend| run(addend).unwrap_err().to_string();
        assert_eq!(refused(Addend::None), "addend holds nothing, expected u8");
        assert_eq!(refused(Addend::F32(&[0.0; 2])), "addend holds f32, expected u8");
        assert_eq!(refused(Addend::U8(&[0; 3])), "addend has 3 elements, expected 2");
        let plain = Plan::new(&layer(&Rule::Accumulator), isa).unwrap();
        let error = plain.run_adding(&all, x, Addend::U8(&[0; 2]), Output::I32(&mut [0; 2]), &mut plain.scratch());
        assert_eq!(error.unwrap_err().to_string(), "addend holds u8, expected nothing");
    }
}
