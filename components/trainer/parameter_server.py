"""Training with parameter servers: workers compute gradients, the servers hold the weights, this process coordinates.

The coordinator reads the batches and hands their parts to the workers, so that it is known which rows are in a step:
synchronous training gives the weights that one device would, whatever worker computes what, and however often. Two
models are at work. The one in the strategy's scope has its variables on the servers and is what workers compute with.
The other, outside of it, lives in this process: it keeps the metrics, measures the validation rows, and has the
weights in the end.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import operator
import threading
from collections import Counter, deque
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import cluster, loop
from evergreen.components.trainer.cluster import Cluster, LostProcess
from evergreen.components.trainer.settings import TrainerSettings

# The least bytes of a part of a variable that is split over the servers.
MIN_SHARD_BYTES = 256 << 10
_CHECK_S = 1.0
_RETRY_S = 0.1
_SUMS = ("sum", "none")
# What TensorFlow raises where the other end of a connection is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


def create(joined: Cluster) -> tf.distribute.Strategy:
    """Connects to a cluster and makes the strategy, before TensorFlow does anything else in this process.

    Args:
      joined: from `cluster.join`.

    Returns:
      A strategy whose variables are on the parameter servers, those of 512 KiB and more split over them.

    Raises:
      ConfigError: a task does not answer, or a worker has several GPUs.
      LostProcess: a local task ended.
    """
    joined.wait()
    # A lost worker is reported by the loop in a line, not in pages for each of its closures.
    tf.get_logger().setLevel(logging.CRITICAL)
    plan = joined.plan
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(addresses) for job, addresses in plan.jobs.items()}),
        task_type=plan.task.job,
        task_id=plan.task.index,
        rpc_layer="grpc",
    )
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        MIN_SHARD_BYTES, max_shards=len(plan.tasks(cluster.PS))
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    if strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            "a worker has several GPUs",
            f"received {strategy.num_replicas_in_sync}, expected one at most",
            "Start a worker for each GPU, with CUDA_VISIBLE_DEVICES set to it.",
        )
    return strategy


def fit(remote: Any, joined: Cluster, *arguments: Any) -> loop.Outcome:
    """Trains a model in place; see `ParameterServerLoop` for the arguments.

    Returns:
      What happened.

    Raises:
      ModelRejected: the loss or a weight is NaN or infinite.
      ConfigError: the model or the settings do not fit the cluster.
      LostProcess: a parameter server died, or a worker over and over.
    """
    settings: TrainerSettings = arguments[4]
    kind = SyncLoop if settings.update == "sync" else AsyncLoop
    return kind(remote, joined, *arguments).run()


class ParameterServerLoop(loop.Loop):
    """A training of a model by the workers of a cluster.

    Args:
      remote: the same model, built in the strategy's scope.
      joined: the cluster.
      arguments: as `loop.Loop` takes them. The model is one outside of the strategy: its weights are where training
        starts, and in the end those that were learned. The strategy is from `create`.

    Raises:
      ConfigError: the model has a training step or a loss of its own, or there are too few workers.
    """

    def __init__(self, remote: Any, joined: Cluster, model: Any, strategy: tf.distribute.Strategy, *arguments: Any):
        super().__init__(model, tf.distribute.get_strategy(), *arguments)
        settings = self.settings
        self.remote_strategy = strategy
        self.remote = remote
        self.joined = joined
        self.workers = len(joined.plan.tasks(cluster.WORKER))
        refuse_own_steps(model)
        if settings.update == "sync" and settings.backup_workers >= self.workers:
            raise ConfigError(
                "there are too few workers",
                f"received trainer.backup_workers={settings.backup_workers} and {self.workers} workers",
                "Lower trainer.backup_workers, or start more workers.",
            )
        self.sums = any(getattr(loss, "reduction", "auto") in _SUMS for loss in tf.nest.flatten(model.loss))
        self.pending: dict[concurrent.futures.Future, int] = {}
        self.ended = threading.Event()

    def run(self) -> loop.Outcome:
        """See `Loop.run`."""
        try:
            return super().run()
        finally:
            self.ended.set()

    def open(self) -> None:
        """See `Loop.open`; hands the model's weights to the servers."""
        super().open()
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.remote_strategy)
        scatter(self.model.get_weights(), self.remote.weights)
        specs = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype), self.iterator.element_spec
        )
        with self.remote_strategy.scope():
            self.trace(specs)
        self.score = _score_function(self.model)

    def build_optimizer(self) -> None:
        """See `Loop.build_optimizer`."""
        with self.remote_strategy.scope():
            if hasattr(self.remote.optimizer, "build"):
                self.remote.optimizer.build(self.remote.trainable_variables)

    def trace(self, specs: Any) -> None:
        """Traces what the workers compute, and the update where this process does it."""
        raise NotImplementedError

    def execute(self, count: int) -> int:
        """See `Loop.execute`: a step is a call, so that each step's time is known."""
        try:
            super().execute(1)
        except _LOST as error:
            raise self.lost(error) from error
        finally:
            self.outcome.worker_losses = self.joined.worker_losses
        return 1

    def lost(self, error: Exception) -> LostProcess:
        """Says which process is gone, where a connection broke."""
        try:
            self.joined.settle()
        except LostProcess as known:
            return known
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return LostProcess(f"the training cluster lost a process: {lines[0]}")

    def measure(self, last: bool) -> None:
        """See `Loop.measure`; with the weights that the servers have now."""
        try:
            self.pull()
        except _LOST as error:
            raise self.lost(error) from error
        super().measure(last)

    def optimizer_variables(self) -> list[Any]:
        """See `Loop.optimizer_variables`: those on the servers."""
        found = self.remote.optimizer.variables
        return list(found() if callable(found) else found)

    def pull(self) -> None:
        """Gives the model in this process the servers' weights."""
        self.model.set_weights(gather(self.remote.weights, self.model.weights))

    def finalize(self) -> None:
        """See `Loop.finalize`."""
        if hasattr(self.remote.optimizer, "finalize_variable_values"):
            with self.remote_strategy.scope():
                self.remote.optimizer.finalize_variable_values(self.remote.trainable_variables)
        self.pull()

    def schedule(self, function: Any, args: tuple, number: int) -> None:
        """Lets some worker compute a function; its future is in `pending` until it is taken."""
        value = self.coordinator.schedule(function, args=args)
        future: concurrent.futures.Future = concurrent.futures.Future()
        # Not a pool: its threads would hold up the end of this process where a worker never answers.
        threading.Thread(target=_fetch, args=(value, future, self.ended), daemon=True).start()
        self.pending[future] = number

    def take(self) -> list[tuple[int, Any]]:
        """Waits until a scheduled function is done; returns the number and the result of each that is."""
        while True:
            self.joined.check()
            done, _ = concurrent.futures.wait(self.pending, _CHECK_S, concurrent.futures.FIRST_COMPLETED)
            if done:
                return [(self.pending.pop(future), future.result()) for future in done]
            self.coordinator.done()  # raises what ended all functions, such as a ps that is gone

    def gradients(self, features: Any, label: Any, weight: Any) -> tuple[dict[str, tf.Tensor], list[Any]]:
        """Computes, on a worker, the gradients of a part of a batch, as its share in those of the whole.

        Args:
          features: the part's features.
          label: its labels.
          weight: its rows as a part of the batch's.

        Returns:
          The loss, what regularization adds to it, and the predictions; and for each of `learned` the gradient.
        """
        model, optimizer = self.remote, self.remote.optimizer
        with tf.GradientTape() as tape:
            predictions = model(features, training=True)
            losses = model.losses
            extra = tf.add_n([tf.zeros([]), *(tf.cast(loss, tf.float32) for loss in losses)])
            loss = model.compiled_loss(label, predictions, None, regularization_losses=losses)
            if self.sums:  # the sum over the rows is the sum over the parts; the regularization counts once
                share = tf.reduce_sum(tf.cast(loss, tf.float32)) - (1.0 - weight) * extra
            else:  # the mean over the rows is the weighted mean over the parts, and regularization is the same in each
                share = tf.cast(loss, tf.float32) * weight
            scaled = optimizer.get_scaled_loss(share) if hasattr(optimizer, "get_scaled_loss") else share
        found = tape.gradient(scaled, model.trainable_variables)
        if hasattr(optimizer, "get_unscaled_gradients"):
            found = optimizer.get_unscaled_gradients(found)
        both = [
            (variable, gradient)
            for variable, gradient in zip(model.trainable_variables, found, strict=True)
            if gradient is not None
        ]
        if not both:
            names = [variable.name for variable in model.trainable_variables]
            raise ValueError(f"No gradients provided for any variable: {names}.")
        self.learned = [variable for variable, _ in both]
        logs = {"loss": share, "extra": extra * weight, "predictions": tf.cast(predictions, tf.float32)}
        return logs, [gradient for _, gradient in both]


