"""A training step of one network on one device, and of the same network split over two.

The graphs that `model_parallel.py` measures; no session, no clock. Weights, batches and the learning rate are the
same in every graph, the update is plain SGD, and the loss is softmax cross-entropy.

One device differentiates the whole network at once. A split differentiates piece by piece (`tf.gradients` from the
outputs of a piece to its inputs) and says itself what crosses between the devices. A device of a split runs its pieces
one after another in the order in which they are written here, as one stream of a GPU does; without that, two threads
would work for one device while the other waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from evergreen.components.errors import ConfigError

RATE = 0.02
CLASSES = 10
BATCHES = 4
FLOAT = 4  # bytes
HALVES = (0, 1)
# Rows of zeros above and below that a 3 x 3 kernel needs to keep an image's size; a half has its halo on one side.
WHOLE_IMAGE, HALF_IMAGES = (1, 1), ((1, 0), (0, 1))

Arrays = list[list[np.ndarray]]


@dataclass(frozen=True)
class Network:
    """The sizes of a network: equal hidden layers with ReLU, then a dense layer of `CLASSES`.

    Args:
      batch: rows of a step.
      layers: hidden layers.
      width: units of a dense layer and its inputs, channels of a convolutional one; even.
      image: rows and columns of the image, even; 0 makes the network dense. Convolutions are 3 x 3 and keep the size,
        and the mean over the image goes to the last layer.
    """

    batch: int
    layers: int
    width: int
    image: int = 0

    def __post_init__(self) -> None:
        if self.layers < 2 or self.width % 2 or self.image % 2:
            raise ConfigError(
                "This network cannot be split in halves",
                f"Received: {self}. Expected two layers or more, an even width, an even image.",
                "Choose other sizes.",
            )

    def weights(self) -> Arrays:
        """Makes kernel and bias of each layer, float32, He initialization (arXiv 1502.01852), seed 0."""
        random = np.random.default_rng(0)
        window = (3, 3) if self.image else ()
        made = []
        for shape in [(*window, self.width, self.width)] * self.layers + [(self.width, CLASSES)]:
            kernel = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            made.append([kernel.astype(np.float32), random.normal(0, 0.01, shape[-1]).astype(np.float32)])
        return made

    def batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Makes `BATCHES` batches, seed 1: float32 inputs [batches, batch, (image, image,) width], int32 labels."""
        random = np.random.default_rng(1)
        shape = (BATCHES, self.batch, *((self.image, self.image) if self.image else ()), self.width)
        return random.normal(size=shape).astype(np.float32), random.integers(CLASSES, size=shape[:2], dtype=np.int32)


@dataclass(frozen=True)
class Step:
    """A training step in a graph.

    Args:
      operations: what a session runs for one step, feeding and fetching nothing: that would cross between the devices.
      counters: each device's own count of the steps, which chooses the batch.
      variables: by device and layer.
      copies: puts the values of `variables` together to the weights of the whole network, as `Network.weights` has
        them, once for each copy that the devices hold.
    """

    operations: list[tf.Operation]
    counters: list[tf.Variable]
    variables: list[list[list[tf.Variable]]]
    copies: Callable[[list[Arrays]], list[Arrays]]


class Device:
    """One device of a split: places what it is given and runs it in order.

    Args:
      index: of the logical CPU.
    """

    def __init__(self, index: int):
        self.index = index
        self._last: list[Any] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a piece on this device after the one before; arguments that the other device made cross over.

        Args:
          function: makes the operations.
          arguments: its own.

        Returns:
          What the function returns, a tensor or several.
        """
        with tf.device(f"/cpu:{self.index}"), tf.control_dependencies(self._last):
            made = function(*arguments)
        self._last = tf.nest.flatten(made)
        return made

    def variables(self, weights: Arrays) -> tuple[list[list[tf.Variable]], list[list[tf.Tensor]]]:
        """Makes variables here; returns them, and their values as this step reads them."""
        with tf.device(f"/cpu:{self.index}"):
            made = [[tf.Variable(value) for value in layer] for layer in weights]
        return made, self.run(lambda: [[variable.read_value() for variable in layer] for layer in made])

    def data(self, *batches: np.ndarray) -> tuple[tf.Variable, list[tf.Tensor]]:
        """Keeps batches here; returns the counter of the steps, and the next batch of each array, over and over."""
        with tf.device(f"/cpu:{self.index}"):
            counter = tf.Variable(-1)
        number = self.run(lambda: counter.assign_add(1) % BATCHES)
        return counter, self.run(lambda: [tf.gather(array, number) for array in batches])

    def gradients(self, outputs: Any, inputs: Any, gradient: Any = None) -> Any:
        """Returns the gradients of a piece by its inputs, given that of its outputs; a list for a list."""
        found = self.run(tf.gradients, outputs, inputs, gradient)
        return found if isinstance(inputs, list) else found[0]

    def update(self, variables: list[tf.Variable], gradients: list[tf.Tensor]) -> list[tf.Operation]:
        """Takes a step of SGD."""
        return self.run(lambda: [v.assign_sub(RATE * g).op for v, g in zip(variables, gradients, strict=True)])


class Pair:
    """Two devices that do the same to their own halves; every argument and answer is a pair, one for each device."""

    def __init__(self) -> None:
        self.devices = (Device(0), Device(1))

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Runs a piece on each device."""
        return [device.run(function, *own) for device, *own in zip(self.devices, *arguments, strict=True)]

    def gradients(self, outputs: Any, inputs: Any, gradients: Any = (None, None)) -> list[Any]:
        """Returns each device's gradients, as `Device.gradients`."""
        given = zip(self.devices, outputs, inputs, gradients, strict=True)
        return [device.gradients(*own) for device, *own in given]

    def sum(self, parts: Any) -> list[tf.Tensor]:
        """Gives both devices the sum of their tensors; each one's goes to the other."""
        return self.run(lambda _: parts[0] + parts[1], HALVES)

    def update(self, variables: Any, gradients: Any) -> list[tf.Operation]:
        """Takes a step of SGD on each device."""
        given = zip(self.devices, variables, gradients, strict=True)
        return [operation for device, *own in given for operation in device.update(*own)]


