//! What a check reports.

use super::material::Material;
use super::outputs;
use crate::case::Case;
use qexact_kernels::{Isa, IsaName};
use qexact_reference::Region;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A case on which a kernel fails. It prints as one line, which parses as the case.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The case, with its instruction set.
    pub case: Case,
    /// What happened.
    pub fault: Fault,
}

/// What a kernel did.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Outputs differ.
    Differs {
        /// The part of the output that was computed, if not all of it.
        part: Option<Region>,
        /// The first wrong output: image, depth, height, width, channel.
        at: [usize; 5],
        /// The reference's accumulator.
        accumulator: i32,
        /// The reference's output.
        want: String,
        /// The kernel's output.
        got: String,
        /// How many outputs are wrong.
        count: u64,
    },
    /// A byte beside a buffer changed.
    WroteOutside {
        /// `output` or `scratch`.
        buffer: &'static str,
        /// Counted from the buffer's first.
        byte: isize,
    },
    /// The kernel's plan returned an error.
    Refused(String),
    /// The kernel panicked.
    Panicked(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAIL {}", self.case)?;
        if let Some(isa) = self.case.isa {
            write!(f, " kernel={}", self.case.kernel(isa))?;
        }
        write!(f, " {}", self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Differs { part, at: [n, z, y, x, c], accumulator, want, got, .. } => {
                if let Some(Region { rows, channels }) = part {
                    write!(f, "rows={}..{} channels={}..{} ", rows.start, rows.end, channels.start, channels.end)?;
                }
                write!(f, "at n{n}z{z}y{y}x{x}c{c} acc={accumulator} want={want} got={got}")
            }
            Fault::WroteOutside { buffer, byte } => write!(f, "wrote outside {buffer} at byte {byte}"),
            // One line that a shell reads as one word.
            Fault::Refused(text) => write!(f, "refused='{}'", one_line(text)),
            Fault::Panicked(text) => write!(f, "panicked='{}'", one_line(text)),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\'', "`").replace('\n', " ")
}

/// Outcome of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Each instruction set that was checked.
    pub isas: Vec<IsaSummary>,
    /// Instruction sets that this CPU lacks.
    pub skipped: Vec<String>,
    /// The failures shown, shrunk, a line each.
    pub failures: Vec<String>,
    /// Cases that prove little: more than 99 % of their outputs are one value.
    pub weak: Vec<String>,
}

/// Outcome of a check for one instruction set.
#[derive(Clone, Debug, Serialize)]
pub struct IsaSummary {
    /// Its name.
    pub isa: String,
    /// Cases run.
    pub cases: u64,
    /// Outputs compared; those of a case count once, however often it is computed.
    pub outputs: u64,
    /// Cases that failed in any way.
    pub failures: u64,
    /// Outputs that differ, of the first computation of a case that went wrong.
    pub differences: u64,
    /// Cases that prove little.
    pub weak: u64,
    /// Kernels used, and by how many cases.
    pub kernels: BTreeMap<String, u64>,
}

impl Summary {
    /// Nothing yet.
    pub(super) fn new() -> Summary {
        let skipped = IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err());
        Summary {
            isas: Vec::new(),
            skipped: skipped.map(|name| name.to_string()).collect(),
            failures: Vec::new(),
            weak: Vec::new(),
        }
    }

    /// The outcome for an instruction set.
    pub(super) fn of(&mut self, isa: Isa) -> &mut IsaSummary {
        let name = isa.to_string();
        let at = self.isas.iter().position(|s| s.isa == name).unwrap_or_else(|| {
            let kernels = BTreeMap::new();
            let isa = IsaSummary { isa: name, cases: 0, outputs: 0, failures: 0, differences: 0, weak: 0, kernels };
            self.isas.push(isa);
            self.isas.len() - 1
        });
        &mut self.isas[at]
    }

    /// Whether no case failed.
    pub fn passed(&self) -> bool {
        self.isas.iter().all(|isa| isa.failures == 0)
    }
}

impl IsaSummary {
    pub(super) fn count(&mut self, case: &Case, material: &Material, isa: Isa, failure: Option<&Failure>) {
        self.cases += 1;
        self.outputs += outputs(case);
        self.weak += u64::from(material.is_weak());
        *self.kernels.entry(case.kernel(isa.name())).or_default() += 1;
        self.failures += u64::from(failure.is_some());
        if let Some(Failure { fault: Fault::Differs { count, .. }, .. }) = failure {
            self.differences += count;
        }
    }
}
