//! `qexact bench`: how fast the kernels are, next to what the core can do at most.
//!
//! A layer is compared with the reference first and timed only if its bits are right. Each sample of a layer has a
//! sample of the core's peak beside it, so that percentages hold on a machine whose clock moves.

pub mod clock;
pub mod cpu;
mod layer;
mod network;
pub mod peak;
mod report;
mod shapes;

pub use layer::{Difference, Expected, Prepared, RuleName, Subject};
pub use report::{Report, Row, Wrong};
pub use shapes::{Shape, ShapesError};

use clock::Timed;
use peak::{Memory, Peak};
use qexact_kernels::Isa;
use qexact_model::{Export, Operator, RunError};
use std::time::{Duration, Instant};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Calls in a row: weights come from where they fit
    Warm,
    /// Weights come from memory; the input is in the caches
    Cold,
    /// Packing the weights and one call
    Pack,
}

impl Mode {
    /// As written on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Warm => "warm",
            Mode::Cold => "cold",
            Mode::Pack => "pack",
        }
    }
}

/// How to time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instruction sets.
    pub isas: Vec<Isa>,
    /// What is timed.
    pub mode: Mode,
    /// How accumulators become codes, where that can be chosen.
    pub rule: RuleName,
    /// How wide weights are, where that can be chosen: 1 to 8 bits.
    pub weight_bits: u8,
    /// One thread each, see [`cpu::place`].
    pub cores: Vec<Option<usize>>,
    /// For each layer and instruction set.
    pub time: Duration,
}

/// Why something cannot be timed. (That it is wrong is an [`Outcome`].)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Modes that need the whole machine to hold still.
    #[error("threads is {0}, expected 1 for the modes cold and pack")]
    Threads(usize),
    /// Weights that are no i8 codes.
    #[error("weight bits is {0}, expected 1 to 8")]
    WeightBits(u8),
    /// Nothing to run on.
    #[error("there is no instruction set to time")]
    NoIsa,
    /// The layer is refused.
    #[error("`{name}`: {source}")]
    Layer {
        /// Its name.
        name: String,
        /// The reason.
        source: qexact_reference::Error,
    },
    /// The network does not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What came of one layer on one instruction set.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its bits are right, and this is how long it takes.
    Timed(Box<Row>),
    /// They are not.
    Wrong(Wrong),
}

/// The shortest sample of a layer.
const SAMPLE: Duration = Duration::from_micros(500);
/// The shortest sample of a peak and of reading.
const PEAK_SAMPLE: Duration = Duration::from_micros(100);
/// More than the caches of any core, which it displaces.
const EVICT: usize = 256 << 20;

/// Times layers and networks.
pub struct Bench {
    options: Options,
    cpu: String,
    /// For [`Mode::Cold`].
    evict: Memory,
}

/// Changes what a kernel has computed.
#[doc(hidden)]
pub type Tamper<'t> = dyn Fn(Isa, &mut Prepared<'_>) + 't;

