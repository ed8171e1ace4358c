//! The `qexact` command.

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use qexact_kernels::{Isa, IsaName};
use qexact_model::{Executor, Export, QuantizeOptions, quantize, read_tensors, write_tensors};
use qexact_verify::analyze::analyze;
use qexact_verify::bench::{self, Bench, Outcome, Shape};
use qexact_verify::case::Case;
use qexact_verify::exhaust::{self, RuleName};
use qexact_verify::inspect::inspect;
use qexact_verify::{check, embedded, network, render, vectors};
use serde::Serialize;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Exact int8 inference: do the kernels compute, on this CPU, exactly what the runtime computed?
///
/// Without a command, verifies the embedded networks on their real digits.
///
/// Exit codes: 0 everything equal, 1 a difference, 2 bad input or usage.
#[derive(Parser)]
#[command(name = "qexact", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// Instruction sets, separated by commas: reference, avx2, avx_vnni, avx512_vnni [default: all that the CPU has]
    #[arg(long, global = true, value_delimiter = ',', value_name = "ISA")]
    isa: Vec<IsaName>,
    /// Also write the report as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare every layer of an export with what its runtime recorded, on the reference and every instruction set
    Verify {
        /// A network exported with its recording
        export: PathBuf,
        /// Excuse nothing, not even what saturated pairs of products explain
        #[arg(long)]
        strict: bool,
    },
    /// Run an export on inputs of your own
    Run {
        /// An exported network
        export: PathBuf,
        /// A safetensors file with one tensor for every input of the graph, the batch in front
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Where to write the outputs of the graph, a safetensors file
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Show layers, shapes, ranges, bytes, multiply-accumulates and the kernels chosen
    Inspect {
        /// An exported network
        export: PathBuf,
    },
    /// Prove which layers would saturate on machines that add pairs of products in 16 bits, and which never can
    Analyze {
        /// An exported network
        export: PathBuf,
    },
    /// Quantize a float network (FLOAT.md says how it is written) to an export that `verify` and `run` take
    Quantize {
        /// A safetensors file with the network, its weights and samples
        float: PathBuf,
        /// Where to write the export
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// One weight scale an output channel, instead of one a layer
        #[arg(long)]
        per_channel: bool,
    },
    /// Check kernels against the reference on generated cases, full-range data in guarded buffers
    Check {
        /// A case, or the line of a failure, quoted or not [default: generate them]
        case: Vec<String>,
        /// Generated outputs on each instruction set
        #[arg(long, default_value_t = 2_000_000, value_name = "N")]
        outputs: u64,
        /// Where the generator starts
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
    },
    /// Take all 2^32 accumulators through the rules of requantization, in vectors and one by one
    Exhaust {
        /// Rules, separated by commas: f32_mul, f32_mul_clamp_first, f32_out, f32_real, q31_double, q31_single, f64,
        /// pow2 [default: all]
        #[arg(long, value_delimiter = ',', value_name = "RULE")]
        rule: Vec<RuleName>,
        /// How many sets of parameters for each rule
        #[arg(long, default_value_t = 1, value_name = "N")]
        sets: u64,
        /// The first set
        #[arg(long, default_value_t = 0, value_name = "N")]
        set: u64,
        /// The first accumulator
        #[arg(long, default_value_t = i32::MIN, value_name = "N", allow_hyphen_values = true)]
        from: i32,
        /// How many accumulators [default: all from the first]
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Threads [default: all that the CPU has]
        #[arg(long, value_name = "N")]
        threads: Option<NonZeroUsize>,
    },
    /// Check operator vectors that were recorded from real runtimes
    Vectors {
        /// Safetensors files of recorded vectors
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Excuse nothing, not even what saturated pairs of products explain
        #[arg(long)]
        strict: bool,
    },
    /// Time kernels that compute the right bits, in percent of what the core can do at most
    Bench(BenchArgs),
}

