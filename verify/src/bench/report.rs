//! What a bench reports: a line a layer, JSON lines, and a table of groups.

use super::clock::{self, Statistics, Timed};
use super::peak::{Memory, Peak};
use super::shapes::Shape;
use super::{Options, PEAK_SAMPLE};
use crate::render::table;
use clap::ValueEnum;
use qexact_kernels::{Isa, IsaName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A layer on an instruction set. GMAC/s are 10⁹ multiply-accumulates a second, taps in the padding counted.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// As in the shapes file; of a case on the command line its text.
    pub name: String,
    /// `linear`, `conv` or `network`.
    pub op: &'static str,
    /// The network it is from.
    pub group: String,
    /// What limits layers of its kind.
    #[serde(skip)]
    pub class: String,
    /// The shape as a line of text.
    pub case: String,
    /// Instruction set.
    pub isa: String,
    /// The kernel chosen.
    pub kernel: String,
    /// `warm`, `cold` or `pack`.
    pub mode: &'static str,
    /// How accumulators become codes, where that could be chosen.
    pub rule: String,
    /// How wide weights are, where that could be chosen.
    pub weight_bits: u8,
    /// Threads that shared each call.
    pub threads: usize,
    /// The middle sample, nanoseconds a call.
    pub median_ns: f64,
    /// The shortest sample.
    pub min_ns: f64,
    /// Samples taken.
    pub samples: usize,
    /// Multiply-accumulates of a call.
    pub macs: usize,
    /// By the median.
    pub gmacs: f64,
    /// The median peak of as many cores as there are threads, measured beside: of the instructions that the kernel's
    /// products are made of; the reference has none.
    pub peak_gmacs: Option<f64>,
    /// The quotient of the two.
    pub percent_of_peak: Option<f64>,
    /// Of layers with one row of outputs, which read each weight once: bytes of packed weights, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<usize>,
    /// … 10⁹ of them read a second, by the median, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_gb_per_s: Option<f64>,
    /// … and what one core reads of as many bytes that lie where the weights do, measured beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_gb_per_s: Option<f64>,
    /// What the CPU calls itself.
    pub cpu: String,
}

impl Row {
    pub(super) fn new(
        time: Statistics,
        isa: Isa,
        macs: usize,
        peak: Option<f64>,
        threads: usize,
        options: &Options,
        cpu: &str,
    ) -> Row {
        let gmacs = macs as f64 / time.median_ns;
        let rule = options.rule.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
        Row {
            name: String::new(),
            op: "",
            group: String::new(),
            class: String::new(),
            case: String::new(),
            isa: isa.to_string(),
            kernel: String::new(),
            mode: options.mode.as_str(),
            rule,
            weight_bits: options.weight_bits,
            threads,
            median_ns: time.median_ns,
            min_ns: time.min_ns,
            samples: time.samples,
            macs,
            gmacs,
            peak_gmacs: peak,
            percent_of_peak: peak.map(|peak| 100.0 * gmacs / peak),
            weight_bytes: None,
            weight_gb_per_s: None,
            read_gb_per_s: None,
            cpu: cpu.to_string(),
        }
    }

    pub(super) fn describe(&mut self, shape: &Shape, kernel: &str) {
        (self.name, self.op, self.group) = (shape.name.clone(), shape.op(), shape.group.clone());
        (self.class, self.case, self.kernel) = (shape.class(), shape.line(), kernel.to_string());
    }

    pub(super) fn reads(&mut self, bytes: usize, read_gb_per_s: f64) {
        self.weight_bytes = Some(bytes);
        self.weight_gb_per_s = Some(bytes as f64 / self.median_ns);
        self.read_gb_per_s = Some(read_gb_per_s);
    }
}

/// `812.3 ns`, `12.34 µs`, …
fn duration(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.1} ns"),
        ..1e6 => format!("{:.2} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = duration(self.median_ns);
        write!(f, "{:<40} {:<12} {:<36} {time:>10}", self.name, self.isa, self.kernel)?;
        write!(f, " {:>7.1} GMAC/s", self.gmacs)?;
        if let Some(percent) = self.percent_of_peak {
            write!(f, " {percent:>5.1} %")?;
        }
        if let (Some(weights), Some(read)) = (self.weight_gb_per_s, self.read_gb_per_s) {
            write!(f, "  {weights:.0} of {read:.0} GB/s")?;
        }
        Ok(())
    }
}

