//! The reference's scalar functions over many accumulators, as fast as compilers make them.

use qexact_kernels::Isa;
use qexact_reference::Rule;
use qexact_reference::requantize::{Bias, Overflow, RealOutput, Sum};

/// What the rule stores for each accumulator of its first channel: the bits of [`Rule::apply`] (its own functions,
/// compiled for an instruction set). `addends` are as many as accumulators, and not read if the rule adds none.
///
/// # Panics
/// If slices have different lengths.
pub fn scalar(isa: Isa, rule: &Rule, accumulators: &[i32], addends: &[f32], bits: &mut [u32]) {
    assert!(accumulators.len() == bits.len() && addends.len() == bits.len(), "an addend and an output for each");
    isa.compile(
        #[inline(always)]
        move || fill(rule, All { accumulators, addends, bits }),
    );
}

#[inline(always)]
fn fill(rule: &Rule, all: All<'_>) {
    // What the scalar functions branch on beyond numbers: only loops that know the answer become loops of vectors.
    match rule {
        Rule::F32Mul(rule) => all.fill(
            #[inline(always)]
            move |form| {
                let bias = match form % 4 {
                    0 => matches!(rule.bias(), Bias::None),
                    1 => matches!(rule.bias(), Bias::I32(_)),
                    2 => matches!(rule.bias(), Bias::Addend(_)),
                    _ => matches!(rule.bias(), Bias::Fused { .. }),
                };
                bias && (rule.overflow_mode() == Overflow::Convert) == (form < 4)
            },
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0) as u32,
        ),
        Rule::F32Out(rule) => all.fill(
            #[inline(always)]
            move |form| form == 0,
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0).to_bits(),
        ),
        Rule::F32Real(rule) => all.fill(
            #[inline(always)]
            move |form| {
                let sum = match form % 4 {
                    0 => matches!(rule.sum, Sum::None),
                    1 => matches!(rule.sum, Sum::Codes { .. }),
                    2 => matches!(rule.sum, Sum::Reals),
                    _ => false,
                };
                sum && matches!(rule.output, RealOutput::Reals) == (form < 4)
            },
            #[inline(always)]
            move |accumulator, addend| rule.apply(accumulator, 0, addend).bits(),
        ),
        Rule::Q31Double(rule) => all.fill(
            #[inline(always)]
            move |form| rule.last as usize == form,
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0) as u32,
        ),
        Rule::Q31Single(rule) => all.fill(
            #[inline(always)]
            move |form| form == 0,
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0) as u32,
        ),
        Rule::F64(rule) => all.fill(
            #[inline(always)]
            move |form| rule.rounding as usize == form,
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0) as u32,
        ),
        Rule::Pow2(rule) => all.fill(
            #[inline(always)]
            move |form| rule.rounding as usize == form,
            #[inline(always)]
            move |accumulator, _| rule.apply(accumulator, 0) as u32,
        ),
        // None that vectors compute.
        _ => {
            for ((bits, &accumulator), &addend) in all.bits.iter_mut().zip(all.accumulators).zip(all.addends) {
                *bits = rule.apply(accumulator, 0, addend).bits();
            }
        }
    }
}

struct All<'a> {
    accumulators: &'a [i32],
    addends: &'a [f32],
    bits: &'a mut [u32],
}

impl All<'_> {
    /// Calls `f` in a loop of its own for each of eight forms that `f` may have, of which `is` holds for one.
    #[inline(always)]
    fn fill(mut self, is: impl Fn(usize) -> bool + Copy, f: impl Fn(i32, f32) -> u32 + Copy) {
        let known = [
            self.form::<0>(is, f),
            self.form::<1>(is, f),
            self.form::<2>(is, f),
            self.form::<3>(is, f),
            self.form::<4>(is, f),
            self.form::<5>(is, f),
            self.form::<6>(is, f),
            self.form::<7>(is, f),
        ];
        assert_eq!(known.map(usize::from).iter().sum::<usize>(), 1, "one form");
    }

    #[inline(always)]
    fn form<const FORM: usize>(&mut self, is: impl Fn(usize) -> bool, f: impl Fn(i32, f32) -> u32) -> bool {
        const BLOCK: usize = 256;
        if !is(FORM) {
            return false;
        }
        let blocks = self.bits.chunks_mut(BLOCK).zip(self.accumulators.chunks(BLOCK)).zip(self.addends.chunks(BLOCK));
        for ((bits, accumulators), addends) in blocks {
            // A local array, which no parameter of the rule can be part of: they are read before the loop.
            let mut block = [0; BLOCK];
            for ((bits, &accumulator), &addend) in block.iter_mut().zip(accumulators).zip(addends) {
                // The loop is left where this does not hold, and need not ask again.
                assert!(is(FORM));
                *bits = f(accumulator, addend);
            }
            bits.copy_from_slice(&block[..bits.len()]);
        }
        true
    }
}
