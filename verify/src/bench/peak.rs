//! What one core can do at most: multiply-accumulates a second of each instruction set, and bytes read a second.
//!
//! The loops are what kernels consist of, without anything else. Every sum depends on the one before it and the
//! compiler knows none of the values, so it can leave nothing out.

use super::PEAK_SAMPLE;
use super::clock::Timed;
use aligned_vec::{AVec, ConstAlign};
use qexact_kernels::{Isa, IsaName};
use std::hint::black_box;
use std::iter::repeat_n;
use std::time::Instant;

/// A loop of nothing but the instructions that multiply and add.
#[derive(Clone, Copy)]
pub struct Peak {
    /// The instructions.
    pub instructions: &'static str,
    /// Multiply-accumulates of one round of the loop.
    pub macs: u64,
    // Invariant: the CPU has the instructions of the loop; functions that make a peak take a token that vouches for it.
    rounds: unsafe fn(u64),
}

impl Peak {
    /// The products that kernels of an instruction set are made of, whatever the weights; the reference has no such thing.
    pub fn of(isa: Isa) -> Option<Peak> {
        match isa.name() {
            IsaName::Reference => None,
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 => Some(Peak { instructions: "vpmaddwd + vpaddd ymm", macs: 12 * 16, rounds: x86::pairs }),
            #[cfg(target_arch = "x86_64")]
            IsaName::AvxVnni => Some(Peak { instructions: "vpdpbusd ymm", macs: 12 * 32, rounds: x86::dot_256 }),
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512Vnni => Some(Peak { instructions: "vpdpbusd zmm", macs: 24 * 64, rounds: x86::dot_512 }),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// The products of a kernel that adds so many steps of them in 16 bits before it adds them in 32, for weights that
    /// are proven not to saturate. What any weights get for 0 steps, and where there is no such kernel.
    pub fn of_steps(isa: Isa, steps: usize) -> Option<Peak> {
        #[cfg(target_arch = "x86_64")]
        if isa.name() == IsaName::Avx2 {
            let (instructions, macs, rounds): (_, _, unsafe fn(u64)) = match steps {
                0 => return Peak::of(isa),
                1 => ("vpmaddubsw + vpmaddwd + vpaddd ymm", 12 * 32, x86::quads::<1, 12>),
                2 | 3 => ("2 vpmaddubsw + vpaddw + vpmaddwd + vpaddd ymm", 11 * 64, x86::quads::<2, 11>),
                4..8 => ("4 vpmaddubsw + 3 vpaddw + vpmaddwd + vpaddd ymm", 8 * 128, x86::quads::<4, 8>),
                _ => ("8 vpmaddubsw + 7 vpaddw + vpmaddwd + vpaddd ymm", 5 * 256, x86::quads::<8, 5>),
            };
            return Some(Peak { instructions, macs, rounds });
        }
        let _ = steps;
        Peak::of(isa)
    }

    /// Runs the loop.
    pub fn run(&self, rounds: u64) {
        // SAFETY: the CPU has the instructions, see the field.
        unsafe { (self.rounds)(rounds) }
    }

    /// Rounds of the loop, ready to be timed.
    pub(super) fn timed(self) -> Timed<'static> {
        Timed::new(PEAK_SAMPLE, move |rounds| {
            let start = Instant::now();
            self.run(rounds);
            start.elapsed()
        })
    }

    /// 10⁹ multiply-accumulates a second, of the time of a round.
    pub(super) fn gmacs(&self, round_ns: f64) -> f64 {
        self.macs as f64 / round_ns
    }
}

/// Bytes to be read: whole cache lines.
pub struct Memory(AVec<Line, ConstAlign<64>>);

/// A cache line.
type Line = [u8; 64];

/// Lines that are read before the loop branches.
const LINES: usize = 8;

impl Memory {
    /// At least so many bytes.
    pub fn new(bytes: usize) -> Memory {
        // Not zeros: those would be pages that do not exist.
        Memory(AVec::from_iter(0, repeat_n([1; 64], bytes.div_ceil(64).next_multiple_of(LINES))))
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len() * 64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads them all, in the widest registers of an instruction set.
    pub fn read(&self, isa: Isa) {
        match isa.name() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token vouches for AVX-512 F.
            IsaName::Avx512Vnni => unsafe { x86::read_512(&self.0) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token vouches for AVX2, which both imply.
            IsaName::Avx2 | IsaName::AvxVnni => unsafe { x86::read_256(&self.0) },
            _ => {
                black_box(self.0.iter().fold(0, |sum, line| sum | line[0]));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINES, Line};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// The latency of 4 cycles at 2 a cycle asks for 8 sums; more do no harm as long as they fit the registers.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dot_512(rounds: u64) {
        let (codes, weights) = black_box((_mm512_set1_epi8(-1), _mm512_set1_epi8(127)));
        let mut sums = black_box([_mm512_setzero_si512(); 24]);
        for _ in 0..rounds {
            for i in 0..24 {
                sums[i] = _mm512_dpbusd_epi32(sums[i], codes, weights);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn dot_256(rounds: u64) {
        let (codes, weights) = black_box((_mm256_set1_epi8(-1), _mm256_set1_epi8(127)));
        let mut sums = black_box([_mm256_setzero_si256(); 12]);
        for _ in 0..rounds {
            for i in 0..12 {
                sums[i] = _mm256_dpbusd_avx_epi32(sums[i], codes, weights);
            }
        }
        black_box(sums);
    }

    /// The sums are factors, too: products of what does not change would be computed once.
    #[target_feature(enable = "avx2")]
    pub(super) fn pairs(rounds: u64) {
        let weights = black_box(_mm256_set1_epi16(127));
        let mut sums = black_box([_mm256_set1_epi16(1); 12]);
        for _ in 0..rounds {
            for i in 0..12 {
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(sums[i], weights));
            }
        }
        black_box(sums);
    }

    /// As many sums as are fastest among those that the registers hold beside weights, ones and products.
    #[target_feature(enable = "avx2")]
    pub(super) fn quads<const STEPS: usize, const SUMS: usize>(rounds: u64) {
        let (weights, ones) = black_box(([_mm256_set1_epi8(1); STEPS], _mm256_set1_epi16(1)));
        let mut sums = black_box([_mm256_set1_epi8(1); SUMS]);
        for _ in 0..rounds {
            for i in 0..SUMS {
                let mut quads = _mm256_maddubs_epi16(sums[i], weights[0]);
                for step in 1..STEPS {
                    quads = _mm256_add_epi16(quads, _mm256_maddubs_epi16(sums[i], weights[step]));
                }
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(quads, ones));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn read_512(lines: &[Line]) {
        let mut all = [_mm512_setzero_si512(); LINES];
        for lines in lines.chunks_exact(LINES) {
            for i in 0..LINES {
                // SAFETY: a line is 64 aligned bytes.
                let line = unsafe { _mm512_load_si512((&raw const lines[i]).cast()) };
                all[i] = _mm512_or_si512(all[i], line);
            }
        }
        black_box(all);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn read_256(lines: &[Line]) {
        let mut all = [_mm256_setzero_si256(); LINES];
        for lines in lines.chunks_exact(LINES) {
            for i in 0..LINES {
                let line = (&raw const lines[i]).cast::<__m256i>();
                // SAFETY: a line is two halves of 32 aligned bytes.
                let [low, high] = unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] };
                all[i] = _mm256_or_si256(all[i], _mm256_or_si256(low, high));
            }
        }
        black_box(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_but_the_reference_has_a_peak() {
        for isa in Isa::available() {
            assert_eq!(Peak::of(isa).is_some(), isa != Isa::REFERENCE, "{isa}");
            for steps in [0, 1, 2, 4, 8] {
                let peak = Peak::of_steps(isa, steps);
                assert_eq!(peak.is_some(), isa != Isa::REFERENCE, "{isa}");
                peak.inspect(|peak| peak.run(3));
            }
        }
    }

    #[test]
    fn memory_is_whole_lines_and_can_be_read() {
        for (bytes, len) in [(0, 0), (1, 512), (512, 512), (513, 1024)] {
            let memory = Memory::new(bytes);
            assert_eq!((memory.len(), memory.is_empty()), (len, bytes == 0));
            Isa::available().for_each(|isa| memory.read(isa));
        }
    }
}
