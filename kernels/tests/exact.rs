//! Every kernel of every instruction set that this CPU has, against the reference: full-range data, odd shapes,
//! all stores, any split of the output. An instruction set that the CPU lacks is printed as skipped.

use qexact_kernels::{Isa, IsaName, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, RealOutput, Rounding,
    Sum, ZeroPoint,
};
use qexact_reference::{Addend, Axis, CodeType, Conv, Input, Layer, Output, Region, Rule};
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// One bit pattern a case: everything else is derived from it.
#[derive(Clone, Debug)]
struct Case {
    shape: Conv,
    signed: bool,
    rule: usize,
    weight_zero_points: usize,
    seed: u64,
}

fn pick(g: &mut Gen, range: std::ops::RangeInclusive<usize>) -> usize {
    range.start() + usize::arbitrary(g) % (range.end() - range.start() + 1)
}

impl Arbitrary for Case {
    fn arbitrary(g: &mut Gen) -> Case {
        let (mut axes, kind) = ([Axis::UNIT; 3], pick(g, 0..=6));
        if kind > 0 {
            let first = if kind == 4 { 0 } else { 1 };
            for axis in &mut axes[first..] {
                let (kernel, dilation) = (pick(g, 1..=4), pick(g, 1..=2));
                let padding = [pick(g, 0..=2), pick(g, 0..=2)];
                let window = (kernel - 1) * dilation + 1;
                let least = window.saturating_sub(padding[0] + padding[1]).max(1);
                axis.input = pick(g, least..=least + 6);
                (axis.kernel, axis.dilation, axis.padding, axis.stride) = (kernel, dilation, padding, pick(g, 1..=3));
            }
        }
        // Kernels by rows of pixels: windows and widths that they know, and others.
        if kind >= 5 {
            let [_, height, width] = &mut axes;
            let (kernel, stride) = (pick(g, 1..=7), pick(g, 1..=2));
            for (axis, most) in [(height, 6), (width, 30)] {
                let kernel = if pick(g, 0..=3) == 0 { pick(g, 1..=9) } else { kernel };
                let dilation = if pick(g, 0..=7) == 0 { 2 } else { 1 };
                let (padding, window) = ([pick(g, 0..=kernel / 2), pick(g, 0..=kernel)], (kernel - 1) * dilation + 1);
                let input = pick(g, window..=window + most);
                *axis = Axis { input, kernel, stride, padding, dilation };
            }
        }
        let channels =
            |g: &mut Gen| *g.choose(&[1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100]).unwrap();
        let (in_channels, out_channels, groups) = match kind {
            // Depthwise, with one or two outputs a channel.
            3 => {
                let c = channels(g);
                (c, c * pick(g, 1..=2), c)
            }
            5 => {
                let c = pick(g, 2..=150);
                (c, c, c)
            }
            6 => {
                let (groups, c) = (pick(g, 2..=40), *g.choose(&[2, 4, 8, 16]).unwrap());
                (groups * c, groups * c, groups)
            }
            2 => {
                let groups = pick(g, 1..=4);
                (groups * pick(g, 1..=9), groups * pick(g, 1..=40), groups)
            }
            _ => (channels(g), channels(g), 1),
        };
        let batch = if kind == 0 { pick(g, 1..=40) } else { pick(g, 1..=2) };
        let shape = Conv { batch, in_channels, out_channels, groups, axes };
        shape.validate().unwrap();
        let seed = u64::arbitrary(g);
        Case { shape, signed: bool::arbitrary(g), rule: pick(g, 0..=12), weight_zero_points: pick(g, 0..=2), seed }
    }
}

/// SplitMix64: every byte of every draw is uniform.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Half of all codes are extremes.
    fn code(&mut self) -> u8 {
        let r = self.next();
        if r & 1 == 0 { (r >> 8) as u8 } else { [0, 255, 127, 128][(r >> 8) as usize % 4] }
    }
    fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
    fn reals(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.real() * scale).collect()
    }
}

