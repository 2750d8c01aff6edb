"""Asynchronous training with parameter servers: every worker updates the weights as soon as it has a gradient."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

import tensorflow as tf

from evergreen.components.trainer import parameter_server, parts


class AsyncLoop(parameter_server.ParameterServerLoop):
    """Asynchronous training: each worker updates the weights as soon as it has a gradient, maybe of older weights.

    A step is an update by one global batch. Gradients are computed side by side and added one after the other. With
    `staleness.max_in_flight` of n, an update starts only when the nth before it is done: between the reading of weights
    and their update are at most 2(n - 1) other updates. Without it, as many are under way as there are workers, and a
    slow worker's may grow as stale as it is slow.
    """

    def open(self) -> None:
        """See `Loop.open`."""
        limit = self.settings.staleness.max_in_flight
        self.windowed, self.limit = limit is not None, min(limit or self.workers, self.workers)
        self.scheduled = 0
        self.batches: dict[int, Any] = {}
        self.begun: dict[int, float] = {}
        self.ready: deque[tuple[int, Any]] = deque()
        self.histogram: Counter[int] = Counter()
        with self.learner_strategy.scope():
            self.version = tf.Variable(0, trainable=False, dtype=tf.int64, name="version")
        # Optimizers keep in variables what they are about to add: two at once would add each other's.
        with tf.device(self.version.device):
            self.turns = tf.raw_ops.MutexV2(shared_name="evergreen_turns")
        super().open()

    def trace(self, specs: Any) -> None:
        """See `ParameterServerLoop.trace`."""

        @tf.function
        def compute(features: Any, label: tf.Tensor) -> Any:
            return self.learner_strategy.run(self.update, args=(features, label))

        self.compute = compute.get_concrete_function(*specs)

    def update(self, features: Any, label: tf.Tensor) -> Any:
        """Computes, on a worker, a gradient and updates the weights by it; returns the staleness too."""
        read = self.version.read_value()
        with tf.control_dependencies([read]):
            logs, gradients = self.gradients(features, label, tf.constant(1.0))

        # tf.CriticalSection would wait for itself: optimizers leave their replica's thread to apply gradients.
        graph = tf.compat.v1.get_default_graph()
        computed = tf.nest.flatten([parts.components(gradient) for gradient in gradients])
        with tf.control_dependencies(computed), tf.device(self.turns.device):
            turn = tf.raw_ops.MutexLock(mutex=self.turns)
        before = set(graph.get_operations())
        with tf.control_dependencies([turn]):
            staleness = self.version.read_value() - read
            if self.settings.staleness.scale:
                gradients = [
                    parts.scaled(gradient, 1.0 / (1.0 + tf.cast(staleness, tf.float32))) for gradient in gradients
                ]
            self.learner.optimizer.apply_gradients(zip(gradients, self.learned, strict=True))
            self.version.assign_add(1)
        made = [operation for operation in graph.get_operations() if operation not in before]
        with tf.control_dependencies(made), tf.device(self.turns.device):
            tf.raw_ops.ConsumeMutexLock(mutex_lock=turn)
        return logs, staleness

    def steps(self, count: int) -> float:
        """See `Loop.steps`.

        Updates overlap: of the time between two of them, as much is communication as of an update's own time is not
        spent on its gradient.
        """
        for _ in range(count):
            started = time.monotonic()
            waited = self.fill()
            while not self.ready:
                self.ready.extend(self.take())
                waited += self.fill()
            number, (logs, staleness) = self.ready.popleft()
            now = time.monotonic()
            moving = 1.0 - float(logs["seconds"]) / max(now - self.begun.pop(number), 1e-9)
            self.clock.add(waited, max(0.0, (now - started - waited) * moving))
            self.histogram[int(staleness)] += 1
            loss = float(self.score(*self.batches.pop(number), logs["predictions"], logs["extra"]))
        self.outcome.staleness = dict(sorted(self.histogram.items()))
        return loss

    def fill(self) -> float:
        """Schedules as many updates as may be under way, and no more than there are steps; returns how long it waited
        for batches, in seconds.
        """
        waited = 0.0
        while self.scheduled < self.settings.steps and len(self.pending) < self.limit:
            if self.windowed and self.pending and min(self.pending.values()) <= self.scheduled - self.limit:
                break
            started = time.monotonic()
            self.batches[self.scheduled] = batch = next(self.iterator)
            self.begun[self.scheduled] = time.monotonic()
            waited += self.begun[self.scheduled] - started
            self.schedule(self.compute, batch, self.scheduled)
            self.scheduled += 1
        return waited

    def finalize(self) -> None:
        """See `Loop.finalize`; what is still under way after an early end is waited for."""
        while self.pending:
            self.take()
        super().finalize()