/// A layer that is not timed, because an instruction set computes something else than the reference.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// As in the shapes file.
    pub name: String,
    /// The shape as a line of text.
    pub line: String,
    /// Instruction set.
    pub isa: String,
    /// The kernel chosen.
    pub kernel: String,
    /// The first output that differs.
    pub difference: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { name, line, isa, kernel, difference } = self;
        write!(f, "WRONG {name} ({line}) isa={isa} kernel={kernel}: {difference}; not timed")
    }
}

/// The whole bench, by groups.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Nothing yet.
    pub fn new() -> Report {
        Report::default()
    }

    /// One more layer.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Groups in the order in which they came, each with its rows by instruction set.
    fn groups(&self) -> Vec<(&str, BTreeMap<&str, Vec<&Row>>)> {
        let mut groups: Vec<(&str, BTreeMap<&str, Vec<&Row>>)> = Vec::new();
        for row in &self.rows {
            let at = groups.iter().position(|(class, _)| *class == row.class).unwrap_or_else(|| {
                groups.push((&row.class, BTreeMap::new()));
                groups.len() - 1
            });
            groups[at].1.entry(&row.isa).or_default().push(row);
        }
        groups
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |isa: &&str| self.rows.iter().any(|row| row.isa == *isa);
        let isas: Vec<_> = IsaName::ALL.into_iter().map(IsaName::as_str).filter(has).collect();
        let columns = isas.iter().flat_map(|isa| [format!("{isa} GMAC/s"), "%".into(), "geomean %".into()]);
        let header: Vec<String> = ["group".to_string(), "layers".into()].into_iter().chain(columns).collect();
        let mut rows = table(&header.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        for (class, by_isa) in self.groups() {
            let layers = by_isa.values().map(Vec::len).max().unwrap_or(0);
            let mut cells = vec![class.to_string(), layers.to_string()];
            cells.extend(isas.iter().flat_map(|isa| summary(by_isa.get(isa).map_or(&[], Vec::as_slice))));
            rows.add_row(cells);
        }
        writeln!(f, "{rows}")?;
        writeln!(
            f,
            "GMAC/s over the summed times of a group's layers; % of the peak measured beside them, geomean over layers"
        )
    }
}

/// GMAC/s of a group and its percentages of the peak.
fn summary(rows: &[&Row]) -> [String; 3] {
    let (macs, ns): (f64, f64) = rows.iter().fold((0.0, 0.0), |(m, t), row| (m + row.macs as f64, t + row.median_ns));
    let empty = String::new;
    if rows.is_empty() {
        return [empty(), empty(), empty()];
    }
    let gmacs = format!("{:.1}", macs / ns);
    // What the peak would have taken for the same work.
    let Some(least) = rows.iter().map(|row| Some(row.macs as f64 / row.peak_gmacs?)).sum::<Option<f64>>() else {
        return [gmacs, empty(), empty()];
    };
    let logs: f64 = rows.iter().filter_map(|row| row.percent_of_peak).map(f64::ln).sum();
    [gmacs, format!("{:.1}", 100.0 * least / ns), format!("{:.1}", (logs / rows.len() as f64).exp())]
}

/// Bytes that fit the first, second and third cache of most cores, and none.
const LEVELS: [(&str, usize); 4] =
    [("24 KiB", 24 << 10), ("512 KiB", 512 << 10), ("8 MiB", 8 << 20), ("256 MiB", 256 << 20)];

/// CPU, cores, and what one core reaches at this moment.
pub(super) fn preamble(cpu: &str, options: &Options) -> String {
    let cores: Vec<String> =
        options.cores.iter().map(|core| core.map_or_else(|| "any".to_string(), |core| core.to_string())).collect();
    let mut text =
        format!("{cpu}; mode {}, {} threads, cores {}\n", options.mode.as_str(), cores.len(), cores.join(", "));
    for isa in &options.isas {
        // A line for each choice that weights make.
        let peaks = [0, 1, 2, 4, 8].map(|steps| Peak::of_steps(*isa, steps));
        let mut peaks: Vec<Peak> = peaks.into_iter().flatten().collect();
        peaks.dedup_by_key(|peak| peak.instructions);
        for peak in peaks {
            let gmacs = peak.gmacs(quick(peak.timed()));
            text += &format!("peak of a core  {isa:<12} {gmacs:>6.1} GMAC/s  {}\n", peak.instructions);
        }
    }
    let widest = *options.isas.last().expect("at least one");
    for (name, bytes) in LEVELS {
        let memory = Memory::new(bytes);
        let ns = quick(Timed::new(PEAK_SAMPLE, |calls| clock::calls(calls, || memory.read(widest))));
        text += &format!("a core reads    {name:<12} {:>6.1} GB/s\n", memory.len() as f64 / ns);
    }
    for name in IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err()) {
        text += &format!("SKIPPED: {name}, which this CPU lacks\n");
    }
    text + "each layer is compared with the reference first: all of it, or of large ones a sample with all edges\n"
}

