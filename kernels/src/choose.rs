//! Which kernel a layer gets.

use crate::IsaName;
use crate::gather::Runs;
use crate::micro::{Kind, Microkernel, Window};
use crate::pack::{LONG, WeightFormat};
use crate::safe::safe_steps;
use core::fmt;
use qexact_reference::{Axis, Conv, Layer, NarrowType};

/// Every microkernel there is. Plans choose from it and tests run through it.
#[cfg(target_arch = "x86_64")]
static ALL: &[Microkernel] = &[
    crate::x86_64::avx2::GEMM,
    crate::x86_64::maddubs::GEMM8,
    crate::x86_64::maddubs::GEMM4,
    crate::x86_64::maddubs::GEMM2,
    crate::x86_64::maddubs::GEMM1,
    crate::x86_64::avx2::DEPTHWISE,
    crate::x86_64::rows_avx2::DEPTHWISE,
    crate::x86_64::grouped_rows_avx2::GROUPED4,
    crate::x86_64::grouped_rows_avx2::GROUPED4_3X3,
    crate::x86_64::grouped_rows_avx2::GROUPED4_3X3_STRIDE2,
    crate::x86_64::grouped_rows_avx2::GROUPED8,
    crate::x86_64::grouped_rows_avx2::GROUPED8_3X3,
    crate::x86_64::grouped_rows_avx2::GROUPED8_3X3_STRIDE2,
    crate::x86_64::avx_vnni::GEMM,
    crate::x86_64::avx_vnni::DEPTHWISE,
    crate::x86_64::rows_avx_vnni::DEPTHWISE,
    crate::x86_64::rows_avx_vnni::GROUPED4,
    crate::x86_64::rows_avx_vnni::GROUPED8,
    crate::x86_64::avx512_vnni::GEMM,
    crate::x86_64::avx512_vnni::DEPTHWISE,
    crate::x86_64::dot512::GEMM,
    crate::x86_64::fields512::GEMM4,
    crate::x86_64::fields512::GEMM2,
    crate::x86_64::fields512::GEMM1,
    crate::x86_64::depthwise_rows512::DEPTHWISE,
    crate::x86_64::depthwise_direct512::DEPTHWISE3,
    crate::x86_64::depthwise_direct512::DEPTHWISE3_STRIDE2,
    crate::x86_64::depthwise_direct512::DEPTHWISE5,
    crate::x86_64::depthwise_direct512::DEPTHWISE5_STRIDE2,
    crate::x86_64::grouped_rows512::GROUPED4,
    crate::x86_64::grouped_rows512::GROUPED4_3X3,
    crate::x86_64::grouped_rows512::GROUPED4_3X3_STRIDE2,
    crate::x86_64::grouped_rows512::GROUPED8,
    crate::x86_64::grouped_rows512::GROUPED16,
];

#[cfg(not(target_arch = "x86_64"))]
static ALL: &[Microkernel] = &[];

/// The microkernel of a kind for an instruction set.
fn find(isa: IsaName, kind: Kind) -> Option<&'static Microkernel> {
    ALL.iter().find(|kernel| kernel.isa == isa && kernel.kind == kind)
}

/// The names of everything that [`choose`], [`choose_narrow`] and [`Choice::for_layer`] can return for an instruction set.
pub fn kernels(isa: IsaName) -> impl Iterator<Item = &'static str> {
    let reference = (isa == IsaName::Reference).then_some(REFERENCE);
    ALL.iter().filter(move |kernel| kernel.isa == isa).map(|kernel| kernel.name).chain(reference)
}

/// What computes where there is no kernel.
const REFERENCE: &str = "reference";

/// The kernel that a shape gets, and how it reads its input.
#[derive(Clone, Copy)]
pub struct Choice {
    pub(crate) kernel: Option<&'static Microkernel>,
    pub(crate) runs: Runs,
}

