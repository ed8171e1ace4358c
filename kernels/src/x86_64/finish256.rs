//! Rules as a step of their own in 256-bit registers: 8 int32 lanes. [`finish`](crate::finish) says why each form
//! is exact.

use super::epilogue256::{self as epilogue, lanes_below, store_first};
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
#[target_feature(enable = "avx2,fma")]
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
                let least = _mm256_set1_ps(p.steps.least as f32);
                let most = _mm256_set1_ps(p.steps.most as f32);
                let zero_point = _mm256_set1_epi32(p.steps.zero_point);
                move |acc, _| {
                    let v = _mm256_cvtepi32_ps(_mm256_add_epi32(acc, initial));
                    let v = _mm256_mul_ps(_mm256_fmadd_ps(bias, reciprocal, v), multiplier);
                    // The second operand where the first is NaN.
                    let v = _mm256_min_ps(_mm256_max_ps(v, least), most);
                    _mm256_add_epi32(_mm256_cvtps_epi32(v), zero_point)
                }
            }),
            Step::Real(p) => {
                let summed = match p.sum {
                    Sum::Codes { scale, zero_point, .. } => [zero_point as f32, scale],
                    _ => [0.0; 2],
                };
                let summed = summed.map(|v| _mm256_set1_ps(v));
                let [least, most] = p.clip.unwrap_or_default().map(|v| _mm256_set1_ps(v));
                let (sum, clip) = (p.sum, p.clip.is_some());
                let real = |at| {
                    let (scale, bias) = (load_ps(&p.scale, at), load_ps(&p.bias, at));
                    move |acc, addend| {
                        let mut v = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale), bias);
                        match sum {
                            Sum::None => {}
                            Sum::Codes { .. } => {
                                v = _mm256_fmadd_ps(_mm256_sub_ps(addend, summed[0]), summed[1], v);
                            }
                            Sum::Reals => v = _mm256_add_ps(v, addend),
                        }
                        if clip { _mm256_min_ps(_mm256_max_ps(v, least), most) } else { v }
                    }
                };
                match p.output {
                    RealOutput::Reals => columns::<REALS, _, _>(piece, |at| {
                        let real = real(at);
                        move |acc, addend| _mm256_castps_si256(real(acc, addend))
                    }),
                    RealOutput::Codes { multiplier, .. } => {
                        let [lo, hi] = [p.steps.least, p.steps.most].map(|code| _mm256_set1_ps(code as f32));
                        let multiplier = _mm256_set1_ps(multiplier);
                        let zero_point = _mm256_set1_ps(p.zero_point);
                        columns::<CODES, _, _>(piece, |at| {
                            let real = real(at);
                            move |acc, addend| {
                                let v = _mm256_add_ps(_mm256_mul_ps(real(acc, addend), multiplier), zero_point);
                                _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, lo), hi))
                            }
                        });
                    }
                }
            }
            Step::Double(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, left, right) = (load(&p.initial, at), load(&p.left, at), load(&p.right, at));
                let mantissa = load(&p.mantissa, at);
                let half = _mm256_set1_epi64x(1 << 30);
                let (shifts_left, last, steps) = (p.shifts_left, p.last, p.steps);
                move |acc, _| {
                    let mut a = _mm256_add_epi32(acc, initial);
                    if shifts_left {
                        a = _mm256_sllv_epi32(a, left);
                    }
                    // Bits 31 to 62, doubled into the high half; those of the even lanes go to the low half.
                    let [even, odd] = products(a, mantissa).map(|product| {
                        let sum = _mm256_add_epi64(product, half);
                        _mm256_add_epi64(sum, sum)
                    });
                    let high = _mm256_blend_epi32::<0xaa>(_mm256_srli_epi64::<32>(even), odd);
                    code(shift_right(high, right, last), steps)
                }
            }),
            Step::Single(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, mantissa) = (load(&p.initial, at), load(&p.mantissa, at));
                let right = load(&p.right, at);
                let (right_even, right_odd) =
                    (_mm256_and_si256(right, _mm256_set1_epi64x(0xff)), _mm256_srli_epi64::<32>(right));
                let least = _mm256_set1_epi64x(2 * i64::from(p.steps.least));
                let most = _mm256_set1_epi64x(2 * i64::from(p.steps.most));
                // There is no arithmetic shift in 64 bits: it is the logical shift of the number and 2⁶³, without
                // what has become of 2⁶³.
                let top = _mm256_set1_epi64x(i64::MIN);
                let arithmetic = move |v, right| {
                    let moved = _mm256_srlv_epi64(_mm256_add_epi64(v, top), right);
                    _mm256_sub_epi64(moved, _mm256_srlv_epi64(top, right))
                };
                let (one, zero_point) = (_mm256_set1_epi32(1), _mm256_set1_epi32(p.steps.zero_point));
                move |acc, _| {
                    let [even, odd] = products(_mm256_add_epi32(acc, initial), mantissa);
                    let clamp = |v| {
                        let v = _mm256_blendv_epi8(v, least, _mm256_cmpgt_epi64(least, v));
                        _mm256_blendv_epi8(v, most, _mm256_cmpgt_epi64(v, most))
                    };
                    let even = clamp(arithmetic(even, right_even));
                    let odd = clamp(arithmetic(odd, right_odd));
                    let doubled = _mm256_blend_epi32::<0xaa>(even, _mm256_slli_epi64::<32>(odd));
                    _mm256_add_epi32(_mm256_srai_epi32::<1>(_mm256_add_epi32(doubled, one)), zero_point)
                }
            }),
            Step::Product(p) => columns::<CODES, _, _>(piece, |at| {
                let initial = load(&p.initial, at);
                let multiplier = [load_pd(&p.multiplier, at), load_pd(&p.multiplier, at + 4)];
                let before = _mm256_set1_pd(p.before);
                let (least, most) = (_mm256_set1_pd(f64::from(p.steps.least)), _mm256_set1_pd(f64::from(p.steps.most)));
                let (rounding, zero_point) = (p.rounding, _mm256_set1_epi32(p.steps.zero_point));
                move |acc, _| {
                    let v = _mm256_add_epi32(acc, initial);
                    let half = |v: __m128i, multiplier| {
                        let v = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtepi32_pd(v), multiplier), before);
                        // The second operand where the first is NaN.
                        integer(_mm256_min_pd(_mm256_max_pd(v, least), most), rounding)
                    };
                    let low = half(_mm256_castsi256_si128(v), multiplier[0]);
                    let high = half(_mm256_extracti128_si256::<1>(v), multiplier[1]);
                    let steps = _mm256_set_m128i(high, low);
                    _mm256_add_epi32(steps, zero_point)
                }
            }),
            Step::Shift(p) => columns::<CODES, _, _>(piece, |at| {
                let (initial, right, left) = (load(&p.initial, at), load(&p.right, at), load(&p.left, at));
                let (lowest, highest) = (load(&p.lowest, at), load(&p.highest, at));
                let (clamps, rounding, steps) = (p.clamps, p.rounding, p.steps);
                move |acc, _| {
                    let mut v = _mm256_add_epi32(acc, initial);
                    if clamps {
                        v = _mm256_sllv_epi32(_mm256_min_epi32(_mm256_max_epi32(v, lowest), highest), left);
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
#[target_feature(enable = "avx2,fma")]
unsafe fn columns<const STORE: Store, P, F>(piece: &Piece<'_>, parameters: P)
where
    P: Fn(usize) -> F,
    F: Fn(__m256i, __m256) -> __m256i,
{
    for column in (0..piece.channels).step_by(8) {
        let n = (piece.channels - column).min(8);
        let finish = parameters(piece.first + column);
        for row in 0..piece.rows {
            let at = row * piece.stride + column;
            // SAFETY: the row has `n` more elements.
            unsafe {
                let acc = accumulators(piece.accumulators.add(row * piece.accumulator_stride + column), n);
                let y = finish(acc, addend(piece, at, n));
                if STORE == CODES {
                    let codes = low_bytes(y);
                    let to = piece.output.add(at);
                    if n == 8 {
                        _mm_storel_epi64(to.cast(), codes)
                    } else {
                        store_first(to, n, _mm256_castsi128_si256(codes))
                    }
                } else {
                    _mm256_maskstore_epi32(piece.output.add(4 * at).cast(), lanes_below(n, 0), y);
                }
            }
        }
    }
}

/// # Safety
/// `n` ≤ 8 elements are readable at `acc`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulators(acc: *const i32, n: usize) -> __m256i {
    // SAFETY: by this function's contract; the mask leaves out the others.
    unsafe { if n == 8 { _mm256_loadu_si256(acc.cast()) } else { _mm256_maskload_epi32(acc, lanes_below(n, 0)) } }
}

/// The low byte of every lane, in the first eight.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn low_bytes(v: __m256i) -> __m128i {
    let four = _mm256_set1_epi32(0x0c08_0400);
    let fours = _mm256_shuffle_epi8(v, four);
    _mm_unpacklo_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256::<1>(fours))
}

/// The addends of the outputs from `at` on, codes as exact numbers.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn); the addend has `n` ≤ 8 elements from there on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn addend(piece: &Piece<'_>, at: usize, n: usize) -> __m256 {
    let at = piece.addend_first + at;
    // SAFETY: by this function's contract.
    unsafe {
        match piece.addend {
            Addend::None => _mm256_setzero_ps(),
            Addend::U8(a) => _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes(a.as_ptr().add(at), n))),
            Addend::I8(a) => _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes(a.as_ptr().add(at).cast(), n))),
            Addend::F32(a) => _mm256_maskload_ps(a.as_ptr().add(at), lanes_below(n, 0)),
        }
    }
}

