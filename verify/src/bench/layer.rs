//! A layer with data, what it should compute, and its plan on one instruction set with the buffers of a call.

use super::clock;
use super::cpu;
use super::shapes::Shape;
use crate::fill::Random;
use aligned_vec::{AVec, ConstAlign};
use qexact_kernels::{Isa, Plan};
use qexact_model::LayerNode;
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Real, FixedPoint, Pow2, Q31Double, RealOutput, Rounding, Sum,
};
use qexact_reference::{CodeType, Error, Input, Layer, Output, Region, Rule};
use std::fmt;
use std::iter::repeat_n;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How accumulators become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum RuleName {
    /// R6: one f32 multiplication
    F32Mul,
    /// R16: real numbers first
    F32Real,
    /// R17: a fixed-point multiplication, rounded twice
    Q31Double,
    /// R20: a shift
    Pow2,
}

/// A layer with its weights, its rule and an input.
pub struct Subject {
    /// Geometry, batch included, and names.
    pub shape: Shape,
    input_type: CodeType,
    input_zero_point: i32,
    weight: Vec<i8>,
    weight_zero_point: Vec<i32>,
    rule: Rule,
    input: Aligned<u8>,
}

/// Codes on a cache line, as runtimes allocate them. Kernels take any address, but a register's worth that crosses lines
/// is two loads.
type Aligned<T> = AVec<T, ConstAlign<64>>;

/// The input's zero point, where it can be chosen.
const ZERO_POINT: i32 = 128;

impl Subject {
    /// A layer from u8 to u8 with weights of 1 to 8 bits, scales per output channel, an int32 bias and ReLU, full-range
    /// data that follows from the shape alone.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub fn new(shape: Shape, rule: RuleName, weight_bits: u8) -> Result<Subject, Error> {
        let dropped = 8u8.saturating_sub(weight_bits).min(7);
        let weight = codes(1, shape.conv.weight_len()).map(|code| code as i8 >> dropped).collect();
        let rule = fitted(rule, shape.conv.out_channels, shape.conv.depth(), dropped)?;
        let input = Aligned::from_iter(0, codes(2, shape.conv.batch * shape.conv.image_len()));
        let (input_type, input_zero_point, weight_zero_point) = (CodeType::U8, ZERO_POINT, vec![0]);
        Ok(Subject { shape, input_type, input_zero_point, weight, weight_zero_point, rule, input })
    }

    /// A layer of a network, on one sample of full-range data.
    pub fn of_node(name: &str, group: &str, node: &LayerNode) -> Subject {
        let layer = node.layer();
        let conv = *layer.shape();
        let span = (layer.input().hi() - layer.input().lo() + 1) as u32;
        Subject {
            shape: Shape { name: name.into(), group: group.into(), conv, linear: node.is_linear() },
            input_type: layer.input(),
            input_zero_point: layer.input_zero_point(),
            weight: layer.weight().to_vec(),
            weight_zero_point: (0..conv.out_channels).map(|c| layer.weight_zero_point(c)).collect(),
            rule: layer.rule().clone(),
            // Narrower codes than 8 bits keep to their range.
            input: Aligned::from_iter(
                0,
                codes(2, conv.batch * conv.image_len())
                    .map(|code| (layer.input().lo() + (u32::from(code) % span) as i32) as u8),
            ),
        }
    }

    /// The layer as the reference defines it.
    ///
    /// # Errors
    /// None: its parts were checked when it was made.
    pub fn layer(&self) -> Result<Layer<'_>, Error> {
        Layer::new(LayerParts {
            shape: self.shape.conv,
            input: self.input_type,
            input_zero_point: self.input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        })
    }

    /// The input.
    pub fn input(&self) -> Input<'_> {
        if self.input_type.is_signed() { Input::I8(bytemuck::cast_slice(&self.input)) } else { Input::U8(&self.input) }
    }

    /// A plan with the buffers of a call, shared by threads on some cores.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn prepare<'s>(&'s self, isa: Isa, cores: &[Option<usize>]) -> Result<Prepared<'s>, Error> {
        let plan = Plan::new(&self.layer()?, isa)?;
        let all = plan.region(self.shape.conv.batch)?;
        let part = |region: Region| Part {
            output: Buffer::of(self.rule.element_type(), region.len()),
            region,
            scratch: plan.scratch(),
        };
        let parts = split(&all, cores.len()).into_iter().map(part).collect();
        Ok(Prepared { plan, input: self.input(), cores: cores.to_vec(), parts })
    }
}