/// The kernel for a shape, whatever the weights: a pure function, so that any machine can ask what another would choose.
/// A plan, which knows its weights, may get another one: [`Choice::for_layer`].
pub fn choose(isa: IsaName, shape: &Conv) -> Choice {
    choose_among(isa, shape, |_| true)
}

fn choose_among(isa: IsaName, shape: &Conv, serves: impl Fn(Kind) -> bool) -> Choice {
    let kernel = kinds(shape).into_iter().filter(|kind| serves(*kind)).find_map(|kind| find(isa, kind));
    let rows = shape.groups == 1 && shape.axes[2].dilation == 1;
    let runs = if rows { Runs::KernelRows } else { Runs::Taps };
    let few = |kernel: &&Microkernel| kernel.isa == isa && has_few_outputs(shape, runs, kernel);
    let kernel = match kernel {
        Some(gemm) if gemm.kind == Kind::Gemm => ALL.iter().find(few).or(kernel),
        _ => kernel,
    };
    Choice { kernel, runs }
}

/// Whether a kernel puts codes of one row into a register, and a layer has so few output channels, with sums so long, that
/// this is faster than registers of channels.
fn has_few_outputs(shape: &Conv, runs: Runs, kernel: &Microkernel) -> bool {
    let (outputs, run_len) = (shape.group_outputs(), runs.len(shape));
    let products = |vectors: usize| shape.depth() / run_len * vectors;
    // Adding up the lanes of a sum takes as long as four products. With more outputs there is less to gain than by leaving
    // out padding, of which this kernel leaves out whole rows only.
    kernel.format == WeightFormat::Long
        && outputs < 2 * kernel.lanes
        && products(run_len.div_ceil(LONG) * outputs) + 4 * outputs
            < products(run_len.div_ceil(4) * outputs.div_ceil(kernel.lanes))
}

/// The kernel for a shape whose weights are packed codes of 4 bits or less. Where an instruction set has none for them
/// they are unpacked, once, for the ordinary one.
pub fn choose_narrow(isa: IsaName, shape: &Conv, weight: NarrowType) -> Choice {
    let ordinary = choose(isa, shape);
    let bits = weight.bits();
    let kernel = ALL.iter().find(|kernel| kernel.isa == isa && kernel.format == WeightFormat::Fields { bits });
    // Binary weights have no 0 to fill up a quad with.
    let serves = ordinary.kernel.is_some_and(|k| k.kind == Kind::Gemm)
        && (bits > 1 || ordinary.runs.len(shape).is_multiple_of(4));
    Choice { kernel: kernel.filter(|_| serves).or(ordinary.kernel), ..ordinary }
}

impl Choice {
    /// The kernel for a layer of the shape, now that its weights are known.
    ///
    /// Some kernels need weight zero points of 0. And products of AVX2 may saturate in 16 bits, which the matrix kernel
    /// for any weights avoids by widening them: where the layer's weights and the range of its codes prove that no input
    /// saturates, in any channel, it gets the kernel that adds the most of them in 16 bits.
    pub fn for_layer(self, layer: &Layer<'_>) -> Choice {
        let zero_points = || (0..layer.shape().out_channels).any(|c| layer.weight_zero_point(c) != 0);
        let direct = |kind| matches!(kind, Kind::DepthwiseDirect { .. });
        let any = match self.kernel {
            Some(kernel) if kernel.kind == Kind::Gemm => kernel,
            Some(kernel) if direct(kernel.kind) && zero_points() => {
                return choose_among(kernel.isa, layer.shape(), |kind| !direct(kind));
            }
            _ => return self,
        };
        let of_weights = ALL.iter().filter(|kernel| kernel.isa == any.isa && kernel.format.steps() > 0);
        if of_weights.clone().next().is_none() {
            return self;
        }
        let run_len = self.runs.len(layer.shape());
        let quads = run_len.div_ceil(4);
        // Steps are added up within a run.
        let steps = safe_steps(layer.weight(), run_len, layer.input()).min(quads.next_power_of_two());
        // Quads that fill up a run take back what is gained, 1.2 with one step, 1.5 and more with several: 9 codes are 12
        // in quads and 10 in pairs.
        let gain = if steps == 1 { 11 } else { 13 };
        let repays = 10 * 4 * quads <= gain * 2 * run_len.div_ceil(2);
        let kernel = of_weights.filter(|kernel| kernel.format.steps() <= steps && repays);
        let kernel = kernel.max_by_key(|kernel| kernel.format.steps());
        Choice { kernel: kernel.or(self.kernel), ..self }
    }

