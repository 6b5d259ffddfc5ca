"""Layer configurations of Keras 1 and 2 as Keras 3 has them: a table of small rules, each with what it is for.

Nothing of an old configuration is left out but what a rule names: a setting Keras 3 does not know is an error, for it
may change what the layer computes.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from tfft.errors import InvalidValueError

Config = dict[str, Any]


class Rule(NamedTuple):
    """One thing that changed.

    Attributes:
        name: what changed.
        keras: the versions whose files need it.
        layers: the classes it is for, by their names of today; empty for all.
        change: of (class name, config), the config in place; may give another class name.
    """

    name: str
    keras: str
    layers: tuple[str, ...]
    change: Callable[[str, Config], str | None]


def hard_sigmoid(x: Any) -> Any:
    """Keras 1's and 2's: a slope of 0.2. Keras 3's of this name has one of 1/6."""
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def relu6(x: Any) -> Any:
    """What MobileNets of Keras 2 name so."""
    return ops.clip(x, 0.0, 6.0)


for _function in (hard_sigmoid, relu6):
    keras.saving.register_keras_serializable(package="tfft")(_function)


@keras.saving.register_keras_serializable(package="tfft")
class ThresholdedReLU(keras.layers.Layer):
    """Keras 2's: what is not above a threshold becomes 0.

    Args:
        theta: the threshold.
    """

    def __init__(self, theta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.theta = float(theta)

    def call(self, x: Any) -> Any:
        """Of the same shape."""
        return x * ops.cast(x > self.theta, x.dtype)

    def get_config(self) -> Config:
        """For Keras."""
        return super().get_config() | {"theta": self.theta}


@keras.saving.register_keras_serializable(package="tfft")
class Operation(keras.layers.Layer):
    """An operation of TensorFlow that Keras 2.4 and later made a layer of, by its name.

    Args:
        function: a name in `OPERATIONS`.
        first: its first argument where that is a constant; what it is called on is then the second.
    """

    def __init__(self, function: str, first: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function, self.first = function, first

    def call(self, x: Any, **kwargs: Any) -> Any:
        """What the operation gives."""
        return OPERATIONS[self.function](*([] if self.first is None else [self.first]), x, **kwargs)

    def get_config(self) -> Config:
        """For Keras."""
        return super().get_config() | {"function": self.function, "first": self.first}


def _sliced(x: Any, slice_spec: Any) -> Any:
    def one(part: Any) -> Any:
        if isinstance(part, Mapping):
            return slice(part.get("start"), part.get("stop"), part.get("step"))
        return {"Ellipsis": Ellipsis, "newaxis": None, None: None}.get(part, part) if isinstance(part, str) else part

    return x[tuple(one(part) for part in slice_spec)] if isinstance(slice_spec, (list, tuple)) else x[one(slice_spec)]


def _of_two(function: Any) -> Any:
    return lambda x, y: function(x, y)


def _reduced(function: Any) -> Any:
    return lambda x, axis=None, keepdims=False: function(x, axis=axis, keepdims=keepdims)


# What `TFOpLambda` may name. A table, not a look-up in TensorFlow: a file cannot call what is not here.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "math.add": _of_two(ops.add),
    "__operators__.add": _of_two(ops.add),
    "math.subtract": _of_two(ops.subtract),
    "math.multiply": _of_two(ops.multiply),
    "math.truediv": _of_two(ops.divide),
    "math.divide": _of_two(ops.divide),
    "math.maximum": _of_two(ops.maximum),
    "math.minimum": _of_two(ops.minimum),
    "math.pow": _of_two(ops.power),
    "math.square": ops.square,
    "math.sqrt": ops.sqrt,
    "math.rsqrt": ops.rsqrt,
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.abs": ops.abs,
    "math.negative": ops.negative,
    "math.tanh": ops.tanh,
    "math.sigmoid": ops.sigmoid,
    "math.reduce_mean": _reduced(ops.mean),
    "math.reduce_sum": _reduced(ops.sum),
    "math.reduce_max": _reduced(ops.max),
    "math.reduce_min": _reduced(ops.min),
    "math.reduce_prod": _reduced(ops.prod),
    "math.l2_normalize": lambda x, axis=None, epsilon=1e-12: ops.normalize(x, axis=axis, epsilon=epsilon),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": relu6,
    "nn.elu": ops.elu,
    "nn.softmax": lambda x, axis=-1: ops.softmax(x, axis=axis),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    "nn.silu": lambda features, beta=1.0: features * ops.sigmoid(beta * features),
    "concat": lambda values, axis: ops.concatenate(values, axis=axis),
    "stack": lambda values, axis=0: ops.stack(values, axis=axis),
    "reshape": lambda tensor, shape: ops.reshape(tensor, shape),
    "transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "compat.v1.transpose": lambda a, perm=None, **_: ops.transpose(a, perm),
    "expand_dims": lambda x, axis: ops.expand_dims(x, axis),
    "squeeze": lambda x, axis=None: ops.squeeze(x, axis),
    "cast": lambda x, dtype: ops.cast(x, dtype),
    "tile": lambda x, multiples: ops.tile(x, multiples),
    "linalg.matmul": lambda a, b, **_: ops.matmul(a, b),
    "__operators__.getitem": _sliced,
    "strided_slice": _sliced,
}

# Keras 1's names of layers -> today's.
CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "SeparableConvolution1D": "SeparableConv1D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "LSTMV2": "LSTM",
    "GRUV2": "GRU",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "Functional": "Functional",
    "SyncBatchNormalization": "BatchNormalization",
    "ExperimentalSyncBatchNormalization": "BatchNormalization",
    "TFOpLambda": "Operation",
    "SlicingOpLambda": "Operation",
    "RandomFourierFeatures": "RandomFourierFeatures",
}
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional")
CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")
OWN = {"ThresholdedReLU": ThresholdedReLU, "Operation": Operation}


