//! qexact among its peers: reads shapes from standard input, an object of a shapes file a line, and answers each with a
//! line of JSON, as `peers/README.md` says.

use clap::Parser;
use qexact_kernels::{Isa, IsaName};
use qexact_verify::bench::{Bench, Mode, Options, Outcome, RuleName, Shape, cpu};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Duration;

/// Times each shape that it reads.
#[derive(Parser)]
struct Arguments {
    /// Instruction set
    #[arg(long)]
    isa: IsaName,
    /// Seconds for each shape
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let bench = Bench::new(Options {
        isas: vec![Isa::new(arguments.isa)?],
        mode: Mode::Warm,
        rule: RuleName::F32Mul,
        weight_bits: 8,
        cores: cpu::place(None, 1)?,
        time: Duration::try_from_secs_f64(arguments.seconds)?,
    })?;
    for line in std::io::stdin().lock().lines() {
        let mut answer = std::io::stdout().lock();
        for shape in Shape::parse_file(&format!("[{}]", line?))? {
            match bench.shape(&shape)?.remove(0) {
                Outcome::Timed(row) => writeln!(answer, "{}", serde_json::to_string(&row)?)?,
                Outcome::Wrong(wrong) => {
                    let error = wrong.to_string();
                    writeln!(answer, "{}", serde_json::json!({ "name": shape.name, "error": error }))?;
                }
            }
        }
        answer.flush()?;
    }
    Ok(())
}
