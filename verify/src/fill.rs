//! Data and parameters of a case, all of them a function of its line.
//!
//! Weights, input and zero points come first. The numbers of a rule are then fitted to the accumulators, so that
//! outputs spread over the whole range of codes: where most outputs are saturated, wrong ones hide.

use crate::case::{BiasForm, Case, Clamp, F32MulForm, F32OutForm, Kind, OtherForm, RuleForm, ZeroPoints};
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Pow2, Q31Double, Q31Single, RealOutput, Sum,
};
use qexact_reference::{CodeType, Error, NarrowType, Rule};

/// The kind of data that a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Codes uniform over their range.
    Full,
    /// Only the ends of the range and zero points.
    Extremes,
    /// A cycle of prime length, so that blocks that change places show.
    Cycle,
    /// Small codes, powers of two and whole biases: many accumulators scale to half a code more than a whole one.
    Ties,
    /// Multipliers and biases that are huge, tiny, infinite or NaN.
    Overflow,
    /// Weights whose products just fit 16 bits in pairs, or in sums of several pairs, and in half of all cases one that
    /// just does not; codes at the ends of their range, or in half of all cases any.
    Pairs,
}

/// What different numbers of a case are drawn from, so that they do not depend on each other.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Input,
    Weight,
    ZeroPoints,
    Rule,
    Regions,
}

