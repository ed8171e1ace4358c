//! Rules as a step of their own in 512-bit registers: 16 int32 lanes. [`finish`](crate::finish) says why each form
//! is exact.

use super::epilogue512::{self as epilogue, below};
use crate::epilogue::{ACCUMULATORS, CODES, Epilogue, REALS, Store};
use crate::finish::{BELOW_HALF, Double, Piece, Real, Shift, Step, Steps};
use crate::micro::Tile;
use core::arch::x86_64::*;
use qexact_reference::Addend;
use qexact_reference::requantize::{RealOutput, Rounding, Sum};

/// The vector form of every rule.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
pub(crate) unsafe fn finish(step: &Step, piece: &Piece<'_>) {
    // SAFETY: passed on; every vector of parameters reaches beyond the last channel by more than a register.
    unsafe {
        match step {
            Step::Fused(epilogue, CODES) => fused::<CODES>(epilogue, piece),
            Step::Fused(epilogue, REALS) => fused::<REALS>(epilogue, piece),
            Step::Fused(epilogue, _) => fused::<ACCUMULATORS>(epilogue, piece),
            Step::ClampFirst(p) => codes(piece, p.steps, from_zero_point(p.steps), |at| {
                let (initial, multiplier) = (load(&p.initial, at), load_ps(&p.multiplier, at));
                let (bias, reciprocal) = (load_ps(&p.bias, at), load_ps(&p.reciprocal, at));
                let most = _mm512_set1_ps(p.steps.most as f32);
                move |acc, _, _| {
                    let v = _mm512_cvtepi32_ps(_mm512_add_epi32(acc, initial));
                    let v = _mm512_mul_ps(_mm512_fmadd_ps(bias, reciprocal, v), multiplier);
                    at_most(v, most)
                }
            }),
            Step::Real(p) => {
                let (zero_point, scale) = match p.sum {
                    Sum::Codes { scale, zero_point, .. } => (zero_point as f32, scale),
                    _ => (0.0, 0.0),
                };
                let (zero_point, scale) = (_mm512_set1_ps(zero_point), _mm512_set1_ps(scale));
                let add = |v, codes| _mm512_fmadd_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(codes), zero_point), scale, v);
                match piece.addend {
                    Addend::None => real(p, piece, |v, _, _| v),
                    Addend::U8(a) => real(p, piece, |v, at, mask| {
                        let a = _mm_maskz_loadu_epi8(mask, a.as_ptr().add(piece.addend_first + at).cast());
                        add(v, _mm512_cvtepu8_epi32(a))
                    }),
                    Addend::I8(a) => real(p, piece, |v, at, mask| {
                        let a = _mm_maskz_loadu_epi8(mask, a.as_ptr().add(piece.addend_first + at));
                        add(v, _mm512_cvtepi8_epi32(a))
                    }),
                    Addend::F32(a) => real(p, piece, |v, at, mask| {
                        _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, a.as_ptr().add(piece.addend_first + at)))
                    }),
                }
            }
            Step::Double(p) => match p.last {
                Rounding::Even => double::<EVEN>(p, piece),
                _ if p.shifts_right => double_right(p, piece),
                Rounding::Away => double::<AWAY>(p, piece),
                Rounding::Up => double::<UP>(p, piece),
            },
            Step::Single(p) => codes(piece, p.steps, from_zero_point(p.steps), |at| {
                let (initial, mantissa) = (load(&p.initial, at), load(&p.mantissa, at));
                let right = load(&p.right, at);
                let (right_even, right_odd) =
                    (_mm512_and_si512(right, _mm512_set1_epi64(0xff)), _mm512_srli_epi64::<32>(right));
                let least = _mm512_set1_epi64(2 * i64::from(p.steps.least));
                let most = _mm512_set1_epi64(2 * i64::from(p.steps.most));
                let one = _mm512_set1_epi32(1);
                move |acc, _, _| {
                    let [even, odd] = products(_mm512_add_epi32(acc, initial), mantissa);
                    let clamp = |v| _mm512_min_epi64(_mm512_max_epi64(v, least), most);
                    let even = clamp(_mm512_srav_epi64(even, right_even));
                    let odd = clamp(_mm512_srav_epi64(odd, right_odd));
                    let doubled = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd));
                    _mm512_srai_epi32::<1>(_mm512_add_epi32(doubled, one))
                }
            }),
            Step::Product(p) => codes(piece, p.steps, from_zero_point(p.steps), |at| {
                let initial = load(&p.initial, at);
                let multiplier = [load_pd(&p.multiplier, at), load_pd(&p.multiplier, at + 8)];
                let before = _mm512_set1_pd(p.before);
                let (least, most) = (_mm512_set1_pd(f64::from(p.steps.least)), _mm512_set1_pd(f64::from(p.steps.most)));
                let rounding = p.rounding;
                move |acc, _, _| {
                    let v = _mm512_add_epi32(acc, initial);
                    let half = |v: __m256i, multiplier| {
                        let v = _mm512_add_pd(_mm512_mul_pd(_mm512_cvtepi32_pd(v), multiplier), before);
                        // The second operand where the first is NaN.
                        integer(_mm512_min_pd(_mm512_max_pd(v, least), most), rounding)
                    };
                    let low = half(_mm512_castsi512_si256(v), multiplier[0]);
                    let high = half(_mm512_extracti64x4_epi64::<1>(v), multiplier[1]);
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                }
            }),
            Step::Shift(p) => match (p.rounding, p.clamps) {
                (Rounding::Even, false) => shift::<EVEN, false>(p, piece),
                (Rounding::Even, true) => shift::<EVEN, true>(p, piece),
                (Rounding::Away, false) => shift::<AWAY, false>(p, piece),
                (Rounding::Away, true) => shift::<AWAY, true>(p, piece),
                (Rounding::Up, false) => shift::<UP, false>(p, piece),
                (Rounding::Up, true) => shift::<UP, true>(p, piece),
            },
        }
    }
}

