//! What weights prove: whether sums of products fit 16 bits, whatever the codes.
//!
//! VPMADDUBSW multiplies codes 0 ≤ x ≤ X by weights and adds the products of neighbours with 16-bit saturation; such
//! pairs may be added further in 16 bits. Over all codes, a sum of products reaches everything from one of these bounds to
//! the other:
//!
//! ```text
//! X · Σ min(w, 0)  ≤  Σ x·w  ≤  X · Σ max(w, 0)
//! ```
//!
//! It fits for every input if, and only if, both bounds do: for X = 255 if positive weights sum up to 128 at most and
//! negative ones to −128 at least. Partial sums, pairs among them, then fit as well.

use qexact_reference::CodeType;

/// Numbers of steps that kernels come in, the largest first.
const STEPS: [usize; 4] = [8, 4, 2, 1];

/// Steps, each of a quad of neighbouring weights, whose products may be added in 16 bits: two sums, one of the first
/// pair of each quad and one of the second. 0 where a single pair can saturate.
///
/// `weight` consists of runs of `run_len`; steps are counted from the start of a run, and what its last quad lacks is 0.
pub(crate) fn safe_steps(weight: &[i8], run_len: usize, input: CodeType) -> usize {
    // Signed codes are read as x + 128.
    let largest = if input.is_signed() { input.hi() + 128 } else { input.hi() };
    let safe = |&steps: &usize| {
        let mut runs = weight.chunks_exact(run_len);
        runs.all(|run| run.chunks(4 * steps).all(|weights| fits(weights, largest)))
    };
    STEPS.into_iter().find(safe).unwrap_or(0)
}

/// Whether the two sums over some quads fit.
fn fits(weights: &[i8], largest: i32) -> bool {
    let (mut positive, mut negative) = ([0; 2], [0; 2]);
    for quad in weights.chunks(4) {
        for (i, &weight) in quad.iter().enumerate() {
            positive[i / 2] += i32::from(weight).max(0);
            negative[i / 2] += i32::from(weight).min(0);
        }
    }
    let [least, most] = [i16::MIN, i16::MAX].map(i32::from);
    positive.iter().all(|sum| sum * largest <= most) && negative.iter().all(|sum| sum * largest >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// R15's instruction.
    fn saturates([x0, x1]: [i32; 2], [w0, w1]: [i8; 2]) -> bool {
        qexact_reference::saturation::excess(x0 * i32::from(w0) + x1 * i32::from(w1)) != 0
    }

    #[test]
    fn a_pair_is_safe_exactly_if_no_codes_saturate_it() {
        for (input, largest) in [(CodeType::U8, 255), (CodeType::I8, 255), (CodeType::new(7, false).unwrap(), 127)] {
            for pair in (i8::MIN..=i8::MAX).flat_map(|w0| (i8::MIN..=i8::MAX).map(move |w1| [w0, w1])) {
                let corners = [[0, largest], [largest, 0], [largest; 2]];
                let expected = !corners.into_iter().any(|codes| saturates(codes, pair));
                // As the first pair of a quad, as the second, and as the last of a run that is no whole quad.
                for weight in [vec![pair[0], pair[1], 0, 0], vec![0, 0, pair[0], pair[1]], pair.to_vec()] {
                    assert_eq!(safe_steps(&weight, weight.len(), input) > 0, expected, "{weight:?} {input}");
                }
            }
        }
        // The corners are enough: what they do not saturate no codes do.
        for pair in [[127, 1], [64, 64], [-128, 0], [-64, -64], [100, -128], [-1, -127]] {
            let codes = (0..=255).flat_map(|x0| (0..=255).map(move |x1| [x0, x1]));
            assert!(
                safe_steps(&pair, 2, CodeType::U8) > 0 && !codes.into_iter().any(|x| saturates(x, pair)),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn steps_add_up_within_runs() {
        let steps = |weight: &[i8], run_len| safe_steps(weight, run_len, CodeType::U8);
        for (most, expected) in [(8, 8), (9, 4), (16, 4), (17, 2), (32, 2), (33, 1), (64, 1), (65, 0)] {
            assert_eq!(steps(&[most; 96], 96), expected, "{most}");
            assert_eq!(steps(&[-most; 96], 32), expected, "−{most}");
            // Fewer quads than steps.
            assert_eq!(steps(&[most; 96], 4), if most <= 64 { 8 } else { 0 }, "{most}");
        }
        // The two pairs of a quad are not added to each other.
        assert_eq!(steps(&[64, 64, 64, 64], 4), 8);
        // One weight too many, wherever it is: in the last quad of a run, in the other half.
        for at in 0..70 {
            let mut weight = [8i8; 70];
            weight[at] = 9;
            // Two quads and a half are left over at the end of a run of 35, one and a half at that of 70.
            let within = |run_len: usize| at % run_len / 32 * 32 + 32 <= run_len;
            for run_len in [35, 70] {
                assert_eq!(steps(&weight, run_len), if within(run_len) { 4 } else { 8 }, "{at} of {run_len}");
            }
        }
        // Codes of 4 bits leave room for eight quads of any weights, codes of 7 bits for one.
        let extremes = [127, 127, -128, -128, 127, 127, 127, 127];
        let steps = |bits, signed| safe_steps(&extremes, 8, CodeType::new(bits, signed).unwrap());
        assert_eq!([steps(4, false), steps(7, false), steps(8, false), steps(2, true)], [8, 1, 0, 0]);
    }
}
