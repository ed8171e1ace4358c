//! Reports as text.

use crate::check::Summary;
use crate::exhaust::Outcome;
use crate::network::{Difference, NetworkReport, NodeReport};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use std::fmt::Write as _;

/// An empty table in the house style; the columns from `numbers` on are right-aligned.
pub fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `1234567` as `1 234 567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The report of `qexact verify`.
pub fn network(report: &NetworkReport) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}   recorded by {}", report.name, report.runtime);
    let isas: Vec<&str> = report.nodes.first().map_or(Vec::new(), |n| n.isas.iter().map(|i| i.isa.as_str()).collect());
    let mut header = vec!["layer", "operator", "kernel", "codes compared", "recording"];
    header.extend(&isas);
    let mut rows = table(&header, 3);
    for node in &report.nodes {
        let kernel = node.isas.last().map_or("reference", |isa| isa.kernel.as_str());
        let codes = node.compared + node.isas.iter().map(|isa| isa.compared).sum::<u64>();
        let mut row =
            vec![node.name.clone(), node.op.clone(), kernel.to_string(), grouped(codes), against_recording(node)];
        row.extend(node.isas.iter().map(|isa| grouped(isa.differences)));
        rows.add_row(row);
    }
    let _ = writeln!(text, "{rows}");
    let _ = writeln!(
        text,
        "columns `recording` and instruction sets count differences: the reference against the recording, kernels against the reference"
    );
    for skipped in &report.skipped {
        let _ = writeln!(text, "SKIPPED: {skipped}, which this CPU lacks");
    }
    for part in &report.altered {
        let _ = writeln!(text, "ALTERED: the digest of `{part}` does not match its bytes");
    }
    for node in &report.nodes {
        details(&mut text, node);
    }
    for run in &report.end_to_end {
        let _ = write!(
            text,
            "end to end on {:<12} {} of {} samples",
            run.isa,
            report.samples as u64 - run.different_samples,
            report.samples
        );
        let _ = write!(text, " equal the recorded outputs");
        if run.different_samples > 0 && run.saturated_samples == run.different_samples {
            let _ = write!(text, " (the others follow from saturated pairs in the recording)");
        }
        if let (Some(ours), Some(theirs)) = (run.correct, report.runtime_correct) {
            let percent = |n: u64| 100.0 * n as f64 / report.samples as f64;
            let _ = write!(text, "; accuracy {:.2} %, the runtime's {:.2} %", percent(ours), percent(theirs));
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", verdict(report));
    text
}

fn against_recording(node: &NodeReport) -> String {
    let mut text = grouped(node.differences);
    if node.different_samples > 0 {
        let _ = write!(text, " + {} samples", node.different_samples);
    }
    if node.saturated > 0 {
        let _ = write!(text, ", {} saturated", grouped(node.saturated));
    }
    if node.saturated_samples > 0 {
        let _ = write!(text, ", {} samples saturated", node.saturated_samples);
    }
    text
}

fn details(text: &mut String, node: &NodeReport) {
    if let Some(first) = &node.first_difference {
        let _ = writeln!(text, "DIFFERS: `{}` against the recording, first at {}", node.name, difference(first));
    }
    if node.unjudged_samples > 0 {
        let samples = node.unjudged_samples;
        let _ =
            writeln!(text, "         `{}`: {samples} samples could not be judged, a value before differs", node.name);
    }
    if let Some(first) = &node.first_saturated {
        let _ = writeln!(text, "SATURATED in the recording: `{}`, first at {}", node.name, difference(first));
    }
    for isa in &node.isas {
        if let Some(first) = &isa.first_difference {
            let (name, kernel) = (&node.name, &isa.kernel);
            let _ = writeln!(
                text,
                "DIFFERS: `{name}` on {} ({kernel}) from the reference, first at {}",
                isa.isa,
                difference(first)
            );
        }
    }
}

/// One difference in one line.
pub fn difference(d: &Difference) -> String {
    let mut text = match d.index.as_slice() {
        [sample] => format!("sample {sample}"),
        index => format!("index {index:?}"),
    };
    if let Some(accumulator) = d.accumulator {
        let _ = write!(text, ", accumulator {accumulator}");
    }
    match (d.expected, d.got) {
        (Some(expected), Some(got)) => {
            let _ = write!(text, ": expected {expected}, got {got}");
        }
        _ => text.push_str(": its digest is not the recorded one"),
    }
    if let Some(reason) = &d.reason {
        let _ = write!(text, " ({reason})");
    }
    text
}

fn verdict(report: &NetworkReport) -> String {
    let codes: u64 = report.nodes.iter().map(|n| n.compared + n.isas.iter().map(|i| i.compared).sum::<u64>()).sum();
    let saturated: u64 = report.nodes.iter().map(|n| n.saturated).sum();
    let samples: u64 = report.nodes.iter().map(|n| n.saturated_samples).sum();
    let recording: u64 = report.nodes.iter().map(|n| n.differences).sum();
    let by_digest: u64 = report.nodes.iter().map(|n| n.different_samples).sum();
    let kernels: u64 = report.nodes.iter().flat_map(|n| &n.isas).map(|i| i.differences).sum();
    let mut text = format!(
        "{}: {} codes compared, {} differences",
        if report.is_clean() { "PASS" } else { "FAIL" },
        grouped(codes),
        grouped(recording + kernels)
    );
    if by_digest > 0 {
        let _ = write!(text, " and {by_digest} differing digests");
    }
    if saturated + samples > 0 {
        let excused = if report.strict { "not excused" } else { "excused" };
        let _ = write!(text, "; {} codes and {samples} digests of saturated pairs, {excused}", grouped(saturated));
    }
    if !report.altered.is_empty() {
        let _ = write!(text, "; {} altered parts of the file", report.altered.len());
    }
    text
}

/// The summary of `qexact check`.
pub fn check(summary: &Summary) -> String {
    let mut text = String::new();
    let header =
        ["instruction set", "kernels (cases)", "cases", "weak", "outputs compared", "differences", "failed cases"];
    let mut rows = table(&header, 2);
    for isa in &summary.isas {
        let kernels: Vec<String> =
            isa.kernels.iter().map(|(kernel, cases)| format!("{kernel} ({})", grouped(*cases))).collect();
        let numbers = [isa.cases, isa.weak, isa.outputs, isa.differences, isa.failures].map(grouped);
        rows.add_row([isa.isa.clone(), kernels.join("\n")].into_iter().chain(numbers));
    }
    let _ = writeln!(text, "{rows}");
    for skipped in &summary.skipped {
        let _ = writeln!(text, "SKIPPED: {skipped}, which this CPU lacks");
    }
    if !summary.weak.is_empty() {
        let _ = writeln!(
            text,
            "weak: nearly all outputs of the case are one value, so it proves little; for example\n  {}",
            summary.weak[0]
        );
    }
    let outputs: u64 = summary.isas.iter().map(|isa| isa.outputs).sum();
    let failures: u64 = summary.isas.iter().map(|isa| isa.failures).sum();
    let verdict = if summary.passed() { "PASS" } else { "FAIL" };
    let _ = writeln!(text, "{verdict}: {} outputs compared, {} cases failed", grouped(outputs), grouped(failures));
    text
}

/// The outcomes of `qexact exhaust`.
pub fn exhaust(outcomes: &[Outcome]) -> String {
    let isas = outcomes.first().map_or(&[][..], |outcome| &outcome.differences);
    let fixed = ["rule", "sets", "without vectors", "outputs compared on each", "seconds"];
    let header: Vec<&str> = fixed.into_iter().chain(isas.iter().map(|(isa, _)| isa.as_str())).collect();
    let mut rows = table(&header, 1);
    for outcome in outcomes {
        let numbers = [outcome.sets, outcome.scalar_sets, outcome.outputs].map(grouped);
        let differences = outcome.differences.iter().map(|(_, count)| grouped(*count));
        let seconds = format!("{:.1}", outcome.seconds);
        rows.add_row([outcome.rule.clone()].into_iter().chain(numbers).chain([seconds]).chain(differences));
    }
    let outputs: u64 = outcomes.iter().map(|o| o.outputs.saturating_mul(o.differences.len() as u64)).sum();
    let differences: u64 = outcomes.iter().flat_map(|o| &o.differences).map(|(_, count)| count).sum();
    let verdict = if differences == 0 { "PASS" } else { "FAIL" };
    let seconds: f64 = outcomes.iter().map(|o| o.seconds).sum();
    let [outputs, differences] = [outputs, differences].map(grouped);
    format!("{rows}\n{verdict}: {outputs} outputs compared, {differences} differences, {seconds:.1} s\n")
}
