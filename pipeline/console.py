"""What people see: tables, the error block, a run's stages as they go by, and sizes and times in words.

On a terminal stages have a spinner and a bar; elsewhere (a file, a pipe, a CI log) each is a plain line. Colours stay
away where NO_COLOR is set, symbols become ASCII where the encoding is not UTF-8, and a table that a narrow terminal
cannot hold is printed row by row.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from evergreen.components.errors import EvergreenError

# Where there is no terminal nobody needs lines to be broken, and a table must not lose columns.
_PLAIN_WIDTH = 10_000
_NAME_WIDTH = 16
_PLAIN_SECONDS = 15.0
_BAR_FITS = 70


class Console:
    """Prints text as it is: no markup, no highlighting, no emoji codes.

    Args:
      file: where to print; standard output by default.
      quiet: print nothing, for commands that were asked for JSON.

    Attributes:
      rich: the console underneath.
    """

    def __init__(self, file: IO[str] | None = None, quiet: bool = False):
        stream = file if file is not None else sys.stdout
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not end a run
        self.rich = RichConsole(file=stream, markup=False, highlight=False, emoji=False, quiet=quiet)
        if not self.rich.is_terminal:
            self.rich.width = _PLAIN_WIDTH

    @property
    def is_ascii(self) -> bool:
        """Whether nothing but ASCII can be shown."""
        return not self.rich.encoding.lower().startswith("utf")

    @property
    def is_live(self) -> bool:
        """Whether lines can be drawn over."""
        return self.rich.is_terminal and not self.rich.is_dumb_terminal and not self.rich.quiet

    def note(self, text: str, style: str = "") -> None:
        """Prints a line.

        Args:
          text: the line.
          style: such as `bold` or `green`.
        """
        self.rich.print(Text(text, style=style))

    def warn(self, text: str) -> None:
        """Prints a warning.

        Args:
          text: one line.
        """
        self.rich.print(Text.assemble(("warning ", "yellow"), text))

    def error(self, error: EvergreenError) -> None:
        """Prints an error: the headline, the reason, the next step.

        Args:
          error: what happened.
        """
        self.rich.print(Text.assemble(("Error: ", "bold red"), (error.headline, "bold")))
        for line in error.reason.splitlines():
            self.rich.print(Text("  " + line))
        if error.next_step:
            self.rich.print(Text.assemble(("Next: ", "bold"), error.next_step))

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Shows a spinner for the time of a block; nothing where lines cannot be drawn over.

        Args:
          text: what is being done.
        """
        if not self.is_live:
            yield
            return
        with self.rich.status(text, spinner="line" if self.is_ascii else "dots"):
            yield

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), title: str = ""
    ) -> None:
        """Prints a table, or its rows one below the other where the terminal is too narrow for it.

        Args:
          columns: the headings.
          rows: a value for each column; None and empty text show as a dash.
          right: headings of the columns that are aligned to the right.
          title: a line above.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        table = Table(
            *(Column(name, justify="right" if name in right else "left", overflow="fold") for name in columns),
            box=SIMPLE_HEAD,
            header_style="bold",
            pad_edge=False,
            show_edge=False,
        )
        for row in cells:
            table.add_row(*row)
        if title:
            self.note(title, "bold")
        needed = Measurement.get(self.rich, self.rich.options.update(max_width=_PLAIN_WIDTH), table)
        if needed.minimum <= self.rich.width:
            self.rich.print(table)
            return
        for index, row in enumerate(cells):
            if index:
                self.rich.print()
            for name, text in zip(columns, row, strict=True):
                self.rich.print(Text.assemble((f"{name}: ", "bold"), text))


def slowly(note: Callable[[str], None]) -> Callable[[str], None]:
    """Returns a function that passes a line on when the last one is long enough ago for a log."""
    printed = -math.inf

    def say(text: str) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _PLAIN_SECONDS:
            printed = time.monotonic()
            note(text)

    return say


def print_json(value: Any) -> None:
    """Prints a value as JSON on standard output, for programs.

    Args:
      value: plain values; dates become text, and what is no number (a metric without rows) null.
    """
    sys.stdout.write(json.dumps(_finite(value), indent=2, default=str, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value is None or value == "" else str(value))


def size(count: float | None) -> str:
    """Writes a number of bytes: `512 B`, `1.4 MB`; a dash for None."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def number(value: float | None) -> str:
    """Writes a measurement with four digits that matter: `0.6813`, `45.51`, `12,346`; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Writes a number of seconds: `0.4 s`, `34 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def age(moment: datetime.datetime, now: datetime.datetime | None = None) -> str:
    """Writes how long ago something was: `just now`, `5 min ago`, `3 h ago`, `12 d ago`.

    Args:
      moment: when, with its time zone.
      now: the present, for tests.
    """
    seconds = ((now or datetime.datetime.now(datetime.timezone.utc)) - moment).total_seconds()
    if seconds < 60:
        return "just now"
    for limit, unit, length in ((3600, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds // 86400:,.0f} d ago"


def moment(value: str | float | None) -> datetime.datetime | None:
    """Reads a time: ISO-8601 text, or milliseconds since 1970 as ML Metadata keeps them; None where it is neither."""
    if isinstance(value, str):
        try:
            parsed = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.timezone.utc)
    return datetime.datetime.fromtimestamp(value / 1000, datetime.timezone.utc) if value else None


def clock(value: str | float | None) -> str:
    """Writes a time of `moment`'s kinds in the local time zone: `2026-11-23 04:12`; a dash where there is none."""
    read = moment(value)
    return f"{read.astimezone():%Y-%m-%d %H:%M}" if read else "-"


