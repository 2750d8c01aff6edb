"""The training loop: steps in one graph call, measurements in between, an early end, and no NaN unnoticed.

The loop calls the model's own `train_step` and `test_step` under the strategy, as `Model.fit` does, many at a time. It
is not `fit` because `fit` traces the step four times where once is enough.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from evergreen.components import progress
from evergreen.components.errors import ModelRejected
from evergreen.components.trainer import step_functions
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer.checkpoints import Keeper, State
from evergreen.components.trainer.early_stopping import Watch
from evergreen.components.trainer.input_path import Dataset, non_finite
from evergreen.components.trainer.settings import MODEL_PARALLEL, MULTI_WORKER, TrainerSettings
from evergreen.components.trainer.step_functions import StepFunctions

# What TensorFlow raises where the other end of a connection is gone.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
MAX_STEPS_PER_EXECUTION = 50
_EXECUTION_S = 0.5
_STEPS_IN_STEP = 10
_POINTS = 20


@dataclass
class Outcome:
    """What a training did.

    Attributes:
      steps: steps done.
      curve: a point for each measurement: `step`, the training metrics since the point before, and `val_...` where the
        validation rows were measured.
      step_ms: milliseconds a step, one value for each graph call; the first call, which traces, is left out.
      trace_s: seconds of tracing and of the first call.
      timed_steps: steps of all calls but the first.
      timed_s: their seconds.
      input_s: how long of that they waited for their batches.
      communication_s: how long of that gradients were on their way; None where nobody could tell.
      best_step: the step whose weights the model has.
      stopped_early: whether early stopping ended it.
      resumed_from: the step of the checkpoint from which it went on; 0 where it began at the beginning.
      checkpoints: how many it wrote.
      staleness: under `parameter_server` with `async`, how many updates were computed from weights so many updates old.
      worker_losses: workers that died and were started again.
      peak_bytes: the most memory that was held at once; see `report.peak_bytes`.
    """

    steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    trace_s: float = 0.0
    timed_steps: int = 0
    timed_s: float = 0.0
    input_s: float = 0.0
    communication_s: float | None = None
    best_step: int = 0
    stopped_early: bool = False
    resumed_from: int = 0
    checkpoints: int = 0
    staleness: dict[int, int] = field(default_factory=dict)
    worker_losses: int = 0
    peak_bytes: dict[str, int] = field(default_factory=dict)


class Loop:
    """A training of a model; strategies that need a loop of their own override `open`, `steps` and `evaluate`.

    Args:
      model: a compiled and built tf_keras.Model, made under the strategy.
      strategy: the strategy.
      training: what it learns from; not empty.
      validation: what early stopping watches; may be empty.
      settings: the section `trainer`.
      on_point: hears each point of the curve.
      keeper: of the checkpoints; None for none.
      profile_dir: where the trace of `settings.profile` goes.
      functions: the steps, where they were traced before; else the loop makes them.
    """

    def __init__(
        self,
        model: Any,
        strategy: tf.distribute.Strategy,
        training: Dataset,
        validation: Dataset,
        settings: TrainerSettings,
        on_point: Callable[[dict[str, float]], None] = lambda point: None,
        keeper: Keeper | None = None,
        profile_dir: str | None = None,
        functions: StepFunctions | None = None,
    ):
        self.model = model
        self.strategy = strategy
        # Whose variables are learned, and the strategy that they were made under: another model's where this process
        # only coordinates.
        self.learner, self.learner_strategy = model, strategy
        self.training = training
        self.validation = validation
        self.settings = settings
        self.on_point = on_point
        self.keeper = keeper
        self.profile_dir = profile_dir
        self.step_functions = functions
        self.tracing = False
        self.watch: Watch | None = None
        self.outcome = Outcome()
        self.finite_loss: tuple[int, float] | None = None

    def run(self) -> Outcome:
        """Trains the model in place.

        Returns:
          What happened. With early stopping the model has the best weights that were measured.

        Raises:
          ModelRejected: the loss or a weight is NaN or infinite.
          ConfigError: early stopping watches what is not there.
        """
        self.build_optimizer()
        stopping = self.settings.early_stopping
        self.watch = Watch(stopping, self.model) if stopping is not None else None
        self.resume()
        self.open()
        interval = stopping.every if stopping is not None else max(1, self.settings.steps // _POINTS)
        outcome, steps = self.outcome, self.settings.steps
        per_execution = 1
        while outcome.steps < steps and not outcome.stopped_early:
            self.model.reset_metrics()
            point = min((outcome.steps // interval + 1) * interval, steps)
            while outcome.steps < point:
                self.profile(outcome.steps)
                per_execution = self.execute(min(per_execution, self.pause(point) - outcome.steps))
            self.measure(last=outcome.steps == steps)
            self.keep()
        self.profile(None)
        self.split_time()
        self.finalize()
        outcome.best_step = outcome.steps if self.watch is None else self.watch.restore()
        outcome.checkpoints = self.keeper.written if self.keeper is not None else 0
        return outcome

    def resume(self) -> None:
        """Goes on from a checkpoint, where a training that was cut off left one."""
        keeper = self.keeper
        state = keeper and keeper.read(self.model.weights, self.optimizer_variables())
        if not state:
            return
        self.model.set_weights(state.weights)
        for variable, value in zip(self.optimizer_variables(), state.optimizer, strict=True):
            variable.assign(value)
        self.outcome.steps = self.outcome.resumed_from = state.step
        for point in state.values["curve"]:
            self.outcome.curve.append(point)
            self.on_point(point)
        if self.watch is not None and "watch" in state.values:
            self.watch.load(state.values["watch"], state.best)

    def keep(self) -> None:
        """Writes a checkpoint where enough steps went by since the last one; a finished training needs none."""
        keeper, step = self.keeper, self.outcome.steps
        if keeper is None or self.outcome.stopped_early or step >= self.settings.steps or not keeper.is_due(step):
            return
        values: dict[str, Any] = {"curve": self.outcome.curve}
        best: list[np.ndarray] = []
        if self.watch is not None:
            values["watch"], best = self.watch.dump()
        optimizer = [variable.numpy() for variable in self.optimizer_variables()]
        keeper.write(State(step, values, self.model.get_weights(), optimizer, best))

    def optimizer_variables(self) -> list[Any]:
        """Returns the optimizer's variables: its counter, its slots, a loss scale."""
        found = self.learner.optimizer.variables
        return list(found() if callable(found) else found)

    def pause(self, point: int) -> int:
        """Returns the step at which the graph call that comes must end: a point, or an end of the trace."""
        first, last = self.settings.profile or (1, 0)
        return min([point, *(edge for edge in (first - 1, last) if edge > self.outcome.steps)])

    def profile(self, step: int | None) -> None:
        """Starts or ends the TensorBoard trace of `settings.profile`, before the step after `step`; None ends it."""
        if self.settings.profile is None or self.profile_dir is None:
            return
        first, last = self.settings.profile
        if step is not None and step == first - 1 and not self.tracing:
            tf.profiler.experimental.start(self.profile_dir)
            self.tracing = True
        elif self.tracing and (step is None or step >= last):
            tf.profiler.experimental.stop()
            self.tracing = False

    def open(self) -> None:
        """Makes what the steps need: the functions, all variables, the iterator over the training rows."""
        functions = self.step_functions or step_functions.make(self.model, self.strategy)
        self.train, self.test, self.clock = functions.train, functions.test, functions.clock
        self.outcome.trace_s = functions.traced_s
        if self.validation.rows:
            batches, count = self.validation.evaluation()
            self.held = strategies.distribute(self.strategy, batches), tf.constant(count)
            # Traced and not run: a test step that cannot be traced ends the training here and not hours later.
            self.test(iter(self.held[0]), tf.constant(0))
        batches = self.training.training(self.settings.global_batch_size, self.settings.seed, self.outcome.steps)
        self.iterator = iter(strategies.distribute(self.strategy, batches))

    def steps(self, count: int) -> float:
        """Does some training steps; returns the mean loss since the metrics were reset."""
        return float(self.train(self.iterator, tf.constant(count)))

    def training_results(self) -> dict[str, float]:
        """Returns the training's metrics since they were reset."""
        return results(self.model)

    def evaluate(self) -> dict[str, float]:
        """Measures the validation rows; the metrics were reset before."""
        batches, count = self.held
        self.test(iter(batches), count)
        return results(self.model)

    def build_optimizer(self) -> None:
        """Makes the optimizer's variables."""
        step_functions.build_optimizer(self.learner, self.learner_strategy)

    def finalize(self) -> None:
        """Lets the optimizer end: with `use_ema` it gives the model its averaged weights, as `fit` would."""
        if hasattr(self.learner.optimizer, "finalize_variable_values"):
            with self.learner_strategy.scope():
                self.learner.optimizer.finalize_variable_values(self.learner.trainable_variables)

    def execute(self, count: int) -> int:
        """Runs some steps in one graph call.

        Returns:
          How many the next call should run, so that it takes about half a second.
        """
        started = time.monotonic()
        loss = self.steps(count)
        seconds = time.monotonic() - started
        outcome = self.outcome
        first = outcome.steps == outcome.resumed_from
        outcome.steps += count
        if not math.isfinite(loss):
            raise self.rejected("the loss", loss)
        self.finite_loss = (outcome.steps, loss)
        text = f"step {outcome.steps}/{self.settings.steps}, loss {loss:.4g}"
        progress.report(outcome.steps / self.settings.steps, text)
        if first:
            outcome.trace_s += seconds
            self.clock.reset()
            return 2
        outcome.step_ms.append(seconds / count * 1e3)
        outcome.timed_steps += count
        outcome.timed_s += seconds
        if self.settings.strategy == MULTI_WORKER:
            # Every process must do the same number of steps, and each has a clock of its own.
            return min(_STEPS_IN_STEP, count * 2)
        return max(1, min(MAX_STEPS_PER_EXECUTION, round(_EXECUTION_S * count / max(seconds, 1e-6)), count * 4))

    def split_time(self) -> None:
        """Says how the time of the steps was spent, as far as the clock can tell."""
        self.outcome.input_s = self.clock.input_s
        # A GPU works on when the host's clock is read, and a divided model exchanges within its layers.
        in_time = not tf.config.list_physical_devices("GPU") and self.settings.strategy != MODEL_PARALLEL
        if in_time and (self.clock.has_communication or self.strategy.num_replicas_in_sync == 1):
            self.outcome.communication_s = self.clock.communication_s

    def measure(self, last: bool) -> None:
        """Adds a point to the curve; with early stopping on the validation rows too, else at the end only."""
        outcome = self.outcome
        bad = [variable.name for variable in self.model.variables if not _finite(variable)]
        if bad:
            raise self.rejected(f"the weight {bad[0]}", math.nan)
        point: dict[str, float] = {"step": outcome.steps, **self.training_results()}
        watch = self.watch
        if (watch is not None or last) and self.validation.rows:
            self.model.reset_metrics()
            point.update({f"val_{name}": value for name, value in self.evaluate().items()})
        outcome.curve.append(point)
        self.on_point(point)
        if watch is not None:
            outcome.stopped_early = watch.hears(point) and not last

    def rejected(self, what: str, value: float) -> ModelRejected:
        """Says where the training went wrong, and why where the rows tell."""
        before = (
            "" if self.finite_loss is None else f"; at step {self.finite_loss[0]} the loss was {self.finite_loss[1]:g}"
        )
        rate = learning_rate(self.model.optimizer)
        reason = f"{what} is {value} by step {self.outcome.steps}{before}; the learning rate is {rate:g}"
        broken = non_finite(self.training.columns or {})
        if broken:
            named = ", ".join(f"{name} ({count} rows)" for name, count in sorted(broken.items())[:5])
            return ModelRejected(
                "training gave NaN",
                f"{reason}; the preprocessing function gives NaN or infinity in {named}",
                "Fill what is missing in the preprocessing function.",
            )
        return ModelRejected(
            "training gave NaN", reason, "Lower the learning rate, or clip gradients with the optimizer's clipnorm."
        )


def results(model: Any) -> dict[str, float]:
    """Returns the metrics of a model since they were reset."""
    return {name: float(np.mean(value)) for name, value in model.get_metrics_result().items()}


def learning_rate(optimizer: Any) -> float:
    """Returns the learning rate at the present step; NaN where the optimizer does not say.

    Args:
      optimizer: a Keras optimizer.
    """
    rate = getattr(optimizer, "learning_rate", math.nan)
    if callable(rate) and not isinstance(rate, (tf.Variable, tf.Tensor)):
        rate = rate(optimizer.iterations)
    return float(np.asarray(rate))


def _finite(variable: Any) -> bool:
    return not variable.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(variable)))
