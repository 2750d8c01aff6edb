"""`model_parallel`: one model over several devices, by a loop of ours over a DTensor mesh (batch × model).

Dense, convolutional and embedding layers hold the last axis of their weights, their units, in parts along the mesh's
axis `model`, and give their parts to each other after each layer; everything else is on every device. Rows are divided
along the axis `batch`. `Model.fit`, DTensorDataset and Keras's optimizers gave wrong weights on such meshes, so the
loop packs the batches itself, and updates by formulas of its own: those of SGD and Adam, which were shown equal to
`single`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.experimental import dtensor

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import loop, user_model
from evergreen.components.trainer.settings import TrainerSettings

BATCH, MODEL = "batch", "model"
_DIVIDED = (tf_keras.layers.Dense, tf_keras.layers.Embedding, tf_keras.layers.Conv1D, tf_keras.layers.Conv2D)
# Keras's names of an optimizer's slots, for the two whose formulas stand in `updated`.
_SLOTS = {"SGD": ("momentums",), "Adam": ("_momentums", "_velocities")}
_HINT = "Set trainer.strategy to mirrored, or change the model."


def make_mesh(settings: TrainerSettings, devices: Sequence[str]) -> dtensor.Mesh:
    """Makes the mesh.

    Args:
      settings: the section `trainer`; its `mesh` says how many devices along the batch and along the model.
      devices: as many device names.

    Returns:
      The mesh with the axes `batch` and `model`.
    """
    batch, model = settings.mesh
    return dtensor.create_mesh([(BATCH, batch), (MODEL, model)], devices=list(devices))


def check(model: Any, spec: str) -> None:
    """Refuses a model that this loop would train otherwise than Keras.

    Args:
      model: a compiled model.
      spec: `module:function` that built it.

    Raises:
      ConfigError: the model is not a functional one with plain loss and optimizer.
    """
    optimizer = model.optimizer
    kind = type(optimizer).__name__
    amiss = ""
    if not getattr(model, "inputs", None) or user_model.own_steps(model):
        amiss = f"it is a {type(model).__name__}; expected a functional model that keeps Keras's train_step"
    elif kind not in _SLOTS or type(optimizer) is not getattr(tf_keras.optimizers, kind, None):
        amiss = f"its optimizer is {kind}; shown to be right are {' and '.join(_SLOTS)}"
    else:
        plain = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay", "use_ema", "amsgrad")
        used = [name for name in plain if getattr(optimizer, name, None)]
        amiss = f"its optimizer uses {', '.join(used)}" if used else amiss
    if not amiss and any(tensor.dtype == tf.string for tensor in model.inputs):
        amiss = "it reads strings, and DTensor holds numbers only"
    if not amiss and isinstance(model.loss, (list, tuple, dict)):
        amiss = "it has several losses"
    if amiss:
        raise ConfigError(f"the model of {spec} cannot be trained under model_parallel", amiss, _HINT)


def divide(build: Callable[[], Any], like: Any, mesh: dtensor.Mesh) -> Any:
    """Builds a model whose large weights lie in parts on the devices.

    Args:
      build: makes the model.
      like: the same model on one device, whose layers and shapes decide what is divided.
      mesh: from `make_mesh`.

    Returns:
      The model; its weights are not those of `like` yet.
    """
    from tf_keras.src.dtensor import layout_map

    layouts = layout_map.LayoutMap(mesh)
    parts = mesh.dim_size(MODEL)
    for layer in like.layers:
        for path, variable in layer._flatten(predicate=lambda it: isinstance(it, tf.Variable), with_path=True):
            axes = [dtensor.UNSHARDED] * len(variable.shape)
            if isinstance(layer, _DIVIDED) and axes and variable.shape[-1] % parts == 0 and parts > 1:
                axes[-1] = MODEL
            name = ".".join([layer.name, *map(str, path)])
            layouts[f"^{re.escape(name)}$"] = dtensor.Layout(axes, mesh)
    with _mesh_generator(), layout_map.layout_map_scope(layouts):
        model = build()
    for layer in model.layers:
        if any(MODEL in weight.layout.sharding_specs for weight in layer.weights):
            _gather_after(layer, mesh)
    return model


@contextlib.contextmanager
def _mesh_generator() -> Iterator[None]:
    """Lets Keras draw random numbers in a way that DTensor can divide."""
    before = tf_keras.backend.experimental.is_tf_random_generator_enabled()
    tf_keras.backend.experimental.enable_tf_random_generator()
    try:
        yield
    finally:
        if not before:
            tf_keras.backend.experimental.disable_tf_random_generator()


def _gather_after(layer: Any, mesh: dtensor.Mesh) -> None:
    """Makes a layer give its whole output to every device: what comes next may not divide."""
    call = layer.call

    def gathered(*arguments: Any, **named: Any) -> Any:
        output = call(*arguments, **named)
        return dtensor.relayout(output, _layout(mesh, len(output.shape), BATCH))

    layer.call = gathered


class ModelParallelLoop(loop.Loop):
    """Trains a divided model, and keeps the whole one up to date for all that reads it.

    Args:
      divided: from `divide`.
      mesh: its mesh.
      arguments: as `loop.Loop` takes them; `model` is the whole model.
    """

    def __init__(self, divided: Any, mesh: dtensor.Mesh, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.divided = divided
        self.mesh = mesh
        self.loss = tf_keras.losses.get(self.model.loss)

    def open(self) -> None:
        """See `loop.Loop.open`; the parts get the whole model's weights and slots, from wherever these came."""
        super().open()
        optimizer = self.model.optimizer
        # Keras's SGD has velocities without momentum too, and DTensor folds what is multiplied by 0 to a whole tensor.
        still = type(optimizer).__name__ == "SGD" and not optimizer.momentum
        names = () if still else _SLOTS[type(optimizer).__name__]
        self.whole_slots = [list(getattr(optimizer, name)) for name in names]
        for variable, value in zip(self.divided.weights, self.model.get_weights(), strict=True):
            self._put(variable, value)
        learned = self.divided.trainable_variables
        slots = [[self._like(*pair) for pair in zip(learned, slot, strict=True)] for slot in self.whole_slots]
        self.slots = slots
        # Each weight that is learned with its slots.
        self.learned = list(zip(learned, *slots, strict=True))
        # Three functions, for within one DTensor does not keep the order of a variable's reads and writes.
        self.functions = [tf.function(each) for each in (self._gradients, self._updated, self._assign)]

    def steps(self, count: int) -> float:
        """See `loop.Loop.steps`."""
        optimizer = self.model.optimizer
        losses = []
        for _ in range(count):
            started = time.monotonic()
            features, label = next(self.iterator)
            self.clock.add(time.monotonic() - started, 0.0)
            rate = step_size(optimizer, loop.learning_rate(optimizer), int(optimizer.iterations.numpy()) + 1)
            packed = {name: self._pack(tensor) for name, tensor in features.items()}
            gradients, new_values, assign = self.functions
            loss, found = gradients(packed, self._pack(label))
            assign(new_values(found, self._scalar(rate)))
            losses.append(loss)
            optimizer.iterations.assign_add(1)
        return float(np.mean([self._whole(loss) for loss in losses]))

    def measure(self, last: bool) -> None:
        """See `loop.Loop.measure`; the whole model first gets the parts' weights."""
        for variable, part in zip(self.model.weights, self.divided.weights, strict=True):
            variable.assign(self._whole(part))
        for whole, parts in zip(self.whole_slots, self.slots, strict=True):
            for variable, part in zip(whole, parts, strict=True):
                variable.assign(self._whole(part))
        super().measure(last)

    def training_results(self) -> dict[str, float]:
        """See `loop.Loop.training_results`: the loss alone, for the metrics are not computed in parts."""
        return {"loss": self.finite_loss[1]} if self.finite_loss else {}

    def _gradients(self, features: Any, label: Any) -> tuple[Any, list[Any]]:
        variables = self.divided.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.loss(label, self.divided(features, training=True))
            loss = tf.reduce_mean(loss) + (tf.add_n(self.divided.losses) if self.divided.losses else 0.0)
        found = zip(variables, tape.gradient(loss, variables), strict=True)
        return loss, [_laid(tf.convert_to_tensor(gradient), variable) for variable, gradient in found]

    def _updated(self, gradients: list[Any], rate: Any) -> list[list[Any]]:
        """Returns each weight's new value and those of its slots."""
        values = []
        for variables, gradient in zip(self.learned, gradients, strict=True):
            value, *slots = (variable.read_value() for variable in variables)
            values.append(updated(self.model.optimizer, value, gradient, slots, rate))
        return values

    def _assign(self, values: list[list[Any]]) -> None:
        for variables, new in zip(self.learned, values, strict=True):
            for variable, value in zip(variables, new, strict=True):
                variable.assign(_laid(value, variable))

    def _put(self, variable: Any, value: np.ndarray) -> None:
        whole = dtensor.copy_to_mesh(tf.constant(value, variable.dtype), _layout(self.mesh, value.ndim))
        variable.assign(dtensor.relayout(whole, variable.layout))

    def _like(self, variable: Any, value: Any) -> Any:
        made = dtensor.DVariable(dtensor.call_with_layout(tf.zeros, variable.layout, variable.shape, variable.dtype))
        self._put(made, value.numpy())
        return made

    def _scalar(self, value: float) -> Any:
        return dtensor.copy_to_mesh(tf.constant(value, tf.float32), _layout(self.mesh, 0))

    def _pack(self, tensor: Any) -> Any:
        shares = tf.split(tensor, self.mesh.dim_size(BATCH))
        columns = self.mesh.dim_size(MODEL)
        parts = [share for share in shares for _ in range(columns)]
        return dtensor.pack(parts, _layout(self.mesh, len(tensor.shape), BATCH))

    def _whole(self, part: Any) -> np.ndarray:
        value = part.read_value() if isinstance(part, tf.Variable) else part
        return np.asarray(dtensor.relayout(value, _layout(self.mesh, len(value.shape))).numpy())


