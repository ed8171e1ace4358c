//! Shapes of the operators: validated, able to derive their output, and one line of text each way.
//!
//! ```
//! use qexact_reference::{Conv, Linear};
//!
//! let conv: Conv = "conv n2ic64oc128ih56kh3sh2ph1".parse()?;
//! assert_eq!(conv.output_extents()?, [1, 28, 28]);
//! assert_eq!(conv.to_string(), "conv n2ic64oc128ih56kh3sh2ph1");
//!
//! let linear: Linear = "linear m4k768n10".parse()?;
//! assert_eq!(linear.in_features, 768);
//! # Ok::<(), qexact_reference::Error>(())
//! ```

use crate::Error;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// One spatial axis of a convolution or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Number of taps.
    pub kernel: usize,
    /// Distance between the windows of neighbouring outputs.
    pub stride: usize,
    /// Padding before the first and after the last element.
    pub padding: [usize; 2],
    /// Distance between neighbouring taps.
    pub dilation: usize,
}

impl Axis {
    /// An axis that is not there: extent one, one tap.
    pub const UNIT: Axis = Axis { input: 1, kernel: 1, stride: 1, padding: [0, 0], dilation: 1 };

    /// Extent of the output: `(input + padding − dilation · (kernel − 1) − 1) / stride + 1`.
    ///
    /// # Errors
    /// Zero extents, and a dilated kernel wider than the padded input.
    pub fn output(&self) -> Result<usize, Error> {
        let (padded, window) = self.checked()?;
        Ok((padded - window) / self.stride + 1)
    }

    /// The padded extent and the extent of the dilated kernel, which fits into it.
    pub(crate) fn checked(&self) -> Result<(usize, usize), Error> {
        at_least_one(&[
            ("input extent", self.input),
            ("kernel extent", self.kernel),
            ("stride", self.stride),
            ("dilation", self.dilation),
        ])?;
        const TOO_LARGE: Error = Error::TooLarge { what: "elements along an axis" };
        let padded = self
            .input
            .checked_add(self.padding[0])
            .and_then(|v| v.checked_add(self.padding[1]))
            .filter(|&v| v <= isize::MAX as usize)
            .ok_or(TOO_LARGE)?;
        let window = (self.kernel - 1).checked_mul(self.dilation).and_then(|v| v.checked_add(1)).ok_or(TOO_LARGE)?;
        if window > padded {
            return Err(Error::Extent {
                what: "dilated kernel",
                got: window,
                expected: alloc::format!("at most {padded}, the padded input"),
            });
        }
        Ok((padded, window))
    }

    /// Where tap `tap` of output `output` reads, or `None` in the padding.
    #[inline]
    pub fn source(&self, output: usize, tap: usize) -> Option<usize> {
        (output * self.stride + tap * self.dilation).checked_sub(self.padding[0]).filter(|&i| i < self.input)
    }
}

