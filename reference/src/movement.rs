//! Operators that only move codes: rules R40 (padding, permutations, shuffles, splits) and R41 (nearest neighbours).
//! Scale and zero point pass through.

use crate::operand::expect_len;
use crate::shape::{at_least_one, product};
use crate::{Error, layout};
use alloc::vec;
use alloc::vec::Vec;

/// R40: `x` of any shape with `padding[axis]` elements of `value` before and after each axis. The zero point is the
/// code of the real number 0.
///
/// # Errors
/// Another number of paddings than axes, sizes that overflow, an `x` that does not have the shape's length.
pub fn pad<T: Copy>(x: &[T], shape: &[usize], padding: &[[usize; 2]], value: T) -> Result<Vec<T>, Error> {
    expect_len("x", x.len(), product("elements of x", shape)?)?;
    expect_len("padding", padding.len(), shape.len())?;
    let padded: Option<Vec<usize>> = shape
        .iter()
        .zip(padding)
        .map(|(extent, [before, after])| extent.checked_add(*before)?.checked_add(*after))
        .collect();
    let padded = padded.ok_or(Error::TooLarge { what: "elements along an axis" })?;
    let mut y = vec![value; product("elements of the output", &padded)?];
    each_row(shape, |from, at| {
        let to =
            at.iter().zip(padding).zip(&padded).fold(0, |to, ((at, [before, _]), extent)| to * extent + at + before);
        let last = shape.last().copied().unwrap_or(1);
        y[to..to + last].copy_from_slice(&x[from..from + last]);
    });
    Ok(y)
}

/// Calls `visit` with the position and the coordinates of the first element of every row of a tensor.
fn each_row(shape: &[usize], mut visit: impl FnMut(usize, &[usize])) {
    let row = shape.last().copied().unwrap_or(1);
    let len: usize = shape.iter().product();
    let mut at = vec![0; shape.len()];
    for from in (0..len).step_by(row.max(1)) {
        visit(from, &at);
        for (at, &extent) in at.iter_mut().zip(shape).rev().skip(1) {
            *at += 1;
            if *at < extent {
                break;
            }
            *at = 0;
        }
    }
}

/// R40: what each element of a mirrored axis is a copy of; the ends themselves are not repeated.
///
/// # Errors
/// A padding that is not less than the extent, sizes that overflow.
pub fn reflected(extent: usize, [before, after]: [usize; 2]) -> Result<Vec<usize>, Error> {
    for got in [before, after] {
        if got >= extent {
            let expected = alloc::format!("less than {extent}, the extent of the axis");
            return Err(Error::Extent { what: "padding that reflects", got, expected });
        }
    }
    let len = extent.checked_add(before).and_then(|len| len.checked_add(after));
    let len = len.ok_or(Error::TooLarge { what: "elements along an axis" })?;
    let inside = |at: usize| if at < extent { at } else { 2 * (extent - 1) - at };
    Ok((0..len).map(|at| at.checked_sub(before).map_or(before - at.min(before), inside)).collect())
}

/// R40: axis i of the output is axis `axes[i]` of `x`.
///
/// # Errors
/// `axes` that are no permutation of those of `shape`, sizes that overflow, an `x` that does not have the shape's
/// length.
pub fn permute<T: Copy>(x: &[T], shape: &[usize], axes: &[usize]) -> Result<Vec<T>, Error> {
    expect_len("x", x.len(), product("elements of x", shape)?)?;
    expect_len("axes", axes.len(), shape.len())?;
    for (i, &got) in axes.iter().enumerate() {
        if got >= shape.len() || axes[..i].contains(&got) {
            let expected = alloc::format!("one of {} axes that is not there yet", shape.len());
            return Err(Error::Extent { what: "axis of a permutation", got, expected });
        }
    }
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut y = Vec::with_capacity(x.len());
    let to: Vec<(usize, usize)> = axes.iter().map(|&axis| (shape[axis], strides[axis])).collect();
    let (row, outer) = to.split_last().map_or(((1, 1), &to[..]), |(&row, outer)| (row, outer));
    let extents: Vec<usize> = outer.iter().map(|axis| axis.0).chain([usize::from(!x.is_empty())]).collect();
    each_row(&extents, |_, at| {
        let from: usize = at.iter().zip(outer).map(|(at, (_, stride))| at * stride).sum();
        y.extend((0..row.0).map(|i| x[from + i * row.1]));
    });
    Ok(y)
}

