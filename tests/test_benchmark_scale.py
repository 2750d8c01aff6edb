"""The benchmark of growth: its rows are no duplicates, its lines fit, and it knows which stage a run is in."""

import importlib
import sys
from pathlib import Path

import pyarrow as pa
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
KEY = ("temp", "dewp")  # what stands behind the points is a row's number
MODULES = ("scale", "scale_data", "scale_watch", "vs_tfx")


@pytest.fixture(scope="module")
def modules():
    """The modules by name, which are programs and no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def month(modules):
    """Some hundred flights of January, in the order of their departure."""
    return modules["scale_data"].data.load_month(1).slice(0, 700)


@pytest.mark.parametrize("rows", [200, 5000])
def test_rows_are_unlike_each_other_and_in_order(modules, month, rows):
    repeat = modules["scale_data"].repeat
    table = pa.concat_tables([repeat(month, 0, 150, rows, 3), repeat(month, 150, rows, rows, 3)])
    assert (table.schema, table.num_rows) == (month.schema, rows)
    assert len({(temp % 1, dewp % 1) for temp, dewp in zip(*(table[n].to_pylist() for n in KEY), strict=True)}) == rows
    times = table["time_hour"].to_pylist()
    assert times == sorted(times)
    assert len(set(table["tailnum"].to_pylist())) > 0.2 * min(rows, 700)


def test_missing_numbers_stay_missing_and_others_stay_in_their_range(modules, month):
    table = modules["scale_data"].repeat(month, 0, 700, 700, 3)
    for name in ("humid", "wind_gust", "visib"):
        assert table[name].null_count == month[name].null_count
    assert min(v for v in table["humid"].to_pylist() if v is not None) >= 0


def test_the_same_span_is_the_same_rows_and_another_has_other_noise(modules, month):
    repeat = modules["scale_data"].repeat
    assert repeat(month, 0, 500, 5000, 3).equals(repeat(month, 0, 500, 5000, 3))
    assert not repeat(month, 0, 500, 5000, 3).equals(repeat(month, 0, 500, 5000, 4))


def test_more_rows_than_numbers_for_them_are_refused(modules, month):
    with pytest.raises(ValueError, match="rows"):
        modules["scale_data"].repeat(month, 0, 1, modules["scale_data"].MOST_ROWS + 1, 0)


def test_a_line_is_found_and_its_ends_told_apart(modules):
    fixed, slope = modules["scale"].fit([0.01, 0.1, 1.0], [30.4, 34.0, 70.0])
    assert (fixed, slope) == pytest.approx((30.0, 40.0))


def test_the_table_fits_up_to_a_million_and_shows_what_is_beyond(modules):
    def point(rows, window, seconds):
        stages = {"statistics": seconds / 2, "train and export": seconds / 2}
        peak = {"statistics": 2**30}
        return {
            "run": modules["scale"].FIRST,
            "rows": rows,
            "window": window,
            "seconds": seconds,
            "stages": stages,
            "processor": stages,
            "peak": peak,
        }

    points = [point(10**5, 1, 14.0), point(10**6, 1, 50.0), point(10**7, 1, 900.0), point(10**5, 3, 20.0)]
    lines = {
        " ".join(line.split()[:-5]): line.split()[-5:] for line in modules["scale"].table(points, "first run", "rows")
    }
    assert lines["in all"] == ["14.0", "50.0", "900.0", "10.0", "40.00"]
    assert lines["without the training"] == ["7.0", "25.0", "450.0", "5.0", "20.00"]
    assert modules["scale"].table(points[:1], "first run", "rows") == []


def test_the_stage_is_the_last_that_started_and_goes_on(modules):
    last = modules["scale_watch"].last_started
    log = "2026-01-01T10:00:00 A starts\n2026-01-01T10:00:01 A ended after 1.0 s\n"
    assert last("") == last(log) == "start-up"
    assert last(log + "2026-01-01T10:00:01 B starts\n") == "B"
    assert last(log + "2026-01-01T10:00:01 B starts\n2026-01-01T10:00:02 C starts\n") == "C"


def test_a_process_and_its_children_are_watched(modules, tmp_path):
    child = "bytearray(200 << 20); import time; time.sleep(1.5)"
    program = f"import subprocess, sys; x = bytearray(100 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    code = f'{program}; print(\'{{"result": "published"}}\')'
    seen = modules["scale_watch"].watch([sys.executable, "-c", code], tmp_path / "logs", {})
    assert seen.result == {"result": "published"}
    assert seen.seconds > 1.5
    assert 100 << 20 < seen.peak["start-up"] < 600 << 20
    with pytest.raises(SystemExit, match="exited 3"):
        modules["scale_watch"].watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "logs", {})