/// Roundings as constant parameters: a choice inside of a loop costs more than the choice.
const EVEN: u8 = Rounding::Even as u8;
const AWAY: u8 = Rounding::Away as u8;
const UP: u8 = Rounding::Up as u8;

/// R16. `sum` adds what the outputs from an element of the piece on take beside their accumulators.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn real(p: &Real, piece: &Piece<'_>, sum: impl Fn(__m512, usize, u16) -> __m512 + Copy) {
    let scaled = |at| {
        // SAFETY: parameters reach beyond the last channel.
        let (scale, bias) = unsafe { (load_ps(&p.scale, at), load_ps(&p.bias, at)) };
        move |acc, at, mask| sum(_mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias), at, mask)
    };
    // SAFETY: passed on.
    unsafe {
        match p.output {
            RealOutput::Reals => {
                let [least, most] = p.clip.unwrap_or_default().map(|v| _mm512_set1_ps(v));
                let clip = p.clip.is_some();
                reals(piece, |at| {
                    let scaled = scaled(at);
                    move |acc, at, mask| {
                        let v = scaled(acc, at, mask);
                        // The second operand where the first is NaN.
                        if clip { _mm512_min_ps(_mm512_max_ps(v, least), most) } else { v }
                    }
                })
            }
            RealOutput::Codes { multiplier, .. } => {
                let most = _mm512_set1_ps(p.steps.most as f32);
                let (multiplier, zero_point) = (_mm512_set1_ps(multiplier), _mm512_set1_ps(p.zero_point));
                let code = |at| {
                    let scaled = scaled(at);
                    move |acc, at, mask| _mm512_add_ps(_mm512_mul_ps(scaled(acc, at, mask), multiplier), zero_point)
                };
                if p.fits {
                    codes(
                        piece,
                        p.steps,
                        |words| words,
                        |at| {
                            let code = code(at);
                            move |acc, at, mask| _mm512_cvtps_epi32(code(acc, at, mask))
                        },
                    )
                } else {
                    codes(
                        piece,
                        p.steps,
                        |words| words,
                        |at| {
                            let code = code(at);
                            move |acc, at, mask| at_most(code(acc, at, mask), most)
                        },
                    )
                }
            }
        }
    }
}