/// Checks that extents are not 0.
pub(crate) fn at_least_one(extents: &[(&'static str, usize)]) -> Result<(), Error> {
    match extents.iter().find(|extent| extent.1 == 0) {
        Some(&(what, got)) => Err(Error::Extent { what, got, expected: "at least 1".into() }),
        None => Ok(()),
    }
}

/// A product of extents, or the error that it does not fit.
pub(crate) fn product(what: &'static str, factors: &[usize]) -> Result<usize, Error> {
    factors
        .iter()
        .try_fold(1usize, |product, &factor| product.checked_mul(factor))
        .filter(|&v| v <= isize::MAX as usize / 8)
        .ok_or(Error::TooLarge { what })
}

/// A linear layer: `[rows, in_features] · [out_features, in_features]ᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Rows of the input (the batch), M.
    pub rows: usize,
    /// Length of a row, K.
    pub in_features: usize,
    /// Number of outputs a row, N.
    pub out_features: usize,
}

impl From<Linear> for Conv {
    /// A linear layer is a 1×1 convolution over images of one pixel.
    fn from(l: Linear) -> Conv {
        Conv {
            batch: l.rows,
            in_channels: l.in_features,
            out_channels: l.out_features,
            groups: 1,
            axes: [Axis::UNIT; 3],
        }
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linear m{}k{}n{}", self.rows, self.in_features, self.out_features)
    }
}

impl FromStr for Linear {
    type Err = Error;
    fn from_str(text: &str) -> Result<Linear, Error> {
        const EXPECTED: &str = "a linear shape such as `linear m4k768n10`";
        let mut linear = Linear { rows: 1, in_features: 0, out_features: 0 };
        for (key, value) in fields(strip("linear", text, EXPECTED)?, EXPECTED)? {
            let slot = match key {
                "m" => &mut linear.rows,
                "k" => &mut linear.in_features,
                "n" => &mut linear.out_features,
                _ => return Err(unknown(key, EXPECTED)),
            };
            *slot = value[0];
        }
        Conv::from(linear).validate()?;
        Ok(linear)
    }
}

/// A convolution over one to three spatial axes (depth, height, width); the axes that a 1-d or 2-d
/// convolution lacks are [`Axis::UNIT`].
///
/// Text form: `conv` and then letters with numbers. `n` batch, `ic`/`oc` channels, `g` groups; for each
/// axis `d`, `h`, `w`: `i` input, `k` kernel, `s` stride, `p` padding (`p1`, or `p1:2` for before and
/// after), `d` dilation. What is missing is 1 (padding 0); a missing width field equals the height's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Number of images, N.
    pub batch: usize,
    /// Channels of the input, C.
    pub in_channels: usize,
    /// Channels of the output, O.
    pub out_channels: usize,
    /// Number of groups; divides both numbers of channels.
    pub groups: usize,
    /// Depth, height, width.
    pub axes: [Axis; 3],
}

impl Conv {
    /// Input channels that one output channel sees.
    pub fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels a group.
    pub fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Number of taps of the kernel over all axes.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).product()
    }

    /// Products summed for one output: taps × input channels of the group.
    pub fn depth(&self) -> usize {
        self.taps() * self.group_inputs()
    }

    /// Every input channel is a group of its own.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups > 1
    }

    /// Every output reads one pixel, the one at its own place.
    pub fn is_pointwise(&self) -> bool {
        self.axes.iter().all(|a| a.kernel == 1 && a.stride == 1 && a.padding == [0, 0])
    }

    /// Extents of the output: depth, height, width.
    ///
    /// # Errors
    /// As [`Axis::output`].
    pub fn output_extents(&self) -> Result<[usize; 3], Error> {
        Ok([self.axes[0].output()?, self.axes[1].output()?, self.axes[2].output()?])
    }

    /// Elements of one image of the input.
    pub fn image_len(&self) -> usize {
        self.in_channels * self.axes.iter().map(|a| a.input).product::<usize>()
    }

    /// Output pixels of one image.
    ///
    /// # Panics
    /// On a shape that [`validate`](Conv::validate) refuses.
    pub fn pixels(&self) -> usize {
        self.output_extents().expect("a validated shape").iter().product()
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.depth()
    }

    /// Multiply-accumulates for the whole batch, taps in the padding counted.
    ///
    /// # Panics
    /// On a shape that [`validate`](Conv::validate) refuses.
    pub fn macs(&self) -> usize {
        self.batch * self.pixels() * self.weight_len()
    }

    /// Checks that every extent makes sense and that all sizes derived from them can be computed.
    ///
    /// # Errors
    /// Zero extents, groups that do not divide the channels, a kernel that does not fit, sizes that overflow.
    pub fn validate(&self) -> Result<(), Error> {
        at_least_one(&[
            ("batch", self.batch),
            ("number of input channels", self.in_channels),
            ("number of output channels", self.out_channels),
            ("number of groups", self.groups),
        ])?;
        for (what, got) in
            [("number of input channels", self.in_channels), ("number of output channels", self.out_channels)]
        {
            if got % self.groups != 0 {
                let expected = alloc::format!("a multiple of the {} groups", self.groups);
                return Err(Error::Extent { what, got, expected });
            }
        }
        let [d, h, w] = self.output_extents()?;
        let [kd, kh, kw] = self.axes.map(|a| a.kernel);
        let [pd, ph, pw] = [self.axes[0].checked()?.0, self.axes[1].checked()?.0, self.axes[2].checked()?.0];
        product("elements of the padded input", &[self.batch, pd, ph, pw, self.in_channels])?;
        product("elements of the output", &[self.batch, d, h, w, self.out_channels])?;
        product("elements of the weights", &[self.out_channels, self.group_inputs(), kd, kh, kw])?;
        product("multiply-accumulates", &[self.batch, d, h, w, self.out_channels, self.group_inputs(), kd, kh, kw])?;
        Ok(())
    }
}