fn rule(case: &Case, r: &mut Random) -> Rule {
    let n = case.shape.out_channels;
    let depth = case.shape.depth() as f32;
    let signed = r.next().is_multiple_of(2);
    let (output, shift) = if signed { (CodeType::I8, 128) } else { (CodeType::U8, 0) };
    let zero_point = i32::from(r.code()) - shift;
    // Wide enough to saturate at both ends, narrow enough not to be all saturated.
    let multipliers = |r: &mut Random, n: usize| r.reals(n, 0.2 / depth.sqrt());
    let mul = |r: &mut Random, bias| {
        let n = if r.next().is_multiple_of(2) { 1 } else { n };
        F32Mul::new(multipliers(r, n), bias, zero_point, output).unwrap()
    };
    Rule::F32Mul(match case.rule {
        0 => mul(r, Bias::None),
        1 => {
            let bias = (0..n).map(|_| r.next() as i32 >> 12).collect();
            mul(r, Bias::I32(bias)).relu()
        }
        2 => {
            let addend = r.reals(n, 1e4);
            mul(r, Bias::Addend(addend)).relu()
        }
        3 => {
            let (bias, reciprocal) = (r.reals(n, 10.0), vec![1.0 / 0.0013]);
            mul(r, Bias::Fused { bias, reciprocal })
        }
        4 => {
            let lo = output.lo() + 40;
            mul(r, Bias::None).clamped(lo, lo + 100).unwrap().overflow(Overflow::ClampFirst)
        }
        // Overflow, infinities and NaN.
        5 => {
            let overflow = if r.next().is_multiple_of(2) { Overflow::Convert } else { Overflow::ClampFirst };
            let multiplier =
                (0..n).map(|_| [1e9, -1e9, f32::INFINITY, f32::NAN, 1e-40][r.next() as usize % 5]).collect();
            let bias = Bias::Addend(vec![[f32::INFINITY, f32::NAN, 0.5][r.next() as usize % 3]]);
            F32Mul::new(multiplier, bias, zero_point, output).unwrap().overflow(overflow)
        }
        6 => {
            let bias = if r.next().is_multiple_of(2) { r.reals(n, 5.0) } else { Vec::new() };
            let (fused, relu) = (r.next().is_multiple_of(2), r.next().is_multiple_of(2));
            return Rule::F32Out(F32Out { scale: r.reals(n, 0.01), bias, fused, relu });
        }
        8..=12 => return unfused(case, r, Codes::new(zero_point, output).unwrap()),
        _ => return Rule::Accumulator,
    })
}

/// A rule that is a second step after most kernels.
fn unfused(case: &Case, r: &mut Random, codes: Codes) -> Rule {
    let channels = if r.next().is_multiple_of(2) { 1 } else { case.shape.out_channels };
    let codes = if r.next().is_multiple_of(2) { codes.relu() } else { codes };
    let bias = if r.next().is_multiple_of(2) { vec![] } else { (0..channels).map(|_| r.next() as i32 >> 12).collect() };
    let rounding = [Rounding::Even, Rounding::Away, Rounding::Up][r.next() as usize % 3];
    let scale = 0.2 / (case.shape.depth() as f32).sqrt();
    let fixed = |r: &mut Random| FixedPoint::nearest((r.real().abs() * scale).into()).unwrap();
    match case.rule {
        8 => {
            let sums = [
                Sum::None,
                Sum::Codes { scale: 0.4, zero_point: 3, codes: CodeType::U8 },
                Sum::Codes { scale: 0.4, zero_point: -3, codes: CodeType::I8 },
                Sum::Reals,
            ];
            let outputs = [RealOutput::Reals, RealOutput::Codes { multiplier: 1.7, codes }];
            Rule::F32Real(F32Real {
                scale: r.reals(channels, scale),
                bias: if bias.is_empty() { vec![] } else { r.reals(channels, 30.0) },
                sum: sums[r.next() as usize % 4],
                clip: [None, F32Real::RELU, Some([-20.0, 20.0])][r.next() as usize % 3],
                output: outputs[r.next() as usize % 2],
            })
        }
        9 => {
            let multiplier = (0..channels).map(|_| fixed(r)).collect();
            Rule::Q31Double(Q31Double { multiplier, bias, last: rounding, codes })
        }
        10 => Rule::Q31Single(Q31Single { multiplier: (0..channels).map(|_| fixed(r)).collect(), bias, codes }),
        11 => {
            let zero_point =
                if r.next().is_multiple_of(2) { ZeroPoint::BeforeRounding } else { ZeroPoint::AfterRounding };
            let multiplier = r.reals(channels, scale).into_iter().map(f64::from).collect();
            Rule::F64(F64 { multiplier, bias, rounding, zero_point, codes })
        }
        _ => {
            let about = case.shape.depth().ilog2() as i32 / 2 + 4;
            let shift = (0..channels).map(|_| about + r.next() as i32 % 4).collect();
            Rule::Pow2(Pow2 { shift, bias, rounding, codes })
        }
    }
}

/// The tensor that a rule adds over a region.
enum Added {
    Nothing,
    U8(Vec<u8>),
    I8(Vec<i8>),
    F32(Vec<f32>),
}

impl Added {
    fn over(rule: &Rule, region: &Region, channels: usize) -> Added {
        let bytes = region.rows.clone().flat_map(|row| region.channels.clone().map(move |c| row * channels + c));
        let bytes = bytes.map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]);
        match rule.addend_type() {
            None => Added::Nothing,
            Some("u8") => Added::U8(bytes.collect()),
            Some("i8") => Added::I8(bytes.map(|b| b as i8).collect()),
            Some(_) => Added::F32(bytes.map(|b| f32::from(b) / 3.0 - 40.0).collect()),
        }
    }

    fn view(&self) -> Addend<'_> {
        match self {
            Added::Nothing => Addend::None,
            Added::U8(a) => Addend::U8(a),
            Added::I8(a) => Addend::I8(a),
            Added::F32(a) => Addend::F32(a),
        }
    }
}

