//! What happens to accumulators in 512-bit registers: 16 int32 lanes.
//!
//! R6 in vectors: VCVTPS2DQ is R1's `cvt`; narrowing to 16 bits with saturation, adding zero point − smallest code with
//! saturation and narrowing to unsigned bytes with saturation is the sum, counted from the smallest code and clamped to
//! 0..=255, because |zero point − smallest code| ≤ 255. Adding with saturation what the largest code lacks to 255 clamps to
//! that code, too; a subtraction of bytes, modulo 256, leaves the code, signed or not.
//!
//! These functions are inlined into tile functions, always, and have their instruction set from there: accumulators
//! that are passed to a function go through memory.

use crate::epilogue::{ACCUMULATORS, CODES, DOUBLE_CODES, REAL_CODES, REALS, Store};
use crate::micro::Tile;
use core::arch::x86_64::*;

/// Adds the initial values of the channels.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn start<const MR: usize, const NV: usize>(acc: &mut [[__m512i; NV]; MR], t: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        for j in 0..NV {
            let initial = _mm512_loadu_si512(t.initial.add(16 * j).cast());
            for i in 0..MR {
                acc[i][j] = _mm512_add_epi32(acc[i][j], initial);
            }
        }
    }
}

/// Subtracts z_W · Σ x where weight zero points are not 0, with one sum a row.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn subtract_row_sums<const MR: usize, const NV: usize>(
    acc: &mut [[__m512i; NV]; MR],
    top: usize,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        if t.epilogue.weight_zero_point.is_empty() {
            return;
        }
        let mut sums = [[_mm512_setzero_si512(); NV]; MR];
        for i in 0..MR {
            sums[i] = [_mm512_set1_epi32(*t.row_sums.add(top + i)); NV];
        }
        subtract_channel_sums(acc, sums, t)
    }
}

/// Subtracts z_W · Σ x, with a sum for every row and channel.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), and weight zero points are present.
#[inline(always)]
pub(super) unsafe fn subtract_channel_sums<const MR: usize, const NV: usize>(
    acc: &mut [[__m512i; NV]; MR],
    mut sums: [[__m512i; NV]; MR],
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        multiply_weight_zero_points(&mut sums, t);
        for i in 0..MR {
            for j in 0..NV {
                acc[i][j] = _mm512_sub_epi32(acc[i][j], sums[i][j]);
            }
        }
    }
}

/// Makes z_W · Σ x of sums for every row and channel.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), and weight zero points are present.
#[inline(always)]
pub(super) unsafe fn multiply_weight_zero_points<const MR: usize, const NV: usize>(
    sums: &mut [[__m512i; NV]; MR],
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        for j in 0..NV {
            let zero = _mm512_loadu_si512(t.epilogue.weight_zero_point.as_ptr().add(t.first + 16 * j).cast());
            for i in 0..MR {
                sums[i][j] = _mm512_mullo_epi32(sums[i][j], zero);
            }
        }
    }
}

/// R6 up to and including `cvt`, for a vector of channels that starts `at` in the epilogue's vectors. `BIAS`: R6 adds a
/// float.
///
/// # Safety
/// The epilogue's vectors reach 16 elements beyond `at`.
#[inline(always)]
pub(super) unsafe fn scale<const BIAS: bool>(acc: __m512i, multiplier: __m512, at: usize, t: &Tile<'_>) -> __m512i {
    let e = t.epilogue;
    // SAFETY: by this function's contract.
    unsafe {
        let mut v = _mm512_cvtepi32_ps(acc);
        if BIAS {
            let bias = _mm512_loadu_ps(e.bias.as_ptr().add(at));
            v = _mm512_fmadd_ps(bias, _mm512_loadu_ps(e.reciprocal.as_ptr().add(at)), v);
        }
        _mm512_cvtps_epi32(_mm512_mul_ps(v, multiplier))
    }
}

