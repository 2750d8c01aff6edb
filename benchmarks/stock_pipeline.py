"""The stock TFX pipeline on the flights, a fresh process that prints its stages' times: the other side of vs_tfx.py.

CsvExampleGen, StatisticsGen, SchemaGen, ExampleValidator, Transform, Trainer, Evaluator, Pusher by LocalDagRunner,
built as TFX's own guides build it, with preprocessing and model of examples/flights by import path (a `module_file`
would have TFX build and install a wheel at every run). Its gates are on: a least AUC, and no worse than the model
blessed before, where the same --work folder has one. The slices by carrier are computed and veto nothing, as TFMA would
otherwise apply the overall threshold to carriers with a handful of rows.

    .venv/bin/python benchmarks/stock_pipeline.py --work DIR --months 1-3 --steps 200 [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "flights"
LABEL = "late"
SLICES = ["carrier"]
LEAST_AUC = 0.6
MAX_REGRESSION = 0.005
# The in-process runner under the name that both stacks have; newer Beams would put a downloaded binary before it. The
# second argument spares TFX the packing of its own source for remote workers, which it does as soon as there is a
# first.
BEAM = [
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=in-process",
]


def write_csv(folder: Path, months: Iterable[int]) -> None:
    """Writes the months' flights as CSV, one file each, as CsvExampleGen wants them.

    Args:
        folder: where the files go; made.
        months: of 2013, 1 to 12.
    """
    import data
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    for month in months:
        table = data.load_month(month)
        position = table.schema.get_field_index("time_hour")
        seconds = table["time_hour"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
        table = table.set_column(position, "time_hour", seconds)
        # By pandas, which writes 5.0 where a column holds floats: CsvExampleGen takes a column of 5s for integers.
        table.to_pandas().to_csv(folder / f"{month:02d}.csv", index=False)


def eval_config() -> Any:
    """Returns TFMA's configuration: overall and by carrier, gated overall."""
    from tensorflow_model_analysis.proto import config_pb2 as tfma  # 1.21 exports only some of these at its top

    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": LEAST_AUC}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -MAX_REGRESSION}
        ),
    )
    gate = tfma.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
    metrics = [
        tfma.MetricConfig(class_name="AUC", per_slice_thresholds=[gate]),
        tfma.MetricConfig(class_name="BinaryAccuracy"),
        tfma.MetricConfig(class_name="ExampleCount"),
    ]
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=LABEL)],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=SLICES)],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def create(work: Path, source: Path, options: argparse.Namespace) -> Any:
    """Returns the pipeline.

    Args:
        work: holds its artifacts, its metadata and what it pushes.
        source: the folder of the CSV files.
        options: steps, eval_steps, batch, seed, hyperparameters (JSON).
    """
    from tfx.components import (
        CsvExampleGen,
        Evaluator,
        ExampleValidator,
        Pusher,
        SchemaGen,
        StatisticsGen,
        Trainer,
        Transform,
    )
    from tfx.dsl.components.common.resolver import Resolver
    from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
    from tfx.orchestration import metadata, pipeline
    from tfx.proto import pusher_pb2, trainer_pb2
    from tfx.types import Channel, standard_artifacts

    examples = CsvExampleGen(input_base=str(source))
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="features.preprocessing_fn",
    )
    trainer = Trainer(
        run_fn="stock_trainer.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(num_steps=options.steps),
        eval_args=trainer_pb2.EvalArgs(num_steps=options.eval_steps),
        custom_config={
            "batch": options.batch,
            "label": LABEL,
            "seed": options.seed,
            "hyperparameters": json.loads(options.hyperparameters),
        },
    )
    blessed = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed_model")
    evaluator = Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=blessed.outputs["model"],
        eval_config=eval_config(),
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(work / "serving"))
        ),
    )
    return pipeline.Pipeline(
        pipeline_name="stock",
        pipeline_root=str(work / "root"),
        components=[examples, statistics, schema, validator, transform, trainer, blessed, evaluator, pusher],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(work / "metadata.db")),
        beam_pipeline_args=BEAM,
    )