def _renamed(**names: str) -> Callable[[str, Config], None]:
    def change(kind: str, config: Config) -> None:
        for old, new in names.items():
            if old in config:
                value = config.pop(old)
                config.setdefault(new, value)

    return change


def _without(*names: str) -> Callable[[str, Config], None]:
    def change(kind: str, config: Config) -> None:
        for name in names:
            config.pop(name, None)

    return change


def _kernel_of_rows(kind: str, config: Config) -> None:
    if "nb_row" in config:
        config["kernel_size"] = [config.pop("nb_row"), config.pop("nb_col")]
    if "kernel_dim1" in config:
        config["kernel_size"] = [config.pop(f"kernel_dim{i}") for i in (1, 2, 3)]


def _data_format(kind: str, config: Config) -> None:
    named = config.pop("dim_ordering", None)
    if named in ("tf", "th"):
        config["data_format"] = {"tf": "channels_last", "th": "channels_first"}[named]


def _axis(kind: str, config: Config) -> None:
    axis = config.get("axis")
    if isinstance(axis, (list, tuple)) and len(axis) == 1:
        config["axis"] = axis[0]


def _recurrent(kind: str, config: Config) -> None:
    # Keras 2.0 to 2.2 wrote no `reset_after`, and had it so.
    if kind in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)
    forget = config.pop("forget_bias_init", None)
    if forget is not None:
        config["unit_forget_bias"] = forget in ("one", "ones")


def _fused(kind: str, config: Config) -> None:
    # cuDNN's own had these fixed, and no settings for them.
    if config.pop("__fused", False):
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
        if kind == "GRU":
            config["reset_after"] = True


def _merged(kind: str, config: Config) -> str:
    mode = config.pop("mode", "sum")
    config.pop("output_shape", None)
    axes, dot_axes = config.pop("concat_axis", -1), config.pop("dot_axes", -1)
    for name in [n for n in config if n not in ("name", "trainable")]:
        config.pop(name)
    if mode == "concat":
        config["axis"] = axes
        return "Concatenate"
    if mode in ("dot", "cos"):
        config |= {"axes": dot_axes, "normalize": mode == "cos"}
        return "Dot"
    kinds = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum"}
    if mode not in kinds:
        raise InvalidValueError(
            f"layer {config.get('name')!r}: merge mode {mode!r} is code or unknown; it cannot be read"
        )
    return kinds[mode]


def _no_initializers(kind: str, config: Config) -> None:
    for name in [n for n in config if n.endswith("_initializer") and not n.startswith("moving")]:
        config.pop(name)
    for name in (
        "moving_mean_initializer",
        "moving_variance_initializer",
        "init",
        "inner_init",
        "beta_init",
        "gamma_init",
    ):
        config.pop(name, None)


def _activations(kind: str, config: Config) -> None:
    for name in ("activation", "recurrent_activation"):
        value = config.get(name)
        if value == "hard_sigmoid":
            config[name] = hard_sigmoid
        elif value == "relu6":
            config[name] = relu6


def _regularizers(kind: str, config: Config) -> None:
    for name, value in config.items():
        if not name.endswith("_regularizer") or not isinstance(value, Mapping):
            continue
        given = value.get("config", value)
        sizes = {k: float(given[k]) for k in ("l1", "l2") if isinstance(given.get(k), (int, float))}
        if sizes:
            config[name] = keras.regularizers.L1L2(**sizes)


def _operation(kind: str, config: Config) -> None:
    if kind != "Operation":
        return
    config.setdefault("function", "__operators__.getitem")
    if config["function"] not in OPERATIONS:
        raise InvalidValueError(
            f"layer {config.get('name')!r} calls TensorFlow's {config['function']!r}, which tfft does not translate. "
            "Write it with keras.ops in the model's code and save that"
        )


