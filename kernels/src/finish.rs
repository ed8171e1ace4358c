//! From accumulators to outputs in a step of its own, for rules that no kernel has built in: the parameters of a
//! rule, one element an output channel, and where a piece of work lies.
//!
//! The vector form of each rule performs the operations of the scalar rule in their order, with these differences,
//! none of which can change a bit:
//!
//! * An absent bias is −0.0 where real numbers are added, and x + −0.0 is x for every x.
//! * `clamp(steps + z, lo, hi)` is `clamp(steps, lo − z, hi − z) + z`, which needs no bit more than an int32.
//! * A shift to the right by s ≤ 31 is rounded without a wider sum: with `rest` the s bits shifted out, the floor
//!   grows by one where `rest > (2^s − 1) / 2` (ties up), `+ 1` for a negative number (ties away from zero) or an
//!   even floor (ties to even).
//! * R16: from a real number to its code, with a positive multiplier, no step decreases. A clip to least and most is then
//!   one to their codes, afterwards; a NaN becomes the code of least either way.
//! * R17's first rounding: |a · mantissa| < 2⁶², so that the rounded high half h fits an int32. 2⁵² + 2³¹ + a is an f64 whose
//!   low half is a with its sign bit flipped. On a [`Line`], rounded downwards, it becomes 3·2⁵¹ + h: between 2⁵² and
//!   2⁵³ f64 numbers are integers. The low half of that is h.
//! * R17's second rounding, of h / 2^s with s ≥ 1, ties up: `((h >> (s − 1)) + 1) >> 1`. Ties go away from zero if a
//!   negative h is less by one before; where a < 0 and h = 0, that changes nothing.
//! * R18 shifts by one bit less, clamps to `2·(lo − z) ..= 2·(hi − z)` and then rounds away the last bit:
//!   `(p + 2^(s−1)) >> s` is `((p >> (s−1)) + 1) >> 1`.
//! * R20: shifts to the left by more than 8 saturate whatever is not 0, as one by 8 does (steps lie in −255..=255);
//!   what is clamped to ±2²¹ first saturates as before, and fits. Shifts to the right by 32 or more leave 0, but
//!   for the tie −2³¹ / 2³² away from zero, for which there is no vector form.

use crate::IsaName;
use crate::epilogue::{ColumnSums, Epilogue, Store, one_or, store_for};
use crate::gather::View;
use alloc::vec::Vec;
use qexact_reference::float::{clamp, cvt};
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Real, F64, FixedPoint, Pow2, Q31Double, Q31Single, RealOutput, Rounding, Sum, ZeroPoint,
};
use qexact_reference::{Addend, CodeType, Rule};

/// The largest number below one half. With it and the sign of r, ties of |r| ≤ 255 go away from zero:
/// `trunc(f64(r ± BELOW_HALF))`. Let n be ⌊|r|⌋ and u the distance of f64 numbers about n + 1/2. From n + 1/2 on, the
/// sum is n + 1 − 2⁻⁵⁴ at least, which rounds to n + 1 (for n = 0 a tie, to even). Below, |r| is at most n + 1/2 − u,
/// and the sum rounds to n + 1 − u at most.
pub(crate) const BELOW_HALF: f64 = 0.5 - 1.0 / 18014398509481984.0;

/// Parameters reach this many elements beyond the last channel.
const BEYOND: usize = 32;

/// Rows of accumulators and where their outputs go.
pub(crate) struct Piece<'a> {
    /// The first row's accumulators, in order of channels.
    pub accumulators: *const i32,
    /// Elements from one row of them to the next.
    pub accumulator_stride: usize,
    pub rows: usize,
    /// The first output channel.
    pub first: usize,
    /// How many; at least 1.
    pub channels: usize,
    /// The tensor to add …
    pub addend: Addend<'a>,
    /// … and in it the element of the first output.
    pub addend_first: usize,
    /// The first output.
    pub output: *mut u8,
    /// Elements from one row of outputs (and of the addend) to the next.
    pub stride: usize,
}

/// The vector form of a rule on one instruction set.
///
/// # Safety
/// * The CPU has the instruction set.
/// * The parameters are for more channels than the piece reaches to.
/// * `rows` rows of `channels` elements are readable at `accumulators` and in the addend, writable at `output`.
/// * The output's elements, and the addend's, are those of the rule.
pub(crate) type StepFn = unsafe fn(&Step, &Piece<'_>);

/// The parameters of a rule.
pub(crate) enum Step {
    /// A rule that kernels have built in, by the code that they have.
    Fused(Epilogue, Store),
    /// R6, clamped before it is rounded.
    ClampFirst(ClampFirst),
    /// R16.
    Real(Real),
    /// R17.
    Double(Double),
    /// R18.
    Single(Single),
    /// R19.
    Product(Product),
    /// R20.
    Shift(Shift),
}

/// Codes as steps from the zero point.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub least: i32,
    pub most: i32,
    pub zero_point: i32,
}

