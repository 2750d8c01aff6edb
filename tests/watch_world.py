"""Versions that a real server watches over: small models to publish, rows with what is right for them, labels.

As a program it publishes and watches in a process of its own, which a test may kill:
    python tests/watch_world.py ORDER.json
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evergreen.components.model_server.client import Client, ServerError
from evergreen.components.pusher import labels, publish, watch, watch_plan

X = [0.0, 1.0, 2.5, -4.0, 7.0]
# A server that knows a version does not load it again from another test's folder.
_names = itertools.count(1)


def candidate(saved_model: Path, number: int, name: str) -> publish.Candidate:
    """Returns a model as the Pusher describes it."""
    return publish.Candidate(
        saved_model=saved_model,
        model_artifact_id=number,
        model_uri=f"/models/{number}",
        name=name,
        run=f"run-{number}",
        span=number,
    )


def push(
    base: Path,
    settings: dict[str, Any],
    model: publish.Candidate,
    uris: tuple[str, str] = ("", ""),
    say: Callable[[float | None, str], None] = lambda fraction, text: None,
) -> watch_plan.Watched:
    """Publishes and watches as the executor does."""
    parsed = watch_plan.parse_settings(settings)
    with watch.Watch(parsed, base, model.name, say) as watching, watching.held():
        watching.finish()
        watching.check()
        publish.publish(
            base,
            model,
            keep=3,
            protected=watch.protected(parsed, model.name),
            announce=lambda version: watching.announce(version, *uris),
        )
        return watching.run()


class World:
    """A base path that a running server serves.

    Args:
      folder: a folder of the test's own.
      server: a `serving_world.Server`; its models are replaced by this one.
    """

    def __init__(self, folder: Path, server: Any):
        self.folder, self.server = folder, server
        self.model = f"model{next(_names)}"
        self.base = folder / "base"
        self.base.mkdir()
        self.models_config = folder / "models.config"
        self.models_config.write_text(
            "# kept\n"
            "model_config_list {\n  config {\n"
            f'    name: "{self.model}"\n    base_path: "{self.base}"\n    model_platform: "tensorflow"\n'
            "    model_version_policy { latest { num_versions: 2 } }\n  }\n}\n"
        )
        with contextlib.suppress(ServerError):  # it says that there is no version yet, and looks for one
            self.client.reload(labels.parse(self.models_config.read_text(), "models.config"))

    @property
    def client(self) -> Client:
        return Client(self.server.grpc, 60.0)

    @property
    def labels(self) -> dict[str, int]:
        """The labels in the file."""
        return labels.read(self.models_config, self.model)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Returns the section `publish`."""
        return {"server": self.server.grpc, "watch": {"timeout": 120, "rows": 4}, **more}

    def canary(self, minutes: float = 0.05, **limits: Any) -> dict[str, Any]:
        """Returns the section `publish` with a trial of a few seconds, whose limits this machine's noise keeps."""
        values = {"minutes": minutes, "max_error_ratio": 0.01, "max_latency_ratio": 1000.0, **limits}
        return self.settings(canary=values, models_config=str(self.models_config))

    def candidate(self, saved_model: Path, number: int) -> publish.Candidate:
        """Returns a model as the Pusher describes it."""
        return candidate(saved_model, number, self.model)

    def watch(self, settings: dict[str, Any]) -> watch.Watch:
        """Returns a watch over the base path."""
        return watch.Watch(watch_plan.parse_settings(settings), self.base, self.model, lambda fraction, text: None)

    def finish(self, settings: dict[str, Any]) -> watch_plan.Watched | None:
        """Takes up a watch that another process has left."""
        with self.watch(settings) as watching, watching.held():
            return watching.finish()

    def rows(self, bias: float) -> tuple[str, str]:
        """Writes an exam of which a model with this bias answers every row right; returns the artifacts' URIs."""
        import tensorflow as tf
        from serving_world import example

        examples = self.folder / f"examples-{bias}"
        (examples / "Split-exam").mkdir(parents=True)
        with tf.io.TFRecordWriter(str(examples / "Split-exam" / "data.tfrecord")) as writer:
            for x in X:
                writer.write(example(x=x))
        return str(examples), self.answers(f"evaluation-{bias}", [2 * x + bias for x in X])

    def answers(self, name: str, predictions: list[float]) -> str:
        """Writes what the Trainer's model answered to the rows of the exam; returns the artifact's URI."""
        import pyarrow as pa

        from evergreen.components.evaluator import tables

        count = len(predictions)
        table = {"split": ["exam"] * count, "row": list(range(count)), "prediction": predictions}
        tables.write(pa.table(table), str(self.folder / name))
        return str(self.folder / name)

    def answer(self, version: int | None = None, label: str | None = None) -> float:
        """Returns the bias of the version that answers."""
        import numpy as np

        answers = self.client.predict(self.model, {"x": np.zeros(1, np.float32)}, version, label, "raw")
        return float(answers["y"][0])


if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text())
    model = candidate(Path(order["model"]), order["number"], order["name"])
    push(Path(order["base"]), order["settings"], model, say=lambda fraction, text: print(text, flush=True))