    /// Quads of products that the kernel adds in 16 bits before it adds them in 32; 0 where it never does.
    pub fn steps_in_16_bits(&self) -> usize {
        self.kernel.map_or(0, |kernel| kernel.format.steps())
    }
}

/// The kinds of kernels that serve a shape, best first.
fn kinds(shape: &Conv) -> [Kind; 4] {
    let [depth, height, width] = shape.axes;
    // Rows of pixels lie in planes.
    let plane = depth == Axis::UNIT;
    match (shape.group_inputs(), shape.group_outputs()) {
        _ if shape.groups == 1 => [Kind::Gemm; 4],
        // A kernel of one row has nothing to put side by side.
        (1, 1) if plane && height.kernel > 1 => {
            let direct = Kind::DepthwiseDirect { kernel: width.kernel, stride: width.stride };
            let same = [height, width].map(|axis| (axis.kernel, axis.stride, axis.dilation));
            let first = if same == [(width.kernel, width.stride, 1); 2] { direct } else { Kind::DepthwiseRows };
            [first, Kind::DepthwiseRows, Kind::Depthwise, Kind::Depthwise]
        }
        (1, 1) => [Kind::Depthwise; 4],
        (2 | 4 | 8 | 16, _) if plane && shape.group_inputs() == shape.group_outputs() => {
            let quads = shape.group_inputs().div_ceil(4);
            let window = Window::Fixed { kernel: width.kernel, blocks: height.kernel, stride: width.stride };
            let window = if width.dilation == 1 { window } else { Window::Any };
            let any = Kind::GroupedRows { quads, window: Window::Any };
            [Kind::GroupedRows { quads, window }, any, Kind::Gemm, Kind::Gemm]
        }
        _ => [Kind::Gemm; 4],
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kernel.map_or(REFERENCE, |kernel| kernel.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use qexact_reference::layer::LayerParts;
    use qexact_reference::{CodeType, Rule};

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn shapes_get_the_kernel_that_knows_most_of_them() {
        let name = |isa, shape: &str| choose(isa, &shape.parse().unwrap()).to_string();
        for (shape, kernel) in [
            ("conv ic32oc32g32ih8kh3ph1", "depthwise_direct_avx512_vnni_3x3"),
            ("conv ic32oc32g32ih8kh3sh2ph1", "depthwise_direct_avx512_vnni_3x3_stride2"),
            ("conv ic32oc32g32ih8kh3sh1sw2ph1", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh5ph2", "depthwise_direct_avx512_vnni_5x5"),
            ("conv ic32oc32g32ih8kh5sh2ph2", "depthwise_direct_avx512_vnni_5x5_stride2"),
            // What no kernel knows: other extents, a dilated width.
            ("conv ic32oc32g32ih8kh7ph3", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh7sh2ph3", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh5kw3sh2", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh5sh3ph2", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh5sh2ph2dh2", "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic32oc32g32ih8kh3ph2dh2", "depthwise_rows_avx512_vnni_6x64"),
            // No rows: one axis, three axes, one row of taps.
            ("conv ic32oc32g32ih1iw8kh1kw3", "depthwise_avx512_vnni_64"),
            ("conv ic32oc32g32id4ih8kd2kh3", "depthwise_avx512_vnni_64"),
            // Several outputs a channel.
            ("conv ic32oc64g32ih8kh3ph1", "gemm_avx512_vnni_12x32"),
            ("conv ic32oc32g8ih8kh3ph1", "grouped_rows_avx512_vnni_7x16_4_3x3"),
            ("conv ic32oc32g16ih8kh3ph1", "grouped_rows_avx512_vnni_7x16_4_3x3"),
            ("conv ic32oc32g4ih8kh3sh2ph1", "grouped_rows_avx512_vnni_7x16_8"),
            ("conv ic32oc32g4ih8kh1", "grouped_rows_avx512_vnni_7x16_8"),
            ("conv ic32oc32g2ih8kh3", "grouped_rows_avx512_vnni_7x16_16"),
            ("conv ic64oc64g2ih8kh3", "gemm_avx512_vnni_12x32"),
            ("conv ic24oc24g2ih8kh3", "gemm_avx512_vnni_12x32"),
            ("conv ic8oc16g2ih8kh3", "gemm_avx512_vnni_12x32"),
            // Few outputs of long sums: of a linear layer, of a kernel, of a group.
            ("conv ic512oc10ih1kh1", "dot_avx512_vnni_6x4"),
            ("conv ic256oc10ih1kh1", "gemm_avx512_vnni_12x32"),
            ("conv ic8192oc16ih1kh1", "gemm_avx512_vnni_12x32"),
            ("conv ic2048oc20ih1kh1", "dot_avx512_vnni_6x4"),
            ("conv ic64oc3ih8kh3ph1", "dot_avx512_vnni_6x4"),
            ("conv ic128oc2g2ih8kh3ph1", "dot_avx512_vnni_6x4"),
        ] {
            assert_eq!(name(IsaName::Avx512Vnni, shape), kernel, "{shape}");
        }
        assert_eq!(name(IsaName::AvxVnni, "conv ic32oc32g32ih8kh3ph1"), "depthwise_rows_avx_vnni_2x32");
        assert_eq!(name(IsaName::Avx2, "conv ic32oc32g32ih8kh5ph1"), "depthwise_rows_avx2_2x32");
        assert_eq!(name(IsaName::Avx2, "conv ic32oc32g8ih8kh3ph1"), "grouped_rows_avx2_7x16_4_3x3");
        assert_eq!(name(IsaName::Avx2, "conv ic32oc32g4ih8kh3sh2ph1"), "grouped_rows_avx2_7x16_8_3x3_stride2");
        assert_eq!(name(IsaName::Avx2, "conv ic32oc32g4ih8kh5ph2"), "grouped_rows_avx2_7x16_8");
        assert_eq!(name(IsaName::Avx2, "conv ic32oc32g2ih8kh3ph1"), "gemm_avx2_6x16");
        assert_eq!(name(IsaName::Reference, "conv ic32oc32g32ih8kh3ph1"), "reference");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn direct_kernels_are_not_for_weight_zero_points() {
        for (shape, zero_point, kernel) in [
            ("conv ic2oc2g2ih8kh3ph1", 0, "depthwise_direct_avx512_vnni_3x3"),
            ("conv ic2oc2g2ih8kh3ph1", 1, "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic2oc2g2ih8kh5ph2", 0, "depthwise_direct_avx512_vnni_5x5"),
            ("conv ic2oc2g2ih8kh5ph2", 1, "depthwise_rows_avx512_vnni_6x64"),
            ("conv ic2oc2g2ih8kh5sh2ph2", 0, "depthwise_direct_avx512_vnni_5x5_stride2"),
            ("conv ic2oc2g2ih8kh5sh2ph2", 1, "depthwise_rows_avx512_vnni_6x64"),
        ] {
            let shape: Conv = shape.parse().unwrap();
            let parts = LayerParts {
                shape,
                input: CodeType::U8,
                input_zero_point: 128,
                weight: &vec![1; shape.weight_len()],
                weight_zero_point: &[0, zero_point],
                rule: &Rule::Accumulator,
            };
            let choice = choose(IsaName::Avx512Vnni, &shape).for_layer(&Layer::new(parts).unwrap());
            assert_eq!(choice.to_string(), kernel);
        }
    }
}