/// # Safety
/// `n` ≤ 8 bytes are readable at `from`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn bytes(from: *const u8, n: usize) -> __m128i {
    let mut copy = 0u64;
    // SAFETY: by this function's contract; the copy has room for 8.
    unsafe { core::ptr::copy_nonoverlapping(from, (&raw mut copy).cast(), n) };
    _mm_cvtsi64_si128(copy as i64)
}

/// What kernels do to their tiles, for accumulators that lie in memory.
///
/// # Safety
/// The contract of [`StepFn`](crate::finish::StepFn).
#[target_feature(enable = "avx2,fma")]
unsafe fn fused<const STORE: Store>(epilogue: &Epilogue, piece: &Piece<'_>) {
    let element = if STORE == CODES { 1 } else { 4 };
    for row in 0..piece.rows {
        for column in (0..piece.channels).step_by(16) {
            let channels = (piece.channels - column).min(16);
            let mut acc = [[0, 8].map(|from| {
                let acc = piece.accumulators.wrapping_add(row * piece.accumulator_stride + column + from);
                // SAFETY: the row has as many more elements.
                unsafe { accumulators(acc, channels.saturating_sub(from).min(8)) }
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
#[target_feature(enable = "avx2,fma")]
fn products(a: __m256i, b: __m256i) -> [__m256i; 2] {
    let odd = |v| _mm256_srli_epi64::<32>(v);
    [_mm256_mul_epi32(a, b), _mm256_mul_epi32(odd(a), odd(b))]
}

/// `v / 2^right`, rounded, for shifts by 0 to 31.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shift_right(v: __m256i, right: __m256i, rounding: Rounding) -> __m256i {
    let one = _mm256_set1_epi32(1);
    let ones = _mm256_sub_epi32(_mm256_sllv_epi32(one, right), one);
    let (floor, rest, below_half) =
        (_mm256_srav_epi32(v, right), _mm256_and_si256(v, ones), _mm256_srli_epi32::<1>(ones));
    let most = match rounding {
        Rounding::Up => below_half,
        Rounding::Away => _mm256_sub_epi32(below_half, _mm256_srai_epi32::<31>(v)),
        Rounding::Even => _mm256_add_epi32(below_half, _mm256_andnot_si256(floor, one)),
    };
    // Where it is greater, the comparison is −1.
    _mm256_sub_epi32(floor, _mm256_cmpgt_epi32(rest, most))
}

/// The codes of steps from the zero point.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn code(steps: __m256i, codes: Steps) -> __m256i {
    let steps = _mm256_max_epi32(steps, _mm256_set1_epi32(codes.least));
    let steps = _mm256_min_epi32(steps, _mm256_set1_epi32(codes.most));
    _mm256_add_epi32(steps, _mm256_set1_epi32(codes.zero_point))
}

/// Numbers that fit an int32, rounded to one.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn integer(v: __m256d, rounding: Rounding) -> __m128i {
    match rounding {
        Rounding::Even => _mm256_cvtpd_epi32(v),
        Rounding::Up => {
            let floor = _mm256_floor_pd(v);
            let above = _mm256_cmp_pd::<_CMP_GE_OQ>(_mm256_sub_pd(v, floor), _mm256_set1_pd(0.5));
            _mm256_cvtpd_epi32(_mm256_add_pd(floor, _mm256_and_pd(above, _mm256_set1_pd(1.0))))
        }
        Rounding::Away => {
            let half = _mm256_or_pd(_mm256_set1_pd(BELOW_HALF), _mm256_and_pd(v, _mm256_set1_pd(-0.0)));
            _mm256_cvttpd_epi32(_mm256_add_pd(v, half))
        }
    }
}

/// # Safety
/// The vector has 8 elements from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load(vector: &[i32], at: usize) -> __m256i {
    debug_assert!(at + 8 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm256_loadu_si256(vector.as_ptr().add(at).cast()) }
}

/// # Safety
/// The vector has 8 elements from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_ps(vector: &[f32], at: usize) -> __m256 {
    debug_assert!(at + 8 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm256_loadu_ps(vector.as_ptr().add(at)) }
}

/// # Safety
/// The vector has 4 elements from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_pd(vector: &[f64], at: usize) -> __m256d {
    debug_assert!(at + 4 <= vector.len());
    // SAFETY: by this function's contract.
    unsafe { _mm256_loadu_pd(vector.as_ptr().add(at)) }
}