class SyncLoop(ParameterServerLoop):
    """Synchronous training: a step waits for the gradients of all its parts, and updates the weights once.

    With backup workers there are fewer parts than workers. As soon as no more parts of a step are missing than there
    are backup workers, each of them is computed a second time by a worker that is idle, and the first result counts.
    At most as many second computations are under way as there are backup workers, those of earlier steps included:
    every step finds a worker for each of its parts.
    """

    def open(self) -> None:
        """See `Loop.open`."""
        super().open()
        self.parts = self.workers - self.settings.backup_workers
        self.number = 0

    def trace(self, specs: Any) -> None:
        """See `ParameterServerLoop.trace`."""

        @tf.function
        def compute(features: Any, label: tf.Tensor, weight: tf.Tensor) -> Any:
            def replica() -> Any:
                logs, gradients = self.gradients(features, label, weight)
                return logs, [_components(gradient) for gradient in gradients]

            return self.remote_strategy.run(replica)

        self.compute = compute.get_concrete_function(*specs, tf.TensorSpec([], tf.float32))
        _, gradients = self.compute.structured_outputs
        received = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), gradients)

        @tf.function
        def apply(parts: Any) -> None:
            summed = [
                _sum(list(gradients), variable)
                for gradients, variable in zip(zip(*parts, strict=True), self.learned, strict=True)
            ]

            def replica() -> None:
                self.remote.optimizer.apply_gradients(zip(summed, self.learned, strict=True))

            self.remote_strategy.run(replica)

        self.apply = apply.get_concrete_function([received] * (self.workers - self.settings.backup_workers))

    def steps(self, count: int) -> float:
        """See `Loop.steps`."""
        for _ in range(count):
            loss = self.step(next(self.iterator))
        return loss

    def step(self, batch: Any) -> float:
        """Does one step with a global batch."""
        parts = {self.number + part: args for part, args in enumerate(_cut(batch, self.parts))}
        first, self.number = self.number, self.number + len(parts)
        for number, args in parts.items():
            self.schedule(self.compute, args, number)
        results: dict[int, Any] = {}
        copied: set[int] = set()
        while len(results) < len(parts):
            missing = [number for number in parts if number not in results]
            for number in missing if len(missing) <= self.settings.backup_workers else ():
                idle = self.workers - len(self.pending)
                if number not in copied and idle and len(self.pending) - len(missing) < self.settings.backup_workers:
                    self.schedule(self.compute, parts[number], number)
                    copied.add(number)
            # What is ready of earlier steps was computed twice.
            results.update((number, result) for number, result in self.take() if number >= first)
        logs, gradients = zip(*(results[number] for number in parts), strict=True)
        self.apply([list(gradient) for gradient in gradients])
        extra = tf.add_n([log["extra"] for log in logs])
        predictions = tf.concat([log["predictions"] for log in logs], 0)
        return float(self.score(*batch, predictions, extra))


