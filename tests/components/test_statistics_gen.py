"""The fast StatisticsGen computes what the stock one does, and steps aside where Beam spreads the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import span_world

pytestmark = pytest.mark.tensorflow

SPLITS = ("train", "validation", "exam")
SCHEMA = """
feature { name: "n" type: INT }
feature { name: "weekday" type: INT int_domain { is_categorical: true } }
feature { name: "s" type: BYTES }
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = 3000
    pd.DataFrame(
        {
            "n": np.arange(rows),
            "weekday": generator.integers(0, 7, rows),
            "x": np.where(generator.random(rows) < 0.1, np.nan, generator.normal(size=rows)),
            "s": np.where(generator.random(rows) < 0.1, None, generator.integers(0, 2000, rows).astype(str)),
            "words": [["a", "b"][: n % 3] for n in range(rows)],
        }
    ).to_parquet(folder / "a.parquet", index=False)
    return span_world.ingest(folder, ["a.parquet"], folder / "out", {"time": "n", "validation": 0})


def load(statistics: Any) -> dict[str, Any]:
    from tfx.components.statistics_gen import stats_artifact_utils

    assert statistics.split_names == '["train", "validation", "exam"]'
    return {s: stats_artifact_utils.load_statistics(statistics, s).proto().datasets[0] for s in SPLITS}


def stock(examples: Any, out: Path, schema: Any, options: Any = None) -> Any:
    from tfx.components.statistics_gen.executor import Executor
    from tfx.types import standard_artifacts

    statistics = span_world.artifact(standard_artifacts.ExampleStatistics, out)
    context = Executor.Context(beam_pipeline_args=span_world.BEAM_ARGS, tmp_dir=str(out), unique_id="1")
    parameters = {"exclude_splits": "[]", "stats_options_json": options.to_json() if options else None}
    Executor(context).Do({"examples": [examples], "schema": [schema]}, {"statistics": [statistics]}, parameters)
    return statistics


def rounded(dataset: Any) -> dict[str, Any]:
    """Features by name, without the last digits of means, which depend on the order of the batches."""
    found = {}
    for feature in dataset.features:
        if feature.HasField("num_stats"):
            feature.num_stats.mean = round(feature.num_stats.mean, 6)
            feature.num_stats.std_dev = round(feature.num_stats.std_dev, 6)
        found[feature.path.step[0]] = feature
    return found


def test_statistics_equal_those_of_the_stock_pipeline(examples: Any, tmp_path: Path) -> None:
    schema = span_world.schema_artifact(SCHEMA, tmp_path / "schema")
    ours = load(span_world.compute_statistics(examples, tmp_path / "ours", schema))
    theirs = load(stock(examples, tmp_path / "stock", schema))
    for split in SPLITS:
        assert ours[split].num_examples == theirs[split].num_examples
        assert rounded(ours[split]) == rounded(theirs[split])
    assert ours["train"].num_examples == 2250
    assert ours["validation"].num_examples == 0
    assert rounded(ours["train"])["weekday"].HasField("string_stats")


@pytest.mark.parametrize(
    ("arguments", "here"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (span_world.BEAM_ARGS, True),
        (["--runner=PortableRunner"], False),
        (["--runner=FlinkRunner"], False),
        (["--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
    ],
)
def test_only_a_runner_in_this_process_is_spared(arguments: list[str], here: bool, tmp_path: Path) -> None:
    from evergreen.components.statistics_gen.executor import Executor

    executor = Executor(Executor.Context(tmp_dir=str(tmp_path), unique_id="1"))
    executor._beam_pipeline_args = arguments
    assert executor._runs_here() is here


def test_options_that_only_the_stock_pipeline_knows_take_the_stock_way() -> None:
    import tensorflow_data_validation as tfdv

    from evergreen.components.statistics_gen import executor

    def known(**options: Any) -> bool:
        return executor._stats_options({"stats_options_json": tfdv.StatsOptions(**options).to_json()}) is not None

    assert known()
    assert known(num_top_values=5, epsilon=0.05)
    assert not known(sample_rate=0.5)
    assert not known(feature_allowlist=["n"])
    assert not known(enable_semantic_domain_stats=True)
    assert executor._stats_options({"sharded_stats_output": True}) is None
