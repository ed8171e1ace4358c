//! Linear layers whose weights and activations are −1 and 1 (R44): 32 products are one XOR and the bits of it counted.

use crate::{Isa, IsaName, Requantizer};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::narrow::binary_dot;
use qexact_reference::{Addend, Error, NarrowType, Output, PackedCodes, Rule};

/// What a tile function computes: for `count` rows of words, and one panel of weights, the bits that differ.
pub(crate) struct BinaryTile {
    /// Rows of `steps` words each, one after the other.
    pub rows: *const i32,
    /// Rows, 1 to [`ROWS`].
    pub count: usize,
    pub steps: usize,
    /// `[step][channel]`, as many channels as the kernel is wide.
    pub weights: *const i32,
    /// `[row][channel]`: counts are added to what is there.
    pub differ: *mut i32,
}

/// # Safety
/// * The CPU has the instructions of the [`BinaryKernel`] it comes from.
/// * `rows` are readable for `count` · `steps` words, 1 ≤ `count` ≤ [`ROWS`]; `weights` for `steps` times the width of
///   the kernel; `differ` is writable for `count` times the width.
pub(crate) type BinaryTileFn = unsafe fn(&BinaryTile);

/// A tile function and the channels it computes.
#[derive(Clone, Copy)]
pub(crate) struct BinaryKernel {
    pub name: &'static str,
    /// A multiple of 16 up to [`WIDTH`].
    pub width: usize,
    pub tile: BinaryTileFn,
}

/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Channels of the widest panel.
const WIDTH: usize = 32;
/// Rows that weights pass by.
const BLOCK: usize = 32;

/// A cache line of weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i32; 16]);

/// A linear layer over binary codes, packed as R43 says; a 1×1 convolution with stride 1 is one over its pixels.
/// Immutable while it runs: threads may share it.
///
/// ```
/// use qexact_kernels::{BinaryLinear, Isa};
/// use qexact_reference::{NarrowType, Output, PackedCodes, Rule};
///
/// let binary = |codes: &[i8]| PackedCodes::pack(NarrowType::Binary, 3, codes);
/// let layer = BinaryLinear::new(&binary(&[1, 1, 1, -1, 1, -1])?, &Rule::Accumulator, Isa::best())?;
/// let mut y = [0; 2];
/// layer.run(0..1, &binary(&[1, -1, 1])?, Output::I32(&mut y), &mut layer.scratch())?;
/// assert_eq!(y, [1, -3]);
/// # Ok::<(), qexact_reference::Error>(())
/// ```
pub struct BinaryLinear {
    in_features: usize,
    out_features: usize,
    rule: Rule,
    requantizer: Requantizer,
    path: Path,
}

enum Path {
    /// The reference itself.
    Portable(PackedCodes),
    // Invariant: the CPU has the kernel's instructions.
    Packed(BinaryKernel, Vec<Line>),
}

/// The fastest kernel that an instruction set vouches for.
#[cfg(target_arch = "x86_64")]
fn kernel(isa: IsaName) -> Option<BinaryKernel> {
    // Not part of AVX-512-VNNI, and not known without the standard library.
    #[cfg(feature = "std")]
    if isa == IsaName::Avx512Vnni && std::arch::is_x86_feature_detected!("avx512vpopcntdq") {
        return Some(crate::x86_64::popcount512::KERNEL);
    }
    isa.implies(IsaName::Avx2).then_some(crate::x86_64::popcount256::KERNEL)
}

#[cfg(not(target_arch = "x86_64"))]
fn kernel(_: IsaName) -> Option<BinaryKernel> {
    None
}

impl BinaryLinear {
    /// Packs weights: an OHWI row of binary codes for each output channel.
    ///
    /// # Errors
    /// Weights that are not binary or none, a rule that is not valid for so many channels or adds a tensor.
    pub fn new(weight: &PackedCodes, rule: &Rule, isa: Isa) -> Result<BinaryLinear, Error> {
        expect_binary("weight", weight)?;
        let requantizer = Requantizer::new(rule, weight.rows(), isa)?;
        if let Some(got) = rule.addend_type() {
            return Err(Error::ElementType { what: "addend", got, expected: "nothing" });
        }
        let path = match kernel(isa.name()) {
            Some(kernel) => Path::Packed(kernel, pack(weight, kernel.width)),
            None => Path::Portable(weight.clone()),
        };
        let (in_features, out_features) = (weight.row_len(), weight.rows());
        Ok(BinaryLinear { in_features, out_features, rule: rule.clone(), requantizer, path })
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        match &self.path {
            Path::Portable(_) => "reference",
            Path::Packed(kernel, _) => kernel.name,
        }
    }

