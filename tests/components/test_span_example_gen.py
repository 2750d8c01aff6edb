"""Spans become tf.Example in three splits: the same rows from each format, in the same bytes each time."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import span_world

from evergreen.components.errors import ConfigError, SpanError

pytestmark = pytest.mark.tensorflow

SETTINGS = {"time": "time", "split_key": "day", "exam": 0.25, "validation": 0.3}
SPLITS = ("train", "validation", "exam")
TYPES = {"time": "INT", "day": "BYTES", "n": "INT", "x": "FLOAT", "s": "BYTES", "late": "INT"}
START = datetime.datetime(2013, 1, 1)


def table(rows: int = 400) -> pa.Table:
    generator = np.random.default_rng(0)
    times = [START + datetime.timedelta(hours=int(hour)) for hour in np.sort(generator.integers(0, 700, rows))]
    return pa.table(
        {
            "time": pa.array(times, pa.timestamp("us")),
            "day": pa.array([time.date() for time in times]),
            "n": pa.array(range(rows)),
            "x": pa.array([None if n % 7 == 0 else n / 8 for n in range(rows)]),
            "s": pa.array([None if n % 5 == 0 else f"s{n % 3}" for n in range(rows)]),
            "late": pa.array([n % 2 == 0 for n in range(rows)]),
        }
    )


def write(folder: Path, format: str, rows: pa.Table | None = None, name: str = "a", **options: Any) -> str:
    rows = table() if rows is None else rows
    path = folder / f"{name}.{format}"
    if format == "csv":
        pa_csv.write_csv(rows, path)
    else:
        pq.write_table(rows, path, **options)
    return path.name


def all_rows(examples: Any) -> list[dict[str, list]]:
    return [row for split in SPLITS for row in span_world.rows(examples, split)]


def numbers(examples: Any, split: str) -> list[int]:
    return [row["n"][0] for row in span_world.rows(examples, split)]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("data")
    return span_world.ingest(folder, [write(folder, "parquet")], folder / "out", SETTINGS)


def test_every_row_is_in_one_split_with_its_values(ingested: Any) -> None:
    source = table().to_pylist()
    found = sorted(all_rows(ingested), key=lambda row: row["n"])
    assert len(found) == len(source)
    for row, expected in zip(found, source, strict=True):
        assert row["time"] == [int(expected["time"].replace(tzinfo=datetime.timezone.utc).timestamp())]
        assert row["day"] == [expected["day"].isoformat().encode()]
        assert row["late"] == [int(expected["late"])]
        assert row.get("x", []) == ([] if expected["x"] is None else [expected["x"]])
        assert row.get("s", []) == ([] if expected["s"] is None else [expected["s"].encode()])


def test_the_exam_is_the_tail_and_validation_keeps_days_together(ingested: Any) -> None:
    rows = {split: span_world.rows(ingested, split) for split in SPLITS}
    first_of_exam = min(row["time"][0] for row in rows["exam"])
    assert first_of_exam > max(row["time"][0] for row in rows["train"] + rows["validation"])
    assert len(rows["exam"]) >= 100
    assert sum(row["time"][0] > first_of_exam for row in rows["exam"]) < 100
    days = {split: {row["day"][0] for row in rows[split]} for split in SPLITS}
    assert days["validation"]
    assert not days["validation"] & days["train"]


def test_the_artifact_says_what_is_in_it(ingested: Any) -> None:
    counts = {split: len(span_world.records(ingested, split)) for split in SPLITS}
    assert (ingested.span, ingested.version) == (7, 2)
    assert json.loads(ingested.split_names) == list(SPLITS)
    assert {split: ingested.get_int_custom_property(f"rows_{split}") for split in SPLITS} == counts
    assert ingested.get_int_custom_property("rows") == 400
    assert ingested.get_string_custom_property("digest") == "abc"
    assert ingested.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    first = min(row["time"][0] for row in span_world.rows(ingested, "exam"))
    shown = datetime.datetime.fromtimestamp(first, datetime.timezone.utc).isoformat()
    assert ingested.get_string_custom_property("exam_from") == shown
    assert not (Path(ingested.uri) / ".staging").exists()


def test_the_same_input_gives_the_same_bytes_in_the_order_of_the_input(ingested: Any, tmp_path: Path) -> None:
    again = span_world.ingest(tmp_path, [write(tmp_path, "parquet")], tmp_path / "out", SETTINGS)
    for split in SPLITS:
        for one, other in zip(span_world.shards(ingested, split), span_world.shards(again, split), strict=True):
            assert one.name == other.name
            assert one.read_bytes() == other.read_bytes()
        assert numbers(again, split) == sorted(numbers(again, split))


def test_csv_with_the_schemas_types_gives_the_same_splits(ingested: Any, tmp_path: Path) -> None:
    name = write(tmp_path, "csv")
    examples = span_world.ingest(tmp_path, [name], tmp_path / "out", SETTINGS, "csv", TYPES)
    for split in SPLITS:
        assert span_world.records(examples, split) == span_world.records(ingested, split)


def test_tfrecords_pass_through_as_they_are(ingested: Any, tmp_path: Path) -> None:
    files = [str(path.relative_to(ingested.uri)) for split in SPLITS for path in span_world.shards(ingested, split)]
    examples = span_world.ingest(Path(ingested.uri), files, tmp_path / "out", SETTINGS, "tfrecord")
    for split in SPLITS:
        assert sorted(span_world.records(examples, split)) == sorted(span_world.records(ingested, split))


def test_packed_tfrecords_are_read(ingested: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    rows = span_world.records(ingested, "train")
    with tf.io.TFRecordWriter(str(tmp_path / "a.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
        for row in rows:
            writer.write(row)
    examples = span_world.ingest(tmp_path, ["a.gz"], tmp_path / "out", {"exam": 0, "validation": 0}, "tfrecord")
    assert span_world.records(examples, "train") == rows


def test_pieces_are_divided_among_workers_and_rows_stay_in_order(
    ingested: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.components.span_example_gen import pieces

    monkeypatch.setattr(pieces.divide, "__defaults__", (1,))
    whole = table()
    names = [
        write(tmp_path, "parquet", whole.slice(0, 150), "a", row_group_size=50),
        write(tmp_path, "parquet", whole.slice(150), "b", row_group_size=100),
    ]
    examples = span_world.ingest(tmp_path, names, tmp_path / "out", SETTINGS)
    assert [path.name for path in span_world.shards(examples, "exam")] == [
        "data_tfrecord-00004-of-00006",
        "data_tfrecord-00005-of-00006",
    ]
    for split in SPLITS:
        assert span_world.records(examples, split) == span_world.records(ingested, split)


@pytest.mark.slow
def test_worker_processes_give_the_same_rows_as_one(
    ingested: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.components.span_example_gen import pieces

    monkeypatch.setattr(pieces.divide, "__defaults__", (1,))
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    monkeypatch.setattr(span_world, "BEAM_ARGS", [*span_world.BEAM_ARGS, *workers])
    name = write(tmp_path, "parquet", row_group_size=100)
    examples = span_world.ingest(tmp_path, [name], tmp_path / "out", SETTINGS)
    for split in SPLITS:
        assert span_world.records(examples, split) == span_world.records(ingested, split)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_files_of_another_file_system_are_read_and_written(ingested: Any, tmp_path: Path, format: str) -> None:
    import tensorflow as tf
    from tfx.types import standard_artifacts

    source, out = f"ram://{format}-source", f"ram://{format}-out"
    name = write(tmp_path, format)
    tf.io.gfile.makedirs(source)
    tf.io.gfile.copy(str(tmp_path / name), f"{source}/{name}")
    examples = standard_artifacts.Examples()
    examples.uri = out
    span_world.run_example_gen(source, [name], examples, SETTINGS, format, TYPES)
    for split in SPLITS:
        paths = tf.io.gfile.glob(f"{out}/Split-{split}/*")
        found = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
        assert found == span_world.records(ingested, split)
    with pytest.raises(SpanError, match="a file of the span is gone"):
        span_world.run_example_gen(source, [f"no.{format}"], examples, SETTINGS, format, TYPES)


def test_exam_span_leaves_files_for_the_empty_splits(tmp_path: Path) -> None:
    settings = {**SETTINGS, "exam": "span"}
    examples = span_world.ingest(tmp_path, [write(tmp_path, "parquet")], tmp_path / "out", settings)
    assert numbers(examples, "exam") == list(range(400))
    for split in ("train", "validation"):
        (shard,) = span_world.shards(examples, split)
        assert shard.stat().st_size == 0
    assert examples.get_string_custom_property("exam_from") == ""


def test_files_with_different_columns_and_number_types(tmp_path: Path) -> None:
    one = pa.table({"n": [1, 2], "only": ["a", "b"], "x": [1, 2]})
    other = pa.table({"n": [3, 4], "x": [0.5, None]})
    names = [write(tmp_path, "parquet", one, "a"), write(tmp_path, "parquet", other, "b")]
    examples = span_world.ingest(tmp_path, names, tmp_path / "out", {})
    found = sorted(all_rows(examples), key=lambda row: row["n"])
    assert [row.get("only") for row in found] == [[b"a"], [b"b"], None, None]
    assert [row.get("x") for row in found] == [[1.0], [2.0], [0.5], None]


def test_text_times_cut_the_exam(tmp_path: Path) -> None:
    rows = pa.table({"n": range(8), "t": [f"2013-01-0{n + 1}" for n in range(8)]})
    settings = {"time": "t", "exam": 0.25, "validation": 0}
    examples = span_world.ingest(tmp_path, [write(tmp_path, "parquet", rows)], tmp_path / "out", settings)
    assert numbers(examples, "exam") == [6, 7]
    assert examples.get_string_custom_property("exam_from") == "2013-01-07"


def refusal(folder: Path, format: str, files: list[str], settings: dict | None = None, **options: Any) -> str:
    """Ingests what cannot be read: Examples without rows, and why."""
    settings = SETTINGS if settings is None else settings
    examples = span_world.ingest(folder, files, folder / "out", settings, format, **options)
    assert examples.get_int_custom_property("rows") == 0
    assert [span_world.records(examples, split) for split in SPLITS] == [[], [], []]
    return examples.get_string_custom_property("unreadable")


@pytest.mark.parametrize("column", ["time", "day"])
def test_a_missing_column_is_refused(tmp_path: Path, column: str) -> None:
    name = write(tmp_path, "parquet", table().drop([column]))
    assert refusal(tmp_path, "parquet", [name]).startswith(f"column `{column}` is missing in a.parquet")


def test_a_missing_column_of_a_tfrecord_is_refused(ingested: Any, tmp_path: Path) -> None:
    settings = {"split_key": "month"}
    files = [str(span_world.shards(ingested, "train")[0])]
    assert "column `month` is missing" in refusal(tmp_path, "tfrecord", files, settings)


def test_a_string_in_a_number_column_of_csv_reaches_the_user_through_beam(tmp_path: Path) -> None:
    name = write(tmp_path, "csv")
    lines = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_text("\n".join([*lines, lines[-1].replace("399", "oops")]) + "\n")
    error = refusal(tmp_path, "csv", [name], column_types=TYPES)
    assert "column `n` of a.csv, line 402 (row 401): 'oops'" in error


def test_a_ragged_row_is_refused_though_the_times_are_read_first(tmp_path: Path) -> None:
    name = write(tmp_path, "csv")
    with (tmp_path / name).open("a") as file:
        file.write("1,2\n")
    assert refusal(tmp_path, "csv", [name], column_types=TYPES).startswith("a.csv has a ragged row in line 402")


def test_empty_truncated_and_corrupt_files_are_refused(tmp_path: Path, ingested: Any) -> None:
    (tmp_path / "empty.parquet").touch()
    whole = (tmp_path / write(tmp_path, "parquet")).read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[: len(whole) // 2])
    records = span_world.shards(ingested, "train")[0].read_bytes()
    (tmp_path / "short.tfrecord").write_bytes(records[:-9])
    assert "is empty" in refusal(tmp_path, "parquet", ["empty.parquet"])
    assert "is not a whole Parquet file" in refusal(tmp_path, "parquet", ["a.parquet", "short.parquet"])
    assert "is not a whole TFRecord file" in refusal(tmp_path, "tfrecord", ["short.tfrecord"])


def test_a_tfrecord_feature_that_is_a_number_and_a_string_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    def feature(value: Any) -> Any:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def save(name: str, *values: Any) -> str:
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for value in values:
                example = tf.train.Example(features=tf.train.Features(feature={"n": feature(value)}))
                writer.write(example.SerializeToString())
        return name

    assert refusal(tmp_path, "tfrecord", [save("a", 1, b"x")], {})
    assert "`n`" in refusal(tmp_path, "tfrecord", [save("b", 1), save("c", b"x")], {})


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_span_without_rows_is_refused(tmp_path: Path, format: str) -> None:
    name = write(tmp_path, format, table().slice(0, 0))
    assert refusal(tmp_path, format, [name], column_types=TYPES).startswith("span 7 has no rows")


def test_several_values_cannot_decide_a_split(tmp_path: Path) -> None:
    name = write(tmp_path, "parquet", pa.table({"n": [1], "keys": [["a", "b"]]}))
    error = refusal(tmp_path, "parquet", [name], {"split_key": "keys"})
    assert error.startswith("column `keys` has several values in a row")


def test_a_missing_file_and_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(SpanError, match="a file of the span is gone"):
        span_world.ingest(tmp_path, ["a.parquet"], tmp_path / "out", {})
    with pytest.raises(ConfigError, match=r"`data.format` is 'avro'"):
        span_world.ingest(tmp_path, [], tmp_path / "out", {}, "avro")
