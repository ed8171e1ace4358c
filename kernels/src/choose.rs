//! Which kernel a layer gets.

use crate::IsaName;
use crate::gather::Runs;
use crate::micro::{Kind, Microkernel};
use core::fmt;
use qexact_reference::Conv;

/// Every microkernel there is. Plans choose from it and tests run through it.
#[cfg(target_arch = "x86_64")]
static ALL: &[Microkernel] = &[
    crate::x86_64::avx2::GEMM,
    crate::x86_64::avx2::DEPTHWISE,
    crate::x86_64::avx_vnni::GEMM,
    crate::x86_64::avx_vnni::DEPTHWISE,
    crate::x86_64::avx512_vnni::GEMM,
    crate::x86_64::avx512_vnni::DEPTHWISE,
];

#[cfg(not(target_arch = "x86_64"))]
static ALL: &[Microkernel] = &[];

/// The microkernel of a kind for an instruction set.
fn find(isa: IsaName, kind: Kind) -> Option<&'static Microkernel> {
    ALL.iter().find(|kernel| kernel.isa == isa && kernel.kind == kind)
}

/// The kernel that a shape gets, and how it reads its input.
#[derive(Clone, Copy)]
pub struct Choice {
    pub(crate) kernel: Option<&'static Microkernel>,
    pub(crate) runs: Runs,
}

/// The kernel for a shape: a pure function, so that any machine can ask what another would choose.
pub fn choose(isa: IsaName, shape: &Conv) -> Choice {
    let depthwise = shape.is_depthwise() && shape.out_channels == shape.in_channels;
    let kernel = find(isa, if depthwise { Kind::Depthwise } else { Kind::Gemm });
    let rows = shape.groups == 1 && shape.axes[2].dilation == 1;
    Choice { kernel, runs: if rows { Runs::KernelRows } else { Runs::Taps } }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kernel.map_or("reference", |kernel| kernel.name))
    }
}