class AsyncLoop(ParameterServerLoop):
    """Asynchronous training: each worker updates the weights as soon as it has a gradient, maybe of older weights.

    A step is an update by one global batch. With `staleness.max_in_flight` of n, an update starts only when the nth
    before it is done: between the reading of weights and their update are at most 2(n - 1) other updates. Without it,
    as many are under way as there are workers, and a slow worker's may grow as stale as it is slow.
    """

    def open(self) -> None:
        """See `Loop.open`."""
        limit = self.settings.staleness.max_in_flight
        self.windowed, self.limit = limit is not None, min(limit or self.workers, self.workers)
        self.scheduled = 0
        self.batches: dict[int, Any] = {}
        self.ready: deque[tuple[int, Any]] = deque()
        self.histogram: Counter[int] = Counter()
        with self.remote_strategy.scope():
            self.version = tf.Variable(0, trainable=False, dtype=tf.int64, name="version")
        super().open()

    def trace(self, specs: Any) -> None:
        """See `ParameterServerLoop.trace`."""

        @tf.function
        def compute(features: Any, label: tf.Tensor) -> Any:
            return self.remote_strategy.run(self.update, args=(features, label))

        self.compute = compute.get_concrete_function(*specs)

    def update(self, features: Any, label: tf.Tensor) -> Any:
        """Computes, on a worker, a gradient and updates the weights by it; returns the staleness too."""
        read = self.version.read_value()
        with tf.control_dependencies([read]):
            logs, gradients = self.gradients(features, label, tf.constant(1.0))
        with tf.control_dependencies(tf.nest.flatten([_components(gradient) for gradient in gradients])):
            staleness = self.version.read_value() - read
        with tf.control_dependencies([self.version.assign_add(1, read_value=False), staleness]):
            if self.settings.staleness.scale:
                gradients = [_scaled(gradient, 1.0 / (1.0 + tf.cast(staleness, tf.float32))) for gradient in gradients]
            self.remote.optimizer.apply_gradients(zip(gradients, self.learned, strict=True))
        return logs, staleness

    def steps(self, count: int) -> float:
        """See `Loop.steps`."""
        for _ in range(count):
            self.fill()
            while not self.ready:
                self.ready.extend(self.take())
                self.fill()
            number, (logs, staleness) = self.ready.popleft()
            self.histogram[int(staleness)] += 1
            loss = float(self.score(*self.batches.pop(number), logs["predictions"], logs["extra"]))
        self.outcome.staleness = dict(sorted(self.histogram.items()))
        return loss

    def fill(self) -> None:
        """Schedules as many updates as may be under way, and no more than there are steps."""
        while self.scheduled < self.settings.steps and len(self.pending) < self.limit:
            if self.windowed and self.pending and min(self.pending.values()) <= self.scheduled - self.limit:
                return
            self.batches[self.scheduled] = batch = next(self.iterator)
            self.schedule(self.compute, batch, self.scheduled)
            self.scheduled += 1

    def finalize(self) -> None:
        """See `Loop.finalize`; what is still under way after an early end is waited for."""
        while self.pending:
            self.take()
        super().finalize()


