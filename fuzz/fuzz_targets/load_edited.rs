//! A small export, edited.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::load::run_edited, qexact_fuzz::load::Edited);