/// Bytes, uniform over their range.
pub(super) fn codes(seed: u64, len: usize) -> impl Iterator<Item = u8> {
    let mut random = Random::new(seed);
    (0..len).map(move |_| (random.bits() >> 56) as u8)
}

/// A rule with which outputs cover the range of codes.
fn fitted(rule: RuleName, channels: usize, depth: usize, dropped: u8) -> Result<Rule, Error> {
    // Sums of products of two codes of standard deviation 74, of which one has lost some bits.
    let one = 50.0 / (74.0 * 74.0 / f64::from(1 << dropped) * (depth as f64).sqrt());
    let multiplier = (0..channels).map(|c| one * (1.0 + c as f64 / channels as f64));
    let bias = (0..channels).map(|c| (c * 7 % 1000) as i32 - 500);
    let codes = Codes::new(3, CodeType::U8)?.relu();
    Ok(match rule {
        RuleName::F32Mul => {
            let multiplier = multiplier.map(|m| m as f32).collect();
            Rule::F32Mul(F32Mul::new(multiplier, Bias::I32(bias.collect()), 3, CodeType::U8)?.relu())
        }
        RuleName::F32Real => Rule::F32Real(F32Real {
            scale: multiplier.clone().map(|m| (m / 16.0) as f32).collect(),
            bias: multiplier.zip(bias).map(|(m, b)| (m * f64::from(b) / 16.0) as f32).collect(),
            sum: Sum::None,
            clip: F32Real::RELU,
            output: RealOutput::Codes { multiplier: 16.0, codes },
        }),
        RuleName::Q31Double => Rule::Q31Double(Q31Double {
            multiplier: multiplier.map(FixedPoint::nearest).collect::<Result<_, _>>()?,
            bias: bias.collect(),
            last: Rounding::Away,
            codes,
        }),
        RuleName::Pow2 => Rule::Pow2(Pow2 {
            shift: multiplier.map(|m| -m.log2().round() as i32).collect(),
            bias: bias.collect(),
            rounding: Rounding::Even,
            codes,
        }),
    })
}

/// Outputs of any type.
pub(super) enum Buffer {
    U8(Aligned<u8>),
    I8(Aligned<i8>),
    I32(Aligned<i32>),
    F32(Aligned<f32>),
}

impl Buffer {
    fn of(element_type: &str, len: usize) -> Buffer {
        match element_type {
            "u8" => Buffer::U8(Aligned::from_iter(0, repeat_n(0, len))),
            "i8" => Buffer::I8(Aligned::from_iter(0, repeat_n(0, len))),
            "i32" => Buffer::I32(Aligned::from_iter(0, repeat_n(0, len))),
            _ => Buffer::F32(Aligned::from_iter(0, repeat_n(0.0, len))),
        }
    }

    fn output(&mut self) -> Output<'_> {
        match self {
            Buffer::U8(y) => Output::U8(y),
            Buffer::I8(y) => Output::I8(y),
            Buffer::I32(y) => Output::I32(y),
            Buffer::F32(y) => Output::F32(y),
        }
    }

    /// An element's bits; those of every NaN are the same.
    fn bits(&self, at: usize) -> u32 {
        match self {
            Buffer::U8(y) => y[at].into(),
            Buffer::I8(y) => i32::from(y[at]) as u32,
            Buffer::I32(y) => y[at] as u32,
            Buffer::F32(y) => if y[at].is_nan() { f32::NAN } else { y[at] }.to_bits(),
        }
    }

    fn show(&self, bits: u32) -> String {
        match self {
            Buffer::F32(_) => f32::from_bits(bits).to_string(),
            _ => (bits as i32).to_string(),
        }
    }

    /// Changes one bit.
    #[cfg(test)]
    pub(super) fn flip(&mut self, at: usize) {
        match self {
            Buffer::U8(y) => y[at] ^= 1,
            Buffer::I8(y) => y[at] ^= 1,
            Buffer::I32(y) => y[at] ^= 1,
            Buffer::F32(y) => y[at] = f32::from_bits(y[at].to_bits() ^ 1),
        }
    }

    /// Brings it into the caches.
    fn touch(&mut self) {
        match self {
            Buffer::U8(y) => y.fill(0),
            Buffer::I8(y) => y.fill(0),
            Buffer::I32(y) => y.fill(0),
            Buffer::F32(y) => y.fill(0.0),
        }
    }
}

