"""What people see on terminals, in pipes, in narrow windows and without Unicode."""

from __future__ import annotations

import contextlib
import datetime
import io
import json

import pytest

from evergreen.components.errors import ConfigError
from evergreen.pipeline import console
from evergreen.pipeline.console import Console, StageProgress


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal."""

    def __init__(self, encoding: str = "utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def table(stream: io.TextIOBase, **options) -> None:
    Console(stream).table(["version", "size"], [[1764000000, "1.4 MB"], [None, "[b]"]], **options)


class TestTable:
    def test_in_a_pipe_nothing_is_cut(self):
        stream = io.StringIO()
        Console(stream).table(["a", "b"], [["x" * 300, "y"]])
        assert "x" * 300 + "   y" in stream.getvalue()

    def test_cells_are_text_and_not_markup(self):
        stream = io.StringIO()
        table(stream)
        assert stream.getvalue().splitlines()[-1].split() == ["-", "[b]"]

    def test_a_title_and_numbers_to_the_right(self):
        stream = io.StringIO()
        table(stream, title="Versions", right=["size"])
        lines = stream.getvalue().splitlines()
        assert lines[0] == "Versions"
        assert lines[-1].endswith("      [b]")

    def test_row_by_row_where_the_terminal_is_too_narrow(self, terminal, monkeypatch):
        monkeypatch.setenv("COLUMNS", "14")
        monkeypatch.setenv("NO_COLOR", "1")
        table(terminal)
        assert "size: " in terminal.text
        assert "1764000000" in terminal.text

    def test_ascii_lines_without_unicode(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
        table(stream)
        assert b"-----" in stream.buffer.getvalue()

    def test_a_name_that_the_encoding_lacks(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
        Console(stream).note("span größe")
        assert stream.buffer.getvalue() == b"span gr??e\n"


class TestError:
    def test_headline_reason_next_step(self):
        stream = io.StringIO()
        Console(stream).error(ConfigError("the file is wrong", "a: received [1]\nb: received 2", "Correct it."))
        assert stream.getvalue() == "Error: the file is wrong\n  a: received [1]\n  b: received 2\nNext: Correct it.\n"

    def test_a_headline_alone(self):
        stream = io.StringIO()
        Console(stream).error(ConfigError("wrong"))
        assert stream.getvalue() == "Error: wrong\n"

    def test_no_color(self, terminal, monkeypatch):
        Console(terminal).error(ConfigError("wrong"))
        assert "\x1b[1;31m" in terminal.text
        plain = Terminal()
        monkeypatch.setenv("NO_COLOR", "1")
        Console(plain).error(ConfigError("wrong"))
        assert "31m" not in plain.text


class TestStages:
    def run(self, stream, **options) -> None:
        with StageProgress(stream, **options) as stages:
            stages.heading("train on spans 1, 2", "20260101T000000-1")
            stages.start("Trainer", "training")
            stages.update(0.5, "step 5 of 10")
            stages.warn("span 3 was rejected")
            stages.done("10 steps", 83)
            stages.skipped("Pusher", "gate 2 is closed")
            stages.start("Evaluator", "examining")
            assert stages.stage == "Evaluator"

    def test_plain_lines_in_a_pipe(self):
        stream = io.StringIO()
        self.run(stream)
        assert stream.getvalue().splitlines() == [
            "train on spans 1, 2",
            "run 20260101T000000-1",
            "start   Trainer          training",
            "warning span 3 was rejected",
            "done    Trainer          10 steps  1 min 23 s",
            "skipped Pusher           gate 2 is closed",
            "start   Evaluator        examining",
            "failed  Evaluator          0.0 s",
        ]

    def test_long_names_widen_the_column(self):
        stream = io.StringIO()
        with StageProgress(stream) as stages:
            stages.widen(["SpanExampleGen.2013-01", "SpanExampleGen.1"])
            stages.start("SpanExampleGen.2013-01", "reading the span")
            stages.skipped("SpanExampleGen.2013-01", "a condition before it is closed")
            stages.skipped("Trainer", "gate 1 is closed")
        assert stream.getvalue().splitlines() == [
            "start   SpanExampleGen.2013-01 reading the span",
            "skipped SpanExampleGen.2013-01 a condition before it is closed",
            "skipped Trainer                gate 1 is closed",
        ]

    def test_plain_progress_now_and_then(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        stream = io.StringIO()
        stages = StageProgress(stream)
        stages.start("Trainer")
        for step in range(10):
            now[0] += 4
            stages.update(step / 10, f"step {step}")
        stages.done()
        assert stream.getvalue().splitlines() == [
            "start   Trainer          started",
            "...     Trainer          30% step 3",
            "...     Trainer          70% step 7",
            "done    Trainer            40 s",
        ]

    def test_a_terminal_draws_over_what_moves_and_keeps_what_ended(self, terminal):
        self.run(terminal)
        assert "\x1b[?25l" in terminal.text
        assert terminal.text.count("\x1b[?25h") == terminal.text.count("\x1b[?25l")
        assert "✓" in terminal.text
        assert "✗" in terminal.text

    def test_a_terminal_without_unicode(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal("ascii")
        self.run(stream)
        assert stream.text.isascii()
        assert "?" not in stream.text.replace("\x1b[?25", "")

    def test_a_dumb_terminal_gets_plain_lines(self, terminal, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        self.run(terminal)
        assert "\x1b[?25l" not in terminal.text
        assert "start   Trainer" in terminal.text

    def test_quiet(self):
        stream = io.StringIO()
        self.run(stream, quiet=True)
        assert stream.getvalue() == ""

    def test_an_exception_ends_the_stage_as_failed(self):
        stream = io.StringIO()
        with contextlib.suppress(RuntimeError), StageProgress(stream) as stages:
            stages.start("Trainer")
            raise RuntimeError
        assert "failed  Trainer" in stream.getvalue()

    def test_reports_outside_of_a_stage_are_not_shown(self):
        stream = io.StringIO()
        StageProgress(stream).update(0.1, "x")
        assert stream.getvalue() == ""


def test_json_for_programs_holds_no_nan(capsys):
    console.print_json({"auc": float("nan"), "rows": [1, (2.5, float("inf"))], "at": datetime.date(2026, 1, 2)})
    assert json.loads(capsys.readouterr().out) == {"auc": None, "rows": [1, [2.5, None]], "at": "2026-01-02"}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (72_624, "72.6 kB"),
        (2_312_345, "2.31 MB"),
        (3e12, "3.0 TB"),
    ],
)
def test_sizes(count, text):
    assert console.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (7.34, "7.3 s"),
        (9.97, "10 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "just now"),
        (-5, "just now"),
        (300, "5 min ago"),
        (3599, "59 min ago"),
        (90_000, "25 h ago"),
        (1_100_000, "12 d ago"),
    ],
)
def test_ages(seconds, text):
    now = datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc)
    assert console.age(now - datetime.timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.681251, "0.6813"), (45.509, "45.51"), (-12345.6, "-12,346"), (0.0, "0"), (float("nan"), "nan")],
)
def test_measurements(value, text):
    assert console.number(value) == text


def test_times(monkeypatch):
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    assert console.moment("2026-01-02T03:04:05Z") == moment
    assert console.moment("2026-01-02T03:04:05") == moment
    assert console.moment(moment.timestamp() * 1000) == moment
    assert console.moment("yesterday") is console.moment(None) is console.moment(0) is None
    assert console.clock(None) == "-"
    assert console.clock("2026-01-02T03:04:05Z") == f"{moment.astimezone():%Y-%m-%d %H:%M}"


def test_what_is_said_again_and_again_is_printed_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    printed = []
    say = console.slowly(printed.append)
    for step in range(40):
        now[0] = 100.0 + step
        say(f"{step} s")
    assert printed == ["0 s", "15 s", "30 s"]
