//! Every target on the committed corpus, and on inputs that only look random: the same ones on every run.

use qexact_fuzz::{Run, TARGETS, load, vectors};
use qexact_model::{QuantizeOptions, quantize};
use qexact_verify::fill::Random;
use std::path::Path;

/// Runs a target on its corpus, and then on so many mutants of it.
fn target(name: &str, inputs: usize) {
    let run = TARGETS.into_iter().find(|target| target.0 == name).expect("a target").1;
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for (_, input) in &corpus {
        run(input);
    }
    // Two halves, two threads.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let corpus = &corpus;
            scope.spawn(move || generated(run, corpus, half, inputs / 2));
        }
    });
}

/// Runs a target on mutants of its corpus.
fn generated(run: Run, corpus: &[(String, Vec<u8>)], seed: u64, inputs: usize) {
    let mut random = Random::new(seed);
    for _ in 0..inputs {
        let mut below = |n: usize| (random.bits() % n as u64) as usize;
        let mut input = corpus[below(corpus.len())].1.clone();
        for _ in 0..1 + below(4) {
            mutate(&mut input, &mut below);
        }
        run(&input);
    }
}

/// Changes, inserts or removes some bytes, at the end or anywhere.
fn mutate(input: &mut Vec<u8>, below: &mut impl FnMut(usize) -> usize) {
    let (at, len) = (below(input.len() + 1), 1 + below(8));
    let end = (at + len).min(input.len());
    match below(5) {
        0 => drop(input.drain(at..end)),
        1 => drop(input.splice(at..at, (0..len).map(|_| below(256) as u8))),
        2 => input.extend((0..4 * len).map(|_| below(256) as u8)),
        3 => input[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add([1, 255][below(2)])),
        _ => input[at..end].iter_mut().for_each(|byte| *byte = below(256) as u8),
    }
}

/// Name and content of each committed input.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus_seed").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut corpus: Vec<_> = files
        .map(|file| {
            let file = file.expect("an entry");
            (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("a file"))
        })
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn layers() {
    // Each is computed some fifty times, in buffers of its own.
    target("layer", 1_000);
}

#[test]
fn exports() {
    target("load", 30_000);
}

#[test]
fn edited_exports() {
    target("load_edited", 10_000);
}

#[test]
fn operator_vectors() {
    target("vectors", 100_000);
}

#[test]
fn edited_operator_vectors() {
    target("vectors_edited", 20_000);
}

#[test]
fn shapes() {
    target("shape", 100_000);
}

/// Where no seed gets through, the targets would prove nothing.
#[test]
fn seeds_of_exports_are_clean() {
    let corpus = corpus("load");
    assert_eq!(corpus.iter().map(|(_, file)| file.as_slice()).collect::<Vec<_>>(), load::SEEDS);
    for (name, file) in corpus {
        let quantized = quantize(&file, QuantizeOptions::default());
        assert_eq!(quantized.is_ok(), name == "float.safetensors", "{name}: {quantized:?}");
        let export = quantized.map_or(file, |quantized| quantized.bytes);
        let report = load::check(&export).unwrap_or_else(|| panic!("{name} is refused"));
        assert!(report.is_clean() && report.nodes.iter().all(|node| node.compared > 0), "{name}: {report:?}");
    }
}

#[test]
fn seeds_of_vectors_are_clean() {
    let corpus = corpus("vectors");
    assert_eq!(corpus.iter().map(|(_, file)| file.as_slice()).collect::<Vec<_>>(), vectors::SEEDS);
    for (name, file) in corpus {
        let report = vectors::check(&file).unwrap_or_else(|| panic!("{name} is refused"));
        assert!(report.is_clean() && report.totals.outputs > 0, "{name}: {report}");
    }
}
