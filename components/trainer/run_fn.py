"""Runs a stock module: TFX's `run_fn(fn_args)`, on materialized transformed examples, with the strategy at hand.

The module finds in `fn_args` what the stock Trainer would give it. `fn_args.custom_config` holds `strategy` (a
tf.distribute.Strategy to build the model under), `hyperparameters`, `label`, `global_batch_size` and `seed`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from evergreen.components import model_layout, progress, user_code
from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.trainer import autograph, input_path, report, user_model
from evergreen.components.trainer import devices as trainer_devices
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer.request import Examples, Part, Request, training_parts, validation_parts

_COLD = {"warm": False, "reason": "run_fn decides by itself, from fn_args.base_model", "warm_runs": 0}


def train(request: Request) -> dict[str, Any]:
    """Calls the user's `run_fn`.

    Args:
      request: what to do; its `settings.run_fn` names the function.

    Returns:
      The report, which is also written to the run's folder: less than our own training's, because the module keeps its
      steps and curves to itself.

    Raises:
      ConfigError: the function raises, or leaves no model.
    """
    settings = request.settings
    spec = settings.run_fn or ""
    autograph.leave_libraries_alone()
    phases = report.Phases()
    with phases.phase("load", "preparing the examples"):
        function = user_code.load(spec, request.project_dir)
        devices = trainer_devices.choose(settings)
        strategy = strategies.create(settings, devices)
        strategies.seed_everything(settings.seed)
        _check_order(request)
        window = request.transformed_examples or request.examples
        training = training_parts(window, request.newest_span)
        validation = validation_parts(window)
        rows = {"train": _count(training), "validation": _count(validation)}
        fn_args = _fn_args(request, window, training, validation, rows["validation"], strategy)
    with strategies.deterministic(settings), phases.phase("run_fn", f"running {spec}"):
        try:
            function(fn_args)
        except EvergreenError:
            raise
        except Exception as error:  # whatever a user's function does
            raise user_model.user_error(spec, error) from error
    if not model_layout.is_saved_model(fn_args.serving_model_dir):
        raise ConfigError(
            f"{spec} saved no model",
            f"there is no SavedModel in fn_args.serving_model_dir, {fn_args.serving_model_dir}",
            "End run_fn with model.save(fn_args.serving_model_dir, save_format='tf', signatures=...).",
        )
    result = {
        "format": report.FORMAT,
        "run_fn": spec,
        "steps": settings.steps,
        "strategy": settings.strategy,
        "devices": devices,
        "replicas": len(devices),
        "global_batch_size": settings.global_batch_size,
        "seed": settings.seed,
        "hyperparameters": settings.hyperparameters,
        "rows": rows,
        "seconds": phases.seconds,
        "seconds_total": round(sum(phases.seconds.values()), 3),
        "warm_start": dict(_COLD),
        "versions": report.versions(),
    }
    report.write(result, request.run_dir)
    progress.report(1.0, f"{spec} has saved its model")
    return result


def _fn_args(
    request: Request,
    window: tuple[Examples, ...],
    training: list[Part],
    validation: list[Part],
    validation_rows: int,
    strategy: tf.distribute.Strategy,
) -> Any:
    from tfx.components.trainer import fn_args_utils
    from tfx.components.util import tfxio_utils
    from tfx.utils import path_utils

    settings = request.settings
    artifacts = [_artifact(examples) for examples in window]
    return fn_args_utils.FnArgs(
        working_dir=request.run_dir,
        train_files=[file for part in training for file in part.files],
        eval_files=[file for part in validation for file in part.files],
        train_steps=settings.steps,
        # Stock modules repeat their data for ever: without a number of steps an evaluation would never end.
        eval_steps=max(1, validation_rows // settings.global_batch_size),
        schema_path=request.schema or None,
        schema_file=request.schema or None,
        transform_graph_path=request.transform_graph,
        transform_output=request.transform_graph,
        data_accessor=fn_args_utils.DataAccessor(
            tf_dataset_factory=tfxio_utils.get_tf_dataset_factory_from_artifact(artifacts, ["Trainer"]),
            record_batch_factory=tfxio_utils.get_record_batch_factory_from_artifact(artifacts, ["Trainer"]),
            data_view_decode_fn=tfxio_utils.get_data_view_decode_fn_from_artifact(artifacts, ["Trainer"]),
        ),
        serving_model_dir=path_utils.serving_model_dir(request.model_dir),
        eval_model_dir=path_utils.eval_model_dir(request.model_dir),
        model_run_dir=request.run_dir,
        base_model=model_layout.serving_dir(request.base_model.uri) if request.base_model else None,
        hyperparameters=None,
        custom_config={
            "strategy": strategy,
            "hyperparameters": dict(settings.hyperparameters),
            "label": request.label,
            "global_batch_size": settings.global_batch_size,
            "seed": settings.seed,
        },
    )


def _artifact(examples: Examples) -> Any:
    from tfx.components.util import examples_utils
    from tfx.proto import example_gen_pb2
    from tfx.types import artifact_utils, standard_artifacts

    artifact = standard_artifacts.Examples()
    artifact.uri = examples.uri
    artifact.split_names = artifact_utils.encode_split_names(list(examples.splits))
    examples_utils.set_payload_format(artifact, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    return artifact


def _count(parts: list[Part]) -> int:
    return input_path.count_rows(file for part in parts for file in part.files)


def _check_order(request: Request) -> None:
    """Makes sure that each materialized artifact is paired with the raw one that it was made from.

    Only the order tells which span a materialized artifact belongs to, and the exam rows of the newest must stay out.
    """
    if not request.transformed_examples or not request.examples:
        return
    for raw, transformed in zip(request.examples, request.transformed_examples, strict=True):
        for split in raw.splits:
            expected, received = (input_path.count_rows(one.files(split)) for one in (raw, transformed))
            if expected != received:
                raise RuntimeError(
                    f"span {raw.span} has {expected} rows in {split}, what Transform made of it {received}: "
                    f"{raw.uri} and {transformed.uri} do not belong together"
                )
