//! Any text as a shape or a case.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::shape::run, String);