impl Steps {
    fn of([lo, hi]: [i32; 2], zero_point: i32) -> Steps {
        Steps { least: lo - zero_point, most: hi - zero_point, zero_point }
    }

    fn of_codes(codes: Codes) -> Steps {
        Steps::of(codes.range(), codes.zero_point())
    }
}

pub(crate) struct ClampFirst {
    pub initial: Vec<i32>,
    pub bias: Vec<f32>,
    pub reciprocal: Vec<f32>,
    pub multiplier: Vec<f32>,
    pub steps: Steps,
}

pub(crate) struct Real {
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
    pub sum: Sum,
    /// Unless the range of `steps` does it.
    pub clip: Option<[f32; 2]>,
    pub output: RealOutput,
    /// Codes: of real numbers.
    pub multiplier: f32,
    /// Codes: added before rounding …
    pub zero_point: f32,
    /// … and what follows.
    pub steps: Steps,
    /// Whether no accumulator leads to a number outside the int32 range (or to NaN).
    pub fits: bool,
}

pub(crate) struct Double {
    pub initial: Vec<i32>,
    pub left: Vec<i32>,
    pub mantissa: Vec<i32>,
    pub right: Vec<i32>,
    /// Whether any shift to the left is not 0.
    pub shifts_left: bool,
    /// Whether all shifts are to the right, by 1 at least, and no mantissa is 0 …
    pub shifts_right: bool,
    /// … and for that case the slopes of [`Line`]s …
    pub slope: Vec<f64>,
    /// … and the offsets.
    pub offset: Vec<f64>,
    pub last: Rounding,
    pub steps: Steps,
}

pub(crate) struct Single {
    pub initial: Vec<i32>,
    pub mantissa: Vec<i32>,
    /// One less than the shift of R18.
    pub right: Vec<i32>,
    pub steps: Steps,
}

pub(crate) struct Product {
    pub initial: Vec<i32>,
    pub multiplier: Vec<f64>,
    pub rounding: Rounding,
    /// Added before the product is clamped and rounded …
    pub before: f64,
    /// … and after.
    pub steps: Steps,
}

pub(crate) struct Shift {
    pub initial: Vec<i32>,
    /// Sums are clamped to `lowest..=highest` and shifted left, unless all shifts are to the right by 31 at most.
    pub clamps: bool,
    pub lowest: Vec<i32>,
    pub highest: Vec<i32>,
    pub left: Vec<i32>,
    pub right: Vec<i32>,
    pub rounding: Rounding,
    pub steps: Steps,
}

/// A parameter for every channel, and beyond.
fn spread<T: Copy + Default>(channels: usize, of: impl Fn(usize) -> T) -> Vec<T> {
    (0..channels).map(of).chain(core::iter::repeat_n(T::default(), BEYOND)).collect()
}

/// An int32 bias, 0 where there is none.
fn initial(bias: &[i32], channels: usize) -> Vec<i32> {
    spread(channels, |c| if bias.is_empty() { 0 } else { one_or(bias, c) })
}

impl Step {
    /// The vector form of a rule, if it has one.
    pub(crate) fn new(rule: &Rule, channels: usize) -> Option<Step> {
        // Of the accumulators nothing is known.
        if let Some(store) = store_for(rule, channels, i64::MAX) {
            let order = spread(channels, Some);
            let epilogue = Epilogue::new(&order, &[View::WHOLE], CodeType::U8, 0, &ColumnSums::none(channels), rule);
            return Some(Step::Fused(epilogue, store));
        }
        match rule {
            Rule::F32Mul(rule) => Some(Step::ClampFirst(ClampFirst::new(rule, channels))),
            Rule::F32Real(rule) => {
                let real = Real::new(rule, channels);
                let clips_first = real.clip.is_some() && matches!(real.output, RealOutput::Codes { .. });
                (!clips_first).then_some(Step::Real(real))
            }
            Rule::Q31Double(rule) => Some(Step::Double(Double::new(rule, channels))),
            Rule::Q31Single(rule) => Some(Step::Single(Single::new(rule, channels))),
            Rule::F64(rule) => Some(Step::Product(Product::new(rule, channels))),
            Rule::Pow2(rule) => Shift::new(rule, channels).map(Step::Shift),
            _ => None,
        }
    }
}

