//! The shapes that are timed: JSON files of them, and lines of text.
//!
//! A file is an array of objects with `name`, `op`, `group` and `macs`; for `op` `linear` `M`, `K` and `N`, for
//! `conv2d` `N`, `H`, `W`, `Cin`, `Cout`, `kh`, `kw`, `stride`, `pad`, `dilation` and `groups`. Other keys are
//! ignored.

use qexact_reference::{Axis, Conv, Linear};
use serde::Deserialize;
use std::collections::HashSet;

/// Layers of networks that people run: the default set.
const EMBEDDED: &str = include_str!("../../../benches/shapes.json");

/// A shape with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Unique in its file.
    pub name: String,
    /// The network it is from.
    pub group: String,
    /// Geometry.
    pub conv: Conv,
    /// Whether it is a linear layer.
    pub linear: bool,
}

/// Why there are no shapes.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ShapesError {
    /// Not JSON, or no array.
    #[error("shapes: {0}, expected an array of objects")]
    Json(serde_json::Error),
    /// Nothing to time.
    #[error("shapes: the array has 0 elements, expected at least 1")]
    Empty,
    /// A key is missing or has a value of the wrong type.
    #[error("shape {index} (`{name}`): {source}")]
    Entry { index: usize, name: String, source: serde_json::Error },
    /// The geometry makes no sense.
    #[error("shape `{name}`: {source}")]
    Geometry { name: String, source: qexact_reference::Error },
    /// `macs` are not those of the shape.
    #[error("shape `{name}`: macs is {got}, expected {expected}, the multiply-accumulates of its extents")]
    Macs { name: String, got: u64, expected: u64 },
    /// Two shapes have one name.
    #[error("shape `{0}`: its name appears twice, expected once")]
    Twice(String),
    /// A line of text is no shape.
    #[error("`{text}`: {source}")]
    Text { text: String, source: qexact_reference::Error },
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    group: String,
    macs: u64,
    #[serde(flatten)]
    extents: Extents,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
#[allow(non_snake_case)]
enum Extents {
    Linear {
        M: usize,
        K: usize,
        N: usize,
    },
    Conv2d {
        N: usize,
        H: usize,
        W: usize,
        Cin: usize,
        Cout: usize,
        kh: usize,
        kw: usize,
        stride: usize,
        pad: usize,
        dilation: usize,
        groups: usize,
    },
}

impl Shape {
    /// The embedded set.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn embedded() -> Vec<Shape> {
        Shape::parse_file(EMBEDDED).expect("the embedded shapes are valid")
    }

    /// The shapes of a file.
    ///
    /// # Errors
    /// The first entry that is wrong, by name.
    pub fn parse_file(text: &str) -> Result<Vec<Shape>, ShapesError> {
        let entries: Vec<serde_json::Value> = serde_json::from_str(text).map_err(ShapesError::Json)?;
        if entries.is_empty() {
            return Err(ShapesError::Empty);
        }
        let shapes = entries.into_iter().enumerate().map(|(index, value)| {
            let name = value["name"].as_str().unwrap_or("").to_string();
            let entry = Entry::deserialize(value).map_err(|source| ShapesError::Entry { index, name, source })?;
            entry.shape()
        });
        let shapes = shapes.collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::new();
        match shapes.iter().find(|shape| !seen.insert(&shape.name)) {
            Some(shape) => Err(ShapesError::Twice(shape.name.clone())),
            None => Ok(shapes),
        }
    }

    /// The shape of a line such as `linear m4k768n10` or `conv ic64oc128ih56kh3sh2ph1`, which is its name, too.
    ///
    /// # Errors
    /// Text that is no shape.
    pub fn parse_line(text: &str, group: &str) -> Result<Shape, ShapesError> {
        let linear = text.starts_with("linear");
        let conv = if linear { text.parse::<Linear>().map(Conv::from) } else { text.parse() };
        let conv = conv.map_err(|source| ShapesError::Text { text: text.into(), source })?;
        Ok(Shape { name: text.into(), group: group.into(), conv, linear })
    }

    /// `linear` or `conv`.
    pub fn op(&self) -> &'static str {
        if self.linear { "linear" } else { "conv" }
    }

    /// The shape as a line of text.
    pub fn line(&self) -> String {
        let Conv { batch, in_channels, out_channels, .. } = self.conv;
        if self.linear {
            Linear { rows: batch, in_features: in_channels, out_features: out_channels }.to_string()
        } else {
            self.conv.to_string()
        }
    }

    /// Layers that the same things limit: `linear M=1`, `depthwise 3x3 stride 2`, `resnet50 1x1`.
    pub fn class(&self) -> String {
        let Conv { batch, in_channels, out_channels, groups, axes } = &self.conv;
        let window = match axes.map(|axis| axis.kernel) {
            [1, height, width] => format!("{height}x{width}"),
            [depth, height, width] => format!("{depth}x{height}x{width}"),
        };
        let stride = axes.map(|axis| axis.stride).into_iter().max().unwrap_or(1);
        match (self.linear, *batch) {
            (true, 1) => "linear M=1".into(),
            (true, 16..) if *in_channels >= 512 && *out_channels >= 64 => "linear GEMM".into(),
            (true, _) => "linear other".into(),
            _ if self.conv.is_depthwise() => format!("depthwise {window} stride {stride}"),
            _ if *groups > 1 => "grouped".into(),
            _ if *in_channels <= 3 => format!("{in_channels}-channel {window} stem"),
            _ => format!("{} {window}", self.group),
        }
    }
}

