"""One training from request to exported model."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from evergreen.components import progress, user_code
from evergreen.components.errors import ConfigError, DataRejected
from evergreen.components.trainer import (
    async_updates,
    autograph,
    checkpoints,
    cluster,
    input_path,
    loop,
    model_parallel,
    parameter_server,
    report,
    signatures,
    step_functions,
    transform_graph,
    user_model,
    volume,
    warm_start,
)
from evergreen.components.trainer import devices as trainer_devices
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer.cluster import LostProcess
from evergreen.components.trainer.request import Part, Request, training_parts, validation_parts
from evergreen.components.trainer.settings import (
    MODEL_PARALLEL,
    MULTI_WORKER,
    ON_CLUSTERS,
    PARAMETER_SERVER,
    TrainerSettings,
)
from evergreen.components.trainer.transform_graph import Materialized, TransformGraph
from evergreen.components.trainer.watchdog import Watchdog


def run(request: Request) -> dict[str, Any]:
    """Trains as the settings say: our loop over the user's `build_model`, or the user's own `run_fn`.

    Args:
      request: what to do.

    Returns:
      The report, which is also written to the run's folder.
    """
    _empty(request.model_dir, request.run_dir)
    if request.settings.run_fn is not None:
        from evergreen.components.trainer import run_fn

        return run_fn.train(request)
    return train(request)


def train(request: Request) -> dict[str, Any]:
    """Trains the model of a `build_model`, exports and reports.

    Args:
      request: what to do; its `settings.model` names the user's function.

    Returns:
      The report, which is also written to the run's folder.

    Raises:
      ConfigError: the user's functions or the settings do not fit.
      DataRejected: the window has no training rows.
      ModelRejected: training gave NaN.
      LostProcess: a cluster lost a process that it cannot do without.
    """
    settings = request.settings
    with contextlib.ExitStack() as stack:
        joined, watch, early = None, contextlib.ExitStack(), None
        try:
            if settings.strategy == PARAMETER_SERVER:
                joined = stack.enter_context(cluster.join(settings, os.path.join(request.run_dir, "cluster")))
                stack.enter_context(watch)
                watch.enter_context(Watchdog(joined.plan, settings.cluster.timeout, joined.replace))
            elif settings.strategy == MULTI_WORKER and (plan := cluster.read(os.environ)) is not None:
                stack.enter_context(watch)
                cluster.listen(plan).close()
                watch.enter_context(Watchdog(plan, settings.cluster.timeout))
            if settings.strategy in ON_CLUSTERS:
                # TensorFlow joins a cluster before its first operation, or not at all.
                early = strategies.create(settings, (), cluster=joined)
            return _train(request, joined, early, watch)
        except loop.LOST as error:
            if settings.strategy not in ON_CLUSTERS:
                raise
            plan = joined.plan if joined is not None else cluster.read(os.environ)
            raise LostProcess(cluster.silent(plan) or user_model.gist(error)) from error


def _train(
    request: Request,
    joined: cluster.Cluster | None,
    early: tf.distribute.Strategy | None,
    watch: contextlib.ExitStack,
) -> dict[str, Any]:
    """Trains; `watch` is closed after the last step, when nobody has to answer any more."""
    settings = request.settings
    spec = settings.model or ""
    autograph.leave_libraries_alone()
    phases = report.Phases()
    with phases.phase("load", "loading the transform graph"):
        build_model = user_code.load(spec, request.project_dir)
        graph = transform_graph.load(request.transform_graph)
    devices = trainer_devices.choose(settings, joined)
    with strategies.deterministic(settings):
        with phases.phase("build", "building the model"):
            strategies.seed_everything(settings.seed)
            # Signatures are traced from a float32 model outside of the strategy: the export has no trace of either.
            served = user_model.build(build_model, spec, graph, settings.hyperparameters)
            features = user_model.features_of(served, graph, request.label, spec)
            core = user_model.trace_core(served, features, graph, spec)
            model = remote = served
            strategy = early or strategies.create(settings, devices, 4 * served.count_params())
            if strategies.distributes(strategy) or settings.precision != "float32":
                strategies.seed_everything(settings.seed)
                with strategies.precision(settings), strategy.scope():
                    remote = user_model.build(build_model, spec, graph, settings.hyperparameters)
                    if not remote.built:
                        remote({name: _one_row(graph.specs[name]) for name in features})
                if settings.precision != "float32":
                    user_model.end_in_float32(remote, spec)
                strategies.fit_optimizer(strategy, remote.optimizer)
                model = remote if joined is None else served
            mesh, divided = None, None
            if settings.strategy == MODEL_PARALLEL:
                model_parallel.check(served, spec)
                strategies.seed_everything(settings.seed)
                mesh = model_parallel.make_mesh(settings, devices)
                again = functools.partial(user_model.build, build_model, spec, graph, settings.hyperparameters)
                divided = model_parallel.divide(again, served, mesh)
        with phases.phase("warm_start", "taking weights from the champion"):
            start = warm_start.apply(model, graph, request.base_model, settings.warm_start)
        with phases.phase("input", "reading and transforming the rows"), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(_rows, request, graph, features)
            functions = None
            if settings.strategy not in (*ON_CLUSTERS, MODEL_PARALLEL) and not strategies.prefetches(strategy):
                with _told_as_theirs(spec):
                    functions = step_functions.trace_ahead(
                        model,
                        strategy,
                        {name: graph.specs[name] for name in (*features, request.label)},
                        request.label,
                        settings.global_batch_size,
                        bool(validation_parts(request.window)),
                    )
            training, validation = reading.result()
        board = report.TensorBoard(request.run_dir)
        keeper = checkpoints.Keeper(checkpoints.folder(request), settings.checkpoint_every, request.chief)
        report.reset_peak()
        with phases.phase("fit", "the first training step"), _told_as_theirs(spec):
            arguments = (
                model,
                strategy,
                training,
                validation,
                settings,
                board.point,
                keeper,
                board.folder("train"),
            )
            if joined is not None:
                kind = parameter_server.SyncLoop if settings.update == "sync" else async_updates.AsyncLoop
                outcome = kind(remote, joined, *arguments).run()
            elif mesh is not None:
                outcome = model_parallel.ModelParallelLoop(divided, mesh, *arguments).run()
            else:
                outcome = loop.Loop(*arguments, functions).run()
        watch.close()
        outcome.peak_bytes = report.peak_bytes(devices)
        board.close()
    if not request.chief:
        return {"steps": outcome.steps}
    with phases.phase("export", "exporting the model"):
        if model is not served:
            served.set_weights(model.get_weights())
        exported = signatures.export(served, core, graph, request.label, request.model_dir)
        warm_start.save(served, graph, request.model_dir)
    parameters = sum(int(tf.size(variable)) for variable in served.weights)
    result = report.build(
        request,
        devices,
        _replicas(settings, devices, strategy),
        training,
        validation,
        start,
        outcome,
        parameters,
        features,
        exported,
        phases,
    )
    result["bytes"] = volume.measure(served, graph.specs, features, request.label)
    report.write(result, request.run_dir)
    keeper.clear()
    progress.report(1.0, f"trained {outcome.steps} steps")
    return result


@contextlib.contextmanager
def _told_as_theirs(spec: str) -> Iterator[None]:
    """Tells what tracing or training raises as an error of the user's model."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, tf.errors.InvalidArgumentError) as error:
        raise user_model.training_error(spec, error) from error