def affine(x: tf.Tensor, layer: Sequence[tf.Tensor], rows: tuple[int, int] = WHOLE_IMAGE) -> tf.Tensor:
    """Applies a dense layer, or a convolution that pads so many rows of zeros above and below."""
    kernel, bias = layer
    if len(kernel.shape) == 2:
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, [(0, 0), rows, (1, 1), (0, 0)]), bias)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the loss: the mean over the rows."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def one_device(network: Network) -> Step:
    """Builds the step as whoever has one device would: one graph, differentiated as a whole."""
    with tf.device("/cpu:0"):
        counter, (h, labels) = Device(0).data(*network.batches())
        layers = [[tf.Variable(value) for value in layer] for layer in network.weights()]
        for layer in layers[:-1]:
            h = tf.nn.relu(affine(h, layer))
        h = tf.reduce_mean(h, [1, 2]) if network.image else h
        flat = [variable for layer in layers for variable in layer]
        gradients = tf.gradients(cross_entropy(affine(h, layers[-1]), labels), flat)
        updates = [v.assign_sub(RATE * g).op for v, g in zip(flat, gradients, strict=True)]
    return Step(updates, [counter], [layers], list)


def by_layers(network: Network) -> Step:
    """Splits a dense network by layers: the first half on one device, the rest on the other."""
    weights, (rows, classes) = network.weights(), network.batches()
    middle = (network.layers + 1) // 2
    first, second = Device(0), Device(1)
    owner = [first] * middle + [second] * (len(weights) - middle)
    made, read = zip(first.variables(weights[:middle]), second.variables(weights[middle:]), strict=True)
    variables, values = [*made[0], *made[1]], [*read[0], *read[1]]
    counter, [h] = first.data(rows)
    other_counter, [labels] = second.data(classes)
    inputs, outputs = [], []
    for device, layer in zip(owner, values, strict=True):
        inputs.append(h)
        outputs.append(device.run(affine, h, layer))
        h = device.run(tf.nn.relu, outputs[-1]) if len(outputs) < len(weights) else outputs[-1]
    logits = h
    gradient = second.gradients(second.run(cross_entropy, logits, labels), logits)
    operations = []
    for at in reversed(range(len(weights))):
        device, by_outputs = owner[at], gradient
        # What the layer before waits for comes first.
        if at:
            gradient = device.gradients(outputs[at], inputs[at], by_outputs)
        by_weights = device.gradients(outputs[at], values[at], by_outputs)
        operations += device.update(variables[at], by_weights)
        if at:
            gradient = owner[at - 1].gradients(inputs[at], outputs[at - 1], gradient)
    return Step(operations, [counter, other_counter], list(made), lambda found: [[*found[0], *found[1]]])


def by_units(network: Network) -> Step:
    """Splits a dense network by units: each device has half of every layer's, and gathers the outputs of all."""
    pair, weights, batches = Pair(), network.weights(), network.batches()
    halves = [[[np.split(value, 2, axis=-1)[half] for value in layer] for layer in weights] for half in HALVES]
    variables, values = zip(
        *(device.variables(own) for device, own in zip(pair.devices, halves, strict=True)), strict=True
    )
    layers, updated = list(zip(*values, strict=True)), list(zip(*variables, strict=True))
    counters, data = zip(*(device.data(*batches) for device in pair.devices), strict=True)
    x, labels = zip(*data, strict=True)
    inputs, outputs, hidden = [x], [], []
    for layer in layers:
        outputs.append(pair.run(affine, inputs[-1], layer))
        hidden.append(pair.run(tf.nn.relu, outputs[-1]) if len(outputs) < len(layers) else outputs[-1])
        inputs.append(pair.run(lambda _, own=hidden[-1]: tf.concat(own, 1), HALVES))
    # Both compute the loss of all logits, and go back from their own half of them.
    logits = inputs.pop()
    gradient = pair.gradients(pair.run(cross_entropy, logits, labels), logits)
    gradient = pair.run(lambda whole, half: tf.split(whole, 2, 1)[half], gradient, HALVES)
    operations = []
    for at in reversed(range(len(layers))):
        by_outputs = gradient
        if at:
            # A device's units give one term of the gradient by all inputs; the sum of each half is its owner's.
            terms = pair.gradients(outputs[at], inputs[at], by_outputs)
            terms = pair.run(lambda whole: tf.split(whole, 2, 1), terms)
        operations += pair.update(updated[at], pair.gradients(outputs[at], layers[at], by_outputs))
        if at:
            total = pair.run(lambda half, terms=terms: terms[0][half] + terms[1][half], HALVES)
            gradient = pair.gradients(hidden[at - 1], outputs[at - 1], total)
    return Step(operations, list(counters), list(variables), joined)


