//! A file of recorded operator vectors, edited.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::vectors::run_edited, qexact_fuzz::vectors::Edited);
