//! The handful of floating-point operations that `core` does not offer, each with exactly one rounding.

#[cfg(not(any(feature = "std", feature = "libm")))]
compile_error!("qexact-reference needs the feature `std` (the default) or, without a standard library, `libm`");

/// Round to the nearest integer, ties to even.
#[inline]
pub fn round_ties_even(v: f32) -> f32 {
    #[cfg(feature = "std")]
    return v.round_ties_even();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::rintf(v);
}

/// Round to the nearest integer, ties to even.
#[inline]
pub fn round_ties_even_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.round_ties_even();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::rint(v);
}

/// `a * b + c` with a single rounding.
#[inline]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(feature = "std")]
    return a.mul_add(b, c);
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::fmaf(a, b, c);
}

/// Round to the nearest integer, ties away from zero.
#[inline]
pub fn round_ties_away_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.round();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::round(v);
}

/// The largest integer that is not larger.
#[inline]
pub fn floor_f64(v: f64) -> f64 {
    #[cfg(feature = "std")]
    return v.floor();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::floor(v);
}

/// `v` brought into `lo..=hi`; a NaN, which fails the first comparison, becomes `lo`. This is what MAXPS and MINPS
/// compute with the bound as their second operand.
#[inline]
pub fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v > lo { v } else { lo };
    if v < hi { v } else { hi }
}

/// The correctly rounded square root.
#[inline]
pub fn sqrt(v: f32) -> f32 {
    #[cfg(feature = "std")]
    return v.sqrt();
    #[cfg(all(feature = "libm", not(feature = "std")))]
    return libm::sqrtf(v);
}

/// Rule R1, `cvt`: round to the nearest integer, ties to even; NaN and everything that does not
/// fit an `i32` become `i32::MIN`. This is what the x86 instruction CVTPS2DQ computes.
#[inline]
pub fn cvt(v: f32) -> i32 {
    let rounded = round_ties_even(v);
    // Both bounds are powers of two, hence exact; a NaN fails the comparison.
    if (-2147483648.0..2147483648.0).contains(&rounded) { rounded as i32 } else { i32::MIN }
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
    fn fma_rounds_once() {
        // 1 + 2^-12 squared is 1 + 2^-11 + 2^-24; the last term survives only in a single rounding.
        let a = 1.0 + f32::powi(2.0, -12);
        assert_eq!(fma(a, a, -(1.0 + f32::powi(2.0, -11))), f32::powi(2.0, -24));
        assert_eq!(a * a - (1.0 + f32::powi(2.0, -11)), 0.0);
    }
}
