//! Running a network on one instruction set.

use crate::error::RunError;
use crate::network::{Network, Node, Operator, Value};
use crate::tensor::{Data, Order, Tensor};
use qexact_kernels::elementwise::{self, Lookup, adaptive_avg_pool, avg_pool, batch_norm, max_pool};
use qexact_kernels::{Isa, Plan};
use qexact_reference::pool::{AdaptivePool, Pool};
use qexact_reference::quantization::Quantize;
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::{Code, Error, Input, Output, Quantization};
use std::cell::RefCell;

/// Codes of either type to codes of the same type.
macro_rules! of_codes {
    ($data:expr, $codes:ident => $result:expr) => {
        match $data {
            Data::U8($codes) => Data::U8($result),
            Data::I8($codes) => Data::I8($result),
            Data::F32(_) => unreachable!("the graph gives this operator codes, and `check` compared the types"),
        }
    };
}

/// A network with a plan for every layer.
pub struct Executor<'n> {
    network: &'n Network,
    isa: Isa,
    /// One for each node that is a linear or convolution layer.
    plans: Vec<Option<Plan>>,
    scratch: RefCell<Vec<u8>>,
}

impl<'n> Executor<'n> {
    /// Plans all layers for an instruction set; [`Isa::REFERENCE`] is the scalar definition itself.
    ///
    /// # Errors
    /// A layer whose sizes overflow.
    pub fn new(network: &'n Network, isa: Isa) -> Result<Executor<'n>, RunError> {
        let plan = |node: &Node| match &node.operator {
            Operator::Layer(layer) => Plan::new(&layer.layer(), isa).map(Some).map_err(|e| at(node, e)),
            _ => Ok(None),
        };
        let plans = network.nodes().iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        let longest = plans.iter().flatten().map(Plan::scratch_len).max().unwrap_or(0);
        Ok(Executor { network, isa, plans, scratch: RefCell::new(vec![0; longest]) })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Name of the kernel that computes a layer; other operators run the reference's rules, compiled for the instruction
    /// set.
    pub fn kernel(&self, node: usize) -> String {
        self.plans[node].as_ref().map_or_else(|| "reference".to_string(), |plan| plan.kernel().to_string())
    }

    /// The plan of a node that is a linear or convolution layer.
    pub fn plan(&self, node: usize) -> Option<&Plan> {
        self.plans[node].as_ref()
    }

    /// Runs the network; the results are the graph's outputs.
    ///
    /// # Errors
    /// Inputs whose number, type, shape or batch is not the graph's.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let mut values = self.run_all(inputs)?;
        let outputs = self.network.outputs();
        // An output may be listed twice.
        Ok(outputs
            .iter()
            .enumerate()
            .filter_map(|(i, &o)| if outputs[i + 1..].contains(&o) { values[o].clone() } else { values[o].take() })
            .collect())
    }

    /// Runs the network; the results are all values of the graph, by index.
    ///
    /// # Errors
    /// As [`run`](Executor::run).
    pub fn run_all(&self, inputs: &[Tensor]) -> Result<Vec<Option<Tensor>>, RunError> {
        let expected = self.network.inputs();
        if inputs.len() != expected.len() {
            return Err(RunError::Inputs { got: inputs.len(), expected: expected.len() });
        }
        let mut values = vec![None; self.network.values().len()];
        for (&index, tensor) in expected.iter().zip(inputs) {
            self.check(&self.network.values()[index], tensor, inputs[0].batch())?;
            values[index] = Some(tensor.clone());
        }
        for (index, node) in self.network.nodes().iter().enumerate() {
            let input = values[node.input].as_ref().expect("nodes are in execution order");
            values[node.output] = Some(self.run_node(index, input)?);
        }
        Ok(values)
    }

    /// Runs one node on a value of its own.
    ///
    /// # Errors
    /// A value whose type or shape is not that of the node's input.
    pub fn run_node(&self, node: usize, input: &Tensor) -> Result<Tensor, RunError> {
        let plan = self.plans[node].as_ref();
        let node = &self.network.nodes()[node];
        self.check(&self.network.values()[node.input], input, input.batch())?;
        let output = &self.network.values()[node.output];
        let batch = input.batch();
        let refused = |source| at(node, source);
        let tensor = |order, data| Tensor::from_parts(batch, output.shape.clone(), order, data);
        Ok(match &node.operator {
            Operator::Quantize(rule) => {
                tensor(input.order(), self.quantize(rule, input.data_as_is(), output).map_err(refused)?)
            }
            Operator::Dequantize(q) => tensor(input.order(), self.dequantize(*q, input.data_as_is()).map_err(refused)?),
            Operator::Layer(layer) => {
                let plan = plan.expect("every layer has a plan");
                let order = if layer.linear { Order::Logical } else { Order::ChannelsLast };
                let data = self.layer(plan, layer.shape.batch * batch, input.in_order(order).as_ref());
                tensor(order, data.map_err(refused)?)
            }
            Operator::Relu(zero_point) => tensor(
                input.order(),
                of_codes!(input.data_as_is(), codes => {
                    let mut y = codes.clone();
                    Lookup::of_relu(*zero_point).run(self.isa, codes, &mut y).map_err(refused)?;
                    y
                }),
            ),
            Operator::BatchNorm(rule) => {
                let data = input.in_order(Order::ChannelsLast);
                let data = of_codes!(data.as_ref(), codes => {
                    let mut y = codes.clone();
                    batch_norm(self.isa, rule, codes, &mut y).map_err(refused)?;
                    y
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::MaxPool(pool) => {
                let (pool, data) = (Pool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => max_pool(self.isa, &pool, codes).map_err(refused)?);
                tensor(Order::ChannelsLast, data)
            }
            Operator::AvgPool(pool, divisor, average) => {
                let (pool, data) = (Pool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => {
                    avg_pool(self.isa, &pool, *divisor, *average, codes).map_err(refused)?
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::AdaptiveAvgPool(pool, average) => {
                let (pool, data) = (AdaptivePool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => {
                    adaptive_avg_pool(self.isa, &pool, *average, codes).map_err(refused)?
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::Reshape => tensor(Order::Logical, input.data().into_owned()),
        })
    }

    fn check(&self, value: &Value, tensor: &Tensor, batch: usize) -> Result<(), RunError> {
        let wrong = |what, got: String, expected: String| {
            Err(RunError::Value { value: value.name.clone(), what, got, expected })
        };
        if tensor.dtype() != value.dtype {
            return wrong("type", tensor.dtype().to_string(), value.dtype.to_string());
        }
        if tensor.shape() != value.shape {
            return wrong("shape of a sample", format!("{:?}", tensor.shape()), format!("{:?}", value.shape));
        }
        if tensor.batch() == 0 || tensor.batch() != batch {
            let expected = if batch == 0 { "at least 1".into() } else { format!("{batch}, as in the first input") };
            return wrong("batch", tensor.batch().to_string(), expected);
        }
        Ok(())
    }

    fn layer(&self, plan: &Plan, batch: usize, input: &Data) -> Result<Data, Error> {
        let region = plan.region(batch)?;
        let mut output = vec![0u8; region.len()];
        let input = match input {
            Data::U8(x) => Input::U8(x),
            Data::I8(x) => Input::I8(x),
            Data::F32(_) => return Err(Error::ElementType { what: "input", got: "f32", expected: "u8" }),
        };
        plan.run(&region, input, Output::U8(&mut output), &mut self.scratch.borrow_mut())?;
        Ok(Data::U8(output))
    }

    fn quantize(&self, rule: &Quantize, data: &Data, output: &Value) -> Result<Data, Error> {
        let Data::F32(x) = data else { return Ok(data.clone()) };
        let Quantize { multiplier, zero_point, lo, hi } = *rule;
        let rule = Quantizer { form: QuantizeForm::Wrapping, factor: multiplier, zero_point, clamp: [lo, hi] };
        if output.quantization.is_some_and(|q| q.codes().is_signed()) {
            self.codes(&rule, x).map(Data::I8)
        } else {
            self.codes(&rule, x).map(Data::U8)
        }
    }

    fn codes<T: Code>(&self, rule: &Quantizer, x: &[f32]) -> Result<Vec<T>, Error> {
        let mut codes = vec![T::MIN; x.len()];
        elementwise::quantize(self.isa, rule, x, &mut codes)?;
        Ok(codes)
    }

    fn dequantize(&self, q: Quantization, data: &Data) -> Result<Data, Error> {
        let (rule, mut reals) = (Dequantizer::new(DequantizeForm::Difference, q), vec![0.0; data.len()]);
        match data {
            Data::U8(codes) => elementwise::dequantize(self.isa, &rule, codes, &mut reals)?,
            Data::I8(codes) => elementwise::dequantize(self.isa, &rule, codes, &mut reals)?,
            f32 @ Data::F32(_) => return Ok(f32.clone()),
        }
        Ok(Data::F32(reals))
    }
}

fn at(node: &Node, source: Error) -> RunError {
    RunError::Node { node: node.name.clone(), source }
}
