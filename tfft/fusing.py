"""KerasHub's transformer block in fewer operations: the same weights, the same numbers, sooner.

Two things are saved. Query, key and value are one product, and every product is one of matrices with its bias, which
TensorFlow fuses with the activation after it; as KerasHub writes a block, it cannot. And where a model reads a block's
first token alone, as with "cls" pooling, the rest of that block's output is not computed, in training neither.
An export computes a block in parts, side by side, so that a short text finds work for more than one processor.

The only file that touches private attributes of KerasHub's `TransformerEncoder` (BERT, RoBERTa, DistilBERT, ELECTRA,
ALBERT); `tests/test_fusing.py` guards them for each family. Other blocks stay as they are.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tfft import graph

# Heads and hidden units of an export's block are computed in so many parts, side by side. For one text TensorFlow gains
# nothing from a second thread in a product; two products at once, of a thread each, take two thirds of the time.
PARTS = 2

TOKENS = 16  # packed tokens are a multiple of it where there are many: oneDNN keeps what it made for every new number


class FusedBlock(keras.layers.Layer):
    """A `keras_hub.layers.TransformerEncoder`, computed with its own weights in fewer operations.

    Args:
        encoder: the block, built.
        first_only: compute the output of the first token alone: (batch, 1, width).
        served: for an export. Padding is left out of all products but attention's, its output is another token's;
            heads and hidden units are computed in parts, with variables of their own; norms take fewer operations.
        onnx: for a conversion to ONNX. Norms are written as ONNX Runtime finds them, and makes one operation of each; a
            gather finds each head's part of the tokens, where ONNX Runtime splits and transposes in two passes.
        product_dtype: of matrix products and of the activation between them; None for the block's own. Norms, softmax
            and the sums past them are written in the block's; `tfft.arithmetic` may have TensorFlow round them too.
    """

    def __init__(
        self,
        encoder: Any,
        first_only: bool = False,
        served: bool = False,
        onnx: bool = False,
        product_dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=encoder.dtype_policy, **kwargs)
        self.encoder = encoder
        self.first_only = first_only
        self.served = served
        self.onnx = onnx
        self.product_dtype = product_dtype or encoder.compute_dtype
        if served:
            fixed = functools.partial(keras.Variable, trainable=False)
            self.parts = keras.tree.map_structure(fixed, _parts(encoder, first_only, _count(encoder)))
        self.built = True

    def call(self, x: Any, padding_mask: Any = None, training: bool | None = None) -> Any:
        """The block's output, (batch, length, width)."""
        encoder, width = self.encoder, x.shape[-1]
        # Of the mask, which all blocks share: what is computed from its shape is then computed once for all.
        batch, length = ops.shape(x if padding_mask is None else padding_mask)[:2]
        attention_norm = functools.partial(self._norm, encoder._self_attention_layer_norm)
        inner_norm = functools.partial(self._norm, encoder._feedforward_layer_norm)
        packing = _packing(padding_mask) if self.served and padding_mask is not None else None
        tokens = ops.reshape(x, (-1, width))
        tokens = tokens if packing is None else tf.gather(tokens, packing.positions)  # (tokens, width)
        own = x[:, 0] if self.first_only else tokens  # the tokens that are answered for
        parts = self.parts if self.served else _parts(encoder, self.first_only)

        normed, own_normed = (attention_norm(t) if encoder.normalize_first else t for t in (tokens, own))
        rest = (batch, length), packing, padding_mask, training
        gathered = [self._attend(part, normed, own_normed, *rest) for part in parts]
        y = self._sum(gathered, [part.gathered for part in parts], encoder._self_attention_layer.output_dense.bias)
        y = encoder._self_attention_dropout(y, training=training) + own
        y = y if encoder.normalize_first else attention_norm(y)

        kept, inner = y, encoder._feedforward_intermediate_dense
        y = inner_norm(y) if encoder.normalize_first else y
        hidden = [inner.activation(self._product(y, *part.inner)) for part in parts]
        y = self._sum(hidden, [part.outer for part in parts], encoder._feedforward_output_dense.bias)
        y = encoder._feedforward_dropout(y, training=training) + kept
        y = y if encoder.normalize_first else inner_norm(y)
        if self.first_only:
            return ops.reshape(y, (batch, 1, width))
        return ops.reshape(y if packing is None else tf.gather(y, packing.tokens), (batch, length, width))

    def compute_output_spec(self, x: Any, **kwargs: Any) -> Any:
        """Known without a trace of the call."""
        return keras.KerasTensor((x.shape[0], 1 if self.first_only else x.shape[1], x.shape[2]), self.compute_dtype)

    def _product(self, x: Any, kernel: Any, bias: Any = None) -> Any:
        """Rows (n, inner) by a kernel (inner, columns), plus a bias (columns,)."""
        y = ops.matmul(ops.cast(x, self.product_dtype), ops.cast(kernel, self.product_dtype))
        return y if bias is None else ops.add(y, ops.cast(bias, self.product_dtype))

    def _sum(self, xs: list[Any], kernels: list[Any], bias: Any) -> Any:
        """The products of all parts, and the bias once: (n, columns)."""
        y = self._product(xs[0], kernels[0], bias)
        for x, kernel in zip(xs[1:], kernels[1:], strict=True):
            y = y + self._product(x, kernel)
        return ops.cast(y, self.compute_dtype)

    def _norm(self, layer: Any, x: Any) -> Any:
        if self.onnx:
            return _plain_norm(layer, x)
        if not self.served:
            return layer(x)
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return centred * (ops.rsqrt(variance + layer.epsilon) * layer.gamma) + layer.beta

    def _attend(
        self,
        part: "_Part",
        tokens: Any,
        own: Any,
        shape: tuple[Any, Any],
        packing: Any,
        padding_mask: Any,
        training: bool | None,
    ) -> Any:
        """What each token that is answered for gathers from its row: (tokens, heads * size)."""
        attention, (batch, length) = self.encoder._self_attention_layer, shape
        size = attention.key_dim
        heads = part.gathered.shape[0] // size

        def projected(t: Any, weights: tuple[Any, Any], count: int, positions: Any, packing: Any) -> list[Any]:
            y = self._product(t, *weights)  # (tokens, count * heads * size)
            if self.onnx:
                return _by_head_alone(y, batch, positions, count, heads)
            if packing is None:
                y = ops.transpose(ops.reshape(y, (batch, positions, count, heads, size)), (2, 0, 3, 1, 4))
            else:
                y = _by_head(y, packing, count, heads)
            return ops.unstack(y, count)  # each (batch, heads, positions, size)

        if self.first_only:
            query, others = part.read
            (q,), (k, v) = projected(own, query, 1, 1, None), projected(tokens, others, 2, length, packing)
        else:
            (joined,) = part.read
            q, k, v = projected(tokens, joined, 3, length, packing)
        scores = ops.cast(tf.matmul(q * size**-0.5, k, transpose_b=True), self.compute_dtype)
        if padding_mask is not None:
            hidden = (1 - ops.cast(padding_mask, scores.dtype)) * -1e9
            scores = scores + ops.reshape(hidden, (batch, 1, 1, length))  # by new axes LiteRT cannot slice
        weights = attention._dropout_layer(ops.softmax(scores), training=training)
        gathered = ops.matmul(ops.cast(weights, self.product_dtype), v)  # (batch, heads, positions, size)
        if packing is None or self.first_only:
            return ops.reshape(ops.transpose(gathered, (0, 2, 1, 3)), (-1, heads * size))
        return _by_token(gathered, packing, length)


