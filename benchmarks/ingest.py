"""Reading spans: SpanExampleGen and StatisticsGen against TFX's own on the same rows, in one process.

Both sides run by Beam's in-process runner, one after the other, several times; the median counts. TFX's CsvExampleGen
reads CSV only; ours reads the same rows as CSV and as Parquet. Prints rows per second and the ratios, by the clock and
by the processor's time, which other work on the machine does not stretch.

    .venv/bin/python benchmarks/ingest.py [--months 1] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flights"
BEAM_ARGS = [
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=in-process",  # for both sides: else TFX packs itself for workers that there are none of
]
SETTINGS = {"time": "time_hour", "split_key": "date", "exam": 0.25, "validation": 0.1}


def artifact(artifact_class: Any, folder: Path) -> Any:
    """Makes an output artifact with its folder."""
    folder.mkdir(parents=True)
    made = artifact_class()
    made.uri = str(folder)
    return made


def context(executor_class: Any, folder: Path) -> Any:
    """Makes what TFX hands to a Beam executor."""
    return executor_class.Context(beam_pipeline_args=list(BEAM_ARGS), tmp_dir=str(folder), unique_id="1")


def stock_examples(source: Path, out: Path) -> Any:
    """Runs CsvExampleGen on a folder of CSV files, into three splits."""
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    buckets = [
        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=count)
        for name, count in (("train", 68), ("validation", 7), ("exam", 25))
    ]
    pattern = example_gen_pb2.Input.Split(name="all", pattern="*/*.csv")
    output = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=buckets))
    examples = artifact(standard_artifacts.Examples, out)
    parameters = {
        "input_base": str(source),
        "input_config": proto_utils.proto_to_json(example_gen_pb2.Input(splits=[pattern])),
        "output_config": proto_utils.proto_to_json(output),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    Executor(context(Executor, out)).Do({}, {"examples": [examples]}, parameters)
    return examples


def our_examples(source: Path, out: Path, format: str, types: dict[str, str]) -> Any:
    """Runs SpanExampleGen on the files of a folder."""
    from tfx.types import standard_artifacts

    from evergreen.components.span_example_gen.executor import Executor

    examples = artifact(standard_artifacts.Examples, out)
    parameters = {
        "input_base": str(source),
        "files": json.dumps([str(path.relative_to(source)) for path in source.rglob(f"*.{format}")]),
        "format": format,
        "span": 1,
        "version": 0,
        "digest": "",
        "settings": json.dumps(SETTINGS),
        "column_types": json.dumps(types),
    }
    Executor(context(Executor, out)).Do({}, {"examples": [examples]}, parameters)
    return examples


def compute_statistics(executor_class: Any, examples: Any, out: Path) -> Any:
    """Runs an executor of StatisticsGen."""
    from tfx.types import standard_artifacts

    made = artifact(standard_artifacts.ExampleStatistics, out)
    outputs = {"statistics": [made]}
    executor_class(context(executor_class, out)).Do({"examples": [examples]}, outputs, {"exclude_splits": "[]"})
    return made


def measure(work: Callable[[Path], Any], folder: Path, repeats: int) -> dict[str, float]:
    """Times a piece of work; a first run, in which libraries are loaded, does not count.

    Args:
      work: called with a new folder each time.
      folder: where these folders go.
      repeats: how many runs count.

    Returns:
      Median seconds by the clock and of the processor.
    """
    clock, processor = [], []
    for run in range(repeats + 1):
        began, used = time.perf_counter(), time.process_time()
        work(folder / str(run))
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return {"seconds": statistics.median(clock[1:]), "processor_seconds": statistics.median(processor[1:])}


def run(months: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Measures both sides.

    Args:
      months: which months of flights, such as `1` or `1-3`.
      repeats: runs of each.
      folder: an empty folder.
    """
    sys.path.append(str(EXAMPLE))
    import data
    import pyarrow.parquet as pq
    from tfx.components.statistics_gen.executor import Executor as StockStatistics

    from evergreen.components.span_example_gen import columns
    from evergreen.components.statistics_gen.executor import Executor as OurStatistics

    numbers = data.parse_months(months)
    for format in ("csv", "parquet"):
        data.write_spans(folder / format, numbers, format=format)
    schema = pq.read_schema(next((folder / "parquet").rglob("*.parquet")))
    types = {name: columns.kind_of(schema.field(name).type) or "" for name in schema.names}
    rows = sum(pq.read_metadata(path).num_rows for path in (folder / "parquet").rglob("*.parquet"))

    csv, parquet = folder / "csv", folder / "parquet"
    examples = our_examples(parquet, folder / "examples", "parquet", types)
    found = {
        "CsvExampleGen (TFX), CSV": measure(lambda out: stock_examples(csv, out), folder / "stock", repeats),
        "SpanExampleGen, CSV": measure(lambda out: our_examples(csv, out, "csv", types), folder / "ours-csv", repeats),
        "SpanExampleGen, Parquet": measure(
            lambda out: our_examples(parquet, out, "parquet", types), folder / "ours-parquet", repeats
        ),
        "StatisticsGen (TFX)": measure(
            lambda out: compute_statistics(StockStatistics, examples, out), folder / "stock-statistics", repeats
        ),
        "StatisticsGen": measure(
            lambda out: compute_statistics(OurStatistics, examples, out), folder / "our-statistics", repeats
        ),
    }
    for figures in found.values():
        figures["rows_per_second"] = rows / figures["seconds"]

    def ratio(stock: str, ours: str) -> dict[str, float]:
        return {key: found[stock][key] / found[ours][key] for key in ("seconds", "processor_seconds")}

    ratios = {
        "read CSV": ratio("CsvExampleGen (TFX), CSV", "SpanExampleGen, CSV"),
        "read Parquet v. CSV": ratio("CsvExampleGen (TFX), CSV", "SpanExampleGen, Parquet"),
        "statistics": ratio("StatisticsGen (TFX)", "StatisticsGen"),
    }
    return {"rows": rows, "columns": len(types), "runs": found, "ratios": ratios}


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", default="1", help="months of 2013, such as 1 or 1-3")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each that count")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(options.months, options.repeats, Path(folder))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['rows']:,} rows of {result['columns']} columns, median of {options.repeats}")
    print(f"{'':28}{'seconds':>9}{'processor':>11}{'rows/s':>11}")
    for name, figures in result["runs"].items():
        line = f"{figures['seconds']:9.2f}{figures['processor_seconds']:11.2f}{figures['rows_per_second']:11,.0f}"
        print(f"{name:28}{line}")
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio['seconds']:.1f} times as fast ({ratio['processor_seconds']:.1f} by processor time)")


if __name__ == "__main__":
    main()
