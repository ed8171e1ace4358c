//! Rules as a step of their own in 512-bit registers: 16 int32 lanes. [`finish`](crate::finish) says why each form
//! is exact.

use super::epilogue512::{self as epilogue, below};
use crate::epilogue::{ACCUMULATORS, CODES, Epilogue, REALS, Store};
use crate::finish::{BELOW_HALF, Piece, Step, Steps};
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
            Step::ClampFirst(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, multiplier) = (load(&p.initial, at), load_ps(&p.multiplier, at));
                let (bias, reciprocal) = (load_ps(&p.bias, at), load_ps(&p.reciprocal, at));
                let least = _mm512_set1_ps(p.steps.least as f32);
                let most = _mm512_set1_ps(p.steps.most as f32);
                let zero_point = _mm512_set1_epi32(p.steps.zero_point);
                move |acc, _| {
                    let v = _mm512_cvtepi32_ps(_mm512_add_epi32(acc, initial));
                    let v = _mm512_mul_ps(_mm512_fmadd_ps(bias, reciprocal, v), multiplier);
                    // The second operand where the first is NaN.
                    let v = _mm512_min_ps(_mm512_max_ps(v, least), most);
                    _mm512_add_epi32(_mm512_cvtps_epi32(v), zero_point)
                }
            }),
            Step::Real(p) => {
                let summed = match p.sum {
                    Sum::Codes { scale, zero_point, .. } => [zero_point as f32, scale],
                    _ => [0.0; 2],
                };
                let summed = summed.map(|v| _mm512_set1_ps(v));
                let [least, most] = p.clip.unwrap_or_default().map(|v| _mm512_set1_ps(v));
                let (sum, clip) = (p.sum, p.clip.is_some());
                let real = |at| {
                    let (scale, bias) = (load_ps(&p.scale, at), load_ps(&p.bias, at));
                    move |acc, addend| {
                        let mut v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
                        match sum {
                            Sum::None => {}
                            Sum::Codes { .. } => {
                                v = _mm512_fmadd_ps(_mm512_sub_ps(addend, summed[0]), summed[1], v);
                            }
                            Sum::Reals => v = _mm512_add_ps(v, addend),
                        }
                        if clip { _mm512_min_ps(_mm512_max_ps(v, least), most) } else { v }
                    }
                };
                match p.output {
                    RealOutput::Reals => columns::<REALS, _, _>(piece, |at| {
                        let real = real(at);
                        move |acc, addend| _mm512_castps_si512(real(acc, addend))
                    }),
                    RealOutput::Codes { multiplier, codes } => {
                        let [lo, hi] = codes.range().map(|code| _mm512_set1_ps(code as f32));
                        let multiplier = _mm512_set1_ps(multiplier);
                        let zero_point = _mm512_set1_ps(codes.zero_point() as f32);
                        columns::<CODES, _, _>(piece, |at| {
                            let real = real(at);
                            move |acc, addend| {
                                let v = _mm512_add_ps(_mm512_mul_ps(real(acc, addend), multiplier), zero_point);
                                _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(v, lo), hi))
                            }
                        });
                    }
                }
            }
            Step::Double(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, left, right) = (load(&p.initial, at), load(&p.left, at), load(&p.right, at));
                let mantissa = load(&p.mantissa, at);
                let half = _mm512_set1_epi64(1 << 30);
                let (shifts_left, last, steps) = (p.shifts_left, p.last, p.steps);
                move |acc, _| {
                    let mut a = _mm512_add_epi32(acc, initial);
                    if shifts_left {
                        a = _mm512_sllv_epi32(a, left);
                    }
                    // Bits 31 to 62, doubled into the high half; those of the even lanes go to the low half.
                    let [even, odd] = products(a, mantissa).map(|product| {
                        let sum = _mm512_add_epi64(product, half);
                        _mm512_add_epi64(sum, sum)
                    });
                    let high = _mm512_mask_shuffle_epi32::<_MM_PERM_DDBB>(odd, 0x5555, even);
                    code(shift_right(high, right, last), steps)
                }
            }),
            Step::Single(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, mantissa) = (load(&p.initial, at), load(&p.mantissa, at));
                let right = load(&p.right, at);
                let (right_even, right_odd) =
                    (_mm512_and_si512(right, _mm512_set1_epi64(0xff)), _mm512_srli_epi64::<32>(right));
                let least = _mm512_set1_epi64(2 * i64::from(p.steps.least));
                let most = _mm512_set1_epi64(2 * i64::from(p.steps.most));
                let (one, zero_point) = (_mm512_set1_epi32(1), _mm512_set1_epi32(p.steps.zero_point));
                move |acc, _| {
                    let [even, odd] = products(_mm512_add_epi32(acc, initial), mantissa);
                    let clamp = |v| _mm512_min_epi64(_mm512_max_epi64(v, least), most);
                    let even = clamp(_mm512_srav_epi64(even, right_even));
                    let odd = clamp(_mm512_srav_epi64(odd, right_odd));
                    let doubled = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd));
                    _mm512_add_epi32(_mm512_srai_epi32::<1>(_mm512_add_epi32(doubled, one)), zero_point)
                }
            }),
            Step::Product(p) => columns::<CODES, _, _>(piece, |at| {
                let initial = load(&p.initial, at);
                let multiplier = [load_pd(&p.multiplier, at), load_pd(&p.multiplier, at + 8)];
                let before = _mm512_set1_pd(p.before);
                let (least, most) = (_mm512_set1_pd(f64::from(p.steps.least)), _mm512_set1_pd(f64::from(p.steps.most)));
                let (rounding, zero_point) = (p.rounding, _mm512_set1_epi32(p.steps.zero_point));
                move |acc, _| {
                    let v = _mm512_add_epi32(acc, initial);
                    let half = |v: __m256i, multiplier| {
                        let v = _mm512_add_pd(_mm512_mul_pd(_mm512_cvtepi32_pd(v), multiplier), before);
                        // The second operand where the first is NaN.
                        integer(_mm512_min_pd(_mm512_max_pd(v, least), most), rounding)
                    };
                    let low = half(_mm512_castsi512_si256(v), multiplier[0]);
                    let high = half(_mm512_extracti64x4_epi64::<1>(v), multiplier[1]);
                    let steps = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                    _mm512_add_epi32(steps, zero_point)
                }
            }),
            Step::Shift(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, right, left) = (load(&p.initial, at), load(&p.right, at), load(&p.left, at));
                let (lowest, highest) = (load(&p.lowest, at), load(&p.highest, at));
                let (clamps, rounding, steps) = (p.clamps, p.rounding, p.steps);
                move |acc, _| {
                    let mut v = _mm512_add_epi32(acc, initial);
                    if clamps {
                        v = _mm512_sllv_epi32(_mm512_min_epi32(_mm512_max_epi32(v, lowest), highest), left);
                    }
                    code(shift_right(v, right, rounding), steps)
                }
            }),
        }
    }
}

