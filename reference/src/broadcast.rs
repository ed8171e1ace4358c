//! Operands of different shapes: numpy's broadcasting.

use crate::Error;
use crate::operand::expect_len;
use crate::shape::product;
use alloc::vec;
use alloc::vec::Vec;

/// The shape of an elementwise operator's output: shapes are aligned at their last axes, an extent of 1 (or a missing
/// axis) repeats.
///
/// # Errors
/// Extents that differ and are not 1.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Error> {
    let axes = a.len().max(b.len());
    (0..axes)
        .map(|axis| match (extent(a, axes, axis), extent(b, axes, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            (a, got) => Err(Error::Extent { what: "extent of b", got, expected: alloc::format!("1 or {a} as in a") }),
        })
        .collect()
}

/// `f` of all pairs of elements, in the order of the output of [`broadcast_shape`].
///
/// # Errors
/// As [`broadcast_shape`]; slices that do not have their shape's length.
pub fn broadcast<A: Copy, B: Copy, Y>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    mut f: impl FnMut(A, B) -> Y,
) -> Result<Vec<Y>, Error> {
    let shape = broadcast_shape(a_shape, b_shape)?;
    expect_len("a", a.len(), product("elements of a", a_shape)?)?;
    expect_len("b", b.len(), product("elements of b", b_shape)?)?;
    let len = product("elements of the output", &shape)?;
    let (a_strides, b_strides) = (strides(a_shape, &shape), strides(b_shape, &shape));
    let mut at = vec![0usize; shape.len()];
    let mut output = Vec::new();
    for _ in 0..len {
        let index = |strides: &[usize]| at.iter().zip(strides).map(|(at, stride)| at * stride).sum::<usize>();
        output.push(f(a[index(&a_strides)], b[index(&b_strides)]));
        // The next element: the last axis is the fastest.
        for (at, &extent) in at.iter_mut().zip(&shape).rev() {
            *at += 1;
            if *at < extent {
                break;
            }
            *at = 0;
        }
    }
    Ok(output)
}

/// The extent of an axis of the output in one of the operands.
fn extent(shape: &[usize], axes: usize, axis: usize) -> usize {
    let missing = axes - shape.len();
    if axis < missing { 1 } else { shape[axis - missing] }
}

/// How far apart neighbours along each axis of the output lie in an operand: 0 where it repeats.
///
/// `output` has at least as many axes as `shape`.
pub fn strides(shape: &[usize], output: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; output.len()];
    let mut stride = 1;
    for axis in (0..output.len()).rev() {
        let extent = extent(shape, output.len(), axis);
        if extent != 1 {
            strides[axis] = stride;
            stride *= extent;
        }
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(broadcast_shape(&[2, 1, 3], &[4, 1]).unwrap(), [2, 4, 3]);
        assert_eq!(broadcast_shape(&[], &[5]).unwrap(), [5]);
        assert!(broadcast_shape(&[2, 3], &[2]).is_err());
        assert_eq!(broadcast_shape(&[0], &[1]).unwrap(), [0]);
    }

    #[test]
    fn elements() {
        let pair = |a: i32, b: i32| 10 * a + b;
        let (a, b) = ([1, 2], [3, 4, 5]);
        let y = broadcast((&a, &[2, 1]), (&b, &[3]), pair).unwrap();
        assert_eq!(y, [13, 14, 15, 23, 24, 25]);
        assert_eq!(broadcast((&a, &[2]), (&[7], &[]), pair).unwrap(), [17, 27]);
        assert_eq!(broadcast((&b, &[3]), (&b, &[3]), pair).unwrap(), [33, 44, 55]);
        assert!(broadcast((&a, &[3]), (&b, &[3]), pair).is_err());
    }
}