impl Bench {
    /// Ready to time.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn new(options: Options) -> Result<Bench, Error> {
        if options.isas.is_empty() {
            return Err(Error::NoIsa);
        }
        if options.mode != Mode::Warm && options.cores.len() != 1 {
            return Err(Error::Threads(options.cores.len()));
        }
        if !(1..=8).contains(&options.weight_bits) {
            return Err(Error::WeightBits(options.weight_bits));
        }
        let evict = Memory::new(if options.mode == Mode::Cold { EVICT } else { 0 });
        Ok(Bench { options, cpu: cpu::name(), evict })
    }

    /// What is to be said before the first layer: CPU, peaks of one core, how fast it reads.
    pub fn preamble(&self) -> String {
        report::preamble(&self.cpu, &self.options)
    }

    /// Times a shape on generated data.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub fn shape(&self, shape: &Shape) -> Result<Vec<Outcome>, Error> {
        self.tampered(shape, &|_, _| ())
    }

    /// [`shape`](Bench::shape) with kernels that go wrong in a known way, to check the comparison.
    ///
    /// # Errors
    /// As [`shape`](Bench::shape).
    #[doc(hidden)]
    pub fn tampered(&self, shape: &Shape, tamper: &Tamper<'_>) -> Result<Vec<Outcome>, Error> {
        let refused = |source| Error::Layer { name: shape.name.clone(), source };
        let subject = Subject::new(shape.clone(), self.options.rule, self.options.weight_bits).map_err(refused)?;
        self.subject(&subject, tamper).map_err(refused)
    }

    /// Times each layer of a network and all of it, on one sample.
    ///
    /// # Errors
    /// A network that does not run.
    pub fn network(&self, name: &str, export: &Export) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        for node in export.network.nodes() {
            if let Operator::Layer(layer) = &node.operator {
                let refused = |source| Error::Layer { name: node.name.clone(), source };
                outcomes.extend(self.subject(&Subject::of_node(&node.name, name, layer), &|_, _| ()).map_err(refused)?);
            }
        }
        outcomes.extend(network::whole(self, name, export)?);
        Ok(outcomes)
    }

    fn subject(&self, subject: &Subject, tamper: &Tamper<'_>) -> Result<Vec<Outcome>, qexact_reference::Error> {
        let mut outcomes = Vec::new();
        let expected = Expected::of(subject)?;
        for &isa in &self.options.isas {
            let mut prepared = subject.prepare(isa, &self.options.cores)?;
            prepared.time(1);
            tamper(isa, &mut prepared);
            match expected.difference(&prepared) {
                None => outcomes.push(Outcome::Timed(Box::new(self.time(subject, &mut prepared)?))),
                Some(difference) => {
                    let (name, line) = (subject.shape.name.clone(), subject.shape.line());
                    let (isa, kernel) = (isa.to_string(), prepared.plan.kernel().to_string());
                    let difference = difference.to_string();
                    outcomes.push(Outcome::Wrong(Wrong { name, line, isa, kernel, difference }));
                }
            }
        }
        Ok(outcomes)
    }

    fn time(&self, subject: &Subject, prepared: &mut Prepared<'_>) -> Result<Row, qexact_reference::Error> {
        let (isa, kernel, bytes) = (prepared.plan.isa(), prepared.plan.kernel(), prepared.plan.weight_bytes());
        let conv = &subject.shape.conv;
        let case = self.case(prepared, subject.layer()?);
        let peak = Peak::of_steps(isa, kernel.steps_in_16_bits());
        let mut row = self.row(case, (isa, peak), conv.macs(), self.options.cores.len());
        row.describe(&subject.shape, &kernel.to_string());
        if conv.batch * conv.pixels() == 1 && self.options.mode != Mode::Pack {
            // Not in turn with the layer, whose weights it would displace.
            let memory = Memory::new(bytes);
            let mut read = self.read(&memory, isa);
            clock::interleave(&mut [&mut read], self.options.time / 5);
            row.reads(bytes, memory.len() as f64 / read.statistics().median_ns);
        }
        Ok(row)
    }

    fn case<'a>(&'a self, prepared: &'a mut Prepared<'_>, layer: qexact_reference::Layer<'a>) -> Timed<'a> {
        match self.options.mode {
            Mode::Warm => Timed::new(SAMPLE, |calls| prepared.time(calls)),
            Mode::Cold => Timed::single(|_| {
                self.evict.read(prepared.plan.isa());
                prepared.touch();
                let start = Instant::now();
                prepared.run();
                start.elapsed()
            }),
            Mode::Pack => Timed::new(SAMPLE, move |calls| {
                clock::calls(calls, || prepared.pack_and_run(&layer).expect("packed before"))
            }),
        }
    }

    /// A loop that reads as many bytes as a layer's weights have, from where they would come.
    fn read<'a>(&'a self, memory: &'a Memory, isa: Isa) -> Timed<'a> {
        if self.options.mode != Mode::Cold {
            return Timed::new(PEAK_SAMPLE, move |calls| clock::calls(calls, || memory.read(isa)));
        }
        Timed::single(move |_| {
            self.evict.read(isa);
            let start = Instant::now();
            memory.read(isa);
            start.elapsed()
        })
    }

    /// Times a case in turn with the peak of its instructions, which touch no memory.
    fn row<'w>(&self, mut case: Timed<'w>, (isa, peak): (Isa, Option<Peak>), macs: usize, threads: usize) -> Row {
        let mut beside: Option<Timed<'w>> = peak.map(Peak::timed);
        let mut all = vec![&mut case];
        all.extend(&mut beside);
        clock::interleave(&mut all, self.options.time);
        let gmacs = peak.zip(beside).map(|(peak, timed)| peak.gmacs(timed.statistics().median_ns) * threads as f64);
        Row::new(case.statistics(), isa, macs, gmacs, threads, &self.options, &self.cpu)
    }
}