/// A planned layer with its buffers.
pub struct Prepared<'s> {
    /// The plan.
    pub plan: Plan,
    input: Input<'s>,
    cores: Vec<Option<usize>>,
    pub(super) parts: Vec<Part>,
}

/// What one thread computes.
pub(super) struct Part {
    region: Region,
    pub(super) output: Buffer,
    scratch: Vec<u8>,
}

impl Part {
    fn run(&mut self, plan: &Plan, input: Input<'_>) {
        plan.run(&self.region, input, self.output.output(), &mut self.scratch).expect("buffers of the right size");
    }
}

impl Prepared<'_> {
    /// One call, on this thread alone.
    pub fn run(&mut self) {
        self.parts.iter_mut().for_each(|part| part.run(&self.plan, self.input));
    }

    /// Packs the weights again and makes one call with them.
    ///
    /// # Errors
    /// None, as they have been packed before.
    pub fn pack_and_run(&mut self, layer: &Layer<'_>) -> Result<(), Error> {
        self.plan = Plan::new(layer, self.plan.isa())?;
        self.run();
        Ok(())
    }

    /// Brings into the caches what other layers would have left there: the input and the output's memory.
    pub fn touch(&mut self) {
        match self.input {
            Input::U8(x) => drop(std::hint::black_box(x.to_vec())),
            Input::I8(x) => drop(std::hint::black_box(x.to_vec())),
        }
        self.parts.iter_mut().for_each(|part| part.output.touch());
    }

    /// How long calls take, each of them shared by all threads, which wait for each other after each.
    pub fn time(&mut self, calls: u64) -> Duration {
        let (plan, input, cores) = (&self.plan, self.input, &self.cores);
        let (first, others) = self.parts.split_first_mut().expect("at least one part");
        if others.is_empty() {
            return clock::calls(calls, || first.run(plan, input));
        }
        let barrier = Barrier { threads: 1 + others.len(), arrivals: AtomicUsize::new(0) };
        std::thread::scope(|scope| {
            for (part, &core) in others.iter_mut().zip(&cores[1..]) {
                let barrier = &barrier;
                scope.spawn(move || {
                    cpu::pin(core).expect("a core of this process");
                    for _ in 0..=calls {
                        barrier.wait();
                        part.run(plan, input);
                    }
                    barrier.wait();
                });
            }
            let mut start = Instant::now();
            for call in 0..=calls {
                barrier.wait();
                // The first call is not timed, as on one thread.
                if call == 1 {
                    start = Instant::now();
                }
                first.run(plan, input);
            }
            barrier.wait();
            start.elapsed()
        })
    }
}

/// Where threads wait for each other without sleeping: that would take longer than many layers do.
struct Barrier {
    threads: usize,
    arrivals: AtomicUsize,
}

impl Barrier {
    fn wait(&self) {
        let round = self.arrivals.fetch_add(1, Ordering::AcqRel) / self.threads;
        let mut spins = 0u32;
        while self.arrivals.load(Ordering::Acquire) < (round + 1) * self.threads {
            spins += 1;
            // Another process may have taken the core of the one that is waited for.
            if spins.is_multiple_of(1 << 14) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Rows of a part that repay reading all weights for them, as other parts do.
const ROWS: usize = 96;

/// A region in so many parts, or in fewer if it is too small: by rows, or by channels where there are few rows.
fn split(all: &Region, parts: usize) -> Vec<Region> {
    let few_channels = all.channels.len() < 64 * parts;
    if all.rows.len() >= if few_channels { parts } else { ROWS * parts } {
        let cut = cut(&all.rows, parts, 1).into_iter();
        cut.map(|rows| Region { rows, channels: all.channels.clone() }).collect()
    } else {
        // Panels of weights are up to 64 channels wide.
        let cut = cut(&all.channels, parts, 64).into_iter();
        cut.map(|channels| Region { rows: all.rows.clone(), channels }).collect()
    }
}

/// Parts that differ by one unit at most, none of them empty.
fn cut(range: &Range<usize>, parts: usize, unit: usize) -> Vec<Range<usize>> {
    let units = range.len().div_ceil(unit);
    let at = |part: usize| (range.start + units * part / parts * unit).min(range.end);
    (0..parts).map(|part| at(part)..at(part + 1)).filter(|part| !part.is_empty()).collect()
}

/// Layers of up to so many multiply-accumulates are compared as a whole.
const WHOLE: usize = 1 << 26;
/// Multiply-accumulates spent on single outputs of larger ones.
const SINGLE: usize = 1 << 24;

/// What the reference computes: everything, or of large layers a sample with all edges in it: the first, the middle
/// and the last row in all channels, the first, the middle and the last channel in all rows, and single outputs.
pub struct Expected<'s> {
    layer: Layer<'s>,
    input: Input<'s>,
    regions: Vec<(Region, Buffer)>,
}

/// An output that differs from the reference's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Output pixel, counted through the batch.
    pub row: usize,
    /// Output channel.
    pub channel: usize,
    /// The reference's accumulator.
    pub accumulator: i32,
    /// The reference's output.
    pub want: String,
    /// The kernel's.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { row, channel, accumulator, want, got } = self;
        write!(f, "row {row} channel {channel} acc={accumulator} want={want} got={got}")
    }
}