const POISON: u8 = 0xa5;

/// Runs `f` on an output buffer of the rule's type and returns its bytes.
fn outputs(rule: &Rule, len: usize, f: impl FnOnce(Output<'_>)) -> Vec<u8> {
    match rule.element_type() {
        "u8" => {
            let mut y = vec![POISON; len];
            f(Output::U8(&mut y));
            y
        }
        "i8" => {
            let mut y = vec![POISON as i8; len];
            f(Output::I8(&mut y));
            y.iter().map(|&v| v as u8).collect()
        }
        "i32" => {
            let mut y = vec![0; len];
            f(Output::I32(&mut y));
            y.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        _ => {
            let mut y = vec![0.0; len];
            f(Output::F32(&mut y));
            y.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
        }
    }
}

fn agrees(case: &Case) -> bool {
    let mut r = Random(case.seed);
    let shape = case.shape;
    // Full-range ones, and narrower ones with the ends of their range, of which products fit 16 bits.
    let bits = [8, 8, 7, 6, 5, 4][r.next() as usize % 6];
    let weight: Vec<i8> = (0..shape.weight_len()).map(|_| r.code() as i8 >> (8 - bits)).collect();
    let weight_zero_point: Vec<i32> = match case.weight_zero_points {
        0 => vec![0],
        1 => vec![i32::from(r.code() as i8)],
        _ => (0..shape.out_channels).map(|_| i32::from(r.code() as i8)).collect(),
    };
    let rule = rule(case, &mut r);
    let bytes: Vec<u8> = (0..shape.batch * shape.image_len()).map(|_| r.code()).collect();
    let signed: Vec<i8> = bytes.iter().map(|&b| b as i8).collect();
    let (input, codes) =
        if case.signed { (Input::I8(&signed), CodeType::I8) } else { (Input::U8(&bytes), CodeType::U8) };
    let zero_point = if case.signed { i32::from(r.code() as i8) } else { i32::from(r.code()) };
    let layer = Layer::new(LayerParts {
        shape,
        input: codes,
        input_zero_point: zero_point,
        weight: &weight,
        weight_zero_point: &weight_zero_point,
        rule: &rule,
    })
    .unwrap();
    let all = layer.region(shape.batch).unwrap();
    let rows = (r.next() as usize % all.rows.end, r.next() as usize % all.rows.end);
    let channels = (r.next() as usize % all.channels.end, r.next() as usize % all.channels.end);
    let part = Region {
        rows: rows.0.min(rows.1)..rows.0.max(rows.1) + 1,
        channels: channels.0.min(channels.1)..channels.0.max(channels.1) + 1,
    };
    for region in [&all, &part] {
        let added = Added::over(&rule, region, shape.out_channels);
        let want = outputs(&rule, region.len(), |y| layer.run_adding(region, input, added.view(), y).unwrap());
        for isa in Isa::available() {
            let plan = Plan::new(&layer, isa).unwrap();
            let mut scratch = vec![POISON; plan.scratch_len() + 1];
            // Scratch may begin anywhere.
            let got = outputs(&rule, region.len(), |y| {
                plan.run_adding(region, input, added.view(), y, &mut scratch[1..]).unwrap();
            });
            if got != want {
                let at = got.iter().zip(&want).position(|(a, b)| a != b).unwrap();
                eprintln!("{isa} {} {region:?}: byte {at} is {} instead of {}", plan.kernel(), got[at], want[at]);
                return false;
            }
        }
    }
    true
}

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
/// smaller than the window, lines in several bands, signed and unsigned codes under every rule.
#[test]
fn direct_kernels_equal_the_reference() {
    for (seed, shape) in [
        "conv n2ic64oc64g64ih9iw12kh5ph2pw2sh2",
        "conv ic144oc144g144ih12iw23kh5ph2:1pw2:1sh2",
        "conv n2ic112oc112g112ih1iw2kh5ph4pw3sh2",
        "conv ic70oc70g70ih2iw1kh5ph9pw11:6sh2",
        "conv ic100oc100g100ih7iw40kh5ph0pw0sh2",
        "conv n2ic5oc5g5ih31iw9kh5ph2pw5sh2",
        "conv ic32oc32g32ih31iw61kh5ph2pw2sh2",
        "conv ic176oc176g176ih40iw25kh5ph2pw2sh2",
        "conv ic144oc144g144ih7iw23kh3ph1pw1",
        "conv ic112oc112g112ih8iw24kh3ph1:0pw1:0sh2",
        "conv n2ic5oc5g5ih2iw1kh3ph4pw7",
    ]
    .into_iter()
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