impl Entry {
    fn shape(self) -> Result<Shape, ShapesError> {
        let Entry { name, group, macs, extents } = self;
        let (linear, conv) = match extents {
            Extents::Linear { M, K, N } => (true, Linear { rows: M, in_features: K, out_features: N }.into()),
            Extents::Conv2d { N, H, W, Cin, Cout, kh, kw, stride, pad, dilation, groups } => {
                let axis = |input, kernel| Axis { input, kernel, stride, padding: [pad, pad], dilation };
                let axes = [Axis::UNIT, axis(H, kh), axis(W, kw)];
                (false, Conv { batch: N, in_channels: Cin, out_channels: Cout, groups, axes })
            }
        };
        if let Err(source) = conv.validate() {
            return Err(ShapesError::Geometry { name, source });
        }
        let expected = conv.macs() as u64;
        if macs != expected {
            return Err(ShapesError::Macs { name, got: macs, expected });
        }
        Ok(Shape { name, group, conv, linear })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: &str = r#"{"name": "a", "op": "linear", "group": "g", "M": 2, "K": 3, "N": 4, "macs": 24}"#;
    const CONV: &str = r#"{"name": "b", "op": "conv2d", "group": "g", "N": 1, "H": 8, "W": 9, "Cin": 4, "Cout": 6,
        "kh": 3, "kw": 2, "stride": 2, "pad": 1, "dilation": 1, "groups": 2, "macs": 1440}"#;

    #[test]
    fn a_file_is_read() {
        let shapes = Shape::parse_file(&format!("[{LINEAR}, {CONV}]")).unwrap();
        let lines: Vec<_> = shapes.iter().map(Shape::line).collect();
        assert_eq!(lines, ["linear m2k3n4", "conv ic4oc6g2ih8kh3sh2ph1iw9kw2"]);
        assert_eq!([shapes[0].op(), shapes[1].op()], ["linear", "conv"]);
        for shape in shapes {
            assert_eq!(Shape::parse_line(&shape.line(), "").unwrap().conv, shape.conv);
        }
    }

    #[test]
    fn layers_are_classed_by_what_limits_them() {
        for (line, class) in [
            ("linear m1k512n64", "linear M=1"),
            ("linear m16k512n64", "linear GEMM"),
            ("linear m15k512n64", "linear other"),
            ("linear m16k511n64", "linear other"),
            ("linear m16k512n63", "linear other"),
            ("conv ic8oc8g8ih8kh3sh2ph1", "depthwise 3x3 stride 2"),
            ("conv ic8oc8g2ih8kh3ph1", "grouped"),
            ("conv ic3oc64ih224kh7sh2ph3", "3-channel 7x7 stem"),
            ("conv ic1oc8ih8kh3ph1", "1-channel 3x3 stem"),
            ("conv ic4oc8ih8kh1", "net 1x1"),
            ("conv ic4oc8id8kd5ih8kh3kw1", "net 5x3x1"),
        ] {
            assert_eq!(Shape::parse_line(line, "net").unwrap().class(), class, "{line}");
        }
    }

    #[test]
    fn the_embedded_set_is_valid() {
        let shapes = Shape::embedded();
        assert_eq!(shapes.len(), 98);
        assert_eq!(shapes[25].line(), "conv ic3oc64ih224kh7sh2ph3");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("[]".to_string(), "0 elements, expected at least 1"),
            ("{}".into(), "expected an array"),
            (format!("[{}]", LINEAR.replace("\"K\": 3, ", "")), "shape 0 (`a`): missing field `K`"),
            (format!("[{}]", LINEAR.replace("\"K\": 3", "\"K\": -3")), "invalid value: integer `-3`"),
            (
                format!("[{}]", LINEAR.replace("linear", "gemm")),
                "unknown variant `gemm`, expected `linear` or `conv2d`",
            ),
            (format!("[{}]", LINEAR.replace("24", "25")), "shape `a`: macs is 25, expected 24"),
            (format!("[{}]", LINEAR.replace("\"M\": 2", "\"M\": 0")), "shape `a`: batch is 0, expected at least 1"),
            (format!("[{LINEAR}, {}]", CONV.replace("\"groups\": 2", "\"groups\": 3")), "a multiple of the 3 groups"),
            (format!("[{LINEAR}, {LINEAR}]"), "shape `a`: its name appears twice"),
        ] {
            let error = Shape::parse_file(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}, expected {reason}");
        }
        assert!(Shape::parse_line("linear m0k1n1", "").unwrap_err().to_string().contains("batch is 0"));
    }
}
