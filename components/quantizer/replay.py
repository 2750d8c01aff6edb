"""Replays a transform graph over dense raw features with operators that TFLite has.

A transform graph takes sparse features, looks tokens up in tables that are read from files, and hashes unknown ones:
none of that converts. Its operators are played again one by one inside of a `tf.function`, and those are replaced:

- A sparse feature is its dense tensor [batch, 1], in which `evergreen.components.model_layout` says what is missing.
  What is computed on its values one by one is computed on every row, and where they become dense again (SparseToDense)
  the missing ones get the default.
- A table becomes a constant one, its content exported.
- Hashing into one bucket is 0, and a search among sorted bounds counts those that are not above the value.

Strings cannot be chosen by a condition in TFLite: a string column with another default than '' is carried as two, the
tokens and the default, until an operator makes numbers of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from evergreen.components import model_layout

# What gives one number or string for each that it takes, and what `ones_like` is made of. Those that TFLite lacks are
# named by the converter.
_ROW_BY_ROW = frozenset({
    "Abs", "Acos", "Add", "AddV2", "AsString", "Asin", "Atan", "Atan2", "Bucketize", "Cast", "Ceil", "ClipByValue",
    "Cos", "Div", "DivNoNan", "Equal", "Exp", "Expm1", "Fill", "Floor", "FloorDiv", "FloorMod", "Greater",
    "GreaterEqual", "IsFinite", "IsInf", "IsNan", "Less", "LessEqual", "Log", "Log1p", "LogicalAnd", "LogicalNot",
    "LogicalOr", "LookupTableFindV2", "Maximum", "Minimum", "Mod", "Mul", "Neg", "NotEqual", "OnesLike", "Pow",
    "RealDiv", "Reciprocal", "Relu", "Round", "Rsqrt", "Select", "SelectV2", "Shape", "Sigmoid", "Sign", "Sin",
    "Sqrt", "Square", "SquaredDifference", "StringLower", "StringStrip", "StringToHashBucketFast", "StringUpper",
    "Sub", "Tan", "Tanh", "TruncateDiv", "ZerosLike",
})  # fmt: skip
_SHAPE_ONLY = frozenset({"ExpandDims", "Reshape", "Squeeze"})
_HASHES = frozenset({"StringToHashBucketFast", "StringToHashBucketStrong", "StringToHashBucket"})


class NotReplayable(Exception):
    """The transform graph does something that cannot be said over dense features; the message names the operator."""


@dataclasses.dataclass(frozen=True)
class _Values:
    """The values of a sparse feature, or what was computed from each: dense [batch, 1], with the rows that lack one."""

    feature: str
    dense: Any


@dataclasses.dataclass(frozen=True)
class _Indices:
    """Where a sparse feature has values."""

    feature: str


@dataclasses.dataclass(frozen=True)
class _Shape:
    """The dense shape of a sparse feature, as one tensor."""

    tensor: Any


@dataclasses.dataclass(frozen=True)
class _Strings:
    """A string tensor whose rows at `missing` are `default`, whatever `tokens` holds there."""

    tokens: Any
    missing: Any
    default: Any


class Replay:
    """The transform graph of a window, ready to be played inside of a `tf.function`.

    Args:
      function: the concrete function of the transform graph.
      inputs: by raw feature, its placeholder in the function's graph (dense or sparse).
      outputs: by transformed feature, its tensor there.

    Attributes:
      tables: what the replayed function looks up; a SavedModel must track them.
    """

    def __init__(self, function: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]):
        self._inputs = inputs
        self._outputs = outputs
        self._captured = {placeholder.ref(): value for value, placeholder in function.graph.captures}
        self._contents: dict[Any, tuple[Any, Any]] = {}
        self._made: dict[Any, Any] = {}
        self.tables: list[Any] = []
        for operation in self._needed(outputs.values()):
            if operation.type == "LookupTableFindV2":
                self._export(operation)

    def apply(self, raw: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Transforms a batch.

        Args:
          raw: dense raw features [batch, 1] (or their fixed shape), what is missing said as in `model_layout`.
          names: the transformed features wanted.

        Returns:
          A dense tensor for each.

        Raises:
          NotReplayable: an operator needs sparse features.
        """
        names = list(names)
        known: dict[Any, Any] = {}
        for name, placeholder in self._inputs.items():
            if name not in raw:
                continue
            if isinstance(placeholder, tf.SparseTensor):
                known[placeholder.indices.ref()] = _Indices(name)
                known[placeholder.values.ref()] = _Values(name, raw[name])
                known[placeholder.dense_shape.ref()] = _Shape(tf.shape(raw[name], tf.int64))
            else:
                known[placeholder.ref()] = raw[name]
        for operation in self._needed(self._outputs[name] for name in names):
            if operation.outputs and operation.outputs[0].ref() not in known:
                self._play(operation, known, raw)
        return {name: _settled(known[self._outputs[name].ref()], self._outputs[name].op) for name in names}

    def _needed(self, outputs: Iterable[Any]) -> list[Any]:
        """Lists the operations that outputs are computed from, each behind those that it reads."""
        order: list[Any] = []
        seen: set[str] = set()
        waiting = [(tensor.op, False) for tensor in outputs]
        while waiting:
            operation, ready = waiting.pop()
            if ready:
                order.append(operation)
            elif operation.name not in seen:
                seen.add(operation.name)
                waiting.append((operation, True))
                # What the dense shape of a SparseToDense is computed from says nothing over dense features.
                inputs = [*operation.inputs]
                if operation.type == "SparseToDense":
                    inputs.pop(1)
                waiting += [(tensor.op, False) for tensor in inputs]
        return order

    def _play(self, operation: Any, known: dict[Any, Any], raw: Mapping[str, Any]) -> None:
        if any(tensor.dtype == tf.resource for tensor in operation.outputs):
            return  # a table's handle on its way to the look-up, which finds the table by itself
        inputs = [known.get(tensor.ref()) for tensor in operation.inputs]
        if operation.type == "Placeholder":
            known[operation.outputs[0].ref()] = self._capture(operation)
            return
        if operation.type == "Const":
            value = tf.make_ndarray(operation.get_attr("value"))
            known[operation.outputs[0].ref()] = tf.constant(value, operation.outputs[0].dtype)
            return
        if operation.type in ("Identity", "EnsureShape", "StopGradient", "CheckNumerics"):
            known[operation.outputs[0].ref()] = inputs[0]
            return
        if operation.type == "Reshape" and _is_column(inputs):
            known[operation.outputs[0].ref()] = inputs[0]
            return
        if operation.type == "SparseToDense":
            result = self._to_dense(operation, known, raw)
        elif any(isinstance(one, _Indices) for one in inputs):
            raise _refuse(operation)
        elif values := [one for one in inputs if isinstance(one, _Values)]:
            if operation.type not in _ROW_BY_ROW or len({one.feature for one in values}) > 1:
                raise _refuse(operation)
            plain = [one.dense if isinstance(one, _Values) else one for one in inputs]
            result = _Values(values[0].feature, self._strings_apart(operation, plain))
        else:
            result = self._strings_apart(operation, inputs)
        results = result if isinstance(result, (list, tuple)) else [result]
        for tensor, one in zip(operation.outputs, results, strict=True):
            known[tensor.ref()] = one

    def _strings_apart(self, operation: Any, inputs: list[Any]) -> Any:
        """Plays an operation on the tokens and on their default, if one of its inputs is such a pair."""
        plain = [one.tensor if isinstance(one, _Shape) else one for one in inputs]
        pairs = [one for one in plain if isinstance(one, _Strings)]
        if not pairs:
            return self._emit(operation, plain)
        if len(pairs) > 1 or operation.type not in _ROW_BY_ROW | _SHAPE_ONLY:
            raise _refuse(operation)
        (pair,) = pairs
        tokens = self._emit(operation, [one.tokens if one is pair else one for one in plain])
        if operation.type in _SHAPE_ONLY:
            missing = self._emit(operation, [pair.missing if one is pair else one for one in plain])
            return _Strings(tokens, missing, pair.default)
        default = self._emit(operation, [pair.default if one is pair else one for one in plain])
        if tokens.dtype == tf.string:
            return _Strings(tokens, pair.missing, default)
        return tf.where(pair.missing, default, tokens)

    def _emit(self, operation: Any, inputs: list[Any]) -> Any:
        if operation.type == "LookupTableFindV2":
            return self._find(operation, inputs[1], inputs[2])
        if operation.type == "LookupTableSizeV2":
            handle = operation.inputs[0]
            return tf.size(self._content(handle, operation)[0], tf.int64)
        if operation.type in _HASHES and operation.get_attr("num_buckets") == 1:
            return tf.zeros(tf.shape(inputs[0]), tf.int64)
        if any(not isinstance(one, tf.Tensor) for one in inputs):
            raise _refuse(operation)
        if operation.type == "UpperBound":  # what `tft.apply_buckets` searches with
            bounds, values = inputs
            above = tf.expand_dims(values, 2) < tf.expand_dims(bounds, 1)
            return tf.reduce_sum(tf.cast(tf.logical_not(above), operation.get_attr("out_type")), 2)
        graph = tf.compat.v1.GraphDef()
        node = graph.node.add()
        node.CopyFrom(operation.node_def)
        node.input[:] = [f"given:{index}" for index in range(len(inputs))]
        try:
            (played,) = tf.graph_util.import_graph_def(
                graph, dict(zip(node.input, inputs, strict=True)), return_elements=[node.name]
            )
        except ValueError as error:  # a function of the graph's own, in a loop or a condition
            raise _refuse(operation) from error
        return [*played.outputs] if len(played.outputs) > 1 else played.outputs[0]

    def _to_dense(self, operation: Any, known: dict[Any, Any], raw: Mapping[str, Any]) -> Any:
        indices, _, values, default = (known.get(tensor.ref()) for tensor in operation.inputs)
        # `tf.sparse.to_dense` of a constant, such as an indicator of presence, gives no values of the feature.
        if not isinstance(indices, _Indices) or not isinstance(values, _Values) or values.feature != indices.feature:
            raise _refuse(operation)
        missing = _missing(raw[indices.feature])
        tokens = values.dense
        if isinstance(tokens, _Strings):
            raise _refuse(operation)
        if tokens.dtype != tf.string:
            return tf.where(missing, default, tokens)
        if tf.get_static_value(default) == model_layout.MISSING_STRING and tokens is raw[indices.feature]:
            return tokens
        return _Strings(tokens, missing, default)

    def _capture(self, operation: Any) -> Any:
        value = self._captured.get(operation.outputs[0].ref())
        # What was not captured is an input that was not given.
        return None if value is None else tf.constant(value.numpy(), value.dtype)

    def _handle(self, tensor: Any) -> Any:
        while tensor.op.type == "Identity":
            tensor = tensor.op.inputs[0]
        return self._captured.get(tensor.ref())

    def _content(self, tensor: Any, operation: Any) -> tuple[Any, Any]:
        handle = self._handle(tensor)
        content = None if handle is None else self._contents.get(id(handle))
        if content is None:
            raise _refuse(operation)
        return content

    def _export(self, operation: Any) -> None:
        """Reads a table's content, outside of any function."""
        handle = self._handle(operation.inputs[0])
        if handle is None or id(handle) in self._contents:
            return
        kinds = {"Tkeys": operation.get_attr("Tin"), "Tvalues": operation.get_attr("Tout")}
        keys, values = tf.raw_ops.LookupTableExportV2(table_handle=handle, **kinds)
        self._contents[id(handle)] = keys, values

    def _find(self, operation: Any, keys: Any, default: Any) -> Any:
        table_keys, table_values = self._content(operation.inputs[0], operation)
        constant = tf.get_static_value(default)
        if constant is None:
            raise _refuse(operation)
        made = (id(table_keys), constant.tobytes())
        if made not in self._made:
            with tf.init_scope():
                initializer = tf.lookup.KeyValueTensorInitializer(table_keys, table_values)
                self._made[made] = tf.lookup.StaticHashTable(initializer, constant.item())
            self.tables.append(self._made[made])
        return self._made[made].lookup(keys)


def _is_column(inputs: list[Any]) -> bool:
    """Whether a Reshape makes [batch, 1] of what is that; one of strings would hide the shape of what follows."""
    tensor, shape = (one.tokens if isinstance(one, _Strings) else one for one in inputs)
    if not isinstance(tensor, tf.Tensor) or not isinstance(shape, tf.Tensor):
        return False
    wanted = tf.get_static_value(shape)
    return wanted is not None and wanted.tolist() == [-1, 1] and tensor.shape.as_list() == [None, 1]


def _missing(dense: Any) -> Any:
    if dense.dtype == tf.string:
        return tf.equal(dense, model_layout.MISSING_STRING)
    if dense.dtype == tf.int64:
        return tf.equal(dense, tf.constant(model_layout.MISSING_INT, tf.int64))
    # NaN is the one number that differs from itself; this needs no operator beyond what TFLite has.
    return tf.not_equal(dense, dense)


def _settled(value: Any, operation: Any) -> Any:
    if not isinstance(value, tf.Tensor):
        raise _refuse(operation)
    return value


def _refuse(operation: Any) -> NotReplayable:
    return NotReplayable(f"tf.{operation.type} (`{operation.name}`)")
