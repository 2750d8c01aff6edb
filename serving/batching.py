"""Requests that arrive together run as one: TensorFlow's own batch scheduler in front of a servable.

The scheduler (`tf.nondifferentiable_batch_function`, the one that TensorFlow Serving uses) batches tickets, one for
each row; the rows themselves stay here and are joined when their batch is due. So a batch knows its requests: one whose
values the graph refuses fails alone, and requests of different shapes or outputs that fell into one batch run one after
the other, where TensorFlow Serving fails all of them.

A signature is batched over dimension 0 of all inputs. Where an output asked for does not have it (a scalar, say),
nothing can be split: the log says so once, and requests for these outputs run one by one from then on. So do requests
without rows, with scalars, or with inputs of different numbers of rows.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evergreen.serving.batching_config import BatchingParameters
from evergreen.serving.graph_session import as_serving_error, make_callable
from evergreen.serving.runtime import tf
from evergreen.serving.servable import Servable
from evergreen.serving.signature import find_signature

_LOG = logging.getLogger(__name__)
_Arrays = dict[str, np.ndarray]


@dataclass
class _Task:
    """One request on its way through the scheduler; `result` or `error` is set when its batch has run."""

    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Sequence[str] | None
    rows: int
    begin: float = field(default_factory=time.monotonic)
    result: _Arrays | None = None
    error: Exception | None = None


class Batched(Servable):
    """A servable whose requests are batched.

    Args:
      inner: the servable that runs the batches.
      parameters: see BatchingParameters.
      on_queued: called with the model's name and the seconds that a request waited for its batch.
    """

    def __init__(
        self,
        inner: Servable,
        parameters: BatchingParameters,
        on_queued: Callable[[str, float], None] = lambda model, seconds: None,
    ):
        self.name, self.version, self.path, self.signatures = inner.name, inner.version, inner.path, inner.signatures
        self._inner = inner
        self._parameters = parameters
        self._on_queued = on_queued
        self._tasks: dict[int, _Task] = {}
        self._tickets = itertools.count()
        self._not_batched: set[tuple[str, tuple[str, ...]]] = set()
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph)
            self._queues = {key: self._queue() for key in self.signatures}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """See Servable. INVALID_ARGUMENT for more rows than a batch may have; UNAVAILABLE when the queue is full."""
        find_signature(self.signatures, signature)
        rows = _rows(inputs)
        if not rows or (signature, _names(outputs)) in self._not_batched:
            return self._inner.run(signature, inputs, outputs)
        task = _Task(signature, inputs, outputs, rows)
        ticket = next(self._tickets)
        self._tasks[ticket] = task
        try:
            self._queues[signature](np.full(rows, ticket, np.int64))
        except tf.errors.OpError as error:
            raise as_serving_error(error) from error
        finally:
            del self._tasks[ticket]
        if task.error is not None:
            raise task.error
        assert task.result is not None
        return task.result

    def unload(self) -> None:
        """Ends the scheduler's threads and unloads the servable within."""
        self._queues.clear()
        self._session.close()
        self._inner.unload()

    def _queue(self) -> Callable[[np.ndarray], Any]:
        """Makes a scheduler's queue: a function that puts a request's tickets in and returns when they are done."""
        sizes = list(self._parameters.allowed_batch_sizes)

        @tf.nondifferentiable_batch_function(
            self._parameters.num_batch_threads,
            self._parameters.max_batch_size,
            self._parameters.batch_timeout_micros,
            allowed_batch_sizes=sizes or None,
            max_enqueued_batches=self._parameters.max_enqueued_batches,
        )
        def run(tickets: Any) -> Any:
            return tf.numpy_function(self._run_batch, [tickets], tf.int64)

        tickets = tf.compat.v1.placeholder(tf.int64, [None])
        return make_callable(self._session, [tickets.name], [run(tickets).name])

    def _run_batch(self, tickets: np.ndarray) -> np.ndarray:
        """Runs the requests of a batch; called by the scheduler's threads."""
        # Rows that pad a batch to an allowed size repeat tickets of it.
        tasks = [self._tasks[ticket] for ticket in dict.fromkeys(tickets.tolist())]
        now = time.monotonic()
        groups: dict[Any, list[_Task]] = {}
        for task in tasks:
            self._on_queued(self.name, now - task.begin)
            groups.setdefault(self._kind(task), []).append(task)
        for group in groups.values():
            self._run_group(group)
        return tickets

    def _kind(self, task: _Task) -> Any:
        """Requests of one kind can be joined."""
        padded = self._parameters.pad_variable_length_inputs
        arrays = tuple(
            (name, array.dtype.str, array.ndim if padded else array.shape[1:])
            for name, array in sorted(task.inputs.items())
        )
        return arrays, _names(task.outputs)

    def _run_group(self, tasks: list[_Task]) -> None:
        rows = sum(task.rows for task in tasks)
        size = next((size for size in self._parameters.allowed_batch_sizes if size >= rows), rows)
        if len(tasks) > 1 or size > rows:
            try:
                results = self._inner.run(tasks[0].signature, _joined(tasks, size - rows), tasks[0].outputs)
            except Exception:  # of one of them, perhaps: each by itself tells whose
                results = {}
            if results and self._can_be_split(tasks[0], results, size):
                begin = 0
                for task in tasks:
                    task.result = {name: array[begin : begin + task.rows] for name, array in results.items()}
                    begin += task.rows
                return
        for task in tasks:
            try:
                task.result = self._inner.run(task.signature, task.inputs, task.outputs)
            except Exception as error:
                task.error = as_serving_error(error)

    def _can_be_split(self, task: _Task, results: _Arrays, size: int) -> bool:
        without = [name for name, array in results.items() if not array.ndim or len(array) != size]
        if without:
            self._not_batched.add((task.signature, _names(task.outputs)))
            _LOG.warning(
                "Signature %s of model %s, version %d, is not batched: its outputs %s do not have the inputs' rows.",
                task.signature,
                self.name,
                self.version,
                without,
            )
        return not without


def _names(outputs: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted(outputs or ()))


def _rows(inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the number of rows that all inputs have; 0 where they cannot be joined with another request's."""
    rows = {len(array) if array.ndim else 0 for array in inputs.values()}
    return rows.pop() if len(rows) == 1 else 0


def _joined(tasks: list[_Task], padding: int) -> _Arrays:
    """Joins the requests' rows and repeats the first one `padding` times; rows of different shapes are made equal."""
    inputs = {}
    for name in tasks[0].inputs:
        arrays = [task.inputs[name] for task in tasks]
        shape = tuple(np.max([array.shape[1:] for array in arrays], axis=0).astype(int).tolist())
        arrays = [array if array.shape[1:] == shape else _grown(array, shape) for array in arrays]
        if padding:
            arrays.append(np.repeat(arrays[0][:1], padding, axis=0))
        inputs[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return inputs


def _grown(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Grows each row to a shape, with the array's first value as TensorFlow Serving does."""
    grown = np.empty((len(array), *shape), array.dtype)
    grown[...] = array.flat[0] if array.size else np.zeros((), array.dtype)
    grown[tuple(slice(length) for length in array.shape)] = array
    return grown