class StageProgress:
    """A run's stages as they go by. A context manager: leaving it stops whatever still moves.

    Args:
      file: where to print; standard output by default.
      quiet: print nothing.

    Attributes:
      stage: the stage that runs now, or ran last; None before the first.
    """

    def __init__(self, file: IO[str] | None = None, quiet: bool = False):
        self.console = Console(file, quiet)
        self.stage: str | None = None
        self._progress: Progress | None = None
        self._task: Any = None
        self._width = _NAME_WIDTH
        self._running = False
        self._began = 0.0
        self._printed = 0.0

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.failed()

    def heading(self, text: str, run_id: str) -> None:
        """Prints what the run is about.

        Args:
          text: one line.
          run_id: the run, by which its logs are found.
        """
        self.console.note(text, "bold")
        self.console.note(f"run {run_id}", "dim")

    def widen(self, stages: Iterable[str]) -> None:
        """Makes the column of the stages' names as wide as the longest.

        Args:
          stages: names of stages to come.
        """
        self._width = max([self._width, *map(len, stages)])

    def start(self, stage: str, description: str = "") -> None:
        """Begins a stage; what it says in `update` comes below or behind it.

        Args:
          stage: its name.
          description: what it does, in a few words.
        """
        self.failed()
        self.stage, self._running = stage, True
        self._began = self._printed = time.monotonic()
        if not self.console.is_live:
            self._line("start", stage, description or "started")
            return
        bar = [BarColumn(bar_width=20)] if self.console.rich.width >= _BAR_FITS else []
        self._progress = Progress(
            SpinnerColumn("line" if self.console.is_ascii else "dots"),
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=self._width, no_wrap=True)),
            *bar,
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            TimeElapsedColumn(),
            console=self.console.rich,
            transient=True,
            refresh_per_second=5,
            expand=True,
            # The run's output goes to its log by file descriptor; rich must not take the streams too.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(stage, total=None, text=description)
        self._progress.start()

    def update(self, fraction: float | None, text: str = "") -> None:
        """Says how far the stage is.

        Args:
          fraction: 0 to 1; None where that is unknown.
          text: a few words, such as `step 400 of 2,000, loss 0.43`.
        """
        if not self._running:
            return
        if self._progress is not None:
            total = None if fraction is None else 1.0
            self._progress.update(self._task, total=total, completed=fraction or 0.0, text=text)
            return
        now = time.monotonic()
        if now - self._printed >= _PLAIN_SECONDS:
            self._printed = now
            share = "" if fraction is None else f"{fraction:.0%} "
            self._line("...", self.stage or "", (share + text).strip())

    def done(self, summary: str = "", seconds: float | None = None) -> None:
        """Ends the stage.

        Args:
          summary: what it found, in one line.
          seconds: how long it took; by default since `start`.
        """
        took = duration(time.monotonic() - self._began if seconds is None else seconds)
        self._end("done", "green", summary, took)

    def skipped(self, stage: str, reason: str) -> None:
        """Says that a stage did not run; where it was started, that ends it.

        Args:
          stage: its name.
          reason: why.
        """
        if self._running:
            self._end("skipped", "yellow", reason, "")
        else:
            self._line("skipped", stage, reason, style="yellow")

    def failed(self) -> None:
        """Ends the stage, if one runs: it did not finish."""
        if self._running:
            self._end("failed", "red", "", duration(time.monotonic() - self._began))

    def warn(self, text: str) -> None:
        """Prints a warning.

        Args:
          text: one line.
        """
        self.console.warn(text)

    def _end(self, word: str, style: str, text: str, took: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._running = False
        self._line(word, self.stage or "", text, took, style)

    def _line(self, word: str, stage: str, text: str, took: str = "", style: str = "") -> None:
        if self.console.is_live:
            symbols = {
                "done": "+" if self.console.is_ascii else "✓",
                "skipped": "-",
                "failed": "x" if self.console.is_ascii else "✗",
            }
            mark = symbols.get(word, word)
            text = text or (word if word != "done" else "")
        else:
            mark = f"{word:<7}"
        name = f"{stage:<{self._width}}"
        tail = f"  {took}" if took else ""
        self.console.rich.print(
            Text.assemble((mark, style), " ", (name, "bold"), " ", text, (tail, "dim")), soft_wrap=True
        )
