//! The handful of floating-point operations that `core` does not offer, each with exactly one rounding.

#[cfg(not(any(feature = "std", feature = "libm")))]
compile_error!("qexact-reference needs the feature `std` (the default) or, without a standard library, `libm`");

/// Round to the nearest integer, ties to even.
#[inline(always)]
pub fn round_ties_even(v: f32) -> f32 {
    #[cfg(feature = "std")]
    return v.round_ties_even();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::rintf(v);
}

/// Round to the nearest integer, ties to even.
#[inline(always)]
pub fn round_ties_even_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.round_ties_even();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::rint(v);
}

/// e to the power v: not correctly rounded, but the same bits everywhere, and within a few units of the last place of
/// an f64, hence almost always right when rounded to f32.
///
/// `v = k·ln 2 + r` with |r| ≤ ln 2 / 2; a Taylor series for r, then an exact scaling by 2ᵏ.
pub fn exp(v: f64) -> f64 {
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if v > 709.0 {
        return f64::INFINITY;
    }
    if v < -708.0 {
        return 0.0;
    }
    let k = round_ties_even_f64(v * core::f64::consts::LOG2_E);
    let r = (v - k * LN_2_HIGH) - k * LN_2_LOW;
    // Σ rⁿ / n! by Horner's rule; the first term left out is below 2⁻⁶⁰.
    let series = (1..=17).rev().fold(1.0, |sum, n| 1.0 + r * sum / f64::from(n));
    // A NaN converts to 0 and stays in the series.
    series * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// `a * b + c` with a single rounding.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(feature = "std")]
    return a.mul_add(b, c);
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::fmaf(a, b, c);
}

/// Round to the nearest integer, ties away from zero.
#[inline(always)]
pub fn round_ties_away_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.round();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::round(v);
}

/// The largest integer that is not larger.
#[inline(always)]
pub fn floor_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.floor();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::floor(v);
}

/// `v` brought into `lo..=hi`; a NaN, which fails the first comparison, becomes `lo`. This is what MAXPS and MINPS
/// compute with the bound as their second operand.
#[inline(always)]
pub fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v > lo { v } else { lo };
    if v < hi { v } else { hi }
}

/// The correctly rounded square root.
#[inline(always)]
pub fn sqrt(v: f32) -> f32 {
    #[cfg(feature = "std")]
    return v.sqrt();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::sqrtf(v);
}

/// Rule R1, `cvt`: round to the nearest integer, ties to even; NaN and everything that does not
/// fit an `i32` become `i32::MIN`. This is what the x86 instruction CVTPS2DQ computes.
#[inline(always)]
pub fn cvt(v: f32) -> i32 {
    // Both bounds are powers of two, hence exact, and f32 numbers near them are integers; a NaN fails the comparison.
    if (-2147483648.0..2147483648.0).contains(&v) { nearest(v.into()) } else { i32::MIN }
}

/// The int32 nearest to `v`, ties to even, saturated; 0 for NaN.
#[inline(always)]
pub fn saturate(v: f64) -> i32 {
    let v = if v.is_nan() { 0.0 } else { v };
    let v = if v > -2147483648.0 { v } else { -2147483648.0 };
    nearest(if v < 2147483647.0 { v } else { 2147483647.0 })
}

/// The integer nearest to `v`, ties to even, for |v| up to 2³¹: an f64 above 2⁵² has no fractional bits, so the
/// addition rounds, and the low word of the sum is the integer. An `as` after a rounding gives the same, but compilers
/// do not vectorise it: its own saturation takes a branch.
#[inline(always)]
fn nearest(v: f64) -> i32 {
    const SHIFT: f64 = 6755399441055744.0;
    (v + SHIFT).to_bits() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cvt_rounds_ties_to_even_and_marks_what_does_not_fit() {
        for (v, want) in [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (2147483520.0, 2147483520),
            (2147483648.0, i32::MIN),
            (-2147483648.0, i32::MIN),
            (-2147483904.0, i32::MIN),
            (f32::INFINITY, i32::MIN),
            (f32::NAN, i32::MIN),
        ] {
            assert_eq!(cvt(v), want, "cvt({v})");
        }
    }

    #[test]
    fn conversions_of_every_exponent_are_those_of_a_rounding_and_a_cast() {
        // All signs and exponents, with significands that lie on ties and beside them.
        let significands = [0, 1, 0x40_0000, 0x3f_ffff, 0x7f_ffff, 0x12_3456, 0x60_0000, 0x00_8000, 0x01_8000];
        for v in (0..512u32).flat_map(|high| significands.map(|low| f32::from_bits(high << 23 | low))) {
            let rounded = round_ties_even(v);
            let fits = (-2147483648.0..2147483648.0).contains(&rounded);
            assert_eq!(cvt(v), if fits { rounded as i32 } else { i32::MIN }, "{v}");
            assert_eq!(saturate(v.into()), rounded as i32, "{v}");
            assert_eq!(saturate(f64::from(v) * 1.0000001), round_ties_even_f64(f64::from(v) * 1.0000001) as i32, "{v}");
        }
        assert_eq!([2147483647.4, 2147483646.5, 2147483646.6].map(saturate), [i32::MAX, 2147483646, i32::MAX]);
    }

    #[test]
    fn rounding_of_f64_at_ties_and_beside_them() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -2.5].map(round_ties_even_f64), [0.0, 2.0, 2.0, 0.0, -2.0]);
        assert_eq!([0.5, 1.5, 2.5, -0.5, -2.5].map(round_ties_away_f64), [1.0, 2.0, 3.0, -1.0, -3.0]);
        // Adding a half and truncating would give 1.
        assert_eq!(round_ties_away_f64(0.49999999999999994), 0.0);
    }

    #[test]
    fn exp_is_right_to_f32() {
        let max = |v: f64, want: f64| assert!((exp(v) / want - 1.0).abs() < 1e-15, "exp({v}) = {}", exp(v));
        max(1.0, core::f64::consts::E);
        max(-1.0, 0.367_879_441_171_442_33);
        max(10.0, 22_026.465_794_806_718);
        max(-50.0, 1.928_749_847_963_917_8e-22);
        max(0.34657359027997264, core::f64::consts::SQRT_2);
        assert_eq!([exp(0.0), exp(f64::INFINITY), exp(f64::NEG_INFINITY)], [1.0, f64::INFINITY, 0.0]);
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn fma_rounds_once() {
        // 1 + 2^-12 squared is 1 + 2^-11 + 2^-24; the last term survives only in a single rounding.
        let a = 1.0 + f32::powi(2.0, -12);
        assert_eq!(fma(a, a, -(1.0 + f32::powi(2.0, -11))), f32::powi(2.0, -24));
        assert_eq!(a * a - (1.0 + f32::powi(2.0, -11)), 0.0);
    }
}