#[derive(Args)]
struct BenchArgs {
    /// Cases such as `linear m4k768n10`, quoted or not, and exported networks [default: the embedded shapes]
    #[arg(value_name = "CASE|EXPORT")]
    what: Vec<String>,
    /// A JSON file of shapes
    #[arg(long, value_name = "FILE")]
    shapes: Option<PathBuf>,
    /// What is timed
    #[arg(long, value_enum, default_value = "warm")]
    mode: bench::Mode,
    /// How accumulators become codes, in layers that are no network's
    #[arg(long, value_enum, default_value = "f32_mul")]
    rule: bench::RuleName,
    /// Bits of the weights, 1 to 8, in layers that are no network's: AVX2 is faster where they are proven not to saturate
    #[arg(long, default_value_t = 8, value_name = "N")]
    weight_bits: u8,
    /// Threads that share each layer, on cores of their own
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// The core of the first thread [default: where it happens to run]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Seconds for each layer and instruction set
    #[arg(long, default_value_t = 0.5, value_name = "S")]
    seconds: f64,
    /// A tenth of the seconds
    #[arg(long)]
    quick: bool,
}

type Failable<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("qexact: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything was equal.
fn run(cli: &Cli) -> Failable<bool> {
    let isas = cli.common.isas()?;
    match &cli.command {
        None => {
            let mut reports = Vec::new();
            for (name, bytes) in embedded::NETWORKS {
                reports.push(verify(name, &Export::from_bytes(bytes)?, &isas, false)?);
            }
            cli.common.write_json(&reports)?;
            Ok(reports.iter().all(network::NetworkReport::is_clean))
        }
        Some(Command::Verify { export, strict }) => {
            let report = verify(&file_name(export), &read(export)?, &isas, *strict)?;
            cli.common.write_json(&report)?;
            Ok(report.is_clean())
        }
        Some(Command::Run { export, input, output }) => {
            run_network(export, input, output, cli.common.one_isa(&isas)?)?;
            Ok(true)
        }
        Some(Command::Inspect { export }) => {
            let loaded = read(export)?;
            let executor = Executor::new(&loaded.network, cli.common.one_isa(&isas)?)?;
            let report = inspect(&file_name(export), &loaded, &executor);
            print!("{report}");
            cli.common.write_json(&report)?;
            Ok(true)
        }
        Some(Command::Analyze { export }) => {
            let report = analyze(&file_name(export), &read(export)?);
            print!("{report}");
            cli.common.write_json(&report)?;
            Ok(true)
        }
        Some(Command::Quantize { float, output, per_channel }) => {
            quantize_network(float, output, QuantizeOptions { per_channel: *per_channel })?;
            Ok(true)
        }
        Some(Command::Check { case, outputs, seed }) => run_check(cli, case, *outputs, *seed, isas),
        Some(Command::Exhaust { rule, sets, set, from, count, threads }) => {
            let threads = threads.or_else(|| std::thread::available_parallelism().ok());
            let options = exhaust::Options {
                rules: if rule.is_empty() { RuleName::ALL.to_vec() } else { rule.clone() },
                sets: *set..set.saturating_add(*sets),
                from: *from,
                count: count.unwrap_or(exhaust::ALL),
                threads: threads.map_or(1, NonZeroUsize::get),
                isas: isas.into_iter().filter(|&isa| isa != Isa::REFERENCE).collect(),
            };
            run_exhaust(cli, &options)
        }
        Some(Command::Vectors { files, strict }) => {
            let options = vectors::Options { isas, strict: *strict };
            let mut reports = Vec::new();
            for file in files {
                let bar = progress(&file_name(file));
                let report = vectors::run(file, &options, |done, total| step(&bar, done, total))?;
                bar.finish_and_clear();
                println!("{report}");
                reports.push(report);
            }
            cli.common.write_json(&reports)?;
            Ok(reports.iter().all(vectors::FileReport::is_clean))
        }
        Some(Command::Bench(arguments)) => run_bench(&cli.common, arguments, isas),
    }
}

impl Common {
    fn isas(&self) -> Failable<Vec<Isa>> {
        if self.isa.is_empty() {
            return Ok(Isa::available().collect());
        }
        Ok(self.isa.iter().map(|&name| Isa::new(name)).collect::<Result<_, _>>()?)
    }

    /// The instruction set to run on: the one asked for, or the fastest.
    fn one_isa(&self, isas: &[Isa]) -> Failable<Isa> {
        match (self.isa.len(), isas) {
            (0, _) => Ok(Isa::best()),
            (_, [isa]) => Ok(*isa),
            _ => Err("this command runs on one instruction set: give --isa one name".into()),
        }
    }

    fn write_json(&self, report: &impl Serialize) -> Failable<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()).into())
    }
}