const AXES: [char; 3] = ['d', 'h', 'w'];

impl fmt::Display for Conv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conv ")?;
        if self.batch != 1 {
            write!(f, "n{}", self.batch)?;
        }
        write!(f, "ic{}oc{}", self.in_channels, self.out_channels)?;
        if self.groups != 1 {
            write!(f, "g{}", self.groups)?;
        }
        for (i, (axis, letter)) in self.axes.iter().zip(AXES).enumerate() {
            // What a reader of this line would assume without being told.
            let assumed = if i == 2 { self.axes[1] } else { Axis::UNIT };
            let mut field = |name: char, value: usize, assumed: usize, always: bool| {
                if value != assumed || always { write!(f, "{name}{letter}{value}") } else { Ok(()) }
            };
            field('i', axis.input, assumed.input, i == 1)?;
            field('k', axis.kernel, assumed.kernel, i == 1)?;
            field('s', axis.stride, assumed.stride, false)?;
            field('d', axis.dilation, assumed.dilation, false)?;
            if axis.padding != assumed.padding {
                let [before, after] = axis.padding;
                write!(f, "p{letter}{before}")?;
                if before != after {
                    write!(f, ":{after}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Conv {
    type Err = Error;
    fn from_str(text: &str) -> Result<Conv, Error> {
        const EXPECTED: &str = "a convolution shape such as `conv n2ic64oc128ih56kh3sh2ph1`";
        let mut conv = Conv { batch: 1, in_channels: 0, out_channels: 0, groups: 1, axes: [Axis::UNIT; 3] };
        let fields = fields(strip("conv", text, EXPECTED)?, EXPECTED)?;
        // Height before width, so that a width not mentioned can equal it.
        for axis_index in [0, 1, 2] {
            if axis_index == 2 {
                conv.axes[2] = conv.axes[1];
            }
            let axis = &mut conv.axes[axis_index];
            for (key, value) in &fields {
                let mut letters = key.chars();
                let (name, letter) = (letters.next(), letters.next());
                if letter != Some(AXES[axis_index]) {
                    continue;
                }
                match name {
                    Some('i') => axis.input = value[0],
                    Some('k') => axis.kernel = value[0],
                    Some('s') => axis.stride = value[0],
                    Some('d') => axis.dilation = value[0],
                    Some('p') => axis.padding = *value,
                    _ => return Err(unknown(key, EXPECTED)),
                }
            }
        }
        for (key, value) in fields {
            match key {
                "n" => conv.batch = value[0],
                "ic" => conv.in_channels = value[0],
                "oc" => conv.out_channels = value[0],
                "g" => conv.groups = value[0],
                _ if key.len() == 2 && key.ends_with(AXES) => {}
                _ => return Err(unknown(key, EXPECTED)),
            }
        }
        conv.validate()?;
        Ok(conv)
    }
}

fn unknown(key: &str, expected: &'static str) -> Error {
    Error::Parse { text: key.into(), expected }
}

/// The part of `text` after the operator's name.
fn strip<'t>(name: &str, text: &'t str, expected: &'static str) -> Result<&'t str, Error> {
    match text.trim().split_once(' ') {
        Some((first, rest)) if first == name => Ok(rest.trim()),
        _ => Err(unknown(text, expected)),
    }
}

/// Splits `ic64ph1:2` into `[("ic", [64, 64]), ("ph", [1, 2])]`.
fn fields<'t>(text: &'t str, expected: &'static str) -> Result<Vec<(&'t str, [usize; 2])>, Error> {
    let mut fields = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_lowercase()).ok_or_else(|| unknown(rest, expected))?;
        let (key, tail) = rest.split_at(number);
        let end = tail.find(|c: char| c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (value, tail) = tail.split_at(end);
        let (before, after) = value.split_once(':').unwrap_or((value, value));
        let parse = |v: &str| v.parse().map_err(|_| Error::Parse { text: String::from(rest), expected });
        // Only padding has two sides.
        let two_sided = value.contains(':') && !key.starts_with('p');
        if key.is_empty() || two_sided || fields.iter().any(|(k, _)| *k == key) {
            return Err(Error::Parse { text: rest.to_string(), expected });
        }
        fields.push((key, [parse(before)?, parse(after)?]));
        rest = tail;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip() {
        for text in [
            "conv ic3oc64ih224kh7sh2ph3",
            "conv n2ic8oc8g8ih5kh3ph1:0iw9kw1sw2dw2pw0:1",
            "conv ic4oc4id7kd3sd2pd1ih7kh3ph1",
            "conv ic4oc4ih1kh1iw30kw5pw2",
        ] {
            let conv: Conv = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(conv.to_string(), text);
        }
        let linear: Linear = "linear m3k5n7".parse().unwrap();
        assert_eq!(linear.to_string(), "linear m3k5n7");
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, reason) in [
            ("conv ic3oc64ih2kh3", "dilated kernel is 3, expected at most 2, the padded input"),
            ("conv ic3oc64ih2kh1sh0", "stride is 0, expected at least 1"),
            ("conv ic3oc64g2ih2kh1", "number of input channels is 3, expected a multiple of the 2 groups"),
            ("conv ic0oc64ih2kh1", "number of input channels is 0, expected at least 1"),
            ("linear m0k1n1", "batch is 0, expected at least 1"),
            ("linear m1k4294967296n4294967296", "the number of elements of the weights does not fit the address space"),
            (
                "conv ic1oc1ih18446744073709551615kh1ph1",
                "the number of elements along an axis does not fit the address space",
            ),
        ] {
            let error = text.parse::<Conv>().map(drop).or_else(|_| text.parse::<Linear>().map(drop));
            let error = if text.starts_with("conv") { text.parse::<Conv>().unwrap_err() } else { error.unwrap_err() };
            assert_eq!(error.to_string(), reason, "{text}");
        }
        for text in [
            "conv",
            "conv ",
            "conv 3",
            "conv ic",
            "conv ic3ic3oc1ih1kh1",
            "conv xx3",
            "conv ic99999999999999999999oc1ih1kh1",
            "conv ic3:9oc4ih5kh3",
        ] {
            assert!(text.parse::<Conv>().is_err(), "{text}");
        }
    }

    #[test]
    fn output_extent_agrees_with_counting_windows() {
        for (input, kernel, stride, padding, dilation) in (1..9).flat_map(|i| {
            (1..4).flat_map(move |k| {
                (1..4).flat_map(move |s| (0..3).flat_map(move |p| (1..3).map(move |d| (i, k, s, p, d))))
            })
        }) {
            let axis = Axis { input, kernel, stride, padding: [padding, 0], dilation };
            let padded = input + padding;
            let windows = (0..padded).step_by(stride).filter(|o| o + (kernel - 1) * dilation < padded).count();
            match axis.output() {
                Ok(n) => assert_eq!(n, windows, "{axis:?}"),
                Err(_) => assert_eq!(windows, 0, "{axis:?}"),
            }
        }
    }
}