def _layout(mesh: dtensor.Mesh, rank: int, first: str = dtensor.UNSHARDED) -> dtensor.Layout:
    """Returns the layout of a tensor that is whole on every device, but for its first axis where that is divided."""
    return dtensor.Layout([first, *[dtensor.UNSHARDED] * (rank - 1)] if rank else [], mesh)


def _laid(value: Any, variable: Any) -> Any:
    """Lays a value out as a variable is: DTensor may choose otherwise."""
    return dtensor.relayout(value, variable.layout)


def step_size(optimizer: Any, rate: float, number: int) -> float:
    """Returns the size of a step: the learning rate, for Adam with the corrections of its moments' bias.

    Args:
      optimizer: SGD or Adam.
      rate: the learning rate of this step.
      number: of this step, from 1.
    """
    if type(optimizer).__name__ == "SGD":
        return rate
    # In float32, as Keras computes it: Adam's first steps divide by what is nearly nothing.
    first, second = tf.constant(optimizer.beta_1), tf.constant(optimizer.beta_2)
    power = tf.cast(number, tf.float32)
    return float(rate * tf.sqrt(1.0 - tf.pow(second, power)) / (1.0 - tf.pow(first, power)))


def updated(optimizer: Any, value: Any, gradient: Any, slots: Sequence[Any], size: Any) -> list[Any]:
    """Computes a weight and its slots after a step by the formulas of tf_keras's SGD and Adam.

    Adam's are those of arXiv 1412.6980 in the order of the last paragraph of its section 2.

    Args:
      optimizer: SGD or Adam; gives momentum, or the decay rates and epsilon.
      value: the weight before.
      gradient: its gradient.
      slots: SGD's velocity, none without momentum; Adam's first and second moment.
      size: from `step_size`.

    Returns:
      The weight, then its slots.
    """
    if type(optimizer).__name__ == "SGD":
        if not slots:
            return [value - size * gradient]
        velocity = optimizer.momentum * slots[0] - size * gradient
        step = optimizer.momentum * velocity - size * gradient if optimizer.nesterov else velocity
        return [value + step, velocity]
    first, second = float(optimizer.beta_1), float(optimizer.beta_2)
    mean = slots[0] + (gradient - slots[0]) * (1.0 - first)
    square = slots[1] + (gradient * gradient - slots[1]) * (1.0 - second)
    return [value - size * mean / (tf.sqrt(square) + optimizer.epsilon), mean, square]