/// What is wrong with a file.
fn at(path: &Path, error: &dyn Error) -> String {
    format!("{}: {error}", path.display())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read(path: &Path) -> Failable<Export> {
    Export::read(path).map_err(|error| match error {
        io @ qexact_model::LoadError::Io { .. } => io.into(),
        other => format!("{}: {other}", path.display()).into(),
    })
}

/// A bar that shows itself only on a terminal.
fn progress(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("a valid template");
    ProgressBar::new(0).with_style(style).with_message(what.to_string())
}

fn step(bar: &ProgressBar, done: usize, total: usize) {
    bar.set_length(total as u64);
    bar.set_position(done as u64);
}

fn verify(name: &str, export: &Export, isas: &[Isa], strict: bool) -> Failable<network::NetworkReport> {
    let bar = progress(name);
    let options = network::Options { isas: isas.to_vec(), strict };
    let report = network::verify(name, export, &options, |done, total| step(&bar, done, total))
        .map_err(|e| format!("{name}: {e}"))?;
    bar.finish_and_clear();
    println!("{}", render::network(&report));
    Ok(report)
}

fn run_network(export: &Path, input: &Path, output: &Path, isa: Isa) -> Failable<()> {
    let export = read(export)?;
    let bytes = std::fs::read(input).map_err(|e| at(input, &e))?;
    let mut given = read_tensors(&bytes).map_err(|e| at(input, &e))?;
    let values = export.network.values();
    let mut inputs = Vec::new();
    for &value in export.network.inputs() {
        let name = &values[value].name;
        let position = given.iter().position(|(given, _)| given == name);
        let position = position.ok_or_else(|| {
            let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
            format!("{}: has no tensor `{name}`, an input of the graph; it has {names:?}", input.display())
        })?;
        inputs.push(given.swap_remove(position).1);
    }
    if let Some((name, _)) = given.first() {
        return Err(format!("{}: the tensor `{name}` is no input of the graph", input.display()).into());
    }
    let executor = Executor::new(&export.network, isa)?;
    let outputs = executor.run(&inputs)?;
    let named = export.network.outputs().iter().map(|&o| values[o].name.clone()).zip(outputs);
    let mut unique: Vec<_> = Vec::new();
    for (name, tensor) in named {
        if !unique.iter().any(|(seen, _)| *seen == name) {
            println!("{name}: {} {:?}, batch {}", tensor.dtype(), tensor.shape(), tensor.batch());
            unique.push((name, tensor));
        }
    }
    let bytes = write_tensors(&unique)?;
    std::fs::write(output, bytes).map_err(|e| at(output, &e))?;
    println!("ran on {isa}, wrote {}", output.display());
    Ok(())
}

fn quantize_network(float: &Path, output: &Path, options: QuantizeOptions) -> Failable<()> {
    let bytes = std::fs::read(float).map_err(|e| at(float, &e))?;
    let quantized = quantize(&bytes, options).map_err(|e| at(float, &e))?;
    for value in &quantized.observed {
        let (range, q) = (value.range, value.quantization);
        let origin = if value.given { "given" } else { "seen" };
        println!(
            "{}: {} .. {} ({origin}), scale {}, zero point {}",
            value.value,
            range.min(),
            range.max(),
            q.scale(),
            q.zero_point()
        );
    }
    std::fs::write(output, quantized.bytes).map_err(|e| at(output, &e))?;
    println!("wrote {}", output.display());
    Ok(())
}

fn run_check(cli: &Cli, words: &[String], outputs: u64, seed: u64, isas: Vec<Isa>) -> Failable<bool> {
    let cases = Case::parse_all(words)?;
    let bar = progress("check");
    let options = check::Options { cases, outputs, seed, isas };
    let summary = check::run(
        &options,
        |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
        |failure| bar.suspend(|| println!("{failure}")),
    )?;
    bar.finish_and_clear();
    print!("{}", render::check(&summary));
    cli.common.write_json(&summary)?;
    Ok(summary.passed())
}

fn run_exhaust(cli: &Cli, options: &exhaust::Options) -> Failable<bool> {
    if options.isas.is_empty() {
        return Err("the reference is what the others are compared with: give --isa another name".into());
    }
    let bar = progress("exhaust");
    let advance = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let outcomes = exhaust::run(options, advance, |outcome| {
        bar.suspend(|| outcome.failures.iter().for_each(|failure| println!("FAIL {failure}")));
    })?;
    bar.finish_and_clear();
    print!("{}", render::exhaust(&outcomes));
    cli.common.write_json(&outcomes)?;
    Ok(outcomes.iter().all(exhaust::Outcome::is_clean))
}

fn run_bench(common: &Common, arguments: &BenchArgs, mut isas: Vec<Isa>) -> Failable<bool> {
    // Nobody waits for the reference who does not ask for it.
    if common.isa.is_empty() && isas.len() > 1 {
        isas.retain(|&isa| isa != Isa::REFERENCE);
    }
    let seconds = if arguments.quick { arguments.seconds / 10.0 } else { arguments.seconds };
    let time = Duration::try_from_secs_f64(seconds).map_err(|e| format!("seconds is {seconds}: {e}"))?;
    let (shapes, exports) = arguments.subjects()?;
    let cores = bench::cpu::place(arguments.core, arguments.threads)?;
    let BenchArgs { mode, rule, weight_bits, .. } = *arguments;
    let bench = Bench::new(bench::Options { isas, mode, rule, weight_bits, cores, time })?;
    let create = |path: &PathBuf| File::create(path).map(|file| (path.clone(), file)).map_err(|e| at(path, &e));
    let mut json = common.json.as_ref().map(create).transpose()?;
    let (mut report, mut right) = (bench::Report::new(), true);
    let mut tell = |outcome| -> Failable<()> {
        match outcome {
            Outcome::Wrong(wrong) => {
                right = false;
                println!("{wrong}");
            }
            Outcome::Timed(row) => {
                println!("{row}");
                if let Some((path, file)) = &mut json {
                    writeln!(file, "{}", serde_json::to_string(&row)?).map_err(|e| at(path, &e))?;
                }
                report.add(*row);
            }
        }
        Ok(())
    };
    print!("{}", bench.preamble());
    for shape in &shapes {
        bench.shape(shape)?.into_iter().try_for_each(&mut tell)?;
    }
    for (path, export) in &exports {
        bench.network(&file_name(path), export)?.into_iter().try_for_each(&mut tell)?;
    }
    print!("{report}");
    Ok(right)
}

/// A network and the file that it is from.
type Named<'a> = (&'a Path, Export);

impl BenchArgs {
    fn subjects(&self) -> Failable<(Vec<Shape>, Vec<Named<'_>>)> {
        let mut shapes = match &self.shapes {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| at(path, &e))?;
                Shape::parse_file(&text).map_err(|e| at(path, &e))?
            }
            None if self.what.is_empty() => {
                let mut shapes = Shape::embedded();
                shapes.push(Shape { name: "tiny call".into(), ..Shape::parse_line("linear m1k16n16", "overhead")? });
                shapes
            }
            None => Vec::new(),
        };
        let mut exports = Vec::new();
        let mut words = self.what.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word.split_once(' ').map_or(word, |(first, _)| first) {
                "linear" | "conv" => {
                    let extents = if word.contains(' ') { "" } else { words.next().unwrap_or("") };
                    shapes.push(Shape::parse_line(format!("{word} {extents}").trim(), "cases")?);
                }
                _ => exports.push((Path::new(word), read(Path::new(word))?)),
            }
        }
        Ok((shapes, exports))
    }
}