/// R40: `[.., groups, channels / groups]` → `[.., channels / groups, groups]`, channels last: PyTorch's
/// `channel_shuffle`.
///
/// # Errors
/// Groups that do not divide the channels, an `x` whose length is no multiple of the channels.
pub fn channel_shuffle<T: Copy>(x: &[T], channels: usize, groups: usize) -> Result<Vec<T>, Error> {
    if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) {
        let expected = alloc::format!("a multiple of the {groups} groups, and at least 1");
        return Err(Error::Extent { what: "number of channels", got: channels, expected });
    }
    if !x.len().is_multiple_of(channels) {
        let expected = alloc::format!("a multiple of {channels}, the channels");
        return Err(Error::Length { what: "x", got: x.len(), expected });
    }
    Ok(layout::transpose(x, groups, channels / groups))
}

/// R40: parts of the given extents along an axis, one after the other.
///
/// # Errors
/// An axis that is not there, extents that do not add up to the axis', an `x` that does not have the shape's length.
pub fn split<T: Copy>(x: &[T], shape: &[usize], axis: usize, extents: &[usize]) -> Result<Vec<Vec<T>>, Error> {
    expect_len("x", x.len(), product("elements of x", shape)?)?;
    let Some(&whole) = shape.get(axis) else {
        let expected = alloc::format!("less than {}, the number of axes", shape.len());
        return Err(Error::Extent { what: "axis of a split", got: axis, expected });
    };
    let sum = extents.iter().try_fold(0usize, |sum, &extent| sum.checked_add(extent));
    if sum != Some(whole) {
        let expected = alloc::format!("{whole}, the extent of the axis");
        return Err(Error::Extent { what: "sum of the extents of a split", got: sum.unwrap_or(usize::MAX), expected });
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let mut parts: Vec<Vec<T>> = extents.iter().map(|_| Vec::new()).collect();
    for mut rows in x.chunks_exact((whole * inner).max(1)) {
        for (part, &extent) in parts.iter_mut().zip(extents) {
            let (first, rest) = rows.split_at(extent * inner);
            part.extend_from_slice(first);
            rows = rest;
        }
    }
    Ok(parts)
}

/// The extents of PyTorch's `chunk(chunks)`: ceil(extent / chunks) each, the last what is left; possibly fewer chunks.
///
/// # Errors
/// No chunks, or nothing to divide.
pub fn chunks(extent: usize, chunks: usize) -> Result<Vec<usize>, Error> {
    at_least_one(&[("number of chunks", chunks), ("extent of the axis to divide", extent)])?;
    let most = extent.div_ceil(chunks);
    Ok((0..extent).step_by(most).map(|start| most.min(extent - start)).collect())
}

/// How an axis is resized (R41).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    input: usize,
    output: usize,
    /// Input elements an output element.
    step: f32,
}

impl Resize {
    /// An axis that is not there.
    pub const UNIT: Resize = Resize { input: 1, output: 1, step: 1.0 };

    /// To a given extent: the step is `f32(input) / f32(output)`. PyTorch's `size=`, and `scale_factor=` with
    /// `recompute_scale_factor`.
    ///
    /// # Errors
    /// Zero extents.
    pub fn to_extent(input: usize, output: usize) -> Result<Resize, Error> {
        Resize::checked(input, output, input as f32 / output as f32)
    }

