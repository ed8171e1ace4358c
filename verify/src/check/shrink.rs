//! Makes a failing case smaller while it still fails.

use super::{Failure, Fault};
use crate::case::{BiasForm, Case, Clamp, F32MulForm, OtherForm, RuleForm, ZeroPoints};
use qexact_reference::requantize::Overflow;
use qexact_reference::{Axis, Conv};
use std::panic;

/// Cases tried for one failure.
const TRIES: usize = 300;

/// Extents to try: small ones, and the tiles' less one, as they are and plus one.
const NUMBERS: [usize; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 64];

/// The smallest failure that lowering one number after the other leads to. `check` says how a case fails, if it does.
pub(super) fn shrink(failure: Failure, check: impl FnMut(&Case) -> Option<Failure>) -> Failure {
    if !matches!(failure.fault, Fault::Panicked(_)) {
        return shrink_loudly(failure, check);
    }
    // One panic has been reported as such; the rest would bury the line.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let smallest = shrink_loudly(failure, check);
    panic::set_hook(hook);
    smallest
}

fn shrink_loudly(failure: Failure, mut check: impl FnMut(&Case) -> Option<Failure>) -> Failure {
    let mut best = failure;
    let mut tries = TRIES;
    loop {
        let before = best.case;
        for simplify in SIMPLER {
            let mut case = best.case;
            simplify(&mut case);
            if case != best.case && case.shape.validate().is_ok() && take(&mut tries) {
                best = check(&case).unwrap_or(best);
            }
        }
        for at in 0..extents(&before.shape).len() {
            let smaller = smaller(extents(&best.case.shape)[at]).into_iter().map(|extent| {
                let mut extents = extents(&best.case.shape);
                extents[at] = extent;
                Case { shape: with_extents(extents), ..best.case }
            });
            let valid: Vec<Case> = smaller.filter(|case| case.shape.validate().is_ok()).collect();
            if let Some(failure) = valid.iter().filter(|_| take(&mut tries)).find_map(&mut check) {
                best = failure;
            }
        }
        if best.case == before || tries == 0 {
            return best;
        }
    }
}

fn take(tries: &mut usize) -> bool {
    let left = *tries > 0;
    *tries -= usize::from(left);
    left
}

/// The numbers of a shape. Channels are counted by group, so that any choice of them is a shape.
fn extents(shape: &Conv) -> [usize; 22] {
    let mut extents = [shape.groups, shape.group_inputs(), shape.group_outputs(), shape.batch].to_vec();
    for axis in shape.axes {
        let [before, after] = axis.padding;
        extents.extend([axis.input, axis.kernel, axis.stride, axis.dilation, before, after]);
    }
    extents.try_into().expect("four numbers and six an axis")
}

fn with_extents([groups, inputs, outputs, batch, axes @ ..]: [usize; 22]) -> Conv {
    let axis = |i: usize| {
        let [input, kernel, stride, dilation, before, after] = axes[6 * i..][..6] else { unreachable!("six numbers") };
        Axis { input, kernel, stride, dilation, padding: [before, after] }
    };
    Conv {
        batch,
        in_channels: groups * inputs,
        out_channels: groups * outputs,
        groups,
        axes: [axis(0), axis(1), axis(2)],
    }
}

/// Smaller numbers, the smallest first.
fn smaller(n: usize) -> Vec<usize> {
    let mut smaller = NUMBERS.to_vec();
    smaller.extend([n / 2, n - n / 4, n - n / 8, n - n / 16, n.saturating_sub(1)]);
    smaller.retain(|&v| v < n);
    smaller.sort_unstable();
    smaller.dedup();
    smaller
}

/// Each takes one thing to its plainest, where lowering numbers one after the other may not lead.
const SIMPLER: [fn(&mut Case); 13] = [
    |case| case.shape.axes = [Axis::UNIT; 3],
    |case| case.shape.axes[0] = Axis::UNIT,
    |case| case.shape.axes[1] = Axis::UNIT,
    |case| case.shape.axes[2] = Axis::UNIT,
    |case| case.weight_zero_points = ZeroPoints::Zero,
    |case| case.weight = None,
    |case| with_form(case, |form| form.bias = BiasForm::None),
    |case| with_form(case, |form| form.per_channel = false),
    |case| with_form(case, |form| form.clamp = Clamp::Full),
    |case| with_form(case, |form| form.overflow = Overflow::Convert),
    |case| with_other(case, |form| form.bias = false),
    |case| with_other(case, |form| form.per_channel = false),
    |case| with_other(case, |form| form.clamp = Clamp::Full),
];

fn with_form(case: &mut Case, change: impl Fn(&mut F32MulForm)) {
    if let RuleForm::F32Mul(form) = &mut case.rule {
        change(form);
    }
}

fn with_other(case: &mut Case, change: impl Fn(&mut OtherForm)) {
    if let RuleForm::Other(form) = &mut case.rule {
        change(form);
    }
}