/// R17.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn double<const LAST: u8>(p: &Double, piece: &Piece<'_>) {
    // SAFETY: passed on; parameters reach beyond the last channel.
    unsafe {
        codes(piece, p.steps, from_zero_point(p.steps), |at| {
            let (initial, left, right) = (load(&p.initial, at), load(&p.left, at), load(&p.right, at));
            let mantissa = load(&p.mantissa, at);
            let half = _mm512_set1_epi64(1 << 30);
            move |acc, _, _| {
                let a = _mm512_sllv_epi32(_mm512_add_epi32(acc, initial), left);
                // Bits 31 to 62, doubled into the high half.
                let products = products(a, mantissa).map(|product| {
                    let sum = _mm512_add_epi64(product, half);
                    _mm512_add_epi64(sum, sum)
                });
                shift_right::<LAST>(high(products), right)
            }
        })
    }
}

/// R17 where every channel is shifted right, and ties do not go to even numbers.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn double_right(p: &Double, piece: &Piece<'_>) {
    // The last bit is rounded away in words, of which a register holds twice as many.
    let (one, last) = (_mm512_set1_epi32(1), _mm512_set1_epi16((1 + 2 * p.steps.zero_point) as i16));
    let (words, away) = (|words| _mm512_srai_epi16::<1>(_mm512_adds_epi16(words, last)), p.last == Rounding::Away);
    // SAFETY: passed on; parameters reach beyond the last channel.
    unsafe {
        codes(piece, p.steps, words, |at| {
            let initial = _mm512_xor_si512(load(&p.initial, at), _mm512_set1_epi32(i32::MIN));
            let right = _mm512_sub_epi32(load(&p.right, at), one);
            let double = epilogue::Double::load(p.slope.as_ptr().add(at), p.offset.as_ptr().add(at), right, away);
            move |acc, _, _| epilogue::scale_double(_mm512_add_epi32(acc, initial), &double)
        })
    }
}

/// R20. `CLAMPS`: some channels are not shifted right by 0 to 31.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn shift<const ROUNDING: u8, const CLAMPS: bool>(p: &Shift, piece: &Piece<'_>) {
    // SAFETY: passed on; parameters reach beyond the last channel.
    unsafe {
        codes(piece, p.steps, from_zero_point(p.steps), |at| {
            let (initial, right, left) = (load(&p.initial, at), load(&p.right, at), load(&p.left, at));
            let (lowest, highest) = (load(&p.lowest, at), load(&p.highest, at));
            move |acc, _, _| {
                let mut v = _mm512_add_epi32(acc, initial);
                if CLAMPS {
                    v = _mm512_sllv_epi32(_mm512_min_epi32(_mm512_max_epi32(v, lowest), highest), left);
                }
                shift_right::<ROUNDING>(v, right)
            }
        })
    }
}

/// Goes through a piece whose outputs are real numbers, one register of channels after the other: `parameters` are
/// loaded for its rows together, what it returns makes outputs of accumulators and addends.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn reals<P, F>(piece: &Piece<'_>, parameters: P)
where
    P: Fn(usize) -> F,
    F: Fn(__m512i, usize, u16) -> __m512,
{
    for column in (0..piece.channels).step_by(16) {
        let mask = below((piece.channels - column).min(16)) as u16;
        let finish = parameters(piece.first + column);
        for row in 0..piece.rows {
            let at = row * piece.stride + column;
            // SAFETY: the mask leaves out what lies beyond the row.
            unsafe {
                let acc = piece.accumulators.add(row * piece.accumulator_stride + column);
                let y = finish(_mm512_maskz_loadu_epi32(mask, acc), at, mask);
                _mm512_mask_storeu_ps(piece.output.add(4 * at).cast(), mask, y);
            }
        }
    }
}