    /// Products of an output.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Output channels.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.path {
            Path::Portable(weight) => weight.bytes().len(),
            Path::Packed(_, lines) => lines.len() * 64,
        }
    }

    fn steps(&self) -> usize {
        self.in_features.div_ceil(32)
    }

    /// Elements of scratch memory that one call of [`run`](BinaryLinear::run) needs; whatever the number of rows.
    pub fn scratch_len(&self) -> usize {
        BLOCK * (self.out_features + self.steps())
    }

    /// Scratch memory of the right size, one for every thread that runs.
    pub fn scratch(&self) -> Vec<i32> {
        vec![0; self.scratch_len()]
    }

    /// Computes some rows of the output, dense `[rows, out_features]`. Allocates nothing, starts no thread.
    ///
    /// # Errors
    /// An input that is not binary or whose rows are not `in_features` long, rows outside it or none, an output of
    /// another type or length, scratch too small.
    pub fn run(
        &self,
        rows: Range<usize>,
        input: &PackedCodes,
        mut output: Output<'_>,
        scratch: &mut [i32],
    ) -> Result<(), Error> {
        expect_binary("input", input)?;
        let length =
            |what, got, expected: usize| Err(Error::Length { what, got, expected: alloc::format!("{expected}") });
        if input.row_len() != self.in_features {
            return length("row of the input", input.row_len(), self.in_features);
        }
        if rows.is_empty() || rows.end > input.rows() {
            return Err(Error::Range { what: "rows", start: rows.start, end: rows.end, available: input.rows() });
        }
        let expected = self.rule.element_type();
        if output.element_type() != expected {
            return Err(Error::ElementType { what: "output", got: output.element_type(), expected });
        }
        let outputs =
            rows.len().checked_mul(self.out_features).ok_or(Error::TooLarge { what: "elements of the output" })?;
        if output.len() != outputs {
            return length("output", output.len(), outputs);
        }
        if scratch.len() < self.scratch_len() {
            let expected = alloc::format!("at least {}", self.scratch_len());
            return Err(Error::Length { what: "scratch", got: scratch.len(), expected });
        }
        let (accumulators, words) = scratch.split_at_mut(BLOCK * self.out_features);
        for first in rows.clone().step_by(BLOCK) {
            let block = first..rows.end.min(first + BLOCK);
            let accumulators = &mut accumulators[..block.len() * self.out_features];
            match &self.path {
                Path::Portable(weight) => {
                    for (row, accumulators) in block.clone().zip(accumulators.chunks_exact_mut(self.out_features)) {
                        for (channel, accumulator) in accumulators.iter_mut().enumerate() {
                            *accumulator = binary_dot(input.row(row), weight.row(channel), self.in_features);
                        }
                    }
                }
                Path::Packed(kernel, weights) => {
                    for (row, words) in block.clone().zip(words.chunks_exact_mut(self.steps())) {
                        words.iter_mut().zip(self::words(input.row(row))).for_each(|(to, word)| *to = word);
                    }
                    self.block(kernel, weights, words, accumulators);
                }
            }
            let at = (first - rows.start) * self.out_features;
            self.requantizer.run(accumulators, Addend::None, part(&mut output, at..at + accumulators.len()))?;
        }
        Ok(())
    }

    /// The accumulators of some rows of words.
    fn block(&self, kernel: &BinaryKernel, weights: &[Line], words: &[i32], accumulators: &mut [i32]) {
        let (steps, width, outputs) = (self.steps(), kernel.width, self.out_features);
        let count = accumulators.len() / outputs;
        let words = &words[..count * steps];
        for (panel, weights) in weights.chunks_exact(steps * width / 16).enumerate() {
            let channels = panel * width..outputs.min((panel + 1) * width);
            for (rows, accumulators) in words.chunks(ROWS * steps).zip(accumulators.chunks_mut(ROWS * outputs)) {
                let mut differ = [0; ROWS * WIDTH];
                let (rows, count) = (rows.as_ptr(), rows.len() / steps);
                let tile =
                    BinaryTile { rows, count, steps, weights: weights.as_ptr().cast(), differ: differ.as_mut_ptr() };
                // SAFETY: the CPU has the kernel's instructions (invariant of `Path`); there are `count` rows of words,
                // `steps` · `width` words of weights, and room for `ROWS` rows of the widest kernel.
                unsafe { (kernel.tile)(&tile) };
                for (accumulators, differ) in accumulators.chunks_exact_mut(outputs).zip(differ.chunks_exact(width)) {
                    for (accumulator, differ) in accumulators[channels.clone()].iter_mut().zip(differ) {
                        *accumulator = (self.in_features as i32).wrapping_sub(differ.wrapping_mul(2));
                    }
                }
            }
        }
    }
}

fn expect_binary(what: &'static str, codes: &PackedCodes) -> Result<(), Error> {
    match codes.codes() {
        NarrowType::Binary => Ok(()),
        other => Err(Error::ElementType { what, got: other.as_str(), expected: NarrowType::Binary.as_str() }),
    }
}

/// The bytes of a row as words, the last filled up with zeros.
fn words(row: &[u8]) -> impl Iterator<Item = i32> + '_ {
    row.chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        i32::from_le_bytes(word)
    })
}

/// Weights as `[panel][step][channel of the panel]`, zeros where there is no channel.
fn pack(weight: &PackedCodes, width: usize) -> Vec<Line> {
    let steps = weight.row_len().div_ceil(32);
    let mut lines = vec![Line([0; 16]); weight.rows().div_ceil(width) * steps * width / 16];
    for channel in 0..weight.rows() {
        let (panel, at) = (channel / width, channel % width);
        for (step, word) in words(weight.row(channel)).enumerate() {
            lines[(panel * steps + step) * width / 16 + at / 16].0[at % 16] = word;
        }
    }
    lines
}

/// A part of an output.
fn part<'a>(output: &'a mut Output<'_>, range: Range<usize>) -> Output<'a> {
    match output {
        Output::U8(y) => Output::U8(&mut y[range]),
        Output::I8(y) => Output::I8(&mut y[range]),
        Output::I32(y) => Output::I32(&mut y[range]),
        Output::F32(y) => Output::F32(&mut y[range]),
    }
}
