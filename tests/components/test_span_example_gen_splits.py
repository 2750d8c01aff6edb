"""An exam that is the tail of the span, and hashes that put a value on the same side everywhere."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.components.errors import DataRejected
from evergreen.components.span_example_gen import splits
from evergreen.components.span_example_gen.settings import Settings
from evergreen.components.span_example_gen.splits import EXAM, TRAIN, VALIDATION, TimeCounts


def counts(*batches: list) -> TimeCounts:
    parts = []
    for batch in batches:
        part = TimeCounts()
        part.add(pa.array(batch))
        parts.append(part)
    return TimeCounts.merged(parts)


def column(*values: object) -> pa.Array:
    return pa.array(values, pa.large_binary() if isinstance(values[0], bytes) else None)


@pytest.mark.parametrize(
    ("times", "share", "cut"),
    [
        ([1, 2, 3, 4], 0.25, 4),
        ([1, 2, 3, 4], 0.26, 3),
        ([4, 1, 3, 2], 0.5, 3),
        ([1, 2, 2, 2], 0.25, 2),  # rows of one time stay together: the exam is larger than asked for
        ([5, 5, 5], 0.1, 5),
        ([1, 2, 3, 4], 1.0, 1),
        ([1, 2, None, None], 0.5, 1),  # the share is of all rows
        ([1, None, None, None], 0.5, 1),
        ([1.5, 2.5], 0.5, 2.5),
        ([b"2013-01-01", b"2013-02-01"], 0.5, b"2013-02-01"),
    ],
)
def test_the_cut_is_the_latest_that_gives_the_exam_its_share(times: list, share: float, cut: object) -> None:
    assert splits.find_cut(counts(times), share, "t") == cut
    assert splits.find_cut(counts(times[:1], times[1:]), share, "t") == cut


def test_the_exam_is_exact_whatever_the_times() -> None:
    generator = np.random.default_rng(0)
    for share in (0.1, 0.25, 0.9):
        times = generator.integers(0, 40, 500)
        cut = splits.find_cut(counts(times.tolist()), share, "t")
        assert (times >= cut).sum() >= share * 500 > (times > cut).sum()


def test_a_span_without_rows_has_no_cut_and_one_without_times_is_refused() -> None:
    assert splits.find_cut(TimeCounts(), 0.25, "t") is None
    with pytest.raises(DataRejected, match="column `t` is empty"):
        splits.find_cut(counts(pa.nulls(3, pa.int64()).to_pylist()), 0.25, "t")


@pytest.mark.parametrize("text", [b"1/2/2013", b"Jan 2013", b"", b"2013-1-2"])
def test_text_that_does_not_sort_by_time_is_refused(text: bytes) -> None:
    with pytest.raises(DataRejected, match="does not sort by time"):
        splits.find_cut(counts([b"2013-01-01", text]), 0.25, "t")


@pytest.mark.parametrize(
    "texts",
    [
        [b"2013-01", b"2013-02"],
        [b"20130101", b"20130102"],
        [b"2013-01-01 05:00:00", b"2013-01-01 05:00:00.5"],
        [b"2013-01-01T05:00Z", b"2013-01-01T06:00Z"],
        [b"2013-01-01T05:00:00-05:00", b"2013-01-01T06:00:00-05:00"],
    ],
)
def test_iso_text_sorts_by_time(texts: list[bytes]) -> None:
    assert splits.find_cut(counts(texts), 0.5, "t") == texts[1]


def test_text_in_two_time_zones_does_not_sort_by_time() -> None:
    with pytest.raises(DataRejected, match="different time zones") as caught:
        splits.find_cut(counts([b"2013-01-01T05:00+01:00", b"2013-01-01T05:00Z"]), 0.5, "t")
    assert "+01:00" in caught.value.reason


def test_times_that_are_numbers_and_strings_are_refused() -> None:
    mixed = TimeCounts.merged([counts([1]), counts([b"2013"])])
    with pytest.raises(DataRejected, match="a number in some rows and a string in others"):
        splits.find_cut(mixed, 0.5, "t")


def test_the_exam_is_the_tail_and_the_rest_is_divided_by_the_key() -> None:
    settings = Settings(time="t", split_key="k", validation=0.5)
    keys = [f"day {n}".encode() for n in range(200)]
    values = {"t": column(*range(200)), "k": column(*keys)}
    codes = splits.assign(values, pa.nulls(200, pa.large_binary()), settings, cut=150)
    assert (codes[150:] == EXAM).all()
    assert EXAM not in codes[:150]
    assert 50 < (codes[:150] == VALIDATION).sum() < 100


def test_a_key_is_on_the_same_side_in_every_span_and_on_every_platform() -> None:
    settings = Settings(split_key="k", exam=0, validation=0.3)
    days = [f"2013-01-{day:02d}".encode() for day in range(1, 32)]

    def drawn(keys: list[bytes]) -> set[bytes]:
        codes = splits.assign({"k": column(*keys)}, pa.nulls(len(keys), pa.large_binary()), settings)
        return {key for key, code in zip(keys, codes.tolist(), strict=True) if code == VALIDATION}

    # Written down once: sha256 of salt and key. A change here moves rows between splits in everybody's spans.
    expected = {b"2013-01-%02d" % day for day in (2, 3, 9, 15, 17, 18, 19, 20, 24, 26)}
    assert drawn(days) == expected
    assert drawn(days[::-1] * 2) == expected
    assert drawn(days[:5]) == expected & set(days[:5])


def test_numbers_have_the_hash_that_they_have_in_a_tfrecord_file() -> None:
    settings = Settings(split_key="k", exam=0.3, validation=0.3)
    double = np.linspace(0.1, 9.7, 50)
    single = double.astype(np.float32).astype(np.float64)
    rows = pa.nulls(50, pa.large_binary())
    first, second = (splits.assign({"k": pa.array(keys)}, rows, settings) for keys in (double, single))
    assert (first == second).all()


def test_without_a_time_the_exam_is_drawn_by_another_hash_of_the_key() -> None:
    settings = Settings(split_key="k", exam=0.5, validation=0.5)
    keys = column(*(str(n).encode() for n in range(2000)))
    codes = splits.assign({"k": keys}, keys, settings)
    assert 900 < (codes == EXAM).sum() < 1100
    assert 400 < (codes == VALIDATION).sum() < 600  # half of what is not in the exam: the two hashes are independent


def test_without_time_and_key_each_row_is_drawn_by_itself() -> None:
    rows = column(*(str(n).encode() for n in range(2000)), b"5", b"5")
    codes = splits.assign({}, rows, Settings())
    assert 400 < (codes == EXAM).sum() < 600
    assert 100 < (codes == VALIDATION).sum() < 200
    assert codes[2000] == codes[2001] == codes[5]


def test_exam_span_takes_the_whole_span() -> None:
    settings = Settings(time="t", split_key="k", exam="span")
    assert settings.key_columns == []
    assert set(splits.assign({}, pa.nulls(5, pa.large_binary()), settings)) == {EXAM}


def test_rows_without_time_or_key_are_training_rows() -> None:
    settings = Settings(time="t", split_key="k", validation=0.999999)
    values = {"t": pa.array([None, 9]), "k": pa.array([None, b"a"], pa.large_binary())}
    rows = pa.nulls(2, pa.large_binary())
    assert splits.assign(values, rows, settings, cut=5).tolist() == [TRAIN, EXAM]


def test_the_settings_of_a_configuration_are_reduced_to_what_matters() -> None:
    section = '{"path": "x", "window": 3, "time": "t", "csv": {"delimiter": ";"}, "min_rows": 5}'
    settings = Settings.from_section(section)
    assert settings == Settings(time="t", delimiter=";")
    assert Settings.from_section(settings.to_json()) == settings
    assert "window" not in settings.to_json()
