"""Builds the user's model and checks that it is what the Trainer can train, serve and quantize."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.trainer.transform_graph import TransformGraph

_CONTRACT = (
    "build_model(transform_output, hyperparameters) returns a compiled tf_keras.Model with inputs named as transformed "
    "features and one output [batch, 1]"
)


@dataclass(frozen=True)
class Core:
    """The model as a function of transformed features.

    Attributes:
      function: concrete function of one keyword argument for each feature; gives float32 [batch, 1].
      features: the transformed features that it reads.
    """

    function: Any
    features: tuple[str, ...]


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_RAISED = re.compile(r"[A-Za-z_.]+(Error|Exception|Warning): ")


def build(function: Callable[..., Any], spec: str, graph: TransformGraph, hyperparameters: dict[str, Any]) -> Any:
    """Calls the user's function and checks what it returns.

    Args:
      function: the user's `build_model`.
      spec: its name, for messages.
      graph: the window's transform graph.
      hyperparameters: from the settings.

    Returns:
      A compiled tf_keras.Model.

    Raises:
      ConfigError: the function raises, or returns something else.
    """
    try:
        model = function(graph.output, dict(hyperparameters))
    except EvergreenError:
        raise
    except Exception as error:  # whatever a user's function does
        raise user_error(spec, error) from error
    if not isinstance(model, tf_keras.Model):
        received = f"{type(model).__module__}.{type(model).__qualname__}"
        hint = "Return the compiled model."
        if any(base.__module__.startswith("keras.") for base in type(model).__mro__):
            hint = "Import tf_keras in place of keras or tf.keras: the Trainer's strategies need Keras 2."
        raise ConfigError(f"{spec} does not return a tf_keras.Model", f"received {received}; {_CONTRACT}", hint)
    if getattr(model, "optimizer", None) is None:
        raise ConfigError(
            f"{spec} returns a model that is not compiled",
            f"received a {type(model).__name__} without optimizer and loss; {_CONTRACT}",
            "Call model.compile(optimizer, loss, metrics=[...]) before returning it.",
        )
    return model


def own_steps(model: Any) -> list[str]:
    """Names what a model's class does its own way, and a loop that computes gradients itself would pass by.

    Args:
      model: a tf_keras.Model.

    Returns:
      Of `train_step` and `compute_loss` those that the class overrides.
    """
    return [
        name
        for name in ("train_step", "compute_loss")
        if getattr(type(model), name) is not getattr(tf_keras.Model, name)
    ]


def end_in_float32(model: Any, spec: str) -> None:
    """Makes a model of mixed precision compute its last layers, and so its loss, in float32.

    Args:
      model: the model; its layers keep their weights.
      spec: `module:function` that built it, for messages.

    Raises:
      ConfigError: the model is not a functional one and answers in less than float32.
    """
    outputs = tf.nest.flatten(getattr(model, "outputs", None) or [])
    for output in outputs:
        # Keras has no public way to change a layer's policy after it was made.
        output._keras_history.layer._set_dtype_policy(tf_keras.mixed_precision.Policy("float32"))
    if not outputs:
        raise ConfigError(
            f"the model of {spec} cannot be trained in mixed precision",
            f"received a {type(model).__name__} whose last layer is not known, expected a functional model",
            "Build it by tf_keras.Model(inputs, outputs), or set trainer.precision to float32.",
        )


def user_error(spec: str, error: Exception) -> ConfigError:
    """Names the line of the user's function that raised.

    Args:
      spec: `module:function`.
      error: what it raised.

    Returns:
      The error to raise in its place.
    """
    file = f"{spec.partition(':')[0].rpartition('.')[2]}.py"
    frames = [(frame.filename, str(frame.lineno)) for frame in traceback.extract_tb(error.__traceback__)]
    frames += _FRAME.findall(str(error))
    own = [f" ({path}, line {line})" for path, line in frames if Path(path).name == file]
    reason = f"{gist(error)}{own[-1] if own else ''}"
    return ConfigError(f"{spec} fails", reason, "Correct the function; `--debug` shows the whole traceback.")


def training_error(spec: str, error: Exception) -> ConfigError:
    """Says in short why a model cannot be trained, for example an index beyond an embedding's rows.

    Args:
      spec: `module:function` that built the model.
      error: what TensorFlow raised.

    Returns:
      The error to raise in its place.
    """
    node = re.search(r"Detected at node (\S+)", str(error))
    reason = f"{gist(error)}{f' (at {node[1]})' if node else ''}"
    return ConfigError(
        f"the model of {spec} cannot be trained", reason, "Correct the model; `--debug` shows the whole traceback."
    )


def gist(error: Exception) -> str:
    """Picks the line that says what is wrong: TensorFlow puts it behind the tracebacks that its messages begin with.

    Args:
      error: what Python or TensorFlow raised.

    Returns:
      The error's type and one line of its message.
    """
    text = str(error).partition("Call arguments received by")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[[{{node" not in line]
    if not lines:
        return type(error).__name__
    if lines[0].startswith(("in user code", "Exception encountered")):
        named = [line for line in lines if _RAISED.match(line) and "Exception encountered" not in line]
        return named[-1] if named else f"{type(error).__name__}: {lines[-1]}"
    return f"{type(error).__name__}: {lines[-1] if lines[0].startswith('Graph execution error') else lines[0]}"


def features_of(model: Any, graph: TransformGraph, label: str, spec: str) -> tuple[str, ...]:
    """Finds the transformed features that a model reads.

    Args:
      model: the user's model.
      graph: the window's transform graph.
      label: the label's name.
      spec: the user's function, for messages.

    Returns:
      The names, sorted: the inputs of a functional model; of any other model every feature but the label.

    Raises:
      ConfigError: the preprocessing function does not give the label or an input, or computes an input from the label.
    """
    if label not in graph.specs:
        raise ConfigError(
            f"the preprocessing function does not give the label {label!r}",
            f"it gives {', '.join(sorted(graph.specs))}",
            f"Let it return the label under its own name: outputs[{label!r}] = inputs[{label!r}].",
        )
    leaking = {name for name, needs in graph.needs.items() if label in needs}
    inputs = getattr(model, "_nested_inputs", None)
    if inputs is None:
        names = sorted(set(graph.specs) - leaking)
    else:
        names = sorted(inputs) if isinstance(inputs, dict) else sorted(model.input_names)
    unknown = [name for name in names if name not in graph.specs]
    if unknown:
        raise ConfigError(
            f"{spec} has an input {unknown[0]!r} that the preprocessing function does not give",
            f"it gives {', '.join(sorted(set(graph.specs) - {label}))}",
            "Name the model's inputs as the transformed features: tf_keras.Input((1,), name=...).",
        )
    leaks = sorted(leaking.intersection(names))
    if leaks:
        raise ConfigError(
            f"{spec} reads {leaks[0]!r}, which is computed from the label {label!r}",
            "a model that is served does not know the label",
            "Leave the feature out of the model.",
        )
    return tuple(names)


def trace_core(model: Any, features: Sequence[str], graph: TransformGraph, spec: str) -> Core:
    """Traces the model as it is served, which also builds its variables.

    Args:
      model: the user's model.
      features: the transformed features that it reads.
      graph: the window's transform graph.
      spec: the user's function, for messages.

    Returns:
      The model as a function. Weights that change later change it too.

    Raises:
      ConfigError: the model cannot be called with these features, or gives something else than [batch, 1].
    """

    @tf.function
    def core(**inputs: Any) -> Any:
        output = model(inputs, training=False)
        return tf.cast(output, tf.float32) if isinstance(output, tf.Tensor) else output

    try:
        traced = core.get_concrete_function(**{name: graph.specs[name] for name in features})
    except Exception as error:  # whatever a user's layers do
        raise user_error(spec, error) from error
    output = traced.structured_outputs
    if not isinstance(output, (tf.TensorSpec, tf.Tensor)):
        raise _wrong_output(spec, f"a {type(output).__name__} of outputs")
    if output.shape.rank != 2 or output.shape[1] != 1:
        raise _wrong_output(spec, f"an output of the shape {[*output.shape]}")
    return Core(traced, tuple(features))


def _wrong_output(spec: str, received: str) -> ConfigError:
    return ConfigError(
        f"{spec} returns a model with {received}", f"expected one tensor [batch, 1]; {_CONTRACT}", "End it in Dense(1)."
    )