RULES = (
    Rule("settings of layers had other names", "1", (), _renamed(
        nb_filter="filters", filter_length="kernel_size", subsample="strides", subsample_length="strides",
        border_mode="padding", bias="use_bias", W_regularizer="kernel_regularizer", b_regularizer="bias_regularizer",
        U_regularizer="recurrent_regularizer", W_constraint="kernel_constraint", b_constraint="bias_constraint",
        inner_activation="recurrent_activation", dropout_W="dropout", dropout_U="recurrent_dropout",
        atrous_rate="dilation_rate", pool_length="pool_size", stride="strides", length="size", sigma="stddev", p="rate",
    )),
    Rule("output_dim was what units are", "1", ("Dense", "LSTM", "GRU", "SimpleRNN"), _renamed(output_dim="units")),
    Rule("kernels were given by rows and columns", "1", (), _kernel_of_rows),
    Rule("dim_ordering was what data_format is", "1", (), _data_format),
    Rule("Merge was a layer of many modes", "1", ("Merge",), _merged),
    Rule("settings that said how, not what", "1", (), _without("mode", "consume_less", "input_dtype")),
    Rule("input_dim told a first layer's shape", "1", ("Dense", "LSTM", "GRU", "SimpleRNN"), _without("input_dim")),
    Rule("a text's length was told to Embedding", "1, 2", ("Embedding",), _without("input_length", "dropout")),
    Rule("Embedding's regularizer was W's", "1", ("Embedding",), _renamed(kernel_regularizer="embeddings_regularizer",
                                                                   kernel_constraint="embeddings_constraint")),
    Rule("a first layer carried the input's shape", "1, 2", (), _without("batch_input_shape", "input_shape")),
    Rule("weights come from the file", "1, 2", (), _no_initializers),
    Rule("a layer had a dtype, or a policy by another name", "2", (), _without("dtype", "autocast")),
    Rule("recurrent layers said how they compute", "1, 2", (*RECURRENT, *CELLS),
         _without("implementation", "time_major", "input_length")),
    Rule("GRU was reset before its product", "1, 2.0 to 2.2", ("LSTM", "GRU", "LSTMCell", "GRUCell"), _recurrent),
    Rule("cuDNN's layers were layers of their own", "2.0 to 2.3", ("LSTM", "GRU"), _fused),
    Rule("SpatialDropout has no noise_shape", "2", ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
         _without("noise_shape")),
    Rule("normalisation had ways to be fused", "2", ("BatchNormalization",),
         _without("renorm", "fused", "virtual_batch_size", "adjustment", "renorm_clipping", "renorm_momentum",
                  "experimental_synchronized")),
    Rule("an axis was a list", "2", ("BatchNormalization", "LayerNormalization"), _axis),
    Rule("alpha was what negative_slope is", "1, 2", ("LeakyReLU",), _renamed(alpha="negative_slope")),
    Rule("a depthwise convolution had a kernel's settings", "2", ("DepthwiseConv1D", "DepthwiseConv2D"),
         _without("kernel_regularizer", "kernel_constraint", "filters", "groups")),
    Rule("a separable convolution had a kernel's settings", "2", ("SeparableConv1D", "SeparableConv2D"),
         _without("kernel_regularizer", "kernel_constraint", "groups")),
    Rule("a transposed convolution had groups", "2", ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
         _without("groups")),
    Rule("attention was causal by a setting", "2", ("Attention", "AdditiveAttention"), _without("causal")),
    Rule("attention knew its shapes", "2", ("MultiHeadAttention",),
         _without("query_shape", "key_shape", "value_shape", "softmax_robust_masking")),
    Rule("hard_sigmoid had another slope", "1, 2", (), _activations),
    Rule("regularizers held numbers of other kinds", "1, 2", (), _regularizers),
    Rule("operations of TensorFlow were layers", "2.4 to 2.15", ("Operation",), _operation),
    Rule("layers without weights had an activity's regularizer", "2.0", ("Activation", "Flatten", "Dropout"),
         _without("activity_regularizer")),
)  # fmt: skip


def translated(kind: str, config: Mapping[str, Any]) -> tuple[str, Config]:
    """A layer's class and settings as Keras 3 has them.

    Args:
        kind: the class's name in the file.
        config: its settings there; not changed.
    """
    config = dict(config)
    if kind.startswith("CuDNN"):
        config["__fused"] = True
    kind = CLASSES.get(kind, kind)
    for rule in RULES:
        if not rule.layers or kind in rule.layers:
            kind = rule.change(kind, config) or kind
    return kind, config


def layer_class(kind: str, name: str, custom_objects: Mapping[str, Any]) -> Any:
    """The class of a layer.

    Raises:
        InvalidValueError: Keras 3 has none of that name, and none was given.
    """
    found = custom_objects.get(kind) or OWN.get(kind) or getattr(keras.layers, kind, None)
    if found is None:
        raise InvalidValueError(
            f"layer {name!r} is a {kind}, which Keras 3 does not have. Pass custom_objects={{{kind!r}: ...}}, a class"
        )
    return found


def refuse_unknown(kind: str, made: Any, config: Config) -> None:
    """Raise for settings that the class does not take."""
    makers = [vars(base)["__init__"] for base in type.mro(made)[:-1] if "__init__" in vars(base)]
    taken = {name for maker in makers for name in inspect.signature(maker).parameters}
    unknown = [name for name in config if name not in taken]
    if unknown and made.__module__.startswith("keras"):
        raise InvalidValueError(
            f"layer {config.get('name')!r}, a {kind}, has settings that Keras 3 does not know: {', '.join(unknown)}"
        )
