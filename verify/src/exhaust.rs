//! Every accumulator there is: rules on their own, in vectors, against the scalar rule.
//!
//! What a set of parameters proves: for each of the 2³² accumulators, the scalar rule was computed and each
//! instruction set's output has the same bits (any two NaNs count as equal, see [`check`](crate::check)). Nothing is
//! skipped or inferred. The kernels' fused rules run through the code that is in the kernels. What it does not prove:
//! that every *lane* of a register gets every accumulator. Each gets it in one lane; sets differ in their number of
//! channels and therefore in which, and the lanes of a register perform one instruction.
//!
//! Parameters follow from the rule and the number of the set alone.

use crate::fill::Random;
use qexact_kernels::{Isa, Requantizer};
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, RealOutput, Rounding,
    Sum, ZeroPoint,
};
use qexact_reference::{Addend, CodeType, Error, Output, Rule};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The rules that vectors compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleName {
    /// R6 as kernels have it built in.
    F32Mul,
    /// R6, clamped before it is rounded.
    F32MulClampFirst,
    /// R9.
    F32Out,
    /// R16.
    F32Real,
    /// R17.
    Q31Double,
    /// R18.
    Q31Single,
    /// R19.
    F64,
    /// R20.
    Pow2,
}

impl RuleName {
    /// All of them.
    pub const ALL: [RuleName; 8] = [
        RuleName::F32Mul,
        RuleName::F32MulClampFirst,
        RuleName::F32Out,
        RuleName::F32Real,
        RuleName::Q31Double,
        RuleName::Q31Single,
        RuleName::F64,
        RuleName::Pow2,
    ];

    /// As written on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            RuleName::F32Mul => "f32_mul",
            RuleName::F32MulClampFirst => "f32_mul_clamp_first",
            RuleName::F32Out => "f32_out",
            RuleName::F32Real => "f32_real",
            RuleName::Q31Double => "q31_double",
            RuleName::Q31Single => "q31_single",
            RuleName::F64 => "f64",
            RuleName::Pow2 => "pow2",
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RuleName {
    type Err = String;

    fn from_str(text: &str) -> Result<RuleName, String> {
        RuleName::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            let names = RuleName::ALL.map(RuleName::as_str).join(", ");
            format!("unknown rule `{text}`, expected one of {names}")
        })
    }
}

/// The parameters of a set, one for all channels.
///
/// Successive sets turn output type, rounding, clamp and bias, so that 108 of them hold every combination of a rule's
/// switches; magnitudes cycle through the ordinary (outputs spread over the codes around 0, most with few bits, so that
/// there are ties), multipliers of 1 and more, those that leave nothing of most accumulators, subnormal ones and, where
/// a rule allows them, negative, infinite and NaN.
///
/// # Errors
/// None: every set is a valid rule.
pub fn parameters(name: RuleName, set: u64) -> Result<Rule, Error> {
    let mut r = Random::new(set.wrapping_mul(RuleName::ALL.len() as u64) + name as u64);
    let n = set as usize;
    // A digit turns every `below` sets.
    let digit = |below: usize, count: usize| n / below % count;
    let code_type = [CodeType::U8, CodeType::I8][digit(1, 2)];
    let rounding = [Rounding::Away, Rounding::Up, Rounding::Even][digit(2, 3)];
    let code = |r: &mut Random| match r.below(3) {
        0 => r.choose(&[code_type.lo(), code_type.hi()]),
        _ => r.between(code_type.lo(), code_type.hi()),
    };
    let codes = Codes::new(code(&mut r), code_type)?;
    let codes = match digit(6, 3) {
        0 => codes,
        1 => codes.relu(),
        _ => {
            let (a, b) = (code(&mut r), code(&mut r));
            codes.clamped(a.min(b), a.max(b))?
        }
    };
    let form = digit(18, 4);
    let mut numbers = Numbers { r, kind: (n + n / 7) % 8 };
    let integers = |numbers: &mut Numbers| vec![numbers.integer()];
    let maybe = |numbers: &mut Numbers| if form % 2 == 0 { vec![] } else { vec![numbers.integer()] };
    Ok(match name {
        RuleName::F32Mul | RuleName::F32MulClampFirst => {
            let multiplier = numbers.real();
            let bias = match form {
                0 => Bias::None,
                1 => Bias::I32(integers(&mut numbers)),
                2 => Bias::Addend(vec![numbers.bias()]),
                _ => {
                    let reciprocal = numbers.r.real(1.0, 2000.0) as f32;
                    Bias::Fused { bias: vec![numbers.bias() / reciprocal], reciprocal: vec![reciprocal] }
                }
            };
            let overflow = if name == RuleName::F32Mul { Overflow::Convert } else { Overflow::ClampFirst };
            let [lo, hi] = codes.range();
            let rule = F32Mul::new(vec![multiplier], bias, codes.zero_point(), code_type)?;
            Rule::F32Mul(rule.clamped(lo, hi)?.overflow(overflow))
        }
        RuleName::F32Out => {
            let bias = if form % 2 == 0 { vec![] } else { vec![numbers.bias()] };
            Rule::F32Out(F32Out { scale: vec![numbers.real()], bias, fused: digit(2, 2) == 0, relu: digit(4, 2) == 0 })
        }
        RuleName::F32Real => {
            let (scale, step) = (numbers.real(), numbers.r.real(0.25, 4.0) as f32);
            let addend = [CodeType::U8, CodeType::I8][digit(5, 2)];
            let zero_point = numbers.r.between(addend.lo(), addend.hi());
            let sum = match form {
                0 | 1 => Sum::None,
                2 => Sum::Codes { scale: numbers.r.real(0.1, 2.0) as f32, zero_point, codes: addend },
                _ => Sum::Reals,
            };
            let clip = [None, F32Real::RELU, Some([-3.5, 99.25])][digit(4, 3)];
            let bias = if n.is_multiple_of(5) { vec![] } else { vec![numbers.bias()] };
            let output = match n % 4 {
                3 => RealOutput::Reals,
                _ => RealOutput::Codes { multiplier: 1.0 / step, codes },
            };
            Rule::F32Real(F32Real { scale: vec![scale], bias, sum, clip, output })
        }
        RuleName::Q31Double => {
            let multiplier = vec![numbers.fixed()];
            Rule::Q31Double(Q31Double { multiplier, bias: maybe(&mut numbers), last: rounding, codes })
        }
        RuleName::Q31Single => {
            Rule::Q31Single(Q31Single { multiplier: vec![numbers.fixed()], bias: maybe(&mut numbers), codes })
        }
        RuleName::F64 => {
            let zero_point = [ZeroPoint::AfterRounding, ZeroPoint::BeforeRounding][form / 2];
            let multiplier = vec![numbers.real64()];
            Rule::F64(F64 { multiplier, bias: maybe(&mut numbers), rounding, zero_point, codes })
        }
        // All shifts there are, from the middle.
        RuleName::Pow2 => {
            let shift = vec![(n as i32 * 35 + 8 + 31) % 94 - 31];
            Rule::Pow2(Pow2 { shift, bias: maybe(&mut numbers), rounding, codes })
        }
    })
}