def refuse_own_steps(model: Any) -> None:
    """Refuses a model whose class has a training step or a loss of its own, which the loop would pass by.

    Args:
      model: a tf_keras.Model.

    Raises:
      ConfigError: it has.
    """
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(tf_keras.Model, name):
            raise ConfigError(
                f"a model with a {name} of its own cannot train under parameter_server",
                f"{type(model).__name__} overrides it, and workers compute gradients without calling it",
                f"Leave {name} out of the class, or choose `single`, `mirrored` or `central_storage`.",
            )


def scatter(weights: list[np.ndarray], variables: list[Any]) -> None:
    """Assigns weights to variables of which some are split along their first axis.

    Args:
      weights: one array for each weight.
      variables: the same in the same order, a split one as its parts, one after the other.
    """
    waiting = deque(variables)
    for weight in weights:
        row = 0
        for variable in _parts(waiting, weight.shape):
            if tuple(variable.shape) == weight.shape:
                variable.assign(weight)
            else:
                variable.assign(weight[row : row + variable.shape[0]])
                row += variable.shape[0]


def gather(variables: list[Any], like: list[Any]) -> list[np.ndarray]:
    """Reads variables of which some are split along their first axis.

    Args:
      variables: as in `scatter`.
      like: variables of the whole shapes, in the same order.

    Returns:
      One array for each of `like`.
    """
    waiting = deque(variables)
    found = []
    for whole in like:
        parts = [variable.numpy() for variable in _parts(waiting, tuple(whole.shape))]
        found.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return found


def _parts(waiting: deque[Any], shape: tuple[int, ...]) -> list[Any]:
    """Takes the variables that make up a weight of a shape off a queue."""
    parts = [waiting.popleft()]
    if tuple(parts[0].shape) != shape:
        while sum(part.shape[0] for part in parts) < shape[0]:
            parts.append(waiting.popleft())
    return parts


def _fetch(value: Any, future: concurrent.futures.Future, ended: threading.Event) -> None:
    """Waits for a function's result. The result of a worker that died before it was here is computed once more."""
    while not ended.is_set():
        try:
            future.set_result(value.get())
            return
        except _LOST:
            pass
        except tf.errors.InvalidArgumentError as error:
            if "remote_handle" not in str(error):  # what is left of a worker that was started again meanwhile
                future.set_exception(error)
                return
        except BaseException as error:
            future.set_exception(error)
            return
        ended.wait(_RETRY_S)


def _cut(batch: Any, parts: int) -> list[tuple[Any, Any, tf.Tensor]]:
    """Cuts a batch into parts of as many rows, or one more; returns features, label and share of the rows of each."""
    rows = int(tf.nest.flatten(batch)[0].shape[0])
    bounds = [rows * part // parts for part in range(parts + 1)]
    found = []
    for start, end in itertools.pairwise(bounds):
        features, label = tf.nest.map_structure(operator.itemgetter(slice(start, end)), batch)
        found.append((features, label, tf.constant((end - start) / rows, tf.float32)))
    return found


def _components(gradient: Any) -> tuple[tf.Tensor, ...]:
    """Returns a gradient as tensors: only the rows that it has, where it has few."""
    return (gradient.values, gradient.indices) if isinstance(gradient, tf.IndexedSlices) else (gradient,)


def _sum(gradients: list[tuple[tf.Tensor, ...]], variable: Any) -> Any:
    if len(gradients[0]) == 1:
        return tf.add_n([gradient for (gradient,) in gradients])
    values, indices = (tf.concat(tensors, 0) for tensors in zip(*gradients, strict=True))
    return tf.IndexedSlices(values, indices, tf.constant(variable.shape.as_list(), tf.int64))


def _scaled(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(factor, gradient.values.dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)


def _score_function(model: Any) -> Any:
    """Makes the graph function that updates a model's metrics from predictions and returns the mean loss."""

    @tf.function(reduce_retracing=True)
    def score(features: Any, label: tf.Tensor, predictions: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
        loss = model.compiled_loss(label, predictions, None, regularization_losses=[extra])
        logs = model.compute_metrics(features, label, predictions, None)
        return tf.cast(logs.get("loss", tf.reduce_mean(loss)), tf.float32)

    return score
