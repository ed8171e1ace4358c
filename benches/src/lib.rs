//! Layers to time: one shape of each kind that networks are made of, with full-range data.

use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, F32Mul};
use qexact_reference::{CodeType, Conv, Error, Input, Layer, Linear, Output, Region, Rule};

/// Name and shape of each case.
pub const CASES: [(&str, &str); 20] = [
    ("bert_ffn", "linear m128k768n3072"),
    ("bert_one_token", "linear m1k768n3072"),
    ("llm_one_token", "linear m1k4096n4096"),
    ("mlp_fc1", "linear m64k784n512"),
    ("mlp_fc2", "linear m64k512n10"),
    ("odd", "linear m7k131n33"),
    ("resnet50_stem", "conv ic3oc64ih224kh7sh2ph3"),
    ("resnet50_1x1_narrow", "conv ic64oc64ih56kh1"),
    ("resnet50_1x1", "conv ic256oc64ih56kh1"),
    ("resnet50_1x1_stride2", "conv ic256oc512ih56kh1sh2"),
    ("resnet50_3x3", "conv ic64oc64ih56kh3ph1"),
    ("resnet50_3x3_deep", "conv ic256oc256ih14kh3ph1"),
    ("resnet50_3x3_last", "conv ic512oc512ih7kh3ph1"),
    ("mobilenet_stem", "conv ic3oc32ih224kh3sh2ph1"),
    ("mobilenet_dw3x3", "conv ic32oc32g32ih112kh3ph1"),
    ("mobilenet_dw3x3_deep", "conv ic384oc384g384ih14kh3ph1"),
    ("mobilenet_dw3x3_stride2", "conv ic144oc144g144ih56kh3sh2ph1"),
    ("efficientnet_dw5x5", "conv ic240oc240g240ih28kh5ph2"),
    ("resnext_grouped", "conv ic128oc128g32ih56kh3ph1"),
    ("mnist_conv1", "conv ic1oc32ih28kh3ph1"),
];

/// A layer with its data: u8 to u8, one multiplier a channel, fused bias and ReLU.
pub struct Bench {
    shape: Conv,
    weight: Vec<i8>,
    input: Vec<u8>,
    rule: Rule,
}

impl Bench {
    /// A layer of this shape, on data that depends on nothing else.
    ///
    /// # Errors
    /// Text that is no shape.
    pub fn new(text: &str) -> Result<Bench, Error> {
        let shape = if text.starts_with("linear") { text.parse::<Linear>()?.into() } else { text.parse::<Conv>()? };
        // A multiplicative congruential generator; its high byte takes all values.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        let weight = (0..shape.weight_len()).map(|_| next() as i8).collect();
        let input = (0..shape.batch * shape.image_len()).map(|_| next()).collect();
        // Sums of products of two codes of standard deviation 74: outputs then cover the range of codes.
        let spread = 50.0 / (74.0 * 74.0 * (shape.depth() as f32).sqrt());
        let multiplier =
            (0..shape.out_channels).map(|c| spread * (1.0 + c as f32 / shape.out_channels as f32)).collect();
        let bias = Bias::I32((0..shape.out_channels as i32).map(|c| c * 7 % 1000 - 500).collect());
        let rule = Rule::F32Mul(F32Mul::new(multiplier, bias, 3, CodeType::U8)?.relu());
        Ok(Bench { shape, weight, input, rule })
    }

    /// The layer.
    ///
    /// # Errors
    /// None for a shape that [`Bench::new`] accepted.
    pub fn layer(&self) -> Result<Layer<'_>, Error> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: CodeType::U8,
            input_zero_point: 128,
            weight: &self.weight,
            weight_zero_point: &[0],
            rule: &self.rule,
        })
    }

    /// Multiply-accumulates, taps in the padding counted.
    pub fn macs(&self) -> u64 {
        self.shape.macs() as u64
    }

    /// A plan and what one call of it needs. Its output has been compared with the reference's.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn prepare(&self, isa: Isa) -> Result<Prepared<'_>, Error> {
        let layer = self.layer()?;
        let plan = Plan::new(&layer, isa)?;
        let region = plan.region(self.shape.batch)?;
        let (output, scratch) = (vec![0; region.len()], plan.scratch());
        let mut prepared = Prepared { plan, region, input: &self.input, output, scratch };
        prepared.run();
        // A sample of rows: the whole output of the larger cases takes the reference seconds.
        let rows = prepared.region.rows.len();
        for row in [0, rows / 2, rows - 1] {
            let mut want = vec![0; self.shape.out_channels];
            let one = Region { rows: row..row + 1, channels: prepared.region.channels.clone() };
            layer.run(&one, Input::U8(&self.input), Output::U8(&mut want))?;
            assert_eq!(prepared.output[row * want.len()..][..want.len()], want, "{} differs in row {row}", self.shape);
        }
        Ok(prepared)
    }
}

/// A planned layer with its buffers.
pub struct Prepared<'b> {
    /// The plan.
    pub plan: Plan,
    region: Region,
    input: &'b [u8],
    output: Vec<u8>,
    scratch: Vec<u8>,
}

impl Prepared<'_> {
    /// One call.
    ///
    /// # Panics
    /// Never: the buffers were made for the plan.
    pub fn run(&mut self) {
        let output = Output::U8(&mut self.output);
        self.plan
            .run(&self.region, Input::U8(self.input), output, &mut self.scratch)
            .expect("buffers of the right size");
    }
}