class PlainNorm(keras.layers.Layer):
    """A `keras.layers.LayerNormalization` of the last axis, written as ONNX Runtime finds it.

    Args:
        norm: the layer, built.
    """

    def __init__(self, norm: Any, **kwargs: Any) -> None:
        super().__init__(dtype=norm.dtype_policy, **kwargs)
        self.norm = norm
        self.built = True

    def call(self, x: Any) -> Any:
        """(..., width), as it came."""
        rows = ops.reshape(x, (-1, x.shape[-1]))  # of three axes tf2onnx makes a pooling, which is not found
        return ops.reshape(_plain_norm(self.norm, rows), ops.shape(x))


def _plain_norm(norm: Any, x: Any) -> Any:
    # A power and a division: with a square and a factor it would not be found.
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.power(centred, 2.0), axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + norm.epsilon) * norm.gamma + norm.beta


class _Part(NamedTuple):
    """Weights of some heads and hidden units of a block; together with those of the other parts, all."""

    read: Any  # kernels (width, heads * size) and biases of query, key and value side by side; of the query apart
    gathered: Any  # the kernel past attention: (heads * size, width)
    inner: Any  # kernel and bias of the hidden units: (width, hidden), (hidden,)
    outer: Any  # the kernel past them: (hidden, width)