def report(work: Path, known: set[int]) -> dict[str, Any]:
    """Reads from ML Metadata what the run did.

    Args:
        work: the pipeline's folder.
        known: ids of the executions of earlier runs.

    Returns:
        `stages` (seconds from an execution's start to its end), `fit_seconds`, `auc`, `blessed`, `pushed`.
    """
    import tensorflow_model_analysis as tfma
    from stock_trainer import FIT_REPORT

    stages: dict[str, float] = {}
    found: dict[str, Any] = {"stages": stages, "pushed": False}
    store = _store(work)
    types = {kind.id: kind.name.rsplit(".", 1)[-1] for kind in store.get_execution_types()}
    for execution in sorted(store.get_executions(), key=lambda execution: execution.id):
        if execution.id in known:
            continue
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        stages[types[execution.type_id]] = round(milliseconds / 1000, 2)
        events = store.get_events_by_execution_ids([execution.id])
        outputs = [event.artifact_id for event in events if event.type == event.OUTPUT]
        for artifact in store.get_artifacts_by_id(outputs):
            uri = Path(artifact.uri)
            if artifact.type == "ModelRun":
                found |= json.loads((uri / FIT_REPORT).read_text(encoding="utf-8"))
            elif artifact.type == "ModelEvaluation":
                overall = dict(tfma.load_eval_result(str(uri)).slicing_metrics)[()]
                found["auc"] = round(overall[""][""]["auc"]["doubleValue"], 4)
            elif artifact.type == "ModelBlessing":
                found["blessed"] = (uri / "BLESSED").exists()
            elif artifact.type == "PushedModel":
                found["pushed"] = "pushed_version" in artifact.custom_properties
    return found


def _store(work: Path) -> Any:
    from ml_metadata.metadata_store import metadata_store
    from tfx.orchestration import metadata

    return metadata_store.MetadataStore(metadata.sqlite_metadata_connection_config(str(work / "metadata.db")))


def run(options: argparse.Namespace, source: Path) -> dict[str, Any]:
    """Runs the pipeline on the CSV files in `source` and returns what it did, and how long each part took."""
    from tfx import version
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    known = {execution.id for execution in _store(work).get_executions()} if (work / "metadata.db").exists() else set()
    built = create(work, source, options)
    imported = time.perf_counter() - STARTED
    LocalDagRunner().run(built)
    seconds = time.perf_counter() - STARTED
    return {
        "tfx": version.__version__,
        "python": sys.version.split()[0],
        "months": options.months,
        "steps": options.steps,
        "batch": options.batch,
        "seconds": round(seconds, 2),
        "start_seconds": round(imported, 2),
        **report(work, known),
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs the stock TFX pipeline on the flights and times its stages.")
    parser.add_argument("--work", type=Path, required=True, help="its folder; run again in it, it has a blessed model")
    parser.add_argument("--months", default="1-3", help="such as 1-3: the window")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--eval-steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hyperparameters", default="{}", help="JSON, for build_model")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--prepare", action="store_true", help="only write the CSV files")
    options = parser.parse_args()
    sys.path.append(str(EXAMPLE))
    source = options.work.resolve() / "csv" / options.months
    if options.prepare:
        import data

        write_csv(source, data.parse_months(options.months))
        return 0
    if not source.exists():
        raise SystemExit(f"No CSV files in {source}. Write them first: the same command with --prepare.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    result = run(options, source)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for stage, taken in {"start and imports": result["start_seconds"], **result["stages"]}.items():
        print(f"{stage:<22} {taken:>7.1f} s")
    print(f"{'in all':<22} {result['seconds']:>7.1f} s   (fit {result['fit_seconds']} s, AUC {result['auc']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
