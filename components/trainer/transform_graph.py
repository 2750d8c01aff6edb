"""The transform graph of a window: what raw features it takes, what it gives, and how to apply it to a batch.

One object loads the SavedModel once; the input path, the model's checks and the serving signatures share it. AutoGraph
is kept out of it: it would spend seconds on rewriting tft, which needs no rewriting.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import graph_tools
from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader

from evergreen.components import loaded
from evergreen.components.errors import ConfigError

Tensors = dict[str, Any]


def load(uri: str) -> TransformGraph:
    """Loads a transform graph; the one that was loaded last, by the Trainer say, is not loaded again.

    Args:
      uri: the TransformGraph artifact's folder.
    """
    folder = os.path.join(uri, tft.TFTransformOutput.TRANSFORM_FN_DIR)
    return loaded.once("transform graph", folder, lambda: TransformGraph(uri))


class TransformGraph:
    """A TransformGraph artifact, loaded.

    Args:
      uri: the artifact's folder.

    Attributes:
      output: the same as tft sees it; what `build_model` receives.
      raw_spec: the parsing spec of every raw feature of the schema.
      specs: dtype and shape (batch first) of each transformed feature.
      needs: for each transformed feature the raw features that it is computed from.
    """

    def __init__(self, uri: str):
        self.output = tft.TFTransformOutput(uri)
        self.raw_spec: dict[str, Any] = self.output.raw_feature_spec()
        self._loader = SavedModelLoader(self.output.transform_savedmodel_dir)
        outputs = self._loader.structured_outputs
        _check_dense(outputs)
        shapes = {name: spec.shape for name, spec in self.output.transformed_feature_spec().items()}
        self.specs = {
            name: tf.TensorSpec([None, *shapes[name]], tensor.dtype, name) for name, tensor in outputs.items()
        }
        self.needs = {name: self._sources(tensor) for name, tensor in outputs.items()}
        self._parsers: dict[tuple[str, ...], Any] = {}

    def _sources(self, output: tf.Tensor) -> frozenset[str]:
        """Finds the raw features that an output is computed from, by data and not by mere order of execution."""
        sources = graph_tools.retrieve_sources([output.op], ignore_control_dependencies=True)
        inputs = self._loader._structured_inputs.items()
        return frozenset(
            name
            for name, tensor in inputs
            if any(component in sources for component in tf.nest.flatten(tensor, expand_composites=True))
        )

    @property
    def trackable(self) -> Any:
        """The loaded SavedModel, which a SavedModel that applies the graph must hold on to for its tables."""
        return self._loader._imported

    @property
    def function(self) -> Any:
        """The concrete function of the transform graph."""
        return self._loader._wrapped_function

    @property
    def inputs(self) -> Tensors:
        """The raw features in the function's graph, sparse where they may be absent."""
        return dict(self._loader._structured_inputs)

    @property
    def outputs(self) -> Tensors:
        """The transformed features in the function's graph."""
        return dict(self._loader.structured_outputs)

    def parsing_spec(self, names: Iterable[str]) -> dict[str, Any]:
        """Returns the parsing spec of the raw features that some transformed features need.

        Args:
          names: transformed features.

        Returns:
          Name of the raw feature to FixedLenFeature, VarLenFeature, ...
        """
        needed = frozenset().union(*(self.needs[name] for name in names))
        return {name: spec for name, spec in sorted(self.raw_spec.items()) if name in needed}

    @tf.autograph.experimental.do_not_convert
    def apply(self, raw: Mapping[str, Any], names: Iterable[str]) -> Tensors:
        """Transforms a batch.

        Args:
          raw: parsed raw features, at least those that `names` need.
          names: the transformed features wanted.

        Returns:
          A dense tensor for each name, shaped as in `specs`.
        """
        transformed = self._loader.apply_transform_model(dict(raw))
        return {name: tf.ensure_shape(transformed[name], self.specs[name].shape) for name in names}

    @tf.autograph.experimental.do_not_convert
    def parse_and_apply(self, examples: tf.Tensor, names: Iterable[str]) -> Tensors:
        """Parses serialized tf.Examples and transforms them.

        Args:
          examples: strings, [batch].
          names: the transformed features wanted.

        Returns:
          A dense tensor for each name.
        """
        names = list(names)
        return self.apply(tf.io.parse_example(examples, self.parsing_spec(names)), names)

    def parser(self, names: Iterable[str]) -> Any:
        """Returns `parse_and_apply` for some features as a function of the examples, traced once for all its callers.

        Args:
          names: the transformed features wanted.
        """
        wanted = tuple(names)
        if wanted not in self._parsers:
            signature = [tf.TensorSpec([None], tf.string)]
            parse = functools.partial(self.parse_and_apply, names=wanted)
            self._parsers[wanted] = tf.function(parse, input_signature=signature, autograph=False)
        return self._parsers[wanted]

    def vocabulary(self, name: str) -> list[bytes] | None:
        """Returns the tokens of a vocabulary in the order of their indices; None where there is no such vocabulary."""
        if not name or self.output.vocabulary_file_by_name(name) is None:
            return None
        return list(self.output.vocabulary_by_name(name))


class Materialized:
    """Reads rows that Transform has materialized, in place of a graph that transforms raw ones.

    Args:
      graph: what the rows were transformed by.
    """

    def __init__(self, graph: TransformGraph):
        self._specs = graph.specs
        self._parsing = graph.output.transformed_feature_spec()

    @tf.autograph.experimental.do_not_convert
    def parse_and_apply(self, examples: tf.Tensor, names: Iterable[str]) -> Tensors:
        """Parses serialized tf.Examples; as `TransformGraph.parse_and_apply`, with the transformation done before.

        Args:
          examples: strings, [batch].
          names: the transformed features wanted.

        Returns:
          A dense tensor for each name.
        """
        parsed = tf.io.parse_example(examples, {name: self._parsing[name] for name in names})
        # A tf.Example holds int64 and float32 only; the graph may give other numbers.
        return {name: tf.cast(tensor, self._specs[name].dtype) for name, tensor in parsed.items()}

    def parser(self, names: Iterable[str]) -> Any:
        """Returns `parse_and_apply` for some features as a function of the examples.

        Args:
          names: the transformed features wanted.
        """
        return functools.partial(self.parse_and_apply, names=tuple(names))


def _check_dense(outputs: Mapping[str, Any]) -> None:
    sparse = sorted(name for name, tensor in outputs.items() if not isinstance(tensor, tf.Tensor))
    if sparse:
        raise ConfigError(
            f"the preprocessing function gives {sparse[0]} as a {type(outputs[sparse[0]]).__name__}",
            f"not dense: {', '.join(sparse)}; expected dense tensors [batch, 1], because a raw feature that may be "
            "absent arrives as a SparseTensor",
            "Fill what is missing in the preprocessing function, for example "
            "tf.sparse.to_dense(tf.SparseTensor(x.indices, x.values, [x.dense_shape[0], 1]), default_value).",
        )
