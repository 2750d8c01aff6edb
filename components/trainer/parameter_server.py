"""Training with parameter servers: workers compute gradients, the servers hold the weights, this process coordinates.

The coordinator reads the batches and hands their parts to the workers, so that it is known which rows are in a step:
synchronous training gives the weights that one device would, whatever worker computes what, and however often. Two
models are at work. The one in the strategy's scope has its variables on the servers and is what workers compute with.
The other, outside of it, lives in this process: it keeps the metrics, measures the validation rows, and has the
weights in the end.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any

import tensorflow as tf

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import cluster, loop, parts, user_model
from evergreen.components.trainer.cluster import Cluster, LostProcess
from evergreen.components.trainer.timing import time_after

_CHECK_S = 1.0
_RETRY_S = 0.1
_SUMS = ("sum", "none")


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
        self.learner, self.learner_strategy = remote, strategy
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
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.learner_strategy)
        parts.scatter(self.model.get_weights(), self.learner.weights)
        specs = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype), self.iterator.element_spec
        )
        with self.learner_strategy.scope():
            self.trace(specs)
        self.score = _score_function(self.model)

    def trace(self, specs: Any) -> None:
        """Traces what the workers compute, and the update where this process does it."""
        raise NotImplementedError

    def execute(self, count: int) -> int:
        """See `Loop.execute`: a step is a call, so that each step's time is known."""
        try:
            super().execute(1)
        except loop.LOST as error:
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
        except loop.LOST as error:
            raise self.lost(error) from error
        super().measure(last)

    def pull(self) -> None:
        """Gives the model in this process the servers' weights."""
        self.model.set_weights(parts.gather(self.learner.weights, self.model.weights))

    def finalize(self) -> None:
        """See `Loop.finalize`."""
        super().finalize()
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

        The worker's seconds hold what it waits for weights: it reads a layer's while it computes another.

        Args:
          features: the part's features.
          label: its labels.
          weight: its rows as a part of the batch's.

        Returns:
          What regularization adds to the loss, the predictions and the worker's seconds; and for each of `learned`
          the gradient.
        """
        started = tf.timestamp()
        model, optimizer = self.learner, self.learner.optimizer
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
        gradients = [gradient for _, gradient in both]
        logs = {
            "extra": extra * weight,
            "predictions": tf.cast(predictions, tf.float32),
            "seconds": time_after(gradients) - started,
        }
        return logs, gradients

    def split_time(self) -> None:
        """See `Loop.split_time`."""
        self.outcome.input_s, self.outcome.communication_s = self.clock.input_s, self.clock.communication_s


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
                return logs, [parts.components(gradient) for gradient in gradients]

            return self.learner_strategy.run(replica)

        self.compute = compute.get_concrete_function(*specs, tf.TensorSpec([], tf.float32))
        _, gradients = self.compute.structured_outputs
        specs_back = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), gradients)

        @tf.function
        def apply(received: Any) -> None:
            gradients = [
                parts.summed(list(gradients), variable)
                for gradients, variable in zip(zip(*received, strict=True), self.learned, strict=True)
            ]

            def replica() -> None:
                self.learner.optimizer.apply_gradients(zip(gradients, self.learned, strict=True))

            self.learner_strategy.run(replica)

        self.apply = apply.get_concrete_function([specs_back] * (self.workers - self.settings.backup_workers))

    def steps(self, count: int) -> float:
        """See `Loop.steps`."""
        for _ in range(count):
            started = time.monotonic()
            batch = next(self.iterator)
            waited = time.monotonic() - started
            loss, computed = self.step(batch)
            self.clock.add(waited, time.monotonic() - started - waited - computed)
        return loss

    def step(self, batch: Any) -> tuple[float, float]:
        """Does one step with a global batch; returns the loss, and the seconds of what computed the longest."""
        waiting = {self.number + part: args for part, args in enumerate(parts.cut(batch, self.parts))}
        first, self.number = self.number, self.number + len(waiting)
        for number, args in waiting.items():
            self.schedule(self.compute, args, number)
        results: dict[int, Any] = {}
        copied: set[int] = set()
        while len(results) < len(waiting):
            missing = [number for number in waiting if number not in results]
            for number in missing if len(missing) <= self.settings.backup_workers else ():
                idle = self.workers - len(self.pending)
                if number not in copied and idle and len(self.pending) - len(missing) < self.settings.backup_workers:
                    self.schedule(self.compute, waiting[number], number)
                    copied.add(number)
            # What is ready of earlier steps was computed twice.
            results.update((number, result) for number, result in self.take() if number >= first)
        logs, gradients = zip(*(results[number] for number in waiting), strict=True)
        self.apply([list(gradient) for gradient in gradients])
        computed = time.monotonic()
        extra = tf.add_n([log["extra"] for log in logs])
        predictions = tf.concat([log["predictions"] for log in logs], 0)
        loss = float(self.score(*batch, predictions, extra))
        return loss, time.monotonic() - computed + max(float(log["seconds"]) for log in logs)


def refuse_own_steps(model: Any) -> None:
    """Refuses a model whose class has a training step or a loss of its own, which the loop would pass by.

    Args:
      model: a tf_keras.Model.

    Raises:
      ConfigError: it has.
    """
    for name in user_model.own_steps(model):
        raise ConfigError(
            f"a model with a {name} of its own cannot train under parameter_server",
            f"{type(model).__name__} overrides it, and workers compute gradients without calling it",
            f"Leave {name} out of the class, or choose `single`, `mirrored` or `central_storage`.",
        )


def _fetch(value: Any, future: concurrent.futures.Future, ended: threading.Event) -> None:
    """Waits for a function's result. The result of a worker that died before it was here is computed once more."""
    while not ended.is_set():
        try:
            future.set_result(value.get())
            return
        except loop.LOST:
            pass
        except tf.errors.InvalidArgumentError as error:
            if "remote_handle" not in str(error):  # what is left of a worker that was started again meanwhile
                future.set_exception(error)
                return
        except BaseException as error:
            future.set_exception(error)
            return
        ended.wait(_RETRY_S)


def _score_function(model: Any) -> Any:
    """Makes the graph function that updates a model's metrics from predictions and returns the mean loss."""

    @tf.function(reduce_retracing=True)
    def score(features: Any, label: tf.Tensor, predictions: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
        loss = model.compiled_loss(label, predictions, None, regularization_losses=[extra])
        logs = model.compute_metrics(features, label, predictions, None)
        return tf.cast(logs.get("loss", tf.reduce_mean(loss)), tf.float32)

    return score