impl ClampFirst {
    fn new(rule: &F32Mul, channels: usize) -> ClampFirst {
        let (none, one) = ([-0.0], [1.0]);
        let (integers, bias, reciprocal) = match rule.bias() {
            Bias::None => (&[][..], &none[..], &one[..]),
            Bias::I32(bias) => (&bias[..], &none[..], &one[..]),
            Bias::Addend(addend) => (&[][..], &addend[..], &one[..]),
            Bias::Fused { bias, reciprocal } => (&[][..], &bias[..], &reciprocal[..]),
        };
        ClampFirst {
            initial: initial(integers, channels),
            bias: spread(channels, |c| one_or(bias, c)),
            reciprocal: spread(channels, |c| one_or(reciprocal, c)),
            multiplier: spread(channels, |c| rule.multiplier(c)),
            steps: Steps::of(rule.clamp(), rule.zero_point()),
        }
    }
}

impl Real {
    pub(crate) fn new(rule: &F32Real, channels: usize) -> Real {
        let (multiplier, zero_point, mut range) = match rule.output {
            RealOutput::Reals => (1.0, 0.0, [0; 2]),
            RealOutput::Codes { multiplier, codes } => (multiplier, codes.zero_point() as f32, codes.range()),
        };
        let code = |v: f32, [lo, hi]: [i32; 2]| cvt(clamp(v * multiplier + zero_point, lo as f32, hi as f32));
        let mut clip = rule.clip;
        if let (RealOutput::Codes { .. }, Some([least, most])) = (rule.output, rule.clip)
            && (0.0 < multiplier && multiplier < f32::INFINITY && least <= most)
        {
            (range, clip) = ([code(least, range), code(most, range)], None);
        }
        Real {
            scale: spread(channels, |c| one_or(&rule.scale, c)),
            bias: spread(channels, |c| if rule.bias.is_empty() { -0.0 } else { one_or(&rule.bias, c) }),
            sum: rule.sum,
            clip,
            output: rule.output,
            multiplier,
            zero_point,
            steps: Steps::of(range, 0),
            fits: clip.is_none() && (0..channels).all(|c| Real::fits_i32(rule, c, multiplier)),
        }
    }

    /// Whether codes are made of accumulators alone, and none needs care.
    pub(crate) fn is_plain(&self) -> bool {
        self.fits && matches!((self.sum, self.output), (Sum::None, RealOutput::Codes { .. }))
    }

    /// Whether no accumulator scales to a code near the ends of the int32 range (or to NaN).
    fn fits_i32(rule: &F32Real, channel: usize, multiplier: f32) -> bool {
        let summed = match rule.sum {
            Sum::None => 0.0,
            Sum::Codes { scale, .. } => 255.0 * f64::from(scale.abs()),
            Sum::Reals => return false,
        };
        let scaled = 2147483648.0 * f64::from(one_or(&rule.scale, channel).abs());
        let bias = if rule.bias.is_empty() { 0.0 } else { f64::from(one_or(&rule.bias, channel).abs()) };
        let real = scaled + bias + summed;
        // A few f32 roundings grow a number by less than one part in 2^20.
        let limit = 1.0 - 1.0 / 1048576.0;
        real < f64::from(f32::MAX) * limit && real * f64::from(multiplier.abs()) + 255.0 < 2147483648.0 * limit
    }
}

/// R17's first rounding in f64: `slope · (2⁵² + 2³¹ + a) + offset` is `3·2⁵¹ + ½ + a · mantissa / 2³¹`.
pub(crate) struct Line {
    pub slope: f64,
    pub offset: f64,
}

impl Line {
    /// Of a multiplier that is not 0. Its mantissa is 2³⁰ at least, so that all of this is exact: `from · slope` is an integer
    /// up to 2⁵² + 2³¹, and what it leaves of 3·2⁵¹ is below 2⁵², where f64 numbers have halves.
    pub(crate) fn of(multiplier: FixedPoint) -> Line {
        let (from, to) = (4503601774854144.0, 6755399441055744.0);
        let slope = f64::from(multiplier.mantissa) / 2147483648.0;
        Line { slope, offset: to - from * slope + 0.5 }
    }
}