def _count(encoder: Any) -> int:
    counts = encoder._self_attention_layer.num_heads, encoder._feedforward_intermediate_dense.units
    return 1 if any(count % PARTS for count in counts) else PARTS


def _parts(encoder: Any, first_only: bool, count: int = 1) -> list[_Part]:
    attention = encoder._self_attention_layer
    inner, outer = encoder._feedforward_intermediate_dense, encoder._feedforward_output_dense
    width = outer.bias.shape[0]
    query, others = [attention.query_dense], [attention.key_dense, attention.value_dense]

    def share(weight: Any, axis: int, i: int) -> Any:
        return ops.split(weight, count, axis)[i] if count > 1 else ops.convert_to_tensor(weight)

    def side_by_side(layers: list[Any], i: int) -> tuple[Any, Any]:
        kernels = [ops.reshape(share(layer.kernel, 1, i), (width, -1)) for layer in layers]
        biases = [ops.reshape(share(layer.bias, 0, i), (-1,)) for layer in layers]
        return (ops.concatenate(kernels, -1), ops.concatenate(biases, -1)) if layers[1:] else (kernels[0], biases[0])

    return [
        _Part(
            [side_by_side(layers, i) for layers in ([query, others] if first_only else [query + others])],
            ops.reshape(share(attention.output_dense.kernel, 0, i), (-1, width)),
            (share(inner.kernel, 1, i), share(inner.bias, 0, i)),
            share(outer.kernel, 0, i),
        )
        for i in range(count)
    ]


class _Packing(NamedTuple):
    """Where the tokens of a batch are, int32."""

    positions: Any  # (tokens,): which of the batch * length positions each token holds; a few more may repeat one
    tokens: Any  # (batch, length): which token each position holds; padding, the one before it: no one reads it there


def _packing(padding_mask: Any) -> _Packing:
    real = padding_mask != 0  # (batch, length)
    flat = tf.reshape(real, (-1,))
    tokens = tf.maximum(tf.cumsum(tf.cast(flat, tf.int32)) - 1, 0)
    positions = tf.cast(tf.where(flat)[:, 0], tf.int32)
    count = tf.size(positions)
    more = tf.where(count > 8 * TOKENS, tf.math.floormod(-count, TOKENS), 0)
    return _Packing(tf.pad(positions, [[0, more]]), tf.reshape(tokens, tf.shape(real)))