    /// By a factor: the output has `floor(input · factor)` elements, the step is `f32(1 / factor)`, the quotient in
    /// f64. PyTorch's `scale_factor=`.
    ///
    /// # Errors
    /// A factor that is not finite and positive, zero extents, an extent that overflows.
    pub fn by_factor(input: usize, factor: f64) -> Result<Resize, Error> {
        if !(factor.is_finite() && factor > 0.0) {
            let expected = "a finite number greater than zero".into();
            return Err(Error::Number { what: "scale factor", got: factor, expected });
        }
        let output = input as f64 * factor;
        if output > isize::MAX as f64 / 8.0 {
            return Err(Error::TooLarge { what: "elements along an axis" });
        }
        // Not negative: truncation is the floor.
        Resize::checked(input, output as usize, (1.0 / factor) as f32)
    }

    fn checked(input: usize, output: usize, step: f32) -> Result<Resize, Error> {
        at_least_one(&[("input extent", input), ("output extent", output)])?;
        Ok(Resize { input, output, step })
    }

    /// Extent of the output.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Where output element `at` comes from: `min(floor(f32(at) · step), input − 1)`, unless no axis changes its extent.
    pub fn source(&self, at: usize) -> usize {
        // Not negative: truncation is the floor.
        ((at as f32 * self.step) as usize).min(self.input - 1)
    }
}

