"""A Keras model as an ONNX graph, in float32 or int8. Extra `tfft[onnx]`."""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfft import fusing
from tfft.errors import ExportError, InvalidValueError

OPSET = 17


def converted(model: keras.Model, *, patient: bool = False) -> bytes:
    """A model in inference mode as an ONNX graph: its inputs and outputs by their names, a single output as `answers`.

    Args:
        model: functional model; blocks that tfft knows are written in fewer operations.
        patient: convert again in the converter's own way, which takes ten times as long, where the quick one fails: it
            knows recurrent layers by weights that are constants.

    Raises:
        ExportError: the converter does not manage.
        InvalidValueError: it is not installed.
    """
    require()
    fused, failed = fusing.fused(model, onnx=True), None
    for convert in (_with_weights_apart, _with_constants)[: 1 + patient]:
        try:
            made = convert(fused)
            lost = {one.name for one in made.graph.input} - {tensor.name for tensor in model.inputs}
            if lost:
                raise ValueError(f"it leaves {', '.join(sorted(lost))} without a value")
            graph: bytes = made.SerializeToString()
            session(graph)  # it knows all of the operations
        except Exception as error:  # noqa: BLE001 - of two libraries, without a common base
            failed = error
        else:
            return graph
    said = str(failed).strip().splitlines()[0][:200] if str(failed).strip() else type(failed).__name__
    raise ExportError(f"tf2onnx does not convert this model: {said}") from failed


def write(graph: bytes, path: Path) -> None:
    """Write a graph to a file, with what is computed of weights alone computed: `quantize` looks for weights."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else it lists every weight that the model has and its output does not need
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def quantize(source: Path, path: Path) -> None:
    """Write a graph again with weights of a byte and products of bytes; activations get their scale as they come.

    Args:
        source: of `write`.
        path: of the smaller file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # seven bits of weights: products of eight overflow on CPUs without VNNI, and answers would differ by machine
    with _root_log_as_it_was():
        quantize_dynamic(
            str(source),
            str(path),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


def session(graph: bytes | Path, threads: int = 0) -> Any:
    """What computes a graph on the CPU, with so many threads for each operation; 0: one a processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # as in `write`
    options.intra_op_num_threads = threads
    model = str(graph) if isinstance(graph, Path) else graph
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def is_installed() -> bool:
    """Whether the extra is here; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "tf2onnx"))


def require() -> None:
    """Raise if the extra is not installed."""
    try:
        with _root_log_as_it_was():
            import onnxruntime  # noqa: F401
            import tf2onnx  # noqa: F401
    except ImportError as error:
        raise InvalidValueError(f"{error.name} is not installed. `pip install 'tfft[onnx]'` brings it") from None


def _with_weights_apart(model: keras.Model) -> Any:
    """The graph, an `onnx.ModelProto`.

    The converter copies constants at every turn and takes half a minute for 90 MB of them. So it is given the weights
    as inputs, and they are put in after it is done.
    """
    from onnx import numpy_helper
    from tf2onnx import tf_loader, tfonnx

    places = {id(variable): place for place, variable in enumerate(model.variables)}

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        x, weights = values[: len(model.inputs)], values[len(model.inputs) :]
        trainable, others = (
            [weights[places[id(variable)]] for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        )
        outputs, _ = model.stateless_call(trainable, others, _named(model, x), training=False)
        return _by_name(outputs)

    signature = _signature(model)
    signature += [tf.TensorSpec(v.shape, v.dtype, f"weight_{place}") for place, v in enumerate(model.variables)]
    with _quiet(), tf.device("/cpu:0"):
        function = tf.function(call, input_signature=signature, autograph=False).get_concrete_function()
        names = [tensor.name for tensor in function.inputs if tensor.dtype != tf.resource]
        outputs = {tensor.name: name for name, tensor in function.structured_outputs.items()}
        with tf.Graph().as_default() as graph:
            plain = tf_loader.tf_optimize(names, list(outputs), function.graph.as_graph_def())
            tf.import_graph_def(plain, name="")
            made = tfonnx.process_tf_graph(
                graph,
                opset=OPSET,
                input_names=names,
                output_names=list(outputs),
                tensors_to_rename={name: name.removesuffix(":0") for name in names} | outputs,
                custom_op_handlers=HANDLERS,
            ).make_model("tfft")
    inputs = {one.name: one for one in made.graph.input}
    for place, variable in enumerate(model.variables):
        name = f"weight_{place}"
        if name in inputs:
            made.graph.input.remove(inputs[name])
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(variable), name))
    return made


def _with_constants(model: keras.Model) -> Any:
    """The same in the converter's own way."""
    import tf2onnx

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return _by_name(model(_named(model, values), training=False))

    function = tf.function(call, input_signature=_signature(model), autograph=False)
    with _quiet():
        made, _ = tf2onnx.convert.from_function(
            function, input_signature=_signature(model), opset=OPSET, custom_op_handlers=HANDLERS
        )
    return made


def _signature(model: keras.Model) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs]


def _named(model: keras.Model, x: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    return dict(zip((tensor.name for tensor in model.inputs), x, strict=True))


def _by_name(outputs: Any) -> dict[str, tf.Tensor]:
    return outputs if isinstance(outputs, dict) else {"answers": outputs}


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Erfc as 1 - Erf: an exact GELU has it, and ONNX only the latter."""
    one = graph.make_const(f"{name}/one", np.ones((), "float32"))
    erf = graph.make_node("Erf", [node.input[0]], dtypes=[graph.get_dtype(node.output[0])])
    node.type = "Sub"
    graph.replace_inputs(node, [one.output[0], erf.output[0]])


HANDLERS: dict[str, Any] = {"Erfc": (_erfc, [])}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("tf2onnx", "tf2onnx.tfonnx", "tf2onnx.convert")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _root_log_as_it_was() -> Iterator[None]:
    """Both libraries set up the root logger, and every line of ours would be shown twice."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.disabled
    root.addHandler(logging.NullHandler())
    root.disabled = True
    try:
        yield
    finally:
        root.handlers[:], root.disabled = handlers, disabled
        root.setLevel(level)
