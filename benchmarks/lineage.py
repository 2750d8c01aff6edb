"""What questions and runs cost with many runs in the store, and what stock TFX's look-ups cost there.

    .venv/bin/python benchmarks/lineage.py [--runs 10 1000 10000] [--keep FOLDER]

For each number of runs it writes a store of synthetic runs, or takes the one that an earlier call left under `--keep`,
and prints:

- seconds and peak memory of the commands that ask, each a process of its own;
- seconds that a run spends on reading and writing its own records: recovery, plan, begin and end;
- seconds of a whole run that the cache answers: of its nodes, and of the command, TensorFlow's imports included;
- seconds of stock TFX for one input of one node (`resolve`: the channel of this run's examples) and for its cache,
  where every run so far hit the same key (`cache`); it does the one for every input, the other for every node.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lineage_run
import web_pages
from lineage_store import FIRST_VERSION, PIPELINE

# A process's peak as `wait4` tells it contains its parent's at the time of the fork.
_COMMAND = """\
import re, sys
from evergreen.pipeline.cli import main
status = main()
sys.stderr.write(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
sys.exit(status)
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--keep", type=Path, help="where the stores stay, for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table: dict[str, list[str]] = {}
        for runs in given.runs:
            project = store_of(given.keep or Path(scratch), runs)
            copy = Path(scratch) / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(project.parent, copy)
            found = questions(project, runs) | own(copy / project.name, runs) | stock(copy, runs)
            database = project.parent / ".evergreen" / "metadata.db"
            found |= lineage_run.measure((given.keep or Path(scratch)) / f"{runs}-run", database, runs)
            for name, value in found.items():
                table.setdefault(name, []).append(value)
    print(f"{'':<22}" + "".join(f"{f'{runs:,} runs':>20}" for runs in given.runs))
    for name, values in table.items():
        print(f"{name:<22}" + "".join(f"{value:>20}" for value in values))


def store_of(folder: Path, runs: int) -> Path:
    """Returns the evergreen.yaml of a project of so many runs, with its newest three spans on disk."""
    root = folder / str(runs)
    file = root / "evergreen.yaml"
    if not file.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for span in range(max(0, runs - 3), runs):
            (root / "data" / str(span)).mkdir(parents=True)
            (root / "data" / str(span) / "rows.csv").write_text("x,y\n1,0\n")
            (root / "data" / str(span) / "_SUCCESS").touch()
        web_pages.make(root, runs)
    return file


def questions(file: Path, runs: int) -> dict[str, str]:
    """Measures the commands that ask: seconds and peak memory."""
    # Every tenth run, the last too, published nothing.
    newest, older = (str(FIRST_VERSION + (runs - back) * 3600) for back in (2, 3))
    asked = {
        "versions": ["versions"],
        "runs --last 20": ["runs", "--last", "20"],
        "lineage V": ["lineage", newest],
        "diff V W": ["diff", older, newest],
    }
    found = {}
    for name, arguments in asked.items():
        began = time.monotonic()
        command = [sys.executable, "-c", _COMMAND, "-c", str(file), *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        found[name] = f"{time.monotonic() - began:.2f} s {int(done.stderr) / 1000:.0f} MB"
    return found


def own(file: Path, runs: int) -> dict[str, str]:
    """Measures what a run of Evergreen itself reads and writes of its records."""
    from evergreen.pipeline import config, plan, recovery
    from evergreen.pipeline.store import Result, Store

    loaded = config.load(file)
    store = Store(loaded.connection, loaded.name)
    store.mlmd  # noqa: B018  connects
    return {
        "run: recovery": seconds(lambda: recovery.recover(loaded, store)),
        "run: plan": seconds(lambda: plan.plan_run(loaded, store)),
        "run: begin, end": seconds(
            lambda: (store.begin_run("new", {"span": runs}), store.end_run("new", Result.UNCHANGED, {}))
        ),
    }


def stock(folder: Path, runs: int) -> dict[str, str]:
    """Measures stock TFX's look-ups for one node of the newest run."""
    from absl import logging
    from ml_metadata.proto import metadata_store_pb2 as pb
    from tfx.orchestration import metadata
    from tfx.orchestration.portable import cache_utils
    from tfx.orchestration.portable.input_resolution import channel_resolver
    from tfx.proto.orchestration import pipeline_pb2

    logging.set_verbosity(logging.ERROR)
    channel = pipeline_pb2.InputSpec.Channel(output_key="examples")
    channel.producer_node_query.id = "SpanExampleGen"
    channel.artifact_query.type.name = "Examples"
    contexts = {
        "pipeline": PIPELINE,
        "pipeline_run": f"20200101T{runs - 1:06d}-1",
        "node": f"{PIPELINE}.SpanExampleGen",
    }
    for kind, name in contexts.items():
        query = channel.context_queries.add()
        query.type.name, query.name.field_value.string_value = kind, name
    database = folder / ".evergreen" / "metadata.db"
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(database))) as handle:
        store = handle.store
        cache = cached_by_every_run(store, folder, pb)
        (found,) = channel_resolver.resolve_single_channel(handle, channel)
        if found.uri != f"/nowhere/Examples/{runs - 1}" or cache_utils.get_cached_outputs(handle, cache) is None:
            raise SystemExit("stock TFX found something else")
        return {
            "stock node: resolve": seconds(lambda: channel_resolver.resolve_single_channel(handle, channel)),
            "stock node: cache": seconds(lambda: cache_utils.get_cached_outputs(handle, cache)),
        }


def cached_by_every_run(store: Any, folder: Path, pb: Any) -> Any:
    """Makes the cache's context that holds the StatisticsGen of each run, as hits of one key leave it."""
    node = store.get_context_by_type_and_name("node", f"{PIPELINE}.StatisticsGen")
    executions = store.get_executions_by_context(node.id)
    kind = store.put_context_type(pb.ContextType(name="execution_cache"))
    (cache_id,) = store.put_contexts([pb.Context(type_id=kind, name="key")])
    store.put_attributions_and_associations(
        [], [pb.Association(execution_id=execution.id, context_id=cache_id) for execution in executions]
    )
    newest = max(execution.id for execution in executions)
    outputs = [e.artifact_id for e in store.get_events_by_execution_ids([newest]) if e.type == pb.Event.OUTPUT]
    artifacts = store.get_artifacts_by_id(outputs)
    for artifact in artifacts:
        artifact.uri = str(folder)  # stock TFX takes only what is still there
    store.put_artifacts(artifacts)
    return store.get_context_by_type_and_name("execution_cache", "key")


def seconds(work: Callable[[], Any]) -> str:
    """Returns how long a piece of work takes."""
    began = time.monotonic()
    work()
    return f"{time.monotonic() - began:.3f} s"


if __name__ == "__main__":
    main()
