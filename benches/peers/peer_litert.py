"""LiteRT with its XNNPACK delegate: single-operator models, i8 by i8 to i8, fused ReLU."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from protocol import output_size, repeated, serve

rng = np.random.default_rng(0)


def tensor(name, shape, kind, buffer, scale, zero_point, axis=0):
    t = schema.TensorT()
    t.name, t.shape, t.type, t.buffer = name, list(shape), kind, buffer
    t.quantization = schema.QuantizationParametersT()
    t.quantization.scale, t.quantization.zeroPoint = [float(s) for s in scale], [zero_point] * len(scale)
    t.quantization.quantizedDimension = axis
    return t


def buffer(data=None):
    b = schema.BufferT()
    if data is not None:
        b.data = np.frombuffer(data.tobytes(), np.uint8)
    return b


def interpreter(operator, options, x, y, weight, axis):
    channels = y[-1]
    weights = rng.integers(-127, 128, weight, dtype=np.int8)
    bias = rng.integers(-500, 500, channels, dtype=np.int32)
    scale = rng.uniform(0.001, 0.01, channels)
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    graph, op, code, model = schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT(), schema.ModelT()
    graph.tensors = [
        tensor("x", x, schema.TensorType.INT8, 0, [0.01], 3),
        tensor("w", weight, schema.TensorType.INT8, 1, scale, 0, axis),
        tensor("b", [channels], schema.TensorType.INT32, 2, 0.01 * scale, 0),
        tensor("y", y, schema.TensorType.INT8, 0, [0.05], -128),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [op]
    op.opcodeIndex, op.inputs, op.outputs, op.builtinOptions = 0, [0, 1, 2], [3], options
    op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = 5
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(), buffer(weights), buffer(bias)]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    result = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    result.allocate_tensors()
    result.set_tensor(0, rng.integers(-128, 128, x, dtype=np.int8))
    return result


def build(shape):
    if shape["op"] == "linear":
        m, k, n = shape["M"], shape["K"], shape["N"]
        operator, options = schema.BuiltinOperator.FULLY_CONNECTED, schema.FullyConnectedOptionsT()
        made = interpreter(operator, options, (m, k), (m, n), (n, k), 0)
    else:
        size, inputs, outputs = output_size(shape), shape["Cin"], shape["Cout"]
        kernel, groups = (shape["kh"], shape["kw"]), shape["groups"]
        depthwise = groups == inputs and groups > 1
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        operator = schema.BuiltinOperator.DEPTHWISE_CONV_2D if depthwise else schema.BuiltinOperator.CONV_2D
        if depthwise:
            options.depthMultiplier = 1
        # SAME pads less before the first element where the stride is 2: the same output, and the same work.
        same = shape["pad"] > 0 and -(-shape["H"] // shape["stride"]) == size[0]
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideW = options.strideH = shape["stride"]
        options.dilationWFactor = options.dilationHFactor = shape["dilation"]
        weight, axis = ((1, *kernel, outputs), 3) if depthwise else ((outputs, *kernel, inputs // groups), 0)
        x, y = (shape["N"], shape["H"], shape["W"], inputs), (shape["N"], *size, outputs)
        made = interpreter(operator, options, x, y, weight, axis)
    operators = [op["op_name"] for op in made._get_ops_details()]
    # The C++ call, without the wrapper's checks.
    return repeated(made._interpreter.Invoke), "XNNPACK" if "DELEGATE" in operators else "not delegated"


serve(build)
