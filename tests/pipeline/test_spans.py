"""Which spans a data directory holds, and what is said where it holds none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evergreen.components.errors import ConfigError, SpanError
from evergreen.pipeline import spans
from evergreen.pipeline.settings import DataSettings
from evergreen.pipeline.span_pattern import Pattern


def data(root: Path, pattern: str, marker: str | None = None) -> DataSettings:
    return DataSettings.model_validate({"path": str(root), "pattern": pattern, "success_marker": marker})


def deliver(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)


def found(root: Path, pattern: str, marker: str | None = None) -> dict[str, tuple[str, ...]]:
    return {span.name: span.files for span in spans.discover(data(root, pattern, marker))}


class TestPatterns:
    def test_numbers(self, tmp_path):
        deliver(tmp_path, "9/a.csv", "10/b.csv", "10/a.csv", "x/a.csv", "10/readme.txt")
        listed = spans.discover(data(tmp_path, "{SPAN}/*.csv"))
        assert [(s.span, s.version, s.label, s.files) for s in listed] == [
            (9, None, "9", ("9/a.csv",)),
            (10, None, "10", ("10/a.csv", "10/b.csv")),
        ]
        assert all(s.complete and not s.reason for s in listed)
        assert listed[0].bytes == len("9/a.csv")

    def test_a_fixed_width_leaves_other_widths_alone(self, tmp_path):
        deliver(tmp_path, "04/a.csv", "5/a.csv", "123/a.csv")
        assert found(tmp_path, "{SPAN:2}/*.csv") == {"4": ("04/a.csv",)}

    def test_dates_count_days_since_1970(self, tmp_path):
        deliver(tmp_path, "1970-01-02/a.csv", "2013-04-30/a.csv")
        listed = spans.discover(data(tmp_path, "{YYYY}-{MM}-{DD}/*.csv"))
        assert [(s.span, s.label) for s in listed] == [(1, "1970-01-02"), (15825, "2013-04-30")]

    def test_dates_over_several_folders(self, tmp_path):
        deliver(tmp_path, "2013/04/30/a.csv", "2013/05/x/a.csv")
        assert found(tmp_path, "{YYYY}/{MM}/{DD}/*.csv") == {"2013-04-30": ("2013/04/30/a.csv",)}

    def test_months_count_from_their_first_day(self, tmp_path):
        deliver(tmp_path, "sales-201304.csv", "sales-201312.csv")
        listed = spans.discover(data(tmp_path, "sales-{YYYY}{MM}.csv"))
        assert [(s.span, s.label) for s in listed] == [(15796, "2013-04"), (16040, "2013-12")]

    def test_versions(self, tmp_path):
        deliver(tmp_path, "1/v2/a.csv", "1/v10/a.csv", "2/v1/a.csv")
        listed = spans.discover(data(tmp_path, "{SPAN}/v{VERSION}/*.csv"))
        assert [(s.span, s.version, s.name) for s in listed] == [
            (1, 2, "1 version 2"),
            (1, 10, "1 version 10"),
            (2, 1, "2 version 1"),
        ]

    def test_globs(self, tmp_path):
        deliver(tmp_path, "a1/1/x.csv", "b1/1/x.csv", "a1/1/y.csv", "a1/1/xy.csv", "c+/2/x.csv")
        assert found(tmp_path, "[ab]?/{SPAN}/[!y].csv") == {"1": ("a1/1/x.csv", "b1/1/x.csv")}
        assert found(tmp_path, "c+/{SPAN}/*") == {"2": ("c+/2/x.csv",)}

    def test_hidden_names_are_never_data_unless_the_pattern_names_them(self, tmp_path):
        deliver(tmp_path, "1/a.csv", "1/_b.csv", "1/.c.csv", "_1/d.csv", "_landing/2/e.csv", ".git/3/f.csv")
        assert found(tmp_path, "{SPAN}/*.csv") == {"1": ("1/a.csv",)}
        assert found(tmp_path, "_landing/{SPAN}/*.csv") == {"2": ("_landing/2/e.csv",)}
        with pytest.raises(SpanError):
            found(tmp_path, "*/{SPAN}/*.csv")

    @pytest.mark.parametrize(
        ("pattern", "told"),
        [
            ("*.csv", "`{SPAN}` or a date"),
            ("{SPAN}/{SPAN}.csv", "`{SPAN}` once"),
            ("{SPAN}/{YYYY}{MM}{DD}.csv", "either `{SPAN}` or a date"),
            ("{YYYY}-{DD}.csv", "a date with `{YYYY}` and `{MM}`"),
            ("{VERSION}/*.csv", "in the place of the span"),
            ("{SPAN:0}/*.csv", "not `{SPAN:0}`"),
            ("{span}/*.csv", "not `{span}`"),
            ("/data/{SPAN}/*.csv", "a path below `data.path`"),
            ("../{SPAN}/*.csv", "a path below `data.path`"),
            ("{SPAN}/**/*.csv", "without `**`"),
        ],
    )
    def test_without_a_meaning(self, pattern, told):
        with pytest.raises(ConfigError) as caught:
            Pattern(pattern)
        assert told in caught.value.reason

    def test_spans_as_people_write_them(self):
        assert Pattern("{SPAN}/*").parse(" 07 ") == 7
        assert Pattern("{YYYY}-{MM}-{DD}/*").parse("2013-04-30") == 15825
        assert Pattern("{YYYY}-{MM}-{DD}/*").parse("15825") == 15825
        assert Pattern("{YYYY}{MM}/*").parse("2013-04") == 15796
        for pattern, text in (("{SPAN}/*", "2013-04"), ("{YYYY}-{MM}-{DD}/*", "2013-02-30"), ("{SPAN}/*", "newest")):
            with pytest.raises(SpanError, match="is not a span"):
                Pattern(pattern).parse(text)


class TestCompleteness:
    def test_a_span_without_its_marker(self, tmp_path):
        deliver(tmp_path, "1/a.csv", "1/_SUCCESS", "2/a.csv")
        first, second = spans.discover(data(tmp_path, "{SPAN}/*.csv", "_SUCCESS"))
        assert first.complete
        assert first.files == ("1/a.csv",)
        assert not second.complete
        assert second.reason == "2 has no _SUCCESS yet"

    def test_without_a_marker_in_the_configuration_files_suffice(self, tmp_path):
        deliver(tmp_path, "2/a.csv")
        assert spans.discover(data(tmp_path, "{SPAN}/*.csv"))[0].complete

    def test_the_marker_stands_where_the_span_or_its_version_does(self, tmp_path):
        deliver(tmp_path, "1/v1/x/a.csv", "1/v1/_SUCCESS", "1/v2/x/a.csv", "1/v2/x/_SUCCESS")
        listed = spans.discover(data(tmp_path, "{SPAN}/v{VERSION}/*/*.csv", "_SUCCESS"))
        assert [s.complete for s in listed] == [True, False]
        assert listed[1].reason == "1/v2 has no _SUCCESS yet"

    def test_each_folder_of_a_span_needs_one(self, tmp_path):
        deliver(tmp_path, "a/1/x.csv", "a/1/_SUCCESS", "b/1/x.csv")
        (span,) = spans.discover(data(tmp_path, "*/{SPAN}/*.csv", "_SUCCESS"))
        assert span.reason == "b/1 has no _SUCCESS yet"

    def test_a_folder_without_data(self, tmp_path):
        deliver(tmp_path, "1/a.csv", "2/_SUCCESS", "2/a.parquet")
        second = spans.discover(data(tmp_path, "{SPAN}/*.csv", "_SUCCESS"))[1]
        assert second.reason == "2 holds no file `*.csv`"
        assert second.files == ()

    def test_a_link_to_nowhere(self, tmp_path):
        deliver(tmp_path, "1/a.csv")
        (tmp_path / "1" / "b.csv").symlink_to(tmp_path / "gone.csv")
        (span,) = spans.discover(data(tmp_path, "{SPAN}/*.csv"))
        assert not span.complete
        assert span.reason == "1/b.csv: No such file or directory"

    def test_links_are_followed(self, tmp_path):
        deliver(tmp_path, "store/x/a.csv")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "1").symlink_to(tmp_path / "store" / "x")
        assert found(tmp_path / "data", "{SPAN}/*.csv") == {"1": ("1/a.csv",)}


class TestNothingThere:
    def test_a_path_that_does_not_exist_names_the_nearest(self, tmp_path):
        (tmp_path / "spans").mkdir()
        with pytest.raises(ConfigError, match="does not exist") as caught:
            spans.discover(data(tmp_path / "span", "{SPAN}/*"))
        assert caught.value.reason == f"did you mean `{tmp_path / 'spans'}`?"

    def test_or_says_what_the_folder_above_holds(self, tmp_path):
        deliver(tmp_path, "other/x")
        with pytest.raises(ConfigError) as caught:
            spans.discover(data(tmp_path / "zzz" / "deeper", "{SPAN}/*"))
        assert caught.value.reason == f"{tmp_path} holds other/"

    def test_a_file_for_a_path(self, tmp_path):
        deliver(tmp_path, "all.csv")
        with pytest.raises(ConfigError, match="is not a folder"):
            spans.discover(data(tmp_path / "all.csv", "{SPAN}/*"))

    def test_a_uri(self):
        with pytest.raises(ConfigError, match="cannot be found in gs://bucket"):
            spans.discover(DataSettings.model_validate({"path": "gs://bucket/x", "pattern": "{SPAN}/*"}))

    def test_no_span_says_what_was_seen(self, tmp_path):
        deliver(tmp_path, *(f"month-{n}/a.csv" for n in range(12)), "readme")
        with pytest.raises(SpanError, match="no span found") as caught:
            spans.discover(data(tmp_path, "{SPAN}/*.csv"))
        assert "month-0/, month-1/" in caught.value.reason
        assert caught.value.reason.endswith(" and 5 more")

    def test_a_date_that_does_not_exist(self, tmp_path):
        deliver(tmp_path, "2013-02-28/a.csv", "2013-02-30/a.csv")
        with pytest.raises(SpanError, match=r"2013-02-30 names a date that does not exist: 2013-02-30"):
            spans.discover(data(tmp_path, "{YYYY}-{MM}-{DD}/*.csv"))

    def test_one_span_under_two_names(self, tmp_path):
        deliver(tmp_path, "4/a.csv", "04/a.csv")
        with pytest.raises(SpanError, match="span 4 is there under several names"):
            spans.discover(data(tmp_path, "{SPAN}/*.csv"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_a_folder_that_may_not_be_listed(self, tmp_path):
        deliver(tmp_path, "1/a.csv")
        (tmp_path / "1").chmod(0)
        with pytest.raises(SpanError, match="cannot be listed"):
            spans.discover(data(tmp_path, "{SPAN}/*.csv"))

    def test_a_named_span(self, tmp_path):
        deliver(tmp_path, *(f"{n}/a.csv" for n in (1, 2, 3, 20, 21, 22, 23)), "4/_x", "5/v.csv")
        settings = data(tmp_path, "{SPAN}/[av].csv")
        listed = spans.discover(settings)
        assert spans.require(listed, 3, "3").files == ("3/a.csv",)
        with pytest.raises(SpanError, match="span 6 does not exist") as caught:
            spans.require(listed, 6, "6")
        assert caught.value.reason == "the nearest that are there: 1, 2, 3, 4, 5"
        with pytest.raises(SpanError, match="span 4 is not complete") as caught:
            spans.require(listed, 4, "4")
        assert caught.value.reason == "4 holds no file `[av].csv`"

    def test_a_named_span_means_its_newest_complete_version(self, tmp_path):
        deliver(tmp_path, "1/1/a.csv", "1/1/_OK", "1/2/a.csv", "1/2/_OK", "1/3/a.csv")
        listed = spans.discover(data(tmp_path, "{SPAN}/{VERSION}/*.csv", "_OK"))
        assert spans.require(listed, 1, "1").version == 2


class TestDigests:
    def test_the_quick_one_sees_names_sizes_and_times_the_other_names_and_contents(self, tmp_path):
        settings = data(tmp_path, "{SPAN}/*.csv")
        deliver(tmp_path, "1/a.csv", "1/b.csv")

        def both() -> tuple[str, str]:
            (span,) = spans.discover(settings)
            return span.quick_digest, spans.content_digest(settings, span)

        first = both()
        assert both() == first
        os.utime(tmp_path / "1/a.csv", ns=(1, 1))
        touched = both()
        assert touched[0] != first[0]
        assert touched[1] == first[1]
        (tmp_path / "1/a.csv").write_text("1/A.csv")
        assert both()[1] != first[1]
        (tmp_path / "1/a.csv").write_text("1/a.csv")
        assert both()[1] == first[1]
        (tmp_path / "1/a.csv").rename(tmp_path / "1/c.csv")
        assert both()[1] != first[1]

    def test_contents_that_move_between_files_count(self, tmp_path):
        settings = data(tmp_path, "{SPAN}/*.csv")
        deliver(tmp_path, "1/a.csv", "1/b.csv")
        seen = set()
        for left, right in (("xy", "z"), ("x", "yz")):
            (tmp_path / "1/a.csv").write_text(left)
            (tmp_path / "1/b.csv").write_text(right)
            seen.add(spans.content_digest(settings, spans.discover(settings)[0]))
        assert len(seen) == 2

    def test_a_file_that_went_away(self, tmp_path):
        settings = data(tmp_path, "{SPAN}/*.csv")
        deliver(tmp_path, "1/a.csv")
        (span,) = spans.discover(settings)
        (tmp_path / "1/a.csv").unlink()
        with pytest.raises(SpanError, match="span 1 cannot be read"):
            spans.content_digest(settings, span)


def test_a_folder_is_listed_once_however_many_spans_there_are(tmp_path, monkeypatch):
    deliver(tmp_path, *(f"{n}/a.csv" for n in range(50)))
    listed = []
    real = os.scandir

    def counting(folder):
        listed.append(str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", counting)
    assert len(spans.discover(data(tmp_path, "{SPAN}/*.csv"))) == 50
    assert len(listed) == 51