/// Draws the numbers of a set.
struct Numbers {
    r: Random,
    kind: usize,
}

impl Numbers {
    /// A multiplier with all bits of an f64.
    fn real64(&mut self) -> f64 {
        let r = &mut self.r;
        // 2⁻²⁴ to 2⁻¹: outputs leave the codes at about 2²⁴ times a few hundred, or at a few hundred.
        let exponent = -(1 + r.below(24) as i32);
        match self.kind {
            0..3 => r.real(1.0, 2.0) * 2f64.powi(exponent),
            // Few bits: ties.
            3 => (1 + r.below(15)) as f64 / 8.0 * 2f64.powi(exponent),
            4 => -r.real(1.0, 2.0) * 2f64.powi(exponent),
            5 => r.real(1.0, 4.0) * 2f64.powi(r.below(29) as i32),
            6 => r.real(1.0, 2.0) * 2f64.powi(-(25 + r.below(16) as i32)),
            _ => r.choose(&[1e-40, -1e-45, 5e-324, 0.0, -0.0, 1e38, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
        }
    }

    fn real(&mut self) -> f32 {
        self.real64() as f32
    }

    fn fixed(&mut self) -> FixedPoint {
        // What no fixed-point number is, is one of the extreme ones.
        let least = FixedPoint { mantissa: 1 << 30, exponent: -31 };
        let most = FixedPoint { mantissa: i32::MAX, exponent: 30 };
        let number = self.real64().abs();
        FixedPoint::nearest(number).unwrap_or_else(|_| self.r.choose(&[least, most, FixedPoint::ZERO]))
    }

    fn integer(&mut self) -> i32 {
        let any = self.r.bits() as i32;
        any >> self.r.below(24)
    }

    fn bias(&mut self) -> f32 {
        match self.kind {
            7 => self.r.choose(&[f32::INFINITY, f32::NAN, -0.0, 0.5]),
            3 => (self.r.below(2001) as f32 - 1000.0) / 2.0,
            _ => self.r.real(-1e4, 1e4) as f32,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// These rules.
    pub rules: Vec<RuleName>,
    /// These sets of each.
    pub sets: std::ops::Range<u64>,
    /// The first accumulator.
    pub from: i32,
    /// How many, unless there are fewer up to the largest.
    pub count: u64,
    /// How many threads share the accumulators.
    pub threads: usize,
    /// On these instruction sets.
    pub isas: Vec<Isa>,
}

/// How many accumulators there are.
pub const ALL: u64 = 1 << 32;

impl Options {
    /// Accumulators, counted from the smallest.
    fn range(&self) -> std::ops::Range<u64> {
        let start = (i64::from(self.from) - i64::from(i32::MIN)).unsigned_abs();
        start..start.saturating_add(self.count).min(ALL)
    }

    fn accumulators(&self) -> u64 {
        self.range().end - self.range().start
    }
}

/// What a rule's sets gave.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub rule: String,
    /// Sets computed.
    pub sets: u64,
    /// Of these, sets for which an instruction set has no vector form.
    pub scalar_sets: u64,
    /// Outputs compared on each instruction set.
    pub outputs: u64,
    /// The instruction sets and how many outputs differ on each.
    pub differences: Vec<(String, u64)>,
    /// The first difference of each set and instruction set, as the command that computes it again.
    pub failures: Vec<String>,
    /// Time taken.
    pub seconds: f64,
}

impl Outcome {
    /// Whether all outputs are equal.
    pub fn is_clean(&self) -> bool {
        self.differences.iter().all(|(_, count)| *count == 0)
    }
}

/// Runs the sets of all rules. `progress` is told the accumulators done and to be done, in all, and may be called by
/// any thread; `done` each rule's outcome.
///
/// # Errors
/// None for rules and sets of this module.
pub fn run(
    options: &Options,
    progress: impl Fn(u64, u64) + Sync,
    mut done: impl FnMut(&Outcome),
) -> Result<Vec<Outcome>, Error> {
    let sets = options.sets.end.saturating_sub(options.sets.start);
    let total = (options.rules.len() as u64).saturating_mul(sets).saturating_mul(options.accumulators());
    let finished = AtomicU64::new(0);
    let advance = |by: u64| {
        let before = finished.fetch_add(by, Ordering::Relaxed);
        progress(before + by, total);
    };
    let mut outcomes = Vec::new();
    for &name in &options.rules {
        let start = Instant::now();
        let mut outcome = Outcome {
            rule: name.to_string(),
            sets,
            scalar_sets: 0,
            outputs: sets * options.accumulators(),
            differences: options.isas.iter().map(|isa| (isa.to_string(), 0)).collect(),
            failures: Vec::new(),
            seconds: 0.0,
        };
        for set in options.sets.clone() {
            let sweep = Sweep::new(parameters(name, set)?, set, options)?;
            outcome.scalar_sets += u64::from(!sweep.is_vectorized());
            let found = sweep.run(options, &advance);
            for (at, (isa, found)) in options.isas.iter().zip(found).enumerate() {
                outcome.differences[at].1 += found.count;
                outcome.failures.extend(found.first.map(|difference| {
                    let Difference { accumulator, got, want } = difference;
                    format!(
                        "qexact exhaust --rule {name} --set {set} --isa {isa} --from {accumulator} --count 1   \
                         # got {got}, expected {want}: {:?}",
                        sweep.rule
                    )
                }));
            }
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        done(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Outputs of one type.
enum Outputs {
    U8(Vec<u8>),
    I8(Vec<i8>),
    F32(Vec<f32>),
}

impl Outputs {
    fn new(rule: &Rule, len: usize) -> Outputs {
        match rule.element_type() {
            "u8" => Outputs::U8(vec![0; len]),
            "i8" => Outputs::I8(vec![0; len]),
            _ => Outputs::F32(vec![0.0; len]),
        }
    }

    fn view(&mut self) -> Output<'_> {
        match self {
            Outputs::U8(y) => Output::U8(y),
            Outputs::I8(y) => Output::I8(y),
            Outputs::F32(y) => Output::F32(y),
        }
    }

    /// The scalar rule. (Written out for each type, so that it is inlined.)
    fn fill(&mut self, rule: &Rule, accumulators: &[i32], addend: Addend<'_>) {
        let inputs = accumulators.iter().enumerate();
        let bits = |(i, &accumulator): (usize, &i32)| rule.apply(accumulator, 0, addend.get(i)).bits();
        match self {
            Outputs::U8(y) => y.iter_mut().zip(inputs).for_each(|(y, input)| *y = bits(input) as u8),
            Outputs::I8(y) => y.iter_mut().zip(inputs).for_each(|(y, input)| *y = bits(input) as i8),
            Outputs::F32(y) => y.iter_mut().zip(inputs).for_each(|(y, input)| *y = f32::from_bits(bits(input))),
        }
    }

    /// Whether an output is the same, any two NaNs being so.
    fn equal(&self, other: &Outputs, at: usize) -> bool {
        match (self, other) {
            (Outputs::U8(a), Outputs::U8(b)) => a[at] == b[at],
            (Outputs::I8(a), Outputs::I8(b)) => a[at] == b[at],
            (Outputs::F32(a), Outputs::F32(b)) => {
                a[at].to_bits() == b[at].to_bits() || (a[at].is_nan() && b[at].is_nan())
            }
            _ => false,
        }
    }

    /// Whether all bits are the same.
    fn identical(&self, other: &Outputs) -> bool {
        match (self, other) {
            (Outputs::U8(a), Outputs::U8(b)) => a == b,
            (Outputs::I8(a), Outputs::I8(b)) => a == b,
            (Outputs::F32(a), Outputs::F32(b)) => {
                bytemuck::cast_slice::<f32, u32>(a) == bytemuck::cast_slice::<f32, u32>(b)
            }
            _ => false,
        }
    }

    fn text(&self, at: usize) -> String {
        match self {
            Outputs::U8(y) => y[at].to_string(),
            Outputs::I8(y) => y[at].to_string(),
            Outputs::F32(y) => format!("{:e} ({:#x})", y[at], y[at].to_bits()),
        }
    }
}

struct Difference {
    accumulator: i32,
    got: String,
    want: String,
}

/// What differs on one instruction set.
#[derive(Default)]
struct Found {
    count: u64,
    first: Option<Difference>,
}

/// Rows of a chunk: with their outputs they stay in the second-level cache.
const ROWS: usize = 256;

/// One set on all instruction sets.
struct Sweep {
    rule: Rule,
    channels: usize,
    requantizers: Vec<Requantizer>,
    addend_u8: Vec<u8>,
    addend_i8: Vec<i8>,
    addend_f32: Vec<f32>,
}

impl Sweep {
    fn new(rule: Rule, set: u64, options: &Options) -> Result<Sweep, Error> {
        // An odd number, so that rows end in parts of registers.
        let channels = 33 + 2 * (set as usize % 16);
        let requantizers = options.isas.iter().map(|&isa| Requantizer::new(&rule, channels, isa));
        let requantizers = requantizers.collect::<Result<Vec<_>, _>>()?;
        let mut r = Random::new(set);
        let addend_u8: Vec<u8> = (0..ROWS * channels).map(|_| r.bits() as u8).collect();
        let addend_i8 = addend_u8.iter().map(|&a| a as i8).collect();
        let addend_f32 = addend_u8.iter().map(|&a| f32::from(a) / 3.0 - 40.0).collect();
        Ok(Sweep { rule, channels, requantizers, addend_u8, addend_i8, addend_f32 })
    }

    fn is_vectorized(&self) -> bool {
        self.requantizers.iter().any(Requantizer::is_vectorized)
    }

    fn addend(&self) -> Addend<'_> {
        match self.rule.addend_type() {
            None => Addend::None,
            Some("u8") => Addend::U8(&self.addend_u8),
            Some("i8") => Addend::I8(&self.addend_i8),
            Some(_) => Addend::F32(&self.addend_f32),
        }
    }

    /// Threads take chunks in turn. Chunks are counted from the smallest accumulator, so that place and addend of each
    /// do not depend on where a run begins.
    fn run(&self, options: &Options, advance: &(impl Fn(u64) + Sync)) -> Vec<Found> {
        let chunk = (ROWS * self.channels) as u64;
        let range = options.range();
        let next = AtomicU64::new(range.start / chunk * chunk);
        let found: Mutex<Vec<Found>> = Mutex::new(options.isas.iter().map(|_| Found::default()).collect());
        let work = || {
            let mut accumulators = vec![0i32; chunk as usize];
            let mut want = Outputs::new(&self.rule, accumulators.len());
            let mut got = Outputs::new(&self.rule, accumulators.len());
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= range.end {
                    return;
                }
                for (i, accumulator) in accumulators.iter_mut().enumerate() {
                    *accumulator = i32::MIN.wrapping_add((start + i as u64) as u32 as i32);
                }
                // Chunks are computed whole and compared in part.
                let compared = range.start.max(start) - start..range.end.min(start + chunk) - start;
                let compared = compared.start as usize..compared.end as usize;
                want.fill(&self.rule, &accumulators, self.addend());
                for (at, requantizer) in self.requantizers.iter().enumerate() {
                    requantizer.run(&accumulators, self.addend(), got.view()).expect("buffers of the rule");
                    if got.identical(&want) {
                        continue;
                    }
                    let wrong: Vec<usize> = compared.clone().filter(|&i| !got.equal(&want, i)).collect();
                    if let Some(&i) = wrong.first() {
                        let mut found = found.lock().expect("no thread panics");
                        found[at].count += wrong.len() as u64;
                        let difference =
                            Difference { accumulator: accumulators[i], got: got.text(i), want: want.text(i) };
                        found[at].first.get_or_insert(difference);
                    }
                }
                advance(compared.len() as u64);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..options.threads {
                scope.spawn(work);
            }
            work();
        });
        found.into_inner().expect("no thread panics")
    }
}
