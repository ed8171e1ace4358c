//! Every accumulator there is: rules on their own, in vectors, against the scalar rule.
//!
//! What a set of parameters proves: for each of the 2³² accumulators, the scalar rule was computed and each
//! instruction set's output has the same bits (any two NaNs count as equal, see [`check`](crate::check)). Nothing is
//! skipped or inferred. The kernels' fused rules run through the code that is in the kernels; the scalar functions of the
//! reference are compiled for the fastest instruction set of the CPU, once for all that are compared. What it does not
//! prove: that every *lane* of a register gets every accumulator. Each gets it in one lane; sets differ in their number
//! of channels and therefore in which, and the lanes of a register perform one instruction.
//!
//! Parameters follow from the rule and the number of the set alone.

mod parameters;
mod scalar;

pub use parameters::parameters;
pub use scalar::scalar;

use crate::fill::Random;
use qexact_kernels::{Isa, Requantizer};
use qexact_reference::{Addend, Error, Output, Rule};
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

    /// The bits of an output as those of a [`Stored`](qexact_reference::requantize::Stored) are.
    fn bits(&self, at: usize) -> u32 {
        match self {
            Outputs::U8(y) => y[at].into(),
            Outputs::I8(y) => y[at] as u32,
            Outputs::F32(y) => y[at].to_bits(),
        }
    }

    /// Whether an output is that of these bits, any two NaNs being so.
    fn equal(&self, at: usize, want: u32) -> bool {
        let nan = |bits| matches!(self, Outputs::F32(_)) && f32::from_bits(bits).is_nan();
        self.bits(at) == want || (nan(self.bits(at)) && nan(want))
    }

    /// Whether all bits are the same.
    fn identical(&self, want: &[u32]) -> bool {
        // Without a way out of the loop, so that it is one of vectors.
        #[inline(always)]
        fn all<Y: Copy>(got: &[Y], want: &[u32], bits: impl Fn(Y) -> u32) -> bool {
            got.iter().zip(want).fold(0, |different, (&got, &want)| different | (bits(got) ^ want)) == 0
        }
        Isa::best().compile(
            #[inline(always)]
            || match self {
                Outputs::U8(y) => all(y, want, u32::from),
                Outputs::I8(y) => all(y, want, |y| y as u32),
                Outputs::F32(y) => all(y, want, f32::to_bits),
            },
        )
    }

    fn text(&self, bits: u32) -> String {
        match self {
            Outputs::U8(_) | Outputs::I8(_) => (bits as i32).to_string(),
            Outputs::F32(_) => format!("{:e} ({bits:#x})", f32::from_bits(bits)),
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

/// Rows of a chunk: with their outputs and addends they stay in the first-level cache.
const ROWS: usize = 16;

/// One set on all instruction sets.
struct Sweep {
    rule: Rule,
    channels: usize,
    requantizers: Vec<Requantizer>,
    addend_u8: Vec<u8>,
    addend_i8: Vec<i8>,
    addend_f32: Vec<f32>,
    /// The elements of the one that the rule adds.
    addends: Vec<f32>,
}

impl Sweep {
    fn new(rule: Rule, set: u64, options: &Options) -> Result<Sweep, Error> {
        // An odd number, so that rows end in parts of registers.
        let channels = 129 + 2 * (set as usize % 16);
        let requantizers = options.isas.iter().map(|&isa| Requantizer::new(&rule, channels, isa));
        let requantizers = requantizers.collect::<Result<Vec<_>, _>>()?;
        let mut r = Random::new(set);
        let addend_u8: Vec<u8> = (0..ROWS * channels).map(|_| r.bits() as u8).collect();
        let addend_i8 = addend_u8.iter().map(|&a| a as i8).collect();
        let addend_f32 = addend_u8.iter().map(|&a| f32::from(a) / 3.0 - 40.0).collect();
        let mut sweep = Sweep { rule, channels, requantizers, addend_u8, addend_i8, addend_f32, addends: vec![] };
        sweep.addends = (0..ROWS * channels).map(|i| sweep.addend().get(i)).collect();
        Ok(sweep)
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
            let mut want = vec![0; accumulators.len()];
            let mut got = Outputs::new(&self.rule, accumulators.len());
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= range.end {
                    return;
                }
                let first = i32::MIN.wrapping_add(start as u32 as i32);
                accumulators.iter_mut().zip(0..).for_each(|(accumulator, i)| *accumulator = first.wrapping_add(i));
                // Chunks are computed whole and compared in part.
                let compared = range.start.max(start) - start..range.end.min(start + chunk) - start;
                let compared = compared.start as usize..compared.end as usize;
                scalar(Isa::best(), &self.rule, &accumulators, &self.addends, &mut want);
                for (at, requantizer) in self.requantizers.iter().enumerate() {
                    requantizer.run(&accumulators, self.addend(), got.view()).expect("buffers of the rule");
                    if got.identical(&want) {
                        continue;
                    }
                    let wrong: Vec<usize> = compared.clone().filter(|&i| !got.equal(i, want[i])).collect();
                    if let Some(&i) = wrong.first() {
                        let mut found = found.lock().expect("no thread panics");
                        found[at].count += wrong.len() as u64;
                        let [got, want] = [got.bits(i), want[i]].map(|bits| got.text(bits));
                        let difference = Difference { accumulator: accumulators[i], got, want };
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