/// R16 up to and including `cvt`.
///
/// # Safety
/// As [`scale`].
#[inline(always)]
unsafe fn scale_real(acc: __m512i, scale: __m512, at: usize, t: &Tile<'_>) -> __m512i {
    // SAFETY: by this function's contract.
    unsafe {
        let [multiplier, zero_point] = t.epilogue.real.map(|v| _mm512_set1_ps(v));
        let bias = _mm512_loadu_ps(t.epilogue.bias.as_ptr().add(at));
        let v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
        _mm512_cvtps_epi32(_mm512_add_ps(_mm512_mul_ps(v, multiplier), zero_point))
    }
}

/// R17's multipliers for 16 channels.
#[derive(Clone, Copy)]
pub(super) struct Double {
    /// [`Line`](crate::finish::Line)s of channels 0, 1, 4, 5, 8, 9, 12 and 13, and of the others.
    slope: [__m512d; 2],
    offset: [__m512d; 2],
    /// One less than the shift.
    right: __m512i,
    /// All lanes, or none if ties go up.
    away: __mmask16,
}

impl Double {
    #[inline(always)]
    unsafe fn zero() -> Double {
        // SAFETY: the caller's instruction set.
        let (zero, right) = unsafe { (_mm512_setzero_pd(), _mm512_setzero_si512()) };
        Double { slope: [zero; 2], offset: [zero; 2], right, away: 0 }
    }

    /// # Safety
    /// 16 slopes and offsets are readable.
    #[inline(always)]
    pub(super) unsafe fn load(slope: *const f64, offset: *const f64, right: __m512i, away: bool) -> Double {
        // SAFETY: by this function's contract; the instruction set is the caller's.
        let pairs = |line: *const f64| unsafe {
            let (low, high) = (_mm512_loadu_pd(line), _mm512_loadu_pd(line.add(8)));
            [_mm512_shuffle_f64x2::<0b10_00_10_00>(low, high), _mm512_shuffle_f64x2::<0b11_01_11_01>(low, high)]
        };
        Double { slope: pairs(slope), offset: pairs(offset), right, away: if away { !0 } else { 0 } }
    }
}

/// R17 but for the last bit of the shifts to the right, of accumulators whose sign bit is flipped:
/// [`finish`](crate::finish) says why.
#[inline(always)]
pub(super) unsafe fn scale_double(a: __m512i, p: &Double) -> __m512i {
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    // SAFETY: the caller's instruction set.
    unsafe {
        // The high half of 2⁵² and of what follows it.
        let high = _mm512_set1_epi32(0x4330_0000);
        let halves = [_mm512_unpacklo_epi32(a, high), _mm512_unpackhi_epi32(a, high)].map(|v| _mm512_castsi512_pd(v));
        let low = _mm512_fmadd_round_pd::<DOWN>(halves[0], p.slope[0], p.offset[0]);
        let high = _mm512_fmadd_round_pd::<DOWN>(halves[1], p.slope[1], p.offset[1]);
        let low_dwords = _mm512_shuffle_ps::<0b10_00_10_00>(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
        let rounded = _mm512_castps_si512(low_dwords);
        let down = _mm512_mask_add_epi32(rounded, p.away, rounded, _mm512_srai_epi32::<31>(rounded));
        _mm512_srav_epi32(down, p.right)
    }
}

/// The same for MR pixels.
///
/// # Safety
/// As [`scale`].
#[inline(always)]
pub(super) unsafe fn scale_pixels<const MR: usize, const BIAS: bool>(
    mut acc: [__m512i; MR],
    at: usize,
    t: &Tile<'_>,
) -> [__m512i; MR] {
    // SAFETY: by this function's contract.
    unsafe {
        let multiplier = _mm512_loadu_ps(t.epilogue.multiplier.as_ptr().add(at));
        for i in 0..MR {
            acc[i] = scale::<BIAS>(acc[i], multiplier, at, t);
        }
    }
    acc
}

/// The constants of R6's end, in registers before anything is stored: the compiler must take a store of bytes for one
/// into [`Epilogue`](crate::epilogue::Epilogue).
#[derive(Clone, Copy)]
pub(super) struct Ends {
    zero_point: __m512i,
    headroom: __m512i,
    excess: __m512i,
}

#[inline(always)]
pub(super) unsafe fn ends(t: &Tile<'_>) -> Ends {
    let e = t.epilogue;
    // SAFETY: the caller's instruction set.
    unsafe {
        Ends {
            zero_point: _mm512_set1_epi16(e.zero_point),
            headroom: _mm512_set1_epi8(e.headroom as i8),
            excess: _mm512_set1_epi8(e.excess as i8),
        }
    }
}

/// The rest of R6 for four vectors: 64 bytes, of which 128-bit lane l holds four codes of each vector's lane l.
#[inline(always)]
pub(super) unsafe fn narrow(v: [__m512i; 4], ends: Ends) -> __m512i {
    // SAFETY: the caller's instruction set.
    unsafe { narrow_words(narrow_half([v[0], v[1]], ends), narrow_half([v[2], v[3]], ends), ends) }
}

/// The first half of [`narrow`]: two vectors as words.
#[inline(always)]
pub(super) unsafe fn narrow_half(v: [__m512i; 2], ends: Ends) -> __m512i {
    // SAFETY: the caller's instruction set.
    unsafe { _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), ends.zero_point) }
}

