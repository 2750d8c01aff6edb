"""The flights that the sides of training.py learn from: raw rows, the transform graph, and transformed rows as TFX has.

Every tenth row of the months is a validation row. Written once, before any clock starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flights_quality
import numpy as np
import pyarrow as pa

TRAIN, VALIDATION = "train", "validation"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flights"
LABEL = "late"
_EVERY = 10


def raw_dir(work: Path) -> Path:
    """Returns the folder of the raw rows, laid out as an Examples artifact."""
    return work / "raw"


def transformed_dir(work: Path) -> Path:
    """Returns the folder of the transformed rows, laid out as an Examples artifact."""
    return work / "transformed"


def graph_dir(work: Path) -> Path:
    """Returns the folder of the transform graph."""
    return work / "graph"


def schema_dir(work: Path) -> Path:
    """Returns the folder of the raw rows' schema."""
    return work / "schema"


def write(work: Path, months: Iterable[int]) -> None:
    """Writes everything; does nothing where it is there.

    Args:
      work: the folder; made.
      months: of 2013, 1 to 12.
    """
    import data
    import tensorflow_transform as tft
    from google.protobuf import text_format
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

    done = work / "done"
    if done.exists():
        return
    schema = flights_quality.load_schema()
    schema_dir(work).mkdir(parents=True)
    (schema_dir(work) / "schema.pbtxt").write_text(text_format.MessageToString(schema), encoding="utf-8")
    rows = flights_quality.examples(pa.concat_tables([data.load_month(month) for month in months]), schema)
    graph = flights_quality.analyze(rows, schema, graph_dir(work))
    raw_metadata = graph_dir(work) / tft.TFTransformOutput.RAW_METADATA_DIR
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(schema), str(raw_metadata))
    columns = flights_quality.transform(graph, rows, schema)
    transformed = _encode(columns, graph.transformed_metadata.schema)
    for folder, made in ((raw_dir(work), rows), (transformed_dir(work), transformed)):
        _write_records(folder / f"Split-{VALIDATION}", made[::_EVERY])
        _write_records(folder / f"Split-{TRAIN}", [row for number, row in enumerate(made) if number % _EVERY])
    done.touch()


def request(work: Path, out: Path, settings: Mapping[str, Any]) -> Any:
    """Asks for a training of the example's model on the rows.

    Args:
      work: from `write`.
      out: where the model and its run go.
      settings: of the Trainer, beside the model and its hyperparameters.

    Returns:
      A `evergreen.components.trainer.request.Request`.
    """
    from evergreen.components.trainer.request import Examples, Request
    from evergreen.components.trainer.settings import TrainerSettings

    values = {"model": "model:build_model", "hyperparameters": hyperparameters(), "checkpoint_every": 0, **settings}
    return Request(
        settings=TrainerSettings.from_dict(values),
        project_dir=str(EXAMPLE),
        label=LABEL,
        newest_span=1,
        examples=(Examples(str(raw_dir(work)), 1, 1, (TRAIN, VALIDATION)),),
        transform_graph=str(graph_dir(work)),
        schema=str(schema_dir(work) / "schema.pbtxt"),
        model_dir=str(out / "model"),
        run_dir=str(out / "run"),
    )


def hyperparameters() -> dict[str, Any]:
    """Returns those of the example's configuration."""
    from evergreen.pipeline import config

    return dict(config.load(EXAMPLE / "evergreen.yaml").trainer.hyperparameters)


def _encode(columns: dict[str, np.ndarray], schema: Any) -> list[bytes]:
    """Serializes transformed columns [rows, 1] as tf.Examples."""
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    lists = [
        pa.LargeListArray.from_arrays(pa.array(np.arange(len(values) + 1)), pa.array(values[:, 0]))
        for values in columns.values()
    ]
    return RecordBatchToExamplesEncoder(schema).encode(pa.RecordBatch.from_arrays(lists, list(columns)))


def _write_records(folder: Path, rows: list[bytes]) -> None:
    import tensorflow as tf

    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row in rows:
            writer.write(row)
