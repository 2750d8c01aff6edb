"""A profiled run: sampling while it runs, then the table on the terminal and the trace in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evergreen.pipeline.console import Console
from evergreen.pipeline.profiling import split, trace
from evergreen.pipeline.profiling.parts import Part
from evergreen.pipeline.profiling.sampler import Sampler

TRACE_NAME = "trace.json.gz"
# Stages shorter than this share a row.
_SHORT_S = 0.1


class Profile:
    """Samples from when it is made, by the thread that runs the stages. Leaving it as a context manager ends that.

    Attributes:
      rows: the stages' times; empty until `end`.
      path: the trace; None until `end`.
    """

    def __init__(self) -> None:
        self._sampler = Sampler()
        self.rows: list[split.Row] = []
        self.path: Path | None = None

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.stop()

    def stage(self, name: str, begins: bool) -> None:
        """Hears of a stage, as `RunLog.on_stage`.

        Args:
          name: the stage.
          begins: whether it begins or ends.
        """
        self._sampler.mark(name, begins)

    def end(self, folder: Path) -> None:
        """Ends the sampling and writes the trace.

        Args:
          folder: the run's folder of logs.
        """
        recording = self._sampler.stop()
        self.rows = split.rows(recording)
        self.path = folder / TRACE_NAME
        trace.write(recording, self.path)

    def show(self, out: Console) -> None:
        """Prints the table, and where the trace is.

        Args:
          out: where.
        """
        short = [row for row in self.rows if row.wall < _SHORT_S]
        shown = [row for row in self.rows if row.wall >= _SHORT_S]
        if short:
            rest = split.total(short)
            rest.stage = f"({len(short)} shorter)"
            shown.append(rest)
        shown.append(split.total(self.rows))
        used = [part for part in Part if any(row.parts[part] >= 0.05 for row in shown)]
        columns = ["stage", "wall", *(part.value for part in used), "CPU"]
        cells = [
            [row.stage, _seconds(row.wall), *(_seconds(row.parts[part]) for part in used), _seconds(row.cpu)]
            for row in shown
        ]
        out.table(columns, cells, right=columns[1:], title="where the time went, in seconds")
        out.note(f"trace: {self.path} (open it in https://ui.perfetto.dev or https://www.speedscope.app)")

    def to_json(self) -> dict[str, Any]:
        """Returns the table's values by stage, and the trace's path, for `--json`."""
        return {"stages": {row.stage: row.to_json() for row in self.rows}, "trace": str(self.path)}


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else ""
