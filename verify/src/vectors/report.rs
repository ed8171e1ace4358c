//! What came out, as data and as text.

use crate::explain::Reason;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};
use std::fmt;

/// What came out of a file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// The file.
    pub file: String,
    /// Whose arithmetic was recorded.
    pub dialect: String,
    /// The operator.
    pub op: String,
    /// The runtime, as it was noted down.
    pub runtime: String,
    /// Case by case.
    pub cases: Vec<CaseReport>,
    /// Sums over the cases.
    pub totals: Totals,
}

/// What came out of a case. `outputs = equal + saturated + differences`.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// `case00`, `case01`, …
    pub name: String,
    /// What the case stresses.
    pub tag: Option<String>,
    /// The operator's geometry in one line.
    pub description: String,
    /// Outputs recorded.
    pub outputs: usize,
    /// Outputs on which reference and recording agree, bit for bit.
    pub equal: usize,
    /// Outputs that differ and are what the runtime's saturating pairs lead to.
    pub saturated: usize,
    /// Outputs that differ.
    pub differences: usize,
    /// Each instruction set against the reference.
    pub isas: Vec<IsaReport>,
    /// The first output that differs from the recording.
    pub first_difference: Option<Difference>,
    /// The first output excused as saturated.
    pub first_saturated: Option<Difference>,
}

/// An instruction set against the reference.
#[derive(Clone, Debug, Serialize)]
pub struct IsaReport {
    /// Its name.
    pub isa: String,
    /// The kernel that ran; `reference` where there is none for this operator.
    pub kernel: String,
    /// Outputs that differ from the reference.
    pub differences: usize,
    /// The first of them; what the reference computes is what was expected.
    pub first_difference: Option<Difference>,
}

/// An output that is not what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The tensor it belongs to.
    pub tensor: &'static str,
    /// Its coordinates in the recorded tensor.
    pub index: Vec<usize>,
    /// The exact accumulator, where the operator has one.
    pub accumulator: Option<i32>,
    /// What it should be.
    pub expected: Value,
    /// What it is.
    pub got: Value,
    /// Why, where that is known.
    pub reason: Option<Reason>,
}

/// An output.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A code, or an accumulator.
    Code(i32),
    /// A real number.
    Real(f32),
}

impl Value {
    /// Whether two outputs have the same bits.
    pub fn same(self, other: Value) -> bool {
        match (self, other) {
            (Value::Code(a), Value::Code(b)) => a == b,
            (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

impl From<u8> for Value {
    fn from(code: u8) -> Value {
        Value::Code(code.into())
    }
}

impl From<i8> for Value {
    fn from(code: i8) -> Value {
        Value::Code(code.into())
    }
}

impl From<i16> for Value {
    fn from(code: i16) -> Value {
        Value::Code(code.into())
    }
}

impl From<i32> for Value {
    fn from(accumulator: i32) -> Value {
        Value::Code(accumulator)
    }
}

impl From<f32> for Value {
    fn from(real: f32) -> Value {
        Value::Real(real)
    }
}

/// Codes are numbers; real numbers are text that shows the bits, since JSON knows neither NaN nor infinity.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Code(code) => serializer.serialize_i32(*code),
            Value::Real(_) => serializer.collect_str(self),
        }
    }
}

/// Sums over cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Cases checked.
    pub cases: usize,
    /// Outputs recorded.
    pub outputs: usize,
    /// Outputs on which reference and recording agree.
    pub equal: usize,
    /// Outputs excused as saturated.
    pub saturated: usize,
    /// Outputs on which reference and recording differ.
    pub differences: usize,
    /// Outputs on which an instruction set and the reference differ, over all instruction sets.
    pub kernel_differences: usize,
}

impl FileReport {
    pub(super) fn new(
        file: String,
        dialect: String,
        op: String,
        runtime: String,
        cases: Vec<CaseReport>,
    ) -> FileReport {
        let totals = cases.iter().fold(Totals::default(), |t, case| Totals {
            cases: t.cases + 1,
            outputs: t.outputs + case.outputs,
            equal: t.equal + case.equal,
            saturated: t.saturated + case.saturated,
            differences: t.differences + case.differences,
            kernel_differences: t.kernel_differences + case.isas.iter().map(|isa| isa.differences).sum::<usize>(),
        });
        FileReport { file, dialect, op, runtime, cases, totals }
    }

    /// No differences: neither of the reference from the recording nor of a kernel from the reference.
    pub fn is_clean(&self) -> bool {
        self.totals.differences == 0 && self.totals.kernel_differences == 0
    }
}

/// A table with a line a case, and below it a line for everything that wants an explanation.
impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} {}, recorded from {}", self.file, self.dialect, self.op, self.runtime)?;
        let isas = self.cases.first().map_or(&[][..], |case| &case.isas);
        let heads = ["case", "about", "shape", "kernel", "outputs", "equal", "saturated", "recording"];
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(heads.into_iter().chain(isas.iter().map(|isa| isa.isa.as_str())));
        for case in &self.cases {
            let kernel = case.isas.last().map_or("reference", |isa| &isa.kernel);
            let texts = [&case.name, case.tag.as_deref().unwrap_or_default(), &case.description, kernel];
            let counts = [case.outputs, case.equal, case.saturated, case.differences].into_iter();
            let counts = counts.chain(case.isas.iter().map(|isa| isa.differences));
            table.add_row(texts.map(str::to_owned).into_iter().chain(counts.map(|n| n.to_string())));
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        writeln!(
            f,
            "columns `recording` and instruction sets count differences: reference against recording, kernels against \
             reference"
        )?;
        self.cases.iter().try_for_each(|case| write!(f, "{case}"))?;
        let Totals { cases, outputs, equal, saturated, differences, kernel_differences } = self.totals;
        write!(
            f,
            "{cases} cases, {outputs} outputs: {equal} equal, {saturated} saturated, {differences} differences; \
             {kernel_differences} differences between kernels and reference"
        )
    }
}

/// The lines of explanation.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CaseReport { name, saturated, differences, .. } = self;
        if let Some(first) = &self.first_saturated {
            let first = first.sentence("recorded", "exact");
            writeln!(f, "{name}: {saturated} outputs saturated in the recording, the first {first}")?;
        }
        if let Some(first) = &self.first_difference {
            let first = first.sentence("recorded", "reference");
            writeln!(f, "{name}: {differences} outputs differ from the recording, the first {first}")?;
        }
        for IsaReport { isa, kernel, differences, first_difference } in &self.isas {
            if let Some(first) = first_difference {
                let first = first.sentence("reference", "kernel");
                writeln!(f, "{name}: {differences} outputs of {kernel} on {isa} differ, the first {first}")?;
            }
        }
        Ok(())
    }
}

impl Difference {
    /// Everything known, with names for the two sides.
    fn sentence(&self, expected: &str, got: &str) -> String {
        let mut text = format!("{}{:?}: {expected} {}, {got} {}", self.tensor, self.index, self.expected, self.got);
        if let Some(accumulator) = self.accumulator {
            text += &format!(", accumulator {accumulator}");
        }
        if let Some(reason) = &self.reason {
            text += &format!("; {reason}");
        }
        text
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Code(code) => write!(f, "{code}"),
            Value::Real(real) => write!(f, "{real:?} (0x{:08x})", real.to_bits()),
        }
    }
}
