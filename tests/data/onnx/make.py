"""Made the files of this folder (onnx 1.23, numpy 2.4): `python make.py`. Tests read the files, not this script."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = pathlib.Path(__file__).parent
RNG = np.random.RandomState(0)


def weights(*shape):
    return (RNG.randn(*shape) * 0.3).astype(np.float32)


def tensor(name, array):
    return nh.from_array(np.asarray(array), name)


def save(name, nodes, inputs=None, outputs=None, init=(), opset=17, ir=8, check=True, rank=2, **graph_args):
    inputs = inputs if inputs is not None else [h.make_tensor_value_info("x", T.FLOAT, ["N", 2, 6, 6])]
    outputs = outputs if outputs is not None else [h.make_tensor_value_info("y", T.FLOAT, ["N", "M", "H", "W"][:rank])]
    graph = h.make_graph(nodes, "g", inputs, outputs, list(init), **graph_args)
    opsets = [] if opset is None else [h.make_opsetid("", opset)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="make.py")
    if opset is None:
        del model.opset_import[:]
    if check:
        onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    return model


def small_net(opset, dtype=np.float32):
    """Conv, Clip or Relu, pooling, Flatten, Gemm, Softmax: in the spelling of each operator set."""
    init = [tensor("w", weights(4, 2, 3, 3).astype(dtype)), tensor("b", weights(4).astype(dtype))]
    init += [tensor("w2", weights(3, 36).astype(dtype)), tensor("b2", weights(3).astype(dtype))]
    init += [tensor("low", np.array(0, dtype)), tensor("high", np.array(6, dtype))]
    nodes = [
        h.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        h.make_node("Clip", ["c", "low", "high"], ["r"], "clip"),
        h.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        h.make_node("Flatten", ["p"], ["f"], "flatten"),
        h.make_node("Gemm", ["f", "w2", "b2"], ["g"], "gemm", transB=1),
        h.make_node("Softmax", ["g"], ["y"], "softmax", axis=1),
    ]
    return nodes, init


for opset, ir in ((11, 6), (13, 7), (15, 8), (17, 8), (18, 8), (21, 10), (23, 11), (25, 13)):
    nodes, init = small_net(opset)
    save(f"net_opset{opset}", nodes, init=init, opset=opset, ir=ir)
for opset in (10, 99):
    nodes, init = small_net(opset)
    save(f"bad_opset{opset}", nodes, init=init, opset=opset, check=False)
nodes, init = small_net(17)
save("bad_no_opset", nodes, init=init, opset=None, check=False)
save("bad_node_order_cycle", [h.make_node("Add", ["x", "b"], ["a"], "first"), h.make_node("Relu", ["a"], ["b"], "second"),
     h.make_node("Relu", ["b"], ["y"], "third")], check=False)
save("node_order", list(reversed(nodes)), init=init, check=False)
save("bad_duplicate_value", [h.make_node("Relu", ["x"], ["y"], "one"), h.make_node("Abs", ["x"], ["y"], "two")], check=False)
save("bad_missing_value", [h.make_node("Add", ["x", "nowhere"], ["y"], "add")], check=False)
save("bad_missing_output", [h.make_node("Relu", ["x"], ["z"], "relu")], check=False)
save("duplicate_node_names", [h.make_node("Relu", ["x"], ["a"], "n"), h.make_node("Abs", ["a"], ["b"], "n"),
     h.make_node("Relu", ["b"], ["y"])], rank=4)

# Initializers in every element type and field the format has for them.
x4 = [h.make_tensor_value_info("x", T.FLOAT, ["N", 4])]
nodes = [h.make_node("Add", ["x", "w"], ["y"], "add")]
half = np.float16([1.5, -2, 0.25, 65504])
save("weights_f16_raw", [h.make_node("Cast", ["w"], ["wf"], to=T.FLOAT), h.make_node("Add", ["x", "wf"], ["y"], "add")],
     x4, init=[tensor("w", half)])
as_bits = T(name="w", data_type=T.FLOAT16, dims=[4])
as_bits.int32_data.extend(int(v) for v in half.view(np.uint16))
save("weights_f16_typed", [h.make_node("Cast", ["w"], ["wf"], to=T.FLOAT), h.make_node("Add", ["x", "wf"], ["y"], "add")],
     x4, init=[as_bits])
bf16 = T(name="w", data_type=T.BFLOAT16, dims=[2], raw_data=np.uint16([0x3FC0, 0xC000]).tobytes())
save("weights_bf16", [h.make_node("Cast", ["w"], ["wf"], to=T.FLOAT), h.make_node("Add", ["x", "wf"], ["y"], "add")],
     [h.make_tensor_value_info("x", T.FLOAT, ["N", 2])], init=[bf16])
save("weights_f32_typed", nodes, x4, init=[h.make_tensor("w", T.FLOAT, [4], [1, -2.5, 3, 0])])
double = T(name="w", data_type=T.DOUBLE, dims=[4])
double.double_data.extend([1, -2.5, 3, 0])
save("weights_f64_typed", [h.make_node("Cast", ["w"], ["wf"], to=T.FLOAT), h.make_node("Add", ["x", "wf"], ["y"], "add")],
     x4, init=[double])
# A whole float16 model, inputs and outputs too.
nodes16, init16 = small_net(17, np.float16)
save("net_f16", nodes16, [h.make_tensor_value_info("x", T.FLOAT16, ["N", 2, 6, 6])],
     [h.make_tensor_value_info("y", T.FLOAT16, ["N", 3])], init=init16)

# Constants given by nodes.
save("constant_nodes", [
    h.make_node("Constant", [], ["a"], value=tensor("", np.float32([1, 2, 3, 4]))),
    h.make_node("Constant", [], ["b"], value_float=0.5),
    h.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0, 4.0]),
    h.make_node("Constant", [], ["s"], value_ints=[-1, 2]),
    h.make_node("Add", ["x", "a"], ["xa"]), h.make_node("Mul", ["xa", "b"], ["xb"]),
    h.make_node("Sub", ["xb", "c"], ["xc"]), h.make_node("Reshape", ["xc", "s"], ["y"], "reshape"),
], x4)

# Old files list initializers among the inputs.
nodes, init = small_net(11)
save("initializers_as_inputs", nodes, [h.make_tensor_value_info("x", T.FLOAT, ["N", 2, 6, 6])] +
     [h.make_tensor_value_info(i.name, T.FLOAT, list(i.dims)) for i in init], init=init, opset=11, ir=3, check=False)

# Shapes: fixed batch, symbols inside, none at all.
nodes, init = small_net(17)
save("batch_fixed_1", nodes, [h.make_tensor_value_info("x", T.FLOAT, [1, 2, 6, 6])], init=init)
save("bad_batch_fixed_4", nodes, [h.make_tensor_value_info("x", T.FLOAT, [4, 2, 6, 6])], init=init)
save("dims_symbolic", nodes, [h.make_tensor_value_info("x", T.FLOAT, ["N", 2, "H", "W"])], init=init)
save("bad_no_shape", nodes, [h.make_tensor_value_info("x", T.FLOAT, None)], init=init, check=False)

# External data, well-formed and not.
def external(name, location, offset=None, length=None):
    out = T(name=name, data_type=T.FLOAT, dims=[4], data_location=T.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            out.external_data.add(key=key, value=str(value))
    return out

nodes = [h.make_node("Add", ["x", "w"], ["a"], "add"), h.make_node("Mul", ["a", "v"], ["y"], "mul")]
np.float32([1, 2, 3, 4, 5, 6, 7, 8]).tofile(HERE / "external.bin")
save("external", nodes, x4, init=[external("w", "external.bin"), external("v", "external.bin", 16, 16)], check=False)
save("bad_external_missing", nodes, x4, init=[external("w", "nowhere.bin"), external("v", "external.bin")], check=False)
save("bad_external_escapes", nodes, x4, init=[external("w", "../onnx/external.bin"), external("v", "external.bin")], check=False)
save("bad_external_short", nodes, x4, init=[external("w", "external.bin", 24), external("v", "external.bin")], check=False)
save("bad_external_offset", nodes, x4, init=[external("w", "external.bin", 2**64 - 8), external("v", "external.bin")], check=False)
save("bad_external_length", nodes, x4, init=[external("w", "external.bin", 0, 12), external("v", "external.bin")], check=False)

# Tensors that lie about themselves, or that nothing can use.
one = [h.make_node("Add", ["x", "w"], ["y"], "add")]
save("bad_string_tensor", one, x4, init=[h.make_tensor("w", T.STRING, [1], [b"text"])], check=False)
save("bad_float8_tensor", one, x4, init=[T(name="w", data_type=T.FLOAT8E4M3FN, dims=[4], raw_data=b"\0" * 4)], check=False)
save("bad_huge_dims", one, x4, init=[T(name="w", data_type=T.FLOAT, dims=[2**40, 2**40], raw_data=b"\0" * 4)], check=False)
save("bad_huge_dims_zero", one, x4, init=[T(name="w", data_type=T.FLOAT, dims=[0, 2**62, 2**62])], check=False)
save("bad_negative_dims", one, x4, init=[T(name="w", data_type=T.FLOAT, dims=[-4], raw_data=b"\0" * 16)], check=False)
save("bad_short_data", one, x4, init=[T(name="w", data_type=T.FLOAT, dims=[4], raw_data=b"\0" * 12)], check=False)
save("bad_undefined_type", one, x4, init=[T(name="w", dims=[4], raw_data=b"\0" * 16)], check=False)
save("bad_string_input", [h.make_node("Identity", ["x"], ["y"])], [h.make_tensor_value_info("x", T.STRING, [4])], check=False)
save("bad_sequence_input", [h.make_node("SequenceAt", ["x", "i"], ["y"])],
     [h.make_tensor_sequence_value_info("x", T.FLOAT, [4])], init=[tensor("i", np.int64(0))], check=False)
sparse = h.make_sparse_tensor(tensor("w", np.float32([1])), tensor("", np.int64([2])), [4])
save("bad_sparse", one, x4, sparse_initializer=[sparse], check=False)
no_output = save("bad_no_outputs", [h.make_node("Relu", ["x"], ["y"])], outputs=[], check=False)

# Operators a quantizer cannot take, found after reading: a sub-graph, a foreign domain, data-dependent shapes.
then = h.make_graph([h.make_node("Relu", ["x"], ["t"])], "t", [], [h.make_tensor_value_info("t", T.FLOAT, ["N", 4])])
otherwise = h.make_graph([h.make_node("Abs", ["x"], ["e"])], "e", [], [h.make_tensor_value_info("e", T.FLOAT, ["N", 4])])
save("unsupported_if", [h.make_node("If", ["c"], ["y"], "if", then_branch=then, else_branch=otherwise)], x4,
     init=[tensor("c", np.array(True))])
save("unsupported_mixed", [h.make_node("Einsum", ["x"], ["a"], "einsum", equation="ij->ji"),
     h.make_node("FancyOp", ["a"], ["b"], "fancy", domain="com.example"), h.make_node("NonZero", ["b"], ["c"], "nonzero"),
     h.make_node("Cast", ["c"], ["y"], "cast", to=T.FLOAT)], x4, check=False)

# What exporters write: BatchNormalization, decomposed LayerNormalization and GELU, attention with shape arithmetic.
d = 8
init = [tensor(f"w{i}", weights(d, d)) for i in "qkvo"]
init += [tensor("one", np.ones(d, np.float32)), tensor("zero", np.zeros(d, np.float32)), tensor("scale", np.float32(d**-0.5))]
init += [tensor("sqrt2", np.float32(2**0.5)), tensor("f1", np.float32(1)), tensor("half", np.float32(0.5)), tensor("i0", np.int64(0)),
         tensor("axes0", np.int64([0])), tensor("t", np.int64([5])), tensor("dd", np.int64([d]))]
save("attention", [
    h.make_node("LayerNormalization", ["x", "one", "zero"], ["n"], "norm", axis=-1),
    *[h.make_node("MatMul", ["n", f"w{i}"], [i], f"matmul_{i}") for i in "qkv"],
    h.make_node("Transpose", ["k"], ["kt"], "kt", perm=[0, 2, 1]), h.make_node("MatMul", ["q", "kt"], ["s"], "scores"),
    h.make_node("Mul", ["s", "scale"], ["ss"], "scaled"), h.make_node("Softmax", ["ss"], ["p"], "soft", axis=-1),
    h.make_node("MatMul", ["p", "v"], ["c"], "context"), h.make_node("Shape", ["x"], ["shape"]),
    h.make_node("Gather", ["shape", "i0"], ["batch"]), h.make_node("Unsqueeze", ["batch", "axes0"], ["b1"]),
    h.make_node("Concat", ["b1", "t", "dd"], ["target"], axis=0), h.make_node("Reshape", ["c", "target"], ["cr"], "reshape"),
    h.make_node("MatMul", ["cr", "wo"], ["o"], "out"), h.make_node("Add", ["o", "x"], ["r"], "residual"),
    h.make_node("Div", ["r", "sqrt2"], ["g1"]), h.make_node("Erf", ["g1"], ["g2"]), h.make_node("Add", ["g2", "f1"], ["g3"]),
    h.make_node("Mul", ["r", "g3"], ["g4"]), h.make_node("Mul", ["g4", "half"], ["gelu"], "gelu"),
    h.make_node("ReduceMean", ["gelu"], ["y"], "mean", axes=[1], keepdims=0),
], [h.make_tensor_value_info("x", T.FLOAT, ["N", 5, d])], init=init)
init = [tensor("w", weights(4, 2, 3, 3)), tensor("s", np.abs(weights(4)) + 0.5), tensor("o", weights(4)), tensor("m", weights(4)),
        tensor("v", np.abs(weights(4)) + 0.1), tensor("dw", weights(4, 1, 3, 3)), tensor("split", np.int64([2, 2])),
        tensor("pads", np.int64([0, 0, 1, 1, 0, 0, 1, 1])), tensor("slope", np.float32(0.1))]
save("batch_norm", [
    h.make_node("Conv", ["x", "w"], ["c"], "conv", auto_pad="SAME_UPPER", strides=[2, 2]),
    h.make_node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"], "bn"), h.make_node("HardSwish", ["n"], ["h"], "act"),
    h.make_node("Pad", ["h", "pads"], ["p"], "pad"), h.make_node("Conv", ["p", "dw"], ["d"], "depthwise", group=4),
    h.make_node("LeakyRelu", ["d"], ["l"], "leaky", alpha=0.1), h.make_node("Concat", ["l", "h"], ["cat"], "cat", axis=1),
    h.make_node("AveragePool", ["cat"], ["a"], "avg", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    h.make_node("GlobalAveragePool", ["a"], ["y"], "gap")], init=init, rank=4)

# Quantized files: per channel int8, uint8 activations, int4 weights, 16 bits.
def qdq(name, act, weight, opset):
    low, high = {T.INT8: (-128, 127), T.INT4: (-8, 7)}[weight]
    w = h.make_tensor("w", weight, [4, 2, 3, 3], RNG.randint(low, high + 1, 72).tolist())
    zero = lambda n, kind, count=None: h.make_tensor(n, kind, [] if count is None else [count], [0] * (count or 1))
    init = [w, tensor("ws", np.float32([0.01, 0.02, 0.03, 0.04])), zero("wz", weight, 4), tensor("as", np.float32(0.05)), zero("az", act),
            h.make_tensor("b", T.INT32, [4], [10, -20, 30, -40]), tensor("bs", np.float32([0.0005, 0.001, 0.0015, 0.002])), zero("bz", T.INT32, 4)]
    save(name, [
        h.make_node("QuantizeLinear", ["x", "as", "az"], ["xq"]), h.make_node("DequantizeLinear", ["xq", "as", "az"], ["xd"]),
        h.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0), h.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0),
        h.make_node("Conv", ["xd", "wd", "bd"], ["c"], "conv", pads=[1, 1, 1, 1]), h.make_node("Relu", ["c"], ["r"], "relu"),
        h.make_node("QuantizeLinear", ["r", "as", "az"], ["rq"]), h.make_node("DequantizeLinear", ["rq", "as", "az"], ["y"])],
        init=init, opset=opset, ir=10, rank=4)

qdq("qdq_int8", T.INT8, T.INT8, 17)
qdq("qdq_uint8", T.UINT8, T.INT8, 13)
qdq("qdq_int4", T.INT8, T.INT4, 21)
qdq("qdq_uint16", T.UINT16, T.INT8, 21)
