//! Operator vectors: what was recorded is reproduced, what was altered is noticed, what is malformed is refused.

mod differences;
mod files;
mod refusals;
mod saturation;

use files::FILES;
use qexact_kernels::{Isa, IsaName};
use qexact_verify::vectors::{FileReport, Options, Totals, run, run_bytes};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/vectors").join(format!("{name}.safetensors"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn every_isa() -> Options {
    Options { isas: Isa::available().collect(), strict: false }
}

/// The report of the reference alone.
fn reference(bytes: &[u8], strict: bool) -> FileReport {
    run_bytes("memory", bytes, &Options { isas: Vec::new(), strict }, |_, _| ()).unwrap()
}

/// The header, and where the data begins.
fn header(bytes: &[u8]) -> (Json, usize) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), end)
}

/// Where a tensor's bytes lie in the file.
fn span(bytes: &[u8], tensor: &str) -> std::ops::Range<usize> {
    let (header, data) = header(bytes);
    let offset = |i: usize| data + header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

/// A file with another header.
fn edit(bytes: &[u8], change: impl Fn(&mut Json)) -> Vec<u8> {
    let (mut header, data) = header(bytes);
    change(&mut header);
    let text = header.to_string();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[data..]].concat()
}

#[test]
fn what_was_recorded_is_reproduced() {
    for name in IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err()) {
        println!("SKIPPED {name}: this CPU lacks it");
    }
    for &(name, cases, outputs, saturated) in FILES {
        let mut steps = Vec::new();
        let report = run(&path(name), &every_isa(), |done, total| steps.push((done, total))).unwrap();
        println!("{report}");
        assert!(report.is_clean(), "{name}");
        let equal = outputs - saturated;
        let expected = Totals { cases, outputs, equal, saturated, differences: 0, kernel_differences: 0 };
        assert_eq!(report.totals, expected, "{name}");
        assert_eq!(steps, (0..=cases).map(|done| (done, cases)).collect::<Vec<_>>());
        for isa in report.cases.iter().flat_map(|case| &case.isas) {
            // Moving codes needs no kernel.
            let portable = isa.isa == "reference" || name.contains("upsample");
            assert_eq!(isa.kernel == "reference", portable, "{name}: {} on {}", isa.kernel, isa.isa);
        }
    }
}