/// Goes through a piece, one register of channels after the other: `parameters` are loaded for its rows together,
/// what it returns makes outputs (codes as int32, or bits of real numbers) of accumulators and addends.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn columns<const STORE: Store, P, F>(piece: &Piece<'_>, parameters: P)
where
    P: Fn(usize) -> F,
    F: Fn(__m512i, __m512) -> __m512i,
{
    for column in (0..piece.channels).step_by(16) {
        let mask = below((piece.channels - column).min(16)) as u16;
        let finish = parameters(piece.first + column);
        for row in 0..piece.rows {
            let at = row * piece.stride + column;
            // SAFETY: the masks leave out what lies beyond the row.
            unsafe {
                let acc = piece.accumulators.add(row * piece.accumulator_stride + column);
                let y = finish(_mm512_maskz_loadu_epi32(mask, acc), addend(piece, at, mask));
                if STORE == CODES {
                    _mm_mask_storeu_epi8(piece.output.add(at).cast(), mask, _mm512_cvtepi32_epi8(y));
                } else {
                    _mm512_mask_storeu_epi32(piece.output.add(4 * at).cast(), mask, y);
                }
            }
        }
    }
}

/// The addends of the outputs from `at` on, codes as exact numbers.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn); `mask` has only elements of the addend.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
unsafe fn addend(piece: &Piece<'_>, at: usize, mask: u16) -> __m512 {
    let at = piece.addend_first + at;
    // SAFETY: by this function's contract.
    unsafe {
        match piece.addend {
            Addend::None => _mm512_setzero_ps(),
            Addend::U8(a) => {
                let codes = _mm_maskz_loadu_epi8(mask, a.as_ptr().add(at).cast());
                _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))
            }
            Addend::I8(a) => {
                let codes = _mm_maskz_loadu_epi8(mask, a.as_ptr().add(at).cast());
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
            }
            Addend::F32(a) => _mm512_maskz_loadu_ps(mask, a.as_ptr().add(at)),
        }
    }
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

/// `a · b` in 64 bits: those of the even lanes, and those of the odd lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn products(a: __m512i, b: __m512i) -> [__m512i; 2] {
    let odd = |v| _mm512_srli_epi64::<32>(v);
    [_mm512_mul_epi32(a, b), _mm512_mul_epi32(odd(a), odd(b))]
}

/// `v / 2^right`, rounded, for shifts by 0 to 31.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn shift_right(v: __m512i, right: __m512i, rounding: Rounding) -> __m512i {
    let one = _mm512_set1_epi32(1);
    let ones = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
    let (floor, rest, below_half) =
        (_mm512_srav_epi32(v, right), _mm512_and_si512(v, ones), _mm512_srli_epi32::<1>(ones));
    let most = match rounding {
        Rounding::Up => below_half,
        Rounding::Away => _mm512_sub_epi32(below_half, _mm512_srai_epi32::<31>(v)),
        Rounding::Even => _mm512_add_epi32(below_half, _mm512_andnot_si512(floor, one)),
    };
    _mm512_mask_add_epi32(floor, _mm512_cmpgt_epi32_mask(rest, most), floor, one)
}

/// The codes of steps from the zero point.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn code(steps: __m512i, codes: Steps) -> __m512i {
    let steps = _mm512_max_epi32(steps, _mm512_set1_epi32(codes.least));
    let steps = _mm512_min_epi32(steps, _mm512_set1_epi32(codes.most));
    _mm512_add_epi32(steps, _mm512_set1_epi32(codes.zero_point))
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