/// Goes through a piece whose outputs are codes, two registers of channels after the other: what `parameters` returns
/// makes int32 numbers of accumulators, `words` makes codes of them, not yet clamped, once they are narrowed to int16.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn codes<P, F>(piece: &Piece<'_>, steps: Steps, words: impl Fn(__m512i) -> __m512i + Copy, parameters: P)
where
    P: Fn(usize) -> F,
    F: Fn(__m512i, usize, u16) -> __m512i,
{
    for column in (0..piece.channels).step_by(32) {
        // SAFETY: passed on.
        unsafe {
            if piece.channels - column > 16 {
                rows::<2, _, _>(piece, column, steps, words, &parameters);
            } else {
                rows::<1, _, _>(piece, column, steps, words, &parameters);
            }
        }
    }
}

/// The channels of NV registers. Four registers at a time, of rows below each other, are narrowed to bytes together.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn rows<const NV: usize, P, F>(
    piece: &Piece<'_>,
    column: usize,
    steps: Steps,
    words: impl Fn(__m512i) -> __m512i,
    parameters: &P,
) where
    P: Fn(usize) -> F,
    F: Fn(__m512i, usize, u16) -> __m512i,
{
    let finish: [F; NV] = core::array::from_fn(|j| parameters(piece.first + column + 16 * j));
    let mask = below((piece.channels - column).min(16 * NV));
    let range = [steps.least, steps.most].map(|bound| bound + steps.zero_point);
    let (signed, [lo, hi]) = (range[0] < 0, range.map(|code| _mm512_set1_epi8(code as i8)));
    for first in (0..piece.rows).step_by(4 / NV) {
        let mut v = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            // Rows beyond the last are the last once more.
            let (row, j) = ((first + i / NV).min(piece.rows - 1), i % NV);
            let (at, mask) = (column + 16 * j, (mask >> (16 * j)) as u16);
            // SAFETY: the mask leaves out what lies beyond the row.
            unsafe {
                let acc = piece.accumulators.add(row * piece.accumulator_stride + at);
                v[i] = finish[j](_mm512_maskz_loadu_epi32(mask, acc), row * piece.stride + at, mask);
            }
        }
        let (low, high) = (words(_mm512_packs_epi32(v[0], v[1])), words(_mm512_packs_epi32(v[2], v[3])));
        let codes = if signed {
            _mm512_min_epi8(_mm512_max_epi8(_mm512_packs_epi16(low, high), lo), hi)
        } else {
            _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(low, high), lo), hi)
        };
        // SAFETY: the mask leaves out what lies beyond a row.
        unsafe {
            let y = piece.output.add(first * piece.stride + column);
            epilogue::store_rows::<NV>(epilogue::by_vector(codes), y, piece.stride, mask, piece.rows - first);
        }
    }
}

/// Adds the zero point to steps that are words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn from_zero_point(steps: Steps) -> impl Fn(__m512i) -> __m512i + Copy {
    let zero_point = _mm512_set1_epi16(steps.zero_point as i16);
    move |words| _mm512_adds_epi16(words, zero_point)
}

/// What kernels do to their tiles, for accumulators that lie in memory.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn fused<const STORE: Store>(epilogue: &Epilogue, piece: &Piece<'_>) {
    let element = if STORE == CODES { 1 } else { 4 };
    for row in 0..piece.rows {
        for column in (0..piece.channels).step_by(32) {
            let channels = (piece.channels - column).min(32);
            // SAFETY: the masks leave out what lies beyond the row.
            let mut acc = [[0, 16].map(|from| unsafe {
                let acc = piece.accumulators.wrapping_add(row * piece.accumulator_stride + column + from);
                _mm512_maskz_loadu_epi32((below(channels) >> from) as u16, acc)
            })];
            let output = piece.output.wrapping_add((row * piece.stride + column) * element);
            let tile = Tile { output, channels, ..Tile::of(epilogue, piece.first + column) };
            // SAFETY: the row is writable for these channels; the epilogue reaches beyond the last.
            unsafe {
                epilogue::start::<1, 2>(&mut acc, &tile);
                epilogue::finish_rows::<1, 2, STORE>(acc, 0, &tile);
            }
        }
    }
}

