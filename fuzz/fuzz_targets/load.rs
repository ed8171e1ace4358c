//! Any bytes as an export.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::load::run, qexact_fuzz::File);