impl Double {
    pub(crate) fn new(rule: &Q31Double, channels: usize) -> Double {
        let exponent = |c| one_or(&rule.multiplier, c).exponent;
        Double {
            initial: initial(&rule.bias, channels),
            left: spread(channels, |c| exponent(c).max(0)),
            mantissa: spread(channels, |c| one_or(&rule.multiplier, c).mantissa),
            right: spread(channels, |c| (-exponent(c)).max(0)),
            shifts_left: rule.multiplier.iter().any(|m| m.exponent > 0),
            shifts_right: rule.multiplier.iter().all(|m| m.exponent < 0 && m.mantissa != 0),
            slope: spread(channels, |c| Line::of(one_or(&rule.multiplier, c)).slope),
            offset: spread(channels, |c| Line::of(one_or(&rule.multiplier, c)).offset),
            last: rule.last,
            steps: Steps::of_codes(rule.codes),
        }
    }
}

impl Single {
    fn new(rule: &Q31Single, channels: usize) -> Single {
        Single {
            initial: initial(&rule.bias, channels),
            mantissa: spread(channels, |c| one_or(&rule.multiplier, c).mantissa),
            right: spread(channels, |c| 30 - one_or(&rule.multiplier, c).exponent),
            steps: Steps::of_codes(rule.codes),
        }
    }
}

impl Product {
    fn new(rule: &F64, channels: usize) -> Product {
        let zero_point = rule.codes.zero_point();
        let (before, after) = match rule.zero_point {
            ZeroPoint::BeforeRounding => (zero_point.into(), 0),
            ZeroPoint::AfterRounding => (-0.0, zero_point),
        };
        Product {
            initial: initial(&rule.bias, channels),
            multiplier: spread(channels, |c| one_or(&rule.multiplier, c)),
            rounding: rule.rounding,
            before,
            steps: Steps::of(rule.codes.range(), after),
        }
    }
}

impl Shift {
    fn new(rule: &Pow2, channels: usize) -> Option<Shift> {
        if rule.rounding == Rounding::Away && rule.shift.contains(&32) {
            return None;
        }
        // Lowest, highest, shift to the left, shift to the right.
        let form = |c| match one_or(&rule.shift, c) {
            left @ ..0 => [-(1 << 21), 1 << 21, (-left).min(8), 0],
            right @ 0..32 => [i32::MIN, i32::MAX, 0, right],
            _ => [0, 0, 0, 31],
        };
        Some(Shift {
            initial: initial(&rule.bias, channels),
            clamps: rule.shift.iter().any(|shift| !(0..32).contains(shift)),
            lowest: spread(channels, |c| form(c)[0]),
            highest: spread(channels, |c| form(c)[1]),
            left: spread(channels, |c| form(c)[2]),
            right: spread(channels, |c| form(c)[3]),
            rounding: rule.rounding,
            steps: Steps::of_codes(rule.codes),
        })
    }
}

/// A rule made ready for an instruction set.
pub(crate) enum Finish {
    /// One output after the other: the reference, and rules that have no vector form.
    Scalar(Rule),
    /// Vectors.
    Vector(StepFn, Step),
}

impl Finish {
    pub(crate) fn new(rule: &Rule, channels: usize, isa: IsaName) -> Finish {
        match (step_fn(isa), Step::new(rule, channels)) {
            (Some(function), Some(step)) => Finish::Vector(function, step),
            _ => Finish::Scalar(rule.clone()),
        }
    }

    /// Computes a piece.
    ///
    /// # Safety
    /// As [`StepFn`].
    pub(crate) unsafe fn run(&self, piece: &Piece<'_>) {
        match self {
            // SAFETY: passed on.
            Finish::Vector(function, step) => unsafe { function(step, piece) },
            // SAFETY: passed on.
            Finish::Scalar(rule) => unsafe { scalar(rule, piece) },
        }
    }
}

/// # Safety
/// As [`StepFn`].
unsafe fn scalar(rule: &Rule, piece: &Piece<'_>) {
    let codes = rule.codes().is_some();
    for row in 0..piece.rows {
        for channel in 0..piece.channels {
            let at = row * piece.stride + channel;
            // SAFETY: an accumulator and an output of the piece; an output has one byte (a code) or four.
            unsafe {
                let accumulator = *piece.accumulators.add(row * piece.accumulator_stride + channel);
                let addend = piece.addend.get(piece.addend_first + at);
                let bits = rule.apply(accumulator, piece.first + channel, addend).bits();
                if codes {
                    piece.output.add(at).write(bits as u8);
                } else {
                    piece.output.cast::<u32>().add(at).write(bits);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn step_fn(isa: IsaName) -> Option<StepFn> {
    match isa {
        IsaName::Reference => None,
        IsaName::Avx2 | IsaName::AvxVnni => Some(crate::x86_64::finish256::finish),
        IsaName::Avx512Vnni => Some(crate::x86_64::finish512::finish),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn step_fn(_: IsaName) -> Option<StepFn> {
    None
}