# One gather moves what a transpose and a gather would move twice.
def _by_head(y: Any, packing: _Packing, count: int, heads: int) -> Any:
    """Of tokens (tokens, count * heads * size) each head's part of each row: (count, batch, heads, length, size)."""
    parts = tf.range(count * heads)
    index = packing.tokens[tf.newaxis, :, tf.newaxis, :] * parts.shape[0] + tf.reshape(parts, (count, 1, heads, 1))
    return tf.gather(tf.reshape(y, (-1, y.shape[-1] // parts.shape[0])), index)


def _by_head_alone(y: Any, batch: Any, length: Any, count: int, heads: int) -> list[Any]:
    """The same of tokens (batch * length, count * heads * size), in a gather each: (batch, heads, length, size)."""
    places = tf.reshape(tf.range(batch * length), (batch, 1, length)) * (count * heads)
    rows = tf.reshape(y, (-1, y.shape[-1] // (count * heads)))
    return [tf.gather(rows, places + tf.reshape(i * heads + tf.range(heads), (heads, 1))) for i in range(count)]


def _by_token(x: Any, packing: _Packing, length: Any) -> Any:
    """Back again: of rows (batch, heads, length, size) what each token has, (tokens, heads * size)."""
    heads, size = x.shape[1], x.shape[-1]
    row, place = packing.positions // length, packing.positions % length
    index = (row * heads * length + place)[:, tf.newaxis] + tf.range(heads) * length
    return tf.reshape(tf.gather(tf.reshape(x, (-1, size)), index), (-1, heads * size))


def fused(
    model: keras.Model, *, served: bool = False, onnx: bool = False, product_dtype: str | None = None
) -> keras.Model:
    """The model for inference: every block tfft knows in fewer operations.

    Args:
        model: functional model.
        served: see `FusedBlock`; some weights are copies of the model's, so train first.
        onnx: see `FusedBlock`; other norms, such as that of the embeddings, are written so too.
        product_dtype: see `FusedBlock`.

    Returns:
        The same inputs to the same outputs; `model` itself where it has no such block.
    """
    return _replaced(model, lambda first_only: True, served=served, onnx=onnx, product_dtype=product_dtype)


def side_by_side(model: keras.Model) -> int:
    """How many products at once an export of the model computes: the parts of its blocks; 1 where one is not known."""
    blocks = [node for node in graph.nodes(model) if graph.is_block(node.operation)]
    return min((_count(node.operation) if _is_known(node) else 1 for node in blocks), default=1)


def narrowed(model: keras.Model) -> keras.Model:
    """The model for training: a block that is read at its first token alone computes nothing else."""
    return _replaced(model, lambda first_only: first_only)


def _replaced(model: keras.Model, wanted: Callable[[bool], bool], **options: Any) -> keras.Model:
    firsts = graph.only_first_read(model)
    made: dict[tuple[int, bool], FusedBlock] = {}  # a block that is called twice, as for two texts, is made once

    def call(node: Any) -> Any:
        first_only = id(node.outputs[0]) in firsts
        if options.get("onnx") and _is_norm(node):
            return PlainNorm(node.operation)
        if not (_is_known(node) and wanted(first_only)):
            return node.operation
        key = id(node.operation), first_only
        if key not in made:
            made[key] = FusedBlock(node.operation, first_only, **options, name=f"fused_{len(made)}")
        return made[key]

    start = {id(tensor): tensor for tensor in model.inputs}
    tensors = graph.replay(model, start, skip=lambda node: False, call=call)
    if not made:
        return model
    outputs = keras.tree.map_structure(lambda t: tensors[id(t)], graph.output_structure(model))
    return keras.Model(model.input, outputs, name=model.name)


def _is_norm(node: Any) -> bool:
    """Whether it is a norm of the last axis with a gain and a shift, in float32."""
    norm, x = node.operation, node.outputs[0]
    if type(norm) is not keras.layers.LayerNormalization or norm.dtype_policy.name != "float32":
        return False
    whole = norm.center and norm.scale and not getattr(norm, "rms_scaling", False)
    return whole and norm.axis in ([-1], [len(x.shape) - 1])


def _is_known(node: Any) -> bool:
    hub = sys.modules.get("keras_hub")  # where it was never imported, no block can be of it
    block = node.operation
    if hub is None or type(block) is not hub.layers.TransformerEncoder:
        return False
    plain = all(layer.dtype_policy.name == "float32" for layer in graph.flattened(block))  # not mixed, not quantized
    return plain and not set(node.arguments.kwargs) - {"padding_mask"} and len(node.arguments.args) == 1
