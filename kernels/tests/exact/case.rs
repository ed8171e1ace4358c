//! Layers drawn at random, and how they are compared.

use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, RealOutput, Rounding,
    Sum, ZeroPoint,
};
use qexact_reference::{Addend, Axis, CodeType, Conv, Input, Layer, Output, Region, Rule};
use quickcheck::{Arbitrary, Gen};

/// One bit pattern a case: everything else is derived from it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) shape: Conv,
    pub(crate) signed: bool,
    pub(crate) rule: usize,
    pub(crate) weight_zero_points: usize,
    pub(crate) seed: u64,
}

/// Any of a range.
pub(crate) fn pick(g: &mut Gen, range: std::ops::RangeInclusive<usize>) -> usize {
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
pub(crate) fn outputs(rule: &Rule, len: usize, f: impl FnOnce(Output<'_>)) -> Vec<u8> {
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

/// Whether every instruction set computes what the reference does, as a whole and in part.
pub(crate) fn agrees(case: &Case) -> bool {
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
