//! Text that claims to be a shape or a case.

use qexact_kernels::IsaName;
use qexact_reference::{Axis, Conv, Linear};
use qexact_verify::case::{Case, RuleForm};
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// Parses a text as everything that the command line parses.
///
/// # Panics
/// If something parses and then prints as something else, or if a shape counts its windows wrong.
#[expect(clippy::needless_pass_by_value, reason = "every target takes what was decoded for it")]
pub fn run(text: String) {
    let text = text.as_str();
    round_trip::<IsaName>(text);
    round_trip::<RuleForm>(text);
    round_trip::<Case>(text);
    if let Some(linear) = round_trip::<Linear>(text) {
        assert_eq!(Conv::from(linear).validate(), Ok(()), "{text}");
    }
    if let Some(conv) = round_trip::<Conv>(text) {
        assert_eq!(conv.validate(), Ok(()), "{text}");
        conv.axes.iter().for_each(count_windows);
    }
    if let Ok(cases) = Case::parse_all([text]) {
        let lines: Vec<String> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(Case::parse_all(&lines), Ok(cases), "{lines:?}");
    }
}

/// What a text parses as, if it does.
fn round_trip<T: FromStr<Err: Display + Debug + PartialEq> + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert_eq!(printed.parse::<T>().as_ref(), Ok(&value), "`{text}` prints as `{printed}`");
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "`{text}` is refused without a reason");
            None
        }
    }
}

/// Places every window of a small axis.
fn count_windows(axis: &Axis) {
    let padded = axis.input + axis.padding[0] + axis.padding[1];
    if padded > 1000 {
        return;
    }
    let last_tap = (axis.kernel - 1) * axis.dilation;
    let starts: Vec<usize> = (0..padded).step_by(axis.stride).filter(|start| start + last_tap < padded).collect();
    assert_eq!(axis.output(), Ok(starts.len()), "{axis:?}");
    for (output, start) in starts.into_iter().enumerate() {
        for tap in 0..axis.kernel {
            let at = start + tap * axis.dilation;
            let inside = (axis.padding[0]..axis.padding[0] + axis.input).contains(&at);
            let want = inside.then(|| at - axis.padding[0]);
            assert_eq!(axis.source(output, tap), want, "{axis:?}: tap {tap} of output {output}");
        }
    }
}