def _replicas(settings: TrainerSettings, devices: list[str], strategy: tf.distribute.Strategy) -> int:
    """Returns on how many devices the model was trained."""
    if settings.strategy == PARAMETER_SERVER:
        return len(devices)
    return settings.mesh[0] if settings.strategy == MODEL_PARALLEL else int(strategy.num_replicas_in_sync)


def _empty(*folders: str) -> None:
    """Clears what an earlier attempt that was killed may have left."""
    for folder in folders:
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.makedirs(folder)


def _one_row(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([1, *spec.shape[1:]], spec.dtype)


def _rows(request: Request, graph: TransformGraph, features: tuple[str, ...]) -> tuple[Any, Any]:
    source = graph if request.examples else Materialized(graph)

    def read(parts: list[Part], draw: input_path.Draw | None = None) -> input_path.Dataset:
        return input_path.open_rows(parts, source, features, request.label, request.cache_bytes, draw)

    settings, draw = request.settings, None
    if settings.strategy not in ON_CLUSTERS:  # there workers may take more than their share
        draw = input_path.Draw(settings.steps * settings.global_batch_size, settings.seed)
    try:
        validation = read(validation_parts(request.window))
        training = read(training_parts(request.window, request.newest_span), draw)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise DataRejected(
            "the rows of the window cannot be read",
            user_model.gist(error),
            "Run again; where it stays, the artifact is damaged: `evergreen doctor`.",
        ) from error
    if not training.rows:
        spans = ", ".join(str(examples.span) for examples in request.window)
        raise DataRejected(
            "there are no rows to train on",
            f"the training splits of the spans {spans or 'none'} are empty",
            "Widen the window (data.window), or lower data.exam and data.validation.",
        )
    stopping = settings.early_stopping
    if stopping is not None and not validation.rows:
        raise ConfigError(
            "early stopping has no validation rows",
            "the validation splits of the window are empty",
            "Raise data.validation, or leave trainer.early_stopping out.",
        )
    return training, validation
