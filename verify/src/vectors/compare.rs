//! The reference against the recording, every instruction set against the reference.

use super::Options;
use super::error::Problem;
use super::operator::{Operator, Outputs, Recorded};
use super::report::{CaseReport, Difference, IsaReport, Value};
use crate::explain::Reason;

/// Checks one case.
pub(super) fn check(
    name: String,
    tag: Option<String>,
    operator: &dyn Operator,
    options: &Options,
) -> Result<CaseReport, Problem> {
    let recorded = operator.recorded();
    let exact = operator.exact().map_err(Problem::refused("reference"))?;
    let outputs = recorded.iter().map(|tensor| tensor.values.len()).sum();
    let mut report = CaseReport {
        name,
        tag,
        description: operator.describe(),
        outputs,
        equal: outputs,
        saturated: 0,
        differences: 0,
        isas: Vec::new(),
        first_difference: None,
        first_saturated: None,
    };
    let values: Vec<&[Value]> = recorded.iter().map(|tensor| tensor.values.as_slice()).collect();
    for place in differing(&values, &exact) {
        report.equal -= 1;
        let because = operator.explain(place.tensor, place.index);
        let saturation = because.saturated.filter(|machine| place.expected.same(Value::Code(machine.code)));
        let reason = saturation.map(|machine| Reason::PairSaturation(machine.saturation)).or(because.tie);
        let (count, first) = if saturation.is_some() && !options.strict {
            (&mut report.saturated, &mut report.first_saturated)
        } else {
            (&mut report.differences, &mut report.first_difference)
        };
        *count += 1;
        first.get_or_insert_with(|| place.difference(recorded, because.accumulator, reason));
    }
    let exact_slices: Vec<&[Value]> = exact.iter().map(Vec::as_slice).collect();
    for &isa in &options.isas {
        let (kernel, outputs) = operator.on(isa).map_err(Problem::refused("kernel"))?;
        let mut places = differing(&exact_slices, &outputs);
        let first_difference = places.next().map(|place| {
            let because = operator.explain(place.tensor, place.index);
            place.difference(recorded, because.accumulator, because.tie)
        });
        let differences = usize::from(first_difference.is_some()) + places.count();
        report.isas.push(IsaReport { isa: isa.to_string(), kernel, differences, first_difference });
    }
    Ok(report)
}

/// An output that is not what it should be.
struct Place {
    /// Which tensor.
    tensor: usize,
    /// Where in it.
    index: usize,
    expected: Value,
    got: Value,
}

/// All places where two lists of tensors differ.
fn differing<'v>(expected: &'v [&'v [Value]], got: &'v Outputs) -> impl Iterator<Item = Place> + 'v {
    expected.iter().zip(got).enumerate().flat_map(|(tensor, (expected, got))| {
        // Operators return whole tensors; a shorter one must not look equal.
        assert_eq!(expected.len(), got.len(), "tensors of one shape");
        let pairs = expected.iter().zip(got).enumerate();
        pairs.filter(|(_, (expected, got))| !expected.same(**got)).map(move |(index, (&expected, &got))| Place {
            tensor,
            index,
            expected,
            got,
        })
    })
}

impl Place {
    fn difference(&self, recorded: &[Recorded], accumulator: Option<i32>, reason: Option<Reason>) -> Difference {
        let Recorded { name, shape, .. } = &recorded[self.tensor];
        let index = coordinates(shape, self.index);
        Difference { tensor: name, index, accumulator, expected: self.expected, got: self.got, reason }
    }
}

/// The coordinates of a flat index, the last axis fastest.
fn coordinates(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut coordinates: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&extent| {
            let at = index % extent;
            index /= extent;
            at
        })
        .collect();
    coordinates.reverse();
    coordinates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{SaturatedOutput, Saturation};
    use crate::vectors::operator::Explanation;
    use qexact_kernels::Isa;
    use qexact_reference::Error;

    /// An operator that was recorded, is and runs as told. Every output would saturate to 7.
    struct Told {
        recorded: [Recorded; 1],
        exact: Vec<u8>,
        kernel: Vec<u8>,
    }

    fn values(codes: &[u8]) -> Vec<Value> {
        codes.iter().copied().map(Value::from).collect()
    }

    impl Operator for Told {
        fn describe(&self) -> String {
            "told".into()
        }
        fn recorded(&self) -> &[Recorded] {
            &self.recorded
        }
        fn exact(&self) -> Result<Outputs, Error> {
            Ok(vec![values(&self.exact)])
        }
        fn on(&self, _isa: Isa) -> Result<(String, Outputs), Error> {
            Ok(("liar".into(), vec![values(&self.kernel)]))
        }
        fn explain(&self, _tensor: usize, index: usize) -> Explanation {
            let (positions, input, weight) = ([0, 1], [255; 2], [127; 2]);
            let (machine, sum, accumulator) = ("told", 64770, 1);
            let saturation = Saturation { machine, pairs: 1, positions, input, weight, sum, accumulator };
            let saturated = (index != 0).then_some(SaturatedOutput { code: 7, saturation });
            Explanation { accumulator: Some(0), tie: None, saturated }
        }
    }

    fn report(recorded: &[u8], exact: &[u8], kernel: &[u8], strict: bool) -> CaseReport {
        let recorded = [Recorded { name: "y", shape: vec![2, 2], values: values(recorded) }];
        let told = Told { recorded, exact: exact.to_vec(), kernel: kernel.to_vec() };
        check("case00".into(), None, &told, &Options { isas: vec![Isa::REFERENCE], strict }).unwrap()
    }

    #[test]
    fn only_what_saturates_as_recorded_is_excused() {
        // The first output cannot saturate, the second does, the third was recorded exactly, the last is neither.
        let report = report(&[7, 7, 1, 8], &[1; 4], &[1; 4], false);
        assert_eq!((report.equal, report.saturated, report.differences), (1, 1, 2));
        assert_eq!(report.first_difference.unwrap().index, [0, 0]);
        assert_eq!(report.first_saturated.unwrap().index, [0, 1]);
    }

    #[test]
    fn strictly_nothing_is_excused() {
        let report = report(&[7, 7, 1, 8], &[1; 4], &[1; 4], true);
        assert_eq!((report.equal, report.saturated, report.differences), (1, 0, 3));
        assert!(report.first_saturated.is_none());
    }

    #[test]
    fn a_kernel_is_held_against_the_reference_and_never_excused() {
        let report = report(&[7, 7, 7, 7], &[1; 4], &[1, 1, 7, 7], false);
        assert_eq!((report.saturated, report.differences, report.isas[0].differences), (3, 1, 2));
        let first = report.isas[0].first_difference.as_ref().unwrap();
        assert_eq!(first.index, [1, 0]);
        assert!(first.expected.same(Value::Code(1)) && first.got.same(Value::Code(7)) && first.reason.is_none());
    }

    #[test]
    fn real_numbers_are_compared_by_their_bits() {
        assert!(!Value::Real(0.0).same(Value::Real(-0.0)));
        assert!(Value::Real(f32::NAN).same(Value::Real(f32::NAN)));
    }
}