/// Rounded, or less than any code where that is less than an int32 or NaN: what is too large must not look so.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn at_most(v: __m512, most: __m512) -> __m512i {
    // The second operand where one is NaN.
    _mm512_cvtps_epi32(_mm512_min_ps(most, v))
}

/// `a · b` in 64 bits: those of the even lanes, and those of the odd lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn products(a: __m512i, b: __m512i) -> [__m512i; 2] {
    let odd = |v| _mm512_shuffle_epi32::<_MM_PERM_DDBB>(v);
    [_mm512_mul_epi32(a, b), _mm512_mul_epi32(odd(a), odd(b))]
}

/// The high halves of such products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn high([even, odd]: [__m512i; 2]) -> __m512i {
    _mm512_mask_shuffle_epi32::<_MM_PERM_DDBB>(odd, 0x5555, even)
}

/// `v / 2^right`, rounded, for shifts by 0 to 31.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn shift_right<const ROUNDING: u8>(v: __m512i, right: __m512i) -> __m512i {
    let one = _mm512_set1_epi32(1);
    let ones = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
    let (floor, rest, below_half) =
        (_mm512_srav_epi32(v, right), _mm512_and_si512(v, ones), _mm512_srli_epi32::<1>(ones));
    let most = match ROUNDING {
        UP => below_half,
        AWAY => _mm512_sub_epi32(below_half, _mm512_srai_epi32::<31>(v)),
        _ => _mm512_add_epi32(below_half, _mm512_andnot_si512(floor, one)),
    };
    _mm512_mask_add_epi32(floor, _mm512_cmpgt_epi32_mask(rest, most), floor, one)
}

/// Numbers that fit an int32, rounded to one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn integer(v: __m512d, rounding: Rounding) -> __m256i {
    /// VRNDSCALEPD: to an integer, downwards.
    const FLOOR: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    match rounding {
        Rounding::Even => _mm512_cvtpd_epi32(v),
        Rounding::Up => {
            let floor = _mm512_roundscale_pd::<FLOOR>(v);
            let above = _mm512_cmp_pd_mask::<_CMP_GE_OQ>(_mm512_sub_pd(v, floor), _mm512_set1_pd(0.5));
            _mm512_cvtpd_epi32(_mm512_mask_add_pd(floor, above, floor, _mm512_set1_pd(1.0)))
        }
        Rounding::Away => {
            let (below_half, sign) = (_mm512_set1_pd(BELOW_HALF), _mm512_set1_epi64(i64::MIN));
            let sign = _mm512_and_si512(_mm512_castpd_si512(v), sign);
            let half = _mm512_castsi512_pd(_mm512_or_si512(_mm512_castpd_si512(below_half), sign));
            _mm512_cvttpd_epi32(_mm512_add_pd(v, half))
        }
    }
}

/// # Safety
/// The vector has 16 elements from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn load(vector: &[i32], at: usize) -> __m512i {
    debug_assert!(at + 16 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm512_loadu_si512(vector.as_ptr().add(at).cast()) }
}

/// # Safety
/// The vector has 16 elements from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn load_ps(vector: &[f32], at: usize) -> __m512 {
    debug_assert!(at + 16 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm512_loadu_ps(vector.as_ptr().add(at)) }
}

/// # Safety
/// The vector has 8 elements from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn load_pd(vector: &[f64], at: usize) -> __m512d {
    debug_assert!(at + 8 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm512_loadu_pd(vector.as_ptr().add(at)) }
}