/// The rest of it.
#[inline(always)]
pub(super) unsafe fn narrow_words(low: __m512i, high: __m512i, ends: Ends) -> __m512i {
    // SAFETY: the caller's instruction set.
    unsafe {
        let codes = _mm512_packus_epi16(low, high);
        _mm512_sub_epi8(_mm512_adds_epu8(codes, ends.headroom), ends.excess)
    }
}

/// R9 for one vector of channels that starts `at` in the epilogue's vectors.
///
/// # Safety
/// The epilogue's vectors reach 16 elements beyond `at`.
#[inline(always)]
pub(super) unsafe fn real(acc: __m512i, at: usize, t: &Tile<'_>) -> __m512 {
    // SAFETY: by this function's contract.
    unsafe {
        let e = t.epilogue;
        let v = _mm512_cvtepi32_ps(acc);
        let scale = _mm512_loadu_ps(e.multiplier.as_ptr().add(at));
        let mut y = if e.bias.is_empty() {
            _mm512_mul_ps(v, scale)
        } else {
            let bias = _mm512_loadu_ps(e.bias.as_ptr().add(at));
            if e.fused { _mm512_fmadd_ps(v, scale, bias) } else { _mm512_add_ps(_mm512_mul_ps(v, scale), bias) }
        };
        if e.relu {
            // The second operand where the first is NaN.
            y = _mm512_max_ps(y, _mm512_setzero_ps());
        }
        y
    }
}

/// The same without branches: all forms are computed, one is taken. For loops that have no registers to spare for branches
/// among their vectors; in matrix kernels it takes 2 to 15 % more time.
///
/// # Safety
/// As [`real`].
#[inline(always)]
pub(super) unsafe fn real_unbranched(acc: __m512i, at: usize, t: &Tile<'_>) -> __m512 {
    // What adds nothing, not even to -0.
    static NONE: [f32; 16] = [-0.0; 16];
    // SAFETY: by this function's contract.
    unsafe {
        let e = t.epilogue;
        let v = _mm512_cvtepi32_ps(acc);
        let scale = _mm512_loadu_ps(e.multiplier.as_ptr().add(at));
        let bias = if e.bias.is_empty() { NONE.as_ptr() } else { e.bias.as_ptr().add(at) };
        let bias = _mm512_loadu_ps(bias);
        let y = _mm512_add_ps(_mm512_mul_ps(v, scale), bias);
        let y = _mm512_mask_mov_ps(y, if e.fused { u16::MAX } else { 0 }, _mm512_fmadd_ps(v, scale, bias));
        _mm512_mask_max_ps(y, if e.relu { u16::MAX } else { 0 }, y, _mm512_setzero_ps())
    }
}

