//! Any bytes as recorded operator vectors.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::vectors::run, qexact_fuzz::File);