def joined(found: list[Arrays]) -> list[Arrays]:
    """Puts halves of units together."""
    both = zip(*found, strict=True)
    return [[[np.concatenate(parts, -1) for parts in zip(*layers, strict=True)] for layers in both]]


def by_regions(network: Network) -> Step:
    """Splits a convolutional network by rows of the image: each device has half of them, and copies of all weights.

    A layer needs the edge row of the other half beside its own rows, the halo, and sends that row's gradient back. The
    copies of the weights stay equal because both devices add the same two gradients.
    """
    pair, weights, (images, classes) = Pair(), network.weights(), network.batches()
    variables, values = zip(*(device.variables(weights) for device in pair.devices), strict=True)
    layers, updated = list(zip(*values, strict=True)), list(zip(*variables, strict=True))
    halves = np.split(images, 2, axis=2)
    own_data = [device.data(half, classes) for device, half in zip(pair.devices, halves, strict=True)]
    counters, data = zip(*own_data, strict=True)
    x, labels = zip(*data, strict=True)
    extended, outputs, hidden = [], [], [x]
    for layer in layers[:-1]:
        edges = pair.run(lambda rows, half: detach(rows, half)[1], hidden[-1], HALVES)
        extended.append(pair.run(attach, hidden[-1], edges[::-1], HALVES))
        outputs.append(pair.run(affine, extended[-1], layer, HALF_IMAGES))
        hidden.append(pair.run(tf.nn.relu, outputs[-1]))
    means = pair.run(lambda rows: tf.reduce_sum(rows, [1, 2]) / network.image**2, hidden[-1])
    # The last layer is small: both compute it whole.
    pooled = pair.sum(means)
    logits = pair.run(affine, pooled, layers[-1])
    by_logits = pair.gradients(pair.run(cross_entropy, logits, labels), logits)
    gradient = pair.gradients(means, hidden[-1], pair.gradients(logits, pooled, by_logits))
    operations = pair.update(updated[-1], pair.gradients(logits, layers[-1], by_logits))
    terms = {}
    for at in reversed(range(network.layers)):
        by_outputs = pair.gradients(hidden[at + 1], outputs[at], gradient)
        if at:
            by_extended = pair.gradients(outputs[at], extended[at], by_outputs)
            own, halos = zip(*pair.run(detach, by_extended, HALVES), strict=True)
        terms[at] = pair.gradients(outputs[at], layers[at], by_outputs)
        if at:
            gradient = pair.run(add_to_edge, own, halos[::-1], HALVES)
    # Last, so that no device waits for the other's while it has something to compute.
    for at, parts in terms.items():
        total = pair.run(lambda _, parts=parts: [one + two for one, two in zip(*parts, strict=True)], HALVES)
        operations += pair.update(updated[at], total)
    return Step(operations, list(counters), list(variables), list)


def attach(rows: tf.Tensor, row: tf.Tensor, half: int) -> tf.Tensor:
    """Puts a row where the two halves meet: below the upper half, above the lower one."""
    return tf.concat([row, rows] if half else [rows, row], 1)


def detach(rows: tf.Tensor, half: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Undoes `attach`: returns the rest, and the row where the two halves meet."""
    return (rows[:, 1:], rows[:, :1]) if half else (rows[:, :-1], rows[:, -1:])


def add_to_edge(rows: tf.Tensor, row: tf.Tensor, half: int) -> tf.Tensor:
    """Adds to the row where the two halves meet."""
    rest, edge = detach(rows, half)
    return attach(rest, edge + row, half)


SPLITS = {"layers": by_layers, "units": by_units, "regions": by_regions}


def expected_bytes(split: str, network: Network) -> int:
    """Computes the bytes that a step must move from either device to the other; as many go back.

    Layers: the activations at the border, and their gradient back. Units: a device's half of each layer's outputs
    (logits too), and the other's term of the gradient of each layer's inputs but the first's. Regions: a row of each
    layer's inputs and of their gradient (but the first's), the half's means, the gradients of all kernels and biases.

    Args:
      split: a key of `SPLITS`.
      network: the sizes.
    """
    activations = network.batch * network.width
    if split == "layers":
        return FLOAT * activations
    if split == "units":
        return FLOAT * (network.layers * activations + network.batch * CLASSES // 2)
    halos = (2 * network.layers - 1) * network.image * activations
    parameters = network.layers * (9 * network.width + 1) * network.width
    return FLOAT * (halos + activations + parameters)
