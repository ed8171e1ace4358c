//! Operands of different shapes, as runs of outputs for which each operand is contiguous or one code.

use super::binary::{Binary, Operand};
use super::expect_len;
use crate::Isa;
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::broadcast::{broadcast_shape, strides};
use qexact_reference::{Code, Error};

/// R25 or R26 of all pairs of elements of two tensors whose shapes broadcast as numpy's do, in the order of the output
/// of [`broadcast_shape`].
///
/// # Errors
/// Shapes that do not broadcast or whose sizes overflow, slices that do not have their shape's length.
pub fn broadcast<A: Code, B: Code, Y: Code>(
    isa: Isa,
    rule: &impl Binary,
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
) -> Result<Vec<Y>, Error> {
    let shape = broadcast_shape(a_shape, b_shape)?;
    expect_len("a", a.len(), elements("elements of a", a_shape)?)?;
    expect_len("b", b.len(), elements("elements of b", b_shape)?)?;
    let mut y = vec![Y::MIN; elements("elements of the output", &shape)?];
    let strides = [strides(a_shape, &shape), strides(b_shape, &shape)];
    // The last axes, as many as repeat in the same operands, are one run. Axes of extent 1 fit any run.
    let (mut axes, mut run, mut repeats) = (shape.len(), 1, None);
    while axes > 0 {
        let (extent, axis) = (shape[axes - 1], axes - 1);
        let here = [strides[0][axis] == 0, strides[1][axis] == 0];
        if extent != 1 && *repeats.get_or_insert(here) != here {
            break;
        }
        (axes, run) = (axis, run * extent);
    }
    let [repeats_a, repeats_b] = repeats.unwrap_or([false; 2]);
    let mut at = vec![0usize; axes];
    for y in y.chunks_exact_mut(run.max(1)) {
        let start = |strides: &[usize]| at.iter().zip(strides).map(|(at, stride)| at * stride).sum::<usize>();
        let (a, b) = (&a[start(&strides[0])..], &b[start(&strides[1])..]);
        let a = if repeats_a { Operand::One(a[0]) } else { Operand::Each(&a[..run]) };
        let b = if repeats_b { Operand::One(b[0]) } else { Operand::Each(&b[..run]) };
        rule.run(isa, a, b, y)?;
        for (at, &extent) in at.iter_mut().zip(&shape).rev() {
            *at += 1;
            if *at < extent {
                break;
            }
            *at = 0;
        }
    }
    Ok(y)
}

fn elements(what: &'static str, shape: &[usize]) -> Result<usize, Error> {
    let product = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    product.filter(|&len| len <= isize::MAX as usize / 8).ok_or(Error::TooLarge { what })
}