/// The median of a short measurement, nanoseconds a call.
fn quick(mut timed: Timed<'_>) -> f64 {
    clock::interleave(&mut [&mut timed], Duration::from_millis(20));
    timed.statistics().median_ns
}

#[cfg(test)]
mod tests {
    use super::super::{Bench, Mode, Outcome, RuleName};
    use super::*;

    fn bench(mode: Mode) -> Bench {
        let time = Duration::from_millis(1);
        let isas = Isa::available().collect();
        Bench::new(Options { isas, mode, rule: RuleName::F32Mul, weight_bits: 8, cores: vec![None], time }).unwrap()
    }

    fn shape(line: &str) -> Shape {
        Shape::parse_line(line, "cases").unwrap()
    }

    #[test]
    fn rows_say_what_was_timed_and_groups_sum_up() {
        let mut report = Report::new();
        for (mode, line) in
            [(Mode::Warm, "linear m1k64n48"), (Mode::Pack, "linear m3k64n48"), (Mode::Warm, "conv ic3oc8ih6kh3ph1")]
        {
            for outcome in bench(mode).shape(&shape(line)).unwrap() {
                let Outcome::Timed(row) = outcome else { panic!("{outcome:?}") };
                let json = serde_json::to_value(&row).unwrap();
                assert_eq!((&json["name"], &json["case"]), (&line.into(), &line.into()));
                assert_eq!(json["mode"], mode.as_str());
                assert!(json["min_ns"].as_f64() > Some(0.0) && json["median_ns"].as_f64() >= json["min_ns"].as_f64());
                assert_eq!(json["macs"].as_u64(), Some(shape(line).conv.macs() as u64));
                assert_eq!(json["peak_gmacs"].is_null(), row.isa == "reference");
                assert_eq!(json["percent_of_peak"].is_null(), row.isa == "reference");
                assert_eq!(json.get("weight_gb_per_s").is_some(), line.contains("m1"));
                report.add(*row);
            }
        }
        let text = report.to_string();
        assert!(
            ["linear M=1", "linear other", "3-channel 3x3 stem", "reference GMAC/s"]
                .iter()
                .all(|part| text.contains(part)),
            "{text}"
        );
        assert_eq!(report.groups().len(), 3);
    }

    #[test]
    fn a_wrong_bit_is_reported_and_not_timed() {
        let outcomes = bench(Mode::Warm).tampered(&shape("linear m2k5n7"), &|isa, prepared| {
            if isa == Isa::REFERENCE {
                prepared.parts[0].output.flip(9);
            }
        });
        let outcomes = outcomes.unwrap();
        assert_eq!(outcomes.len(), Isa::available().count());
        let Outcome::Wrong(wrong) = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
        let start = "WRONG linear m2k5n7 (linear m2k5n7) isa=reference kernel=reference: row 1 channel 2 acc=";
        assert!(wrong.to_string().starts_with(start), "{wrong}");
        assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, Outcome::Timed(row) if row.isa != "reference")));
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let options = bench(Mode::Warm).options;
        let two = Options { mode: Mode::Cold, cores: vec![None; 2], ..options.clone() };
        assert!(Bench::new(two).is_err_and(|e| e.to_string().contains("threads is 2, expected 1")));
        for weight_bits in [0, 9] {
            let error = Bench::new(Options { weight_bits, ..options.clone() }).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), format!("weight bits is {weight_bits}, expected 1 to 8"));
        }
        assert!(Bench::new(Options { isas: Vec::new(), ..options }).is_err());
    }
}