/// R41: the nearest pixel, as PyTorch finds it. If no axis changes its extent the input is copied, whatever the steps
/// are.
///
/// `x` is `[batch, depth, height, width, channels]`, and so is the result; `axes` are depth, height, width.
///
/// # Errors
/// Sizes that overflow, an `x` of the wrong length.
pub fn upsample_nearest<T: Copy>(x: &[T], batch: usize, channels: usize, axes: [Resize; 3]) -> Result<Vec<T>, Error> {
    let [d, h, w] = axes.map(|axis| axis.input);
    expect_len("x", x.len(), product("elements of x", &[batch, d, h, w, channels])?)?;
    let [od, oh, ow] = axes.map(|axis| axis.output);
    let len = product("elements of the output", &[batch, od, oh, ow, channels])?;
    if axes.iter().all(|axis| axis.input == axis.output) {
        return Ok(x.to_vec());
    }
    let [depth, height, width] =
        axes.map(|axis| -> Vec<usize> { (0..axis.output).map(|at| axis.source(at)).collect() });
    let mut y = Vec::with_capacity(len);
    for image in 0..batch {
        for z in &depth {
            for line in &height {
                for column in &width {
                    let pixel = ((image * d + z) * h + line) * w + column;
                    y.extend_from_slice(&x[pixel * channels..][..channels]);
                }
            }
        }
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding() {
        let x = [1, 2, 3, 4];
        assert_eq!(pad(&x, &[2, 2], &[[1, 0], [0, 2]], 9).unwrap(), [9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9]);
        assert_eq!(pad(&[5], &[], &[], 0).unwrap(), [5]);
        assert_eq!(pad(&[0; 0], &[2, 0], &[[0, 0], [1, 0]], 7).unwrap(), [7, 7]);
        assert!(pad(&x, &[2, 2], &[[0, 0]], 0).is_err() && pad(&x, &[3], &[[0, 0]], 0).is_err());
        assert!(matches!(pad(&x, &[4], &[[usize::MAX, 1]], 0), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn reflections() {
        assert_eq!(reflected(4, [2, 3]).unwrap(), [2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(reflected(1, [0, 0]).unwrap(), [0]);
        assert!(reflected(4, [4, 0]).is_err() && reflected(4, [0, 4]).is_err() && reflected(0, [0, 0]).is_err());
    }

    #[test]
    fn permutations() {
        let x: Vec<u8> = (0..24).collect();
        let y = permute(&x, &[2, 3, 4], &[0, 2, 1]).unwrap();
        assert_eq!(y, layout::transpose(&x, 3, 4));
        let y = permute(&x, &[2, 3, 4], &[2, 0, 1]).unwrap();
        assert_eq!(y, layout::transpose(&x, 6, 4));
        assert_eq!(permute(&y, &[4, 2, 3], &[1, 2, 0]).unwrap(), x, "there and back");
        assert_eq!(permute(&[3u8], &[], &[]).unwrap(), [3]);
        assert_eq!(permute(&[0u8; 0], &[0, 2], &[1, 0]).unwrap(), []);
        let error = permute(&x, &[2, 3, 4], &[0, 1, 1]).unwrap_err();
        assert_eq!(error.to_string(), "axis of a permutation is 1, expected one of 3 axes that is not there yet");
        assert!(permute(&x, &[24], &[1]).is_err());
    }

    #[test]
    fn shuffles() {
        assert_eq!(channel_shuffle(&[0, 1, 2, 3, 4, 5], 6, 2).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert!(channel_shuffle(&[0; 6], 6, 4).is_err() && channel_shuffle(&[0; 7], 6, 2).is_err());
        assert!(channel_shuffle(&[0; 6], 6, 0).is_err());
    }

    #[test]
    fn splits() {
        let x: Vec<u8> = (0..12).collect();
        let parts = split(&x, &[2, 3, 2], 1, &[1, 2]).unwrap();
        assert_eq!(parts, [vec![0, 1, 6, 7], vec![2, 3, 4, 5, 8, 9, 10, 11]]);
        assert!(split(&x, &[2, 3, 2], 1, &[1, 1]).is_err() && split(&x, &[12], 1, &[12]).is_err());
        assert_eq!(chunks(7, 3).unwrap(), [3, 3, 1]);
        assert_eq!(chunks(5, 4).unwrap(), [2, 2, 1], "fewer than asked for");
        assert!(chunks(5, 0).is_err() && chunks(0, 2).is_err());
    }

    /// Positions that PyTorch chose.
    #[test]
    fn nearest() {
        let along = |axis: Resize| -> Vec<usize> {
            let x: Vec<usize> = (0..axis.input).collect();
            upsample_nearest(&x, 1, 1, [Resize::UNIT, Resize::UNIT, axis]).unwrap()
        };
        assert_eq!(along(Resize::to_extent(3, 7).unwrap()), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(along(Resize::by_factor(3, 2.5).unwrap()), [0, 0, 0, 1, 1, 2, 2]);
        // The step of a factor is not the quotient of the extents: 1/1.1, and 19 elements become 20.
        assert_eq!(along(Resize::by_factor(19, 1.1).unwrap())[11], 10);
        // f32(2 / 50) is a little less than 1/25, and 25 of it are 1 in f32.
        assert_eq!(along(Resize::to_extent(2, 50).unwrap())[24..26], [0, 1]);
        assert_eq!(along(Resize::to_extent(5, 25).unwrap())[4..6], [0, 1], "a quotient, not a product");
        assert_eq!(along(Resize::by_factor(6, 3.4).unwrap())[17], 5, "the reciprocal in f64");
        assert_eq!([Resize::by_factor(25, 1.16), Resize::by_factor(25, 2.12)].map(|r| r.unwrap().output()), [28, 53]);
        // Beyond 2²⁴ an index is rounded to f32, here to the extent.
        assert_eq!(Resize::to_extent(1, 1 << 25).unwrap().source((1 << 25) - 1), 0, "the last at most");
        assert_eq!(along(Resize::by_factor(3, 1.1).unwrap()), [0, 1, 2], "copied");
        let axis = Resize::by_factor(3, 1.1).unwrap();
        let y = upsample_nearest(&[0, 1, 2], 1, 1, [Resize::UNIT, Resize::to_extent(1, 2).unwrap(), axis]).unwrap();
        assert_eq!(y, [0, 0, 1, 0, 0, 1], "not copied: another axis changes");
        assert!(Resize::by_factor(3, f64::NAN).is_err() && Resize::by_factor(3, 0.1).is_err());
        assert!(Resize::to_extent(0, 2).is_err() && Resize::by_factor(3, 1e300).is_err());
    }
}
