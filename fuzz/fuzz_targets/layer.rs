//! Kernels against the reference, on any layer.

#![cfg_attr(fuzzing, no_main)]

qexact_fuzz::target!(qexact_fuzz::layer::run, qexact_fuzz::layer::Layer);
