"""ONNX Runtime: com.microsoft.QGemm and channels-last QLinearConv, u8 by i8 to u8. Zero point 0 clamps as ReLU does."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from protocol import output_size, repeated, serve

rng = np.random.default_rng(0)


def build(shape):
    if shape["op"] == "linear":
        m, k, n = shape["M"], shape["K"], shape["N"]
        x, y, weight = (m, k), (m, n), (n, k)
        inputs = ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"]
        node = helper.make_node("QGemm", inputs, ["y"], domain="com.microsoft", transB=1)
    else:
        n = shape["Cout"]
        x = (shape["N"], shape["H"], shape["W"], shape["Cin"])
        y = (shape["N"], *output_size(shape), n)
        weight = (n, shape["Cin"] // shape["groups"], shape["kh"], shape["kw"])
        node = helper.make_node(
            "QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], domain="com.microsoft",
            channels_last=1, kernel_shape=weight[2:], strides=[shape["stride"]] * 2, pads=[shape["pad"]] * 4,
            dilations=[shape["dilation"]] * 2, group=shape["groups"])
    constants = {
        "w": rng.integers(-128, 128, weight, dtype=np.int8), "b": rng.integers(-500, 500, n, dtype=np.int32),
        "xs": np.float32(0.01), "xz": np.uint8(128), "ys": np.float32(0.05), "yz": np.uint8(0),
        "ws": rng.uniform(0.001, 0.01, n).astype(np.float32), "wz": np.zeros(n, np.int8),
    }
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "layer", [value("x", TensorProto.UINT8, x)],
                              [value("y", TensorProto.UINT8, y)], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(rng.integers(0, 256, x, dtype=np.uint8)))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(np.zeros(y, np.uint8)))
    # The C++ call, without the wrapper's handling of arguments.
    return repeated(lambda: session._sess.run_with_iobinding(binding._iobinding, None)), node.op_type


serve(build)