impl<'s> Expected<'s> {
    /// Computes it.
    ///
    /// # Errors
    /// As [`Layer::run`].
    pub fn of(subject: &'s Subject) -> Result<Expected<'s>, Error> {
        let (layer, input, conv) = (subject.layer()?, subject.input(), &subject.shape.conv);
        let all = layer.region(conv.batch)?;
        let mut regions = vec![all.clone()];
        if conv.macs() > WHOLE {
            let (rows, channels) = (all.rows.len(), all.channels.len());
            let ends = |n: usize| [0, n / 2, n - 1].map(|at| at..at + 1);
            let mut random = Random::new(3);
            regions = ends(rows).map(|rows| Region { rows, channels: 0..channels }).to_vec();
            regions.extend(ends(channels).map(|channels| Region { rows: 0..rows, channels }));
            regions.extend((0..SINGLE / conv.depth()).map(|_| {
                let [row, channel] = [random.below(rows), random.below(channels)];
                Region { rows: row..row + 1, channels: channel..channel + 1 }
            }));
        }
        let computed = regions.into_iter().map(|region| {
            let mut buffer = Buffer::of(subject.rule.element_type(), region.len());
            layer.run(&region, input, buffer.output()).map(|()| (region, buffer))
        });
        Ok(Expected { layer, input, regions: computed.collect::<Result<_, _>>()? })
    }

    /// Outputs that are compared.
    pub fn len(&self) -> usize {
        self.regions.iter().map(|(region, _)| region.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The first output that a kernel computed wrongly.
    pub fn difference(&self, prepared: &Prepared<'_>) -> Option<Difference> {
        let mut outputs = self.regions.iter().flat_map(|(region, buffer)| {
            let rows = region.rows.clone();
            let each = rows.flat_map(|row| region.channels.clone().map(move |channel| (row, channel)));
            each.enumerate().map(move |(at, (row, channel))| (row, channel, buffer, buffer.bits(at)))
        });
        outputs.find_map(|(row, channel, buffer, want)| {
            let holds = |part: &&Part| part.region.rows.contains(&row) && part.region.channels.contains(&channel);
            let Part { region, output, .. } = prepared.parts.iter().find(holds).expect("parts cover the output");
            let at = (row - region.rows.start) * region.channels.len() + channel - region.channels.start;
            let got = output.bits(at);
            (got != want).then(|| {
                let accumulator = match self.input {
                    Input::U8(x) => self.layer.accumulator(x, row, channel),
                    Input::I8(x) => self.layer.accumulator(x, row, channel),
                };
                Difference { row, channel, accumulator, want: buffer.show(want), got: buffer.show(got) }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(line: &str, rule: RuleName) -> Subject {
        Subject::new(Shape::parse_line(line, "test").unwrap(), rule, 8).unwrap()
    }

    #[test]
    fn weights_have_the_bits_they_should() {
        for (bits, range) in [(8, [-128, 127]), (7, [-64, 63]), (4, [-8, 7]), (2, [-2, 1]), (1, [-1, 0])] {
            let shape = Shape::parse_line("linear m40k300n33", "test").unwrap();
            let subject = Subject::new(shape, RuleName::F32Mul, bits).unwrap();
            assert_eq!(
                [subject.weight.iter().min(), subject.weight.iter().max()],
                range.each_ref().map(Some),
                "{bits}"
            );
            let mut prepared = subject.prepare(Isa::best(), &[None]).unwrap();
            prepared.run();
            assert_eq!(Expected::of(&subject).unwrap().difference(&prepared), None);
            let Buffer::U8(y) = &prepared.parts[0].output else { panic!("outputs are not u8") };
            let distinct: std::collections::HashSet<_> = y.iter().collect();
            assert!(distinct.len() > 80, "{bits} bits: {} values", distinct.len());
        }
    }

    #[test]
    fn outputs_spread_over_the_codes_under_every_rule() {
        for rule in [RuleName::F32Mul, RuleName::F32Real, RuleName::Q31Double, RuleName::Pow2] {
            let subject = subject("linear m16k300n33", rule);
            let mut prepared = subject.prepare(Isa::REFERENCE, &[None]).unwrap();
            prepared.run();
            let Buffer::U8(y) = &prepared.parts[0].output else { panic!("outputs are not u8") };
            let distinct: std::collections::HashSet<_> = y.iter().collect();
            let clamped = y.iter().filter(|&&y| y == 255).count();
            assert!(distinct.len() > 80 && clamped * 10 < y.len(), "{rule:?}: {} values", distinct.len());
            assert!(y.iter().all(|&y| y >= 3), "ReLU");
        }
    }

    #[test]
    fn every_wrong_output_of_a_small_layer_is_found() {
        let subject = subject("conv n2ic3oc5ih4kh3ph1", RuleName::F32Mul);
        let expected = Expected::of(&subject).unwrap();
        for isa in Isa::available() {
            let mut prepared = subject.prepare(isa, &[None, None, None]).unwrap();
            prepared.time(2);
            assert_eq!(expected.difference(&prepared), None);
            assert_eq!(expected.len(), 2 * 16 * 5);
            for (part, at) in [(0, 0), (1, 7), (2, 54)] {
                prepared.parts[part].output.flip(at);
                let found = expected.difference(&prepared).unwrap();
                let index = found.row * 5 + found.channel;
                assert_eq!(index, prepared.parts[part].region.rows.start * 5 + at);
                assert_ne!(found.want, found.got);
                prepared.parts[part].output.flip(at);
            }
        }
    }

    #[test]
    fn edges_of_a_large_layer_are_in_the_sample() {
        let subject = subject("conv ic64oc64ih56kh3ph1", RuleName::F32Mul);
        let expected = Expected::of(&subject).unwrap();
        assert!(expected.len() < 3136 * 64);
        let mut prepared = subject.prepare(Isa::best(), &[None]).unwrap();
        prepared.run();
        assert_eq!(expected.difference(&prepared), None);
        for (row, channel) in [(0, 0), (0, 63), (3135, 0), (3135, 63), (55, 0), (56, 63), (1568, 17)] {
            prepared.parts[0].output.flip(row * 64 + channel);
            let found = expected.difference(&prepared).unwrap();
            assert_eq!((found.row, found.channel), (row, channel));
            prepared.parts[0].output.flip(row * 64 + channel);
        }
    }

    #[test]
    fn parts_cover_an_output_once() {
        for (rows, channels, parts) in [(7, 3, 1), (7, 3, 2), (7, 3, 7), (1, 130, 2), (2, 1000, 3), (1, 10, 4)] {
            let all = Region { rows: 0..rows, channels: 0..channels };
            let split = split(&all, parts);
            assert!(!split.is_empty() && split.len() <= parts);
            assert_eq!(split.iter().map(Region::len).sum::<usize>(), all.len());
            assert!(
                split.windows(2).all(|w| w[0].rows.end == w[1].rows.start || w[0].channels.end == w[1].channels.start)
            );
        }
        assert_eq!(split(&Region { rows: 0..1, channels: 0..256 }, 2)[1].channels, 128..256);
        // Few rows by many weights; few channels.
        assert_eq!(split(&Region { rows: 0..49, channels: 0..512 }, 2)[1].channels, 256..512);
        assert_eq!(split(&Region { rows: 0..49, channels: 0..100 }, 2)[1].rows, 24..49);
        assert_eq!(split(&Region { rows: 0..192, channels: 0..512 }, 2)[1].rows, 96..192);
    }
}
