//! # qexact-fuzz
//!
//! What [cargo-fuzz](https://rust-fuzz.github.io/book/cargo-fuzz.html) runs, as functions that tests can call too.
//!
//! | target | input | what must hold |
//! |---|---|---|
//! | `layer` | any layer, as a case of `qexact check` | every instruction set computes what the reference does |
//! | `load`, `load_edited` | any bytes; a small export or float network, edited | no panic; what loads can be inspected, analyzed and verified, and kernels agree |
//! | `vectors`, `vectors_edited` | any bytes; recorded vectors, edited | no panic, and kernels agree with the reference |
//! | `shape` | any text | what parses prints as what parses equal; output extents count windows |

pub mod edit;
pub mod layer;
pub mod load;
pub mod shape;
pub mod vectors;

use arbitrary::{Arbitrary, Result, Unstructured};
use std::fmt::{self, Debug};

/// Runs a target on one input of the fuzzer.
pub type Run = fn(&[u8]);

/// Name of each target, and how to run it.
pub const TARGETS: [(&str, Run); 6] = [
    ("layer", |bytes| with(bytes, layer::run)),
    ("load", |bytes| with(bytes, load::run)),
    ("load_edited", |bytes| with(bytes, load::run_edited)),
    ("vectors", |bytes| with(bytes, vectors::run)),
    ("vectors_edited", |bytes| with(bytes, vectors::run_edited)),
    ("shape", |bytes| with(bytes, shape::run)),
];

/// Decodes an input as libFuzzer's harness does, and runs a target on it.
pub fn with<'a, T: Arbitrary<'a>>(bytes: &'a [u8], run: impl Fn(T)) {
    if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(bytes)) {
        run(input);
    }
}

/// The content of a file: all bytes of the input.
pub struct File(pub Vec<u8>);

impl<'a> Arbitrary<'a> for File {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<File> {
        let len = u.len();
        u.bytes(len).map(|bytes| File(bytes.to_vec()))
    }
}

impl Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The program that a target is without cargo-fuzz: shows what each file of its arguments stands for, and runs on it.
pub fn replay<T: for<'a> Arbitrary<'a> + Debug>(run: fn(T)) {
    let files: Vec<String> = std::env::args().skip(1).collect();
    assert!(!files.is_empty(), "expected files to run on, such as those that cargo-fuzz writes to artifacts/");
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        with(&bytes, |input: T| {
            println!("{file}: {input:?}");
            run(input);
        });
    }
}

/// The content of a target's file: an entry for libFuzzer, or without cargo-fuzz a program that runs on files.
#[macro_export]
macro_rules! target {
    ($run:path, $input:ty) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: $input| $run(input));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::replay::<$input>($run);
        }
    };
}
