//! Instruction sets: which exist, which this CPU has, and a token that proves it.

use core::fmt;
use core::str::FromStr;

/// The name of an instruction set; says nothing about the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IsaName {
    /// The scalar reference, everywhere.
    Reference,
    /// AVX2 and FMA: 16-bit products, exact for every input.
    Avx2,
    /// AVX2, FMA and AVX-VNNI: 8-bit dot products in 256-bit registers.
    AvxVnni,
    /// AVX-512 F, BW, VL and VNNI: 8-bit dot products in 512-bit registers.
    Avx512Vnni,
}

impl IsaName {
    /// All of them; a later one is faster where it is available.
    pub const ALL: [IsaName; 4] = [IsaName::Reference, IsaName::Avx2, IsaName::AvxVnni, IsaName::Avx512Vnni];

    /// As written on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            IsaName::Reference => "reference",
            IsaName::Avx2 => "avx2",
            IsaName::AvxVnni => "avx_vnni",
            IsaName::Avx512Vnni => "avx512_vnni",
        }
    }

    /// Whether every CPU with `self` also has `other`. A partial order: some CPUs have AVX-512-VNNI
    /// and not AVX-VNNI, others the reverse.
    pub const fn implies(self, other: IsaName) -> bool {
        matches!(
            (self, other),
            (_, IsaName::Reference)
                | (IsaName::AvxVnni | IsaName::Avx512Vnni, IsaName::Avx2)
                | (IsaName::Avx2, IsaName::Avx2)
                | (IsaName::AvxVnni, IsaName::AvxVnni)
                | (IsaName::Avx512Vnni, IsaName::Avx512Vnni)
        )
    }

    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    fn on_this_cpu(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        // The standard library detects once and remembers.
        let avx2 = || has!("avx2") && has!("fma");
        match self {
            IsaName::Reference => true,
            IsaName::Avx2 => avx2(),
            IsaName::AvxVnni => avx2() && has!("avxvnni"),
            IsaName::Avx512Vnni => {
                avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni")
            }
        }
    }

    #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
    fn on_this_cpu(self) -> bool {
        self == IsaName::Reference
    }
}

impl fmt::Display for IsaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for IsaName {
    type Err = IsaError;
    fn from_str(text: &str) -> Result<IsaName, IsaError> {
        IsaName::ALL.into_iter().find(|name| name.as_str() == text).ok_or(IsaError::Unknown)
    }
}

/// An instruction set that this CPU has: a value exists only where its instructions may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(
    // Invariant: the CPU executes these instructions. Every kernel call relies on it.
    IsaName,
);

impl Isa {
    /// The scalar reference, which every CPU runs.
    pub const REFERENCE: Isa = Isa(IsaName::Reference);

    /// The instruction set of this name, if the CPU has it.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`]. Nothing is substituted.
    pub fn new(name: IsaName) -> Result<Isa, IsaError> {
        if name.on_this_cpu() { Ok(Isa(name)) } else { Err(IsaError::Unavailable(name)) }
    }

    /// The instruction set of this name, unchecked: for targets without `std`, whose caller knows the CPU.
    ///
    /// # Safety
    /// The CPU and the operating system must support all instructions that [`IsaName`] lists for it.
    pub const unsafe fn assume(name: IsaName) -> Isa {
        Isa(name)
    }

    /// The fastest instruction set of this CPU.
    pub fn best() -> Isa {
        Isa::available().last().unwrap_or(Isa::REFERENCE)
    }

    /// All instruction sets of this CPU, the reference first, the fastest last.
    pub fn available() -> impl Iterator<Item = Isa> {
        IsaName::ALL.into_iter().filter_map(|name| Isa::new(name).ok())
    }

    /// Its name.
    pub const fn name(self) -> IsaName {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no such instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// The name is none of [`IsaName::ALL`].
    Unknown,
    /// This CPU lacks it.
    Unavailable(IsaName),
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown => {
                f.write_str("unknown instruction set, expected one of reference, avx2, avx_vnni, avx512_vnni")
            }
            IsaError::Unavailable(name) => write!(f, "this CPU (or build) does not have {name}"),
        }
    }
}

impl core::error::Error for IsaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_partial() {
        assert!(!IsaName::AvxVnni.implies(IsaName::Avx512Vnni) && !IsaName::Avx512Vnni.implies(IsaName::AvxVnni));
        for a in IsaName::ALL {
            assert!(a.implies(a) && a.implies(IsaName::Reference));
            assert_eq!(a.as_str().parse(), Ok(a));
        }
        assert!("avx".parse::<IsaName>().is_err());
    }

    #[test]
    fn what_is_available_is_closed_under_implication() {
        for isa in Isa::available() {
            for name in IsaName::ALL.into_iter().filter(|&n| isa.name().implies(n)) {
                assert!(Isa::new(name).is_ok(), "{isa} without {name}");
            }
        }
    }
}
