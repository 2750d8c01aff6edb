"""Gate 1 as a pipeline of TFX's: compiled, run by the stock LocalDagRunner, cached, and clean after a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import span_world

from evergreen.components.errors import SpanError

pytestmark = pytest.mark.tensorflow

SCHEMA = """
feature { name: "n" type: INT presence { min_fraction: 1 min_count: 1 } }
feature { name: "s" type: BYTES presence { min_fraction: 1 min_count: 1 } domain: "letters" }
string_domain { name: "letters" value: "a" value: "b" }
"""


class Project:
    """A folder with a span, a schema and a metadata store."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.schema = folder / "schema.pbtxt"
        self.schema.write_text(SCHEMA)
        self.deliver(["a", "b"])

    def deliver(self, letters: list[str]) -> None:
        pd.DataFrame({"n": np.arange(400), "s": np.resize(letters, 400)}).to_parquet(self.folder / "a.parquet")

    def run(self, fingerprint: str = "1", file: str = "a.parquet") -> dict[str, list[Any]]:
        """Runs the pipeline; returns each node's executions."""
        import ml_metadata
        from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
        from tfx.orchestration import metadata, pipeline
        from tfx.orchestration.local import local_dag_runner

        from evergreen.components.fingerprinted import with_fingerprint
        from evergreen.components.span_example_gen.component import SpanExampleGen
        from evergreen.components.span_validator.component import SpanValidator
        from evergreen.components.statistics_gen.component import StatisticsGen

        settings = json.dumps({"time": "n", "min_rows": 10, "window": 3})
        examples = SpanExampleGen(
            input_base=str(self.folder),
            files=json.dumps([file]),
            format="parquet",
            span=3,
            version=1,
            digest=file,
            settings=settings,
            schema_file=str(self.schema),
            fingerprint=fingerprint,
        )
        schema = with_fingerprint(ImportSchemaGen)(schema_file=str(self.schema), fingerprint=fingerprint)
        statistics = StatisticsGen(
            examples=examples.outputs["examples"], schema=schema.outputs["schema"], fingerprint=fingerprint
        )
        verdict = SpanValidator(
            statistics=statistics.outputs["statistics"],
            schema=schema.outputs["schema"],
            examples=examples.outputs["examples"],
            settings=settings,
            fingerprint=fingerprint,
        )
        connection = metadata.sqlite_metadata_connection_config(str(self.folder / "metadata.db"))
        try:
            local_dag_runner.LocalDagRunner().run(
                pipeline.Pipeline(
                    pipeline_name="gate",
                    pipeline_root=str(self.folder / "artifacts"),
                    metadata_connection_config=connection,
                    components=[examples, schema, statistics, verdict],
                    enable_cache=True,
                    beam_pipeline_args=span_world.BEAM_ARGS,
                )
            )
        finally:
            self.store = ml_metadata.MetadataStore(connection)
        return {
            kind.name.rpartition(".")[2]: self.store.get_executions_by_type(kind.name)
            for kind in self.store.get_execution_types()
        }

    def artifacts(self, type_name: str) -> list[Any]:
        return self.store.get_artifacts_by_type(type_name)


def verdicts(project: Project) -> list[tuple[str, str]]:
    """Each span version's verdict and its first reason."""
    found = []
    for anomalies in project.artifacts("ExampleAnomalies"):
        reasons = json.loads(anomalies.custom_properties["reasons"].string_value)
        found.append((anomalies.custom_properties["verdict"].string_value, reasons[0]["reason"] if reasons else ""))
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_pipeline_decides_once_and_the_fingerprint_is_part_of_the_cache_key(project: Project) -> None:
    from ml_metadata.proto import metadata_store_pb2

    cached = metadata_store_pb2.Execution.CACHED
    executions = project.run()
    assert set(executions) == {"SpanExampleGen", "StatisticsGen", "ImportSchemaGen", "SpanValidator"}
    (anomalies,) = project.artifacts("ExampleAnomalies")
    assert anomalies.custom_properties["verdict"].string_value == "accepted"
    assert anomalies.custom_properties["accepted"].int_value == 1
    assert anomalies.properties["span"].int_value == 3
    (examples,) = project.artifacts("Examples")
    assert (examples.properties["span"].int_value, examples.properties["version"].int_value) == (3, 1)
    assert examples.custom_properties["rows"].int_value == 400
    (statistics,) = executions["StatisticsGen"]
    assert statistics.custom_properties["fingerprint"].string_value == "1"
    stock_name = "tfx.components.schema_gen.import_schema_gen.component.ImportSchemaGen"
    assert project.store.get_execution_type(stock_name)

    again = project.run()
    assert all(found[-1].last_known_state == cached and len(found) == 2 for found in again.values())
    changed = project.run(fingerprint="2")
    assert all(found[-1].last_known_state != cached for found in changed.values())


def test_a_file_damaged_in_its_middle_gives_a_verdict_and_no_half_output(project: Project) -> None:
    table = pa.table({"n": range(400), "s": ["a"] * 400})
    path = project.folder / "b.parquet"
    pq.write_table(table, path, row_group_size=100, compression="none")
    whole = path.read_bytes()
    last_group = pq.ParquetFile(path).metadata.row_group(3).column(0).data_page_offset
    path.write_bytes(whole[:last_group] + bytes(50) + whole[last_group + 50 :])
    project.run(file="b.parquet")
    assert verdicts(project) == [("rejected", "UNREADABLE")]
    written = [path for path in (project.folder / "artifacts/SpanExampleGen").rglob("*") if path.is_file()]
    assert [path.parent.name for path in sorted(written)] == ["Split-exam", "Split-train", "Split-validation"]
    assert not any(path.stat().st_size for path in written)

    project.run(file="a.parquet")
    assert verdicts(project) == [("rejected", "UNREADABLE"), ("accepted", "")]


def test_a_file_that_is_gone_stops_the_run_and_leaves_nothing(project: Project) -> None:
    from ml_metadata.proto import metadata_store_pb2

    with pytest.raises(SpanError, match="a file of the span is gone"):
        project.run(file="c.parquet")
    kind = "evergreen.components.span_example_gen.component.SpanExampleGen"
    (failed,) = project.store.get_executions_by_type(kind)
    assert failed.last_known_state == metadata_store_pb2.Execution.FAILED
    assert not [path for path in (project.folder / "artifacts/SpanExampleGen").rglob("*") if path.is_file()]
    assert [a for a in project.artifacts("Examples") if a.state == metadata_store_pb2.Artifact.LIVE] == []


def test_a_rejected_span_is_a_complete_run(project: Project) -> None:
    project.deliver(["a", "b", "c"])
    project.run()
    (anomalies,) = project.artifacts("ExampleAnomalies")
    assert anomalies.custom_properties["verdict"].string_value == "rejected"
    (reason,) = json.loads(anomalies.custom_properties["reasons"].string_value)
    assert (reason["feature"], reason["split"]) == ("s", "span")
    assert "c" in reason["description"]