/// A mask of the first `n` ≤ 64 elements.
#[inline(always)]
pub(super) fn below(n: usize) -> u64 {
    debug_assert!((1..=64).contains(&n));
    u64::MAX >> (64 - n)
}

/// Takes a tile's accumulators, rows of NV vectors in order of channels, through the rule and stores them.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn finish_rows<const MR: usize, const NV: usize, const STORE: Store>(
    acc: [[__m512i; NV]; MR],
    top: usize,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        match STORE {
            CODES if t.epilogue.bias.is_empty() => return finish_codes::<MR, NV, false, STORE>(acc, top, t),
            CODES => return finish_codes::<MR, NV, true, STORE>(acc, top, t),
            REAL_CODES | DOUBLE_CODES => return finish_codes::<MR, NV, true, STORE>(acc, top, t),
            ACCUMULATORS if !t.places.is_null() => return add_rows(acc, top, t),
            _ => {}
        }
        for i in 0..MR {
            for j in 0..NV {
                let y = t.output.wrapping_add((top + i) * t.stride + 64 * j);
                let mask = (below(t.channels) >> (16 * j)) as u16;
                if STORE == REALS {
                    _mm512_mask_storeu_ps(y.cast(), mask, real(acc[i][j], t.first + 16 * j, t));
                } else {
                    _mm512_mask_storeu_epi32(y.cast(), mask, acc[i][j]);
                }
            }
        }
    }
}

/// Adds a tile's accumulators to the sums in their places.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), and there are places.
#[inline(always)]
unsafe fn add_rows<const MR: usize, const NV: usize>(acc: [[__m512i; NV]; MR], top: usize, t: &Tile<'_>) {
    for i in 0..MR {
        // SAFETY: by this function's contract.
        unsafe {
            let sums = t.output.add(*t.places.add(top + i) as usize * t.stride);
            for j in 0..NV {
                let sums = sums.add(64 * j).cast();
                _mm512_storeu_si512(sums, _mm512_add_epi32(_mm512_loadu_si512(sums), acc[i][j]));
            }
        }
    }
}

/// R6, group by group of four vectors, whose narrowing overlaps with the scaling of the next. `BIAS`: R6 adds a float.
///
/// # Safety
/// As [`finish_rows`].
#[inline(always)]
unsafe fn finish_codes<const MR: usize, const NV: usize, const BIAS: bool, const STORE: Store>(
    acc: [[__m512i; NV]; MR],
    top: usize,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let e = t.epilogue;
        let (mut multiplier, mut double) = ([_mm512_setzero_ps(); NV], [Double::zero(); NV]);
        for j in 0..NV {
            let at = t.first + 16 * j;
            if STORE == DOUBLE_CODES {
                let right = _mm512_loadu_si512(e.right.as_ptr().add(at).cast());
                double[j] = Double::load(e.slope.as_ptr().add(at), e.offset.as_ptr().add(at), right, e.away);
            } else {
                multiplier[j] = _mm512_loadu_ps(e.multiplier.as_ptr().add(at));
            }
        }
        let ends = ends(t);
        let (rows, mask) = (4 / NV, below(t.channels));
        // Rows that follow each other without a gap are stored together.
        let dense = t.channels == 16 * NV && t.stride == t.channels;
        let mut y = t.output.wrapping_add(top * t.stride);
        for first in (0..MR).step_by(rows) {
            let mut v = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                let j = i % NV;
                let (acc, at) = (acc[(first + i / NV).min(MR - 1)][j], t.first + 16 * j);
                v[i] = match STORE {
                    REAL_CODES => scale_real(acc, multiplier[j], at, t),
                    DOUBLE_CODES => scale_double(acc, &double[j]),
                    _ => scale::<BIAS>(acc, multiplier[j], at, t),
                };
            }
            let mut words = [narrow_half([v[0], v[1]], ends), narrow_half([v[2], v[3]], ends)];
            if STORE == DOUBLE_CODES {
                words = words.map(|words| _mm512_srai_epi16::<1>(words));
            }
            let codes = by_vector(narrow_words(words[0], words[1], ends));
            if dense && first + rows <= MR {
                _mm512_storeu_si512(y.cast(), codes);
                y = y.wrapping_add(64);
                continue;
            }
            store_rows::<NV>(codes, y, t.stride, mask, MR - first);
            y = y.wrapping_add(rows * t.stride);
        }
    }
}