/// A generator of numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn of(case: &Case, stream: Stream) -> Random {
        let mut seed = Random(case.seed ^ (stream as u64) << 56);
        Random(seed.bits())
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// A number in `lo..=hi`.
    pub(crate) fn between(&mut self, lo: i32, hi: i32) -> i32 {
        lo + self.below((hi - lo) as usize + 1) as i32
    }

    /// Any of some.
    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Uniform in `lo..hi`.
    pub(crate) fn real(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * ((self.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// One code of a fill from `lo..=hi`; `at` counts codes.
fn code(r: &mut Random, fill: Fill, [lo, hi]: [i32; 2], zero_point: i32, at: usize) -> i32 {
    match fill {
        Fill::Full | Fill::Overflow => r.between(lo, hi),
        Fill::Extremes => r.choose(&[lo, hi, zero_point]),
        Fill::Pairs => r.choose(&[lo, hi, hi]),
        Fill::Cycle => lo + (at % 251) as i32 % (hi - lo + 1),
        Fill::Ties => (zero_point + r.between(-1, 2)).clamp(lo, hi),
    }
}

/// The smallest and the largest code of the weights.
fn weight_range(case: &Case) -> [i32; 2] {
    case.weight.map_or([-128, 127], |codes| [codes.lo().into(), codes.hi().into()])
}

/// The input's codes, as bytes.
pub fn input(case: &Case) -> Vec<u8> {
    let mut r = Random::of(case, Stream::Input);
    let start = r.below(251);
    let fill = if case.fill == Fill::Pairs && r.once_in(2) { Fill::Full } else { case.fill };
    (0..case.shape.batch * case.shape.image_len())
        .map(|at| code(&mut r, fill, [case.input.lo(), case.input.hi()], case.input_zero_point, start + at) as u8)
        .collect()
}

/// The weights' zero points: one, or one an output channel.
pub fn weight_zero_points(case: &Case) -> Vec<i32> {
    let mut r = Random::of(case, Stream::ZeroPoints);
    let [lo, hi] = weight_range(case);
    let mut zero_point = || if r.once_in(2) { r.choose(&[lo, hi]) } else { r.between(lo, hi) };
    match case.weight_zero_points {
        ZeroPoints::Zero => vec![0],
        ZeroPoints::One => vec![zero_point()],
        ZeroPoints::PerChannel => (0..case.shape.out_channels).map(|_| zero_point()).collect(),
    }
}

/// The weights, OHWI.
pub fn weight(case: &Case, zero_points: &[i32]) -> Vec<i8> {
    let mut r = Random::of(case, Stream::Weight);
    if case.fill == Fill::Pairs && case.weight.is_none() {
        return pairs(&mut r, case.shape.weight_len(), case.shape.depth());
    }
    let (start, depth) = (r.below(251), case.shape.depth());
    let zero_point = |at: usize| zero_points[if zero_points.len() == 1 { 0 } else { at / depth }];
    (0..case.shape.weight_len())
        .map(|at| match code(&mut r, case.fill, weight_range(case), zero_point(at), start + at) as i8 {
            0 if case.weight == Some(NarrowType::Binary) => 1,
            code => code,
        })
        .collect()
}

/// Weights in pairs along each output's row, the sums of which are ±128, that of as many as 255 allows in 16 bits, or
/// ±128 divided by the number of pairs that are added. Sometimes one is a single step further from 0.
fn pairs(r: &mut Random, len: usize, depth: usize) -> Vec<i8> {
    let most = r.choose(&[128, 128, 64, 32, 16]);
    let mut weight = Vec::with_capacity(len);
    for at in 0..len {
        // The second of a pair is what the first leaves.
        let second = at % depth % 2 == 1;
        let first = if second { i32::from(weight[at - 1]) } else { 0 };
        let w = match (second, first.signum()) {
            (true, 0) => r.choose(&[-most, most.min(127)]),
            (true, sign) if r.once_in(8) => -sign * most.min(127),
            (true, sign) => sign * (most - first.abs()),
            (false, _) => r.choose(&[-most, 1 - most, -most / 2, -1, 0, 1, most / 2, most - 1]),
        };
        weight.push(w.clamp(-128, 127) as i8);
    }
    let beyond = r.below(len);
    if r.once_in(2) {
        weight[beyond] = weight[beyond].saturating_add(if weight[beyond] < 0 { -1 } else { 1 });
    }
    weight
}

/// The rule, fitted to the case's accumulators.
///
/// # Errors
/// A clamp range that is not of the output's codes.
pub fn rule(case: &Case, accumulators: &[i32]) -> Result<Rule, Error> {
    let fit = Fit { fill: case.fill, spread: Spread::of(accumulators, case.shape.out_channels) };
    let mut r = Random::of(case, Stream::Rule);
    match case.rule {
        RuleForm::F32Mul(form) => fit.f32_mul(&mut r, form).map(Rule::F32Mul),
        RuleForm::F32Out(form) => Ok(Rule::F32Out(fit.f32_out(&mut r, form))),
        RuleForm::Other(form) => fit.other(&mut r, form),
        RuleForm::Accumulator => Ok(Rule::Accumulator),
    }
}

/// How accumulators lie: of all of them and of each channel, the mean, the deviation from it, and that from 0.
struct Spread {
    all: [f64; 3],
    channels: Vec<[f64; 3]>,
}

/// With fewer rows a channel has no spread to speak of.
const ENOUGH_ROWS: usize = 8;

impl Spread {
    fn of(accumulators: &[i32], channels: usize) -> Spread {
        let all = moments(accumulators.iter());
        let of_channel = |c| moments(accumulators.iter().skip(c).step_by(channels));
        let enough = accumulators.len() / channels >= ENOUGH_ROWS;
        let channels = (0..channels).map(|c| if enough { of_channel(c) } else { all }).collect();
        Spread { all, channels }
    }
}

fn moments<'a>(values: impl Iterator<Item = &'a i32>) -> [f64; 3] {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for &value in values {
        let value = f64::from(value);
        (n, sum, squares) = (n + 1.0, sum + value, squares + value * value);
    }
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    // Where nothing spreads, one code is as good a scale as another.
    [mean, variance.sqrt().max(1.0), (squares / n).sqrt().max(1.0)]
}

/// The deviation that outputs should have.
fn target(clamp: Clamp, output: CodeType) -> f64 {
    let (lo, hi) = clamp.range(output);
    f64::from(hi - lo + 1) / 4.0
}

/// Finds the numbers of a rule.
struct Fit {
    fill: Fill,
    spread: Spread,
}

impl Fit {
    /// One moment for all channels, or one each.
    fn over(&self, per_channel: bool) -> &[[f64; 3]] {
        if per_channel { &self.spread.channels } else { std::slice::from_ref(&self.spread.all) }
    }

    /// The codes of an output: a zero point that leaves room above it, any other, or one at an end.
    fn codes(r: &mut Random, output: CodeType, clamp: Clamp) -> Result<Codes, Error> {
        let (lo, hi) = clamp.range(output);
        let zero_point = match clamp {
            Clamp::Relu => r.between(lo, hi - (hi - lo) / 4),
            _ if r.once_in(4) => r.choose(&[lo, hi]),
            _ => r.between(lo, hi),
        };
        let codes = Codes::new(zero_point, output)?;
        match clamp {
            Clamp::Full => Ok(codes),
            Clamp::Relu => Ok(codes.relu()),
            Clamp::Range(lo, hi) => codes.clamped(lo, hi),
        }
    }

    fn f32_mul(&self, r: &mut Random, form: F32MulForm) -> Result<F32Mul, Error> {
        let codes = Fit::codes(r, form.output, form.clamp)?;
        let multiplier =
            self.multipliers(r, form.per_channel, form.bias != BiasForm::None, target(form.clamp, form.output));
        let bias = self.bias(r, form);
        let [lo, hi] = codes.range();
        F32Mul::new(multiplier, bias, codes.zero_point(), form.output)?.overflow(form.overflow).clamped(lo, hi)
    }

    fn other(&self, r: &mut Random, form: OtherForm) -> Result<Rule, Error> {
        let codes = Fit::codes(r, form.output, form.clamp)?;
        let multiplier = self.multipliers(r, form.per_channel, form.bias, target(form.clamp, form.output));
        let biases = if form.bias { self.biases(r, form.per_channel) } else { Vec::new() };
        let bias = biases.iter().map(|&b| b.round() as i32).collect();
        // What no fixed-point number is, infinities and NaN among it, is 0.
        let fixed = || multiplier.iter().map(|m| FixedPoint::nearest(m.abs().into()).unwrap_or(FixedPoint::ZERO));
        Ok(match form.kind {
            Kind::F32Real => {
                let step = r.real(0.5, 2.0) as f32;
                let scale: Vec<f32> = multiplier.iter().map(|m| m * step).collect();
                let real = |(c, b): (usize, &f64)| (b * f64::from(scale[c % scale.len()])) as f32;
                Rule::F32Real(F32Real {
                    bias: biases.iter().enumerate().map(real).collect(),
                    scale,
                    sum: Sum::None,
                    clip: if form.clamp == Clamp::Relu { F32Real::RELU } else { None },
                    output: RealOutput::Codes { multiplier: 1.0 / step, codes },
                })
            }
            Kind::Q31Double(last) => Rule::Q31Double(Q31Double { multiplier: fixed().collect(), bias, last, codes }),
            Kind::Q31Single => Rule::Q31Single(Q31Single { multiplier: fixed().collect(), bias, codes }),
            Kind::F64(rounding, zero_point) => {
                let multiplier = multiplier.into_iter().map(f64::from).collect();
                Rule::F64(F64 { multiplier, bias, rounding, zero_point, codes })
            }
            Kind::Pow2(rounding) => {
                // Casts saturate, and take a NaN to 0.
                let shift = multiplier.iter().map(|m| (-m.abs().log2().round() as i32).clamp(-31, 62)).collect();
                Rule::Pow2(Pow2 { shift, bias, rounding, codes })
            }
        })
    }

    fn f32_out(&self, r: &mut Random, form: F32OutForm) -> F32Out {
        let scale = self.multipliers(r, form.per_channel, form.bias, 5.0);
        let scaled = |(c, b): (usize, f64)| (b * f64::from(scale[c % scale.len()])) as f32;
        let bias = if form.bias {
            self.biases(r, form.per_channel).into_iter().enumerate().map(scaled).collect()
        } else {
            Vec::new()
        };
        F32Out { scale, bias, fused: form.fused, relu: form.relu }
    }

    /// Factors that take the deviation (from the bias, or from 0) to about `target`.
    fn multipliers(&self, r: &mut Random, per_channel: bool, centred: bool, target: f64) -> Vec<f32> {
        // Sometimes it is the bias alone that makes products overflow.
        let overflow = self.fill == Fill::Overflow && !(centred && r.once_in(3));
        let factor = |&[mean, deviation, from_zero]: &[f64; 3]| {
            // Accumulators that lie all on one side of 0 go where a ReLU lets them live.
            let one_sided = !centred && mean.abs() > deviation;
            let negative = if one_sided { mean < 0.0 } else { r.once_in(8) };
            let sign = if negative { -1.0 } else { 1.0 };
            let deviation = if centred { deviation } else { from_zero };
            // About where products stop fitting an int32.
            let limit = if one_sided { mean.abs() } else { deviation * r.real(1.0, 3.0) };
            let fitted = r.real(0.5, 1.5) * target / deviation;
            match self.fill {
                Fill::Ties => (sign * power_of_two(fitted).min(0.5)) as f32,
                Fill::Overflow if overflow && per_channel && r.once_in(2) => r.choose(&PECULIAR),
                Fill::Overflow if overflow && (!per_channel || r.once_in(2)) => (sign * 2147483648.0 / limit) as f32,
                _ => (sign * fitted) as f32,
            }
        };
        self.over(per_channel).iter().map(factor).collect()
    }

    /// Numbers that move accumulators to about 0, one a channel or, where channels are scaled alike, sometimes one.
    fn biases(&self, r: &mut Random, per_channel: bool) -> Vec<f64> {
        let per_channel = per_channel || self.fill == Fill::Overflow || !r.once_in(2);
        let bias = |[mean, deviation, _]: &[f64; 3]| {
            let bias = r.real(-0.5, 0.5) * deviation - mean;
            match self.fill {
                Fill::Ties => bias.round(),
                Fill::Overflow if r.once_in(4) => f64::from(r.choose(&PECULIAR)),
                _ => bias,
            }
        };
        self.over(per_channel).iter().map(bias).collect()
    }

    fn bias(&self, r: &mut Random, form: F32MulForm) -> Bias {
        let biases = self.biases(r, form.per_channel);
        match form.bias {
            BiasForm::None => Bias::None,
            // What does not fit an int32 becomes one of its ends.
            BiasForm::I32 => Bias::I32(biases.iter().map(|&b| b.round() as i32).collect()),
            BiasForm::Addend => Bias::Addend(biases.iter().map(|&b| b as f32).collect()),
            BiasForm::Fused => {
                let each = r.once_in(2);
                let factor = |_| match self.fill {
                    Fill::Ties => r.choose(&[1.0, BESIDE_ONE]),
                    _ => r.real(200.0, 2000.0) as f32,
                };
                let reciprocal: Vec<f32> = self.over(each).iter().map(factor).collect();
                let unscaled = |(c, b): (usize, &f64)| (b / f64::from(reciprocal[c % reciprocal.len()])) as f32;
                Bias::Fused { bias: biases.iter().enumerate().map(unscaled).collect(), reciprocal }
            }
        }
    }
}

/// The largest power of two that is not larger: the number without its fraction bits.
fn power_of_two(v: f64) -> f64 {
    f64::from_bits(v.to_bits() & 0x7ff << 52)
}

/// A whole number divided by it, times it, lies beside the whole number and rounds to it: in a fused sum a
/// tie is none.
const BESIDE_ONE: f32 = 1.0 - 1.0 / 8192.0;

/// Numbers that are seldom met.
const PECULIAR: [f32; 10] =
    [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-40, 0.0, -0.0, 2147483648.0];
