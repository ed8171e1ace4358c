//! Rules on their own: accumulators in, outputs out.

use crate::Isa;
use crate::finish::{Finish, Piece};
use qexact_reference::{Addend, Error, Output, Region, Rule, layer::check_addend};

/// A rule made ready for one instruction set, without a layer: what kernels do to their accumulators.
///
/// ```
/// use qexact_kernels::{Isa, Requantizer};
/// use qexact_reference::requantize::{Codes, Pow2, Rounding};
/// use qexact_reference::{Addend, CodeType, Output, Rule};
///
/// let codes = Codes::new(10, CodeType::U8)?;
/// let rule = Rule::Pow2(Pow2 { shift: vec![1, 2], bias: vec![], rounding: Rounding::Even, codes });
/// let mut y = [0; 4];
/// Requantizer::new(&rule, 2, Isa::best())?.run(&[5, 5, -7, 600], Addend::None, Output::U8(&mut y))?;
/// assert_eq!(y, [12, 11, 6, 160]);
/// # Ok::<(), qexact_reference::Error>(())
/// ```
pub struct Requantizer {
    rule: Rule,
    channels: usize,
    // Invariant: made for an instruction set that the CPU has.
    finish: Finish,
}

impl Requantizer {
    /// Unpacks the parameters of a rule for a number of output channels.
    ///
    /// # Errors
    /// No channels; parameters that are not valid for them, see [`Rule::validate`].
    pub fn new(rule: &Rule, channels: usize, isa: Isa) -> Result<Requantizer, Error> {
        if channels == 0 {
            return Err(Error::Extent { what: "channels", got: 0, expected: "at least 1".into() });
        }
        rule.validate(channels)?;
        Ok(Requantizer { rule: rule.clone(), channels, finish: Finish::new(rule, channels, isa.name()) })
    }

    /// Whether vectors of outputs are computed. Otherwise each is computed by the scalar rule: on the reference, and
    /// for a [`Pow2`](qexact_reference::requantize::Pow2) that shifts by 32 and rounds ties away from zero, and for an
    /// [`F32Real`](qexact_reference::requantize::F32Real) that clips before it multiplies by what is not positive.
    pub fn is_vectorized(&self) -> bool {
        matches!(self.finish, Finish::Vector(..))
    }

    /// Takes accumulators through the rule: `[rows, channels]`, dense, as are the output and the tensor that the rule
    /// adds. Allocates nothing.
    ///
    /// # Errors
    /// Accumulators that are no whole rows, an output or an addend of another length or type.
    pub fn run(&self, accumulators: &[i32], addend: Addend<'_>, output: Output<'_>) -> Result<(), Error> {
        let rows = accumulators.len() / self.channels;
        if !accumulators.len().is_multiple_of(self.channels) {
            let expected = alloc::format!("a multiple of {}, the channels", self.channels);
            return Err(Error::Length { what: "accumulators", got: accumulators.len(), expected });
        }
        let expected = self.rule.element_type();
        if output.element_type() != expected {
            return Err(Error::ElementType { what: "output", got: output.element_type(), expected });
        }
        if output.len() != accumulators.len() {
            let expected = alloc::format!("{}", accumulators.len());
            return Err(Error::Length { what: "output", got: output.len(), expected });
        }
        check_addend(&self.rule, &Region { rows: 0..rows, channels: 0..self.channels }, &addend)?;
        let piece = Piece {
            accumulators: accumulators.as_ptr(),
            accumulator_stride: self.channels,
            rows,
            first: 0,
            channels: self.channels,
            addend,
            addend_first: 0,
            output: match output {
                Output::U8(y) => y.as_mut_ptr(),
                Output::I8(y) => y.as_mut_ptr().cast(),
                Output::I32(y) => y.as_mut_ptr().cast(),
                Output::F32(y) => y.as_mut_ptr().cast(),
            },
            stride: self.channels,
        };
        // SAFETY: the token given to `new` vouched for the instructions; lengths and types were checked just above.
        unsafe { self.finish.run(&piece) };
        Ok(())
    }
}