/// What [`narrow`] made of four vectors, 16 bytes each, one after the other.
#[inline(always)]
pub(super) unsafe fn by_vector(codes: __m512i) -> __m512i {
    // SAFETY: the caller's instruction set.
    unsafe {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, codes)
    }
}

/// Stores the codes of rows of NV vectors, of no more than `rows`.
///
/// # Safety
/// From `y` on they are writable in steps of `stride`, where the mask says so.
#[inline(always)]
pub(super) unsafe fn store_rows<const NV: usize>(codes: __m512i, y: *mut u8, stride: usize, mask: u64, rows: usize) {
    for row in 0..(4 / NV).min(rows) {
        let y = y.wrapping_add(row * stride);
        // SAFETY: by this function's contract.
        unsafe {
            match (NV, row) {
                (2, 0) => _mm256_mask_storeu_epi8(y.cast(), mask as u32, _mm512_castsi512_si256(codes)),
                (2, _) => _mm256_mask_storeu_epi8(y.cast(), mask as u32, _mm512_extracti64x4_epi64::<1>(codes)),
                (_, 0) => _mm_mask_storeu_epi8(y.cast(), mask as u16, _mm512_castsi512_si128(codes)),
                (_, 1) => _mm_mask_storeu_epi8(y.cast(), mask as u16, _mm512_extracti32x4_epi32::<1>(codes)),
                (_, 2) => _mm_mask_storeu_epi8(y.cast(), mask as u16, _mm512_extracti32x4_epi32::<2>(codes)),
                (_, _) => _mm_mask_storeu_epi8(y.cast(), mask as u16, _mm512_extracti32x4_epi32::<3>(codes)),
            }
        }
    }
}

/// Takes a block of 64 channels of one row, in the order of `depthwise_panels`, through the rule and stores it in order of
/// channels.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn finish_block<const STORE: Store>(acc: [[__m512i; 4]; 1], row: usize, t: &Tile<'_>) {
    let ([mut acc], y) = (acc, t.output.wrapping_add(row * t.stride));
    // SAFETY: by this function's contract.
    unsafe {
        if STORE == CODES {
            for v in 0..4 {
                let at = t.first + 16 * v;
                [acc[v]] = if t.epilogue.bias.is_empty() {
                    scale_pixels::<1, false>([acc[v]], at, t)
                } else {
                    scale_pixels::<1, true>([acc[v]], at, t)
                };
            }
            return _mm512_mask_storeu_epi8(y.cast(), below(t.channels), narrow(acc, ends(t)));
        }
        for v in 0..4 {
            let words = if STORE == REALS { _mm512_castps_si512(real(acc[v], t.first + 16 * v, t)) } else { acc[v] };
            // Dword d of lane l belongs to channel 16·l + 4·v + d.
            for (lane, dwords) in lanes(words).into_iter().enumerate() {
                let channel = 16 * lane + 4 * v;
                let mask = (below(t.channels) >> channel) as u8;
                _mm_mask_storeu_epi32(y.wrapping_add(4 * channel).cast(), mask, dwords);
            }
        }
    }
}

/// The four 128-bit lanes.
#[inline(always)]
pub(super) unsafe fn lanes(v: __m512i) -> [__m128i; 4] {
    // SAFETY: the caller's instruction set.
    unsafe {
        [
            _mm512_castsi512_si128(v),
            _mm512_extracti32x4_epi32::<1>(v),
            _mm512_extracti32x4_epi32::<2>(v),
            _mm512_extracti32x4_epi32::<3>(v),
        ]
    }
}
