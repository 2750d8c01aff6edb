"""`evergreen init`: what it guesses about strangers' files, what it writes, and what it refuses."""

from __future__ import annotations

import ast
import csv
import datetime
import gzip
import random
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from evergreen.components.errors import ConfigError, DataRejected
from evergreen.pipeline import cli, spans
from evergreen.pipeline.config import check_files, load
from evergreen.pipeline.scaffold import times
from evergreen.pipeline.scaffold.guess import guess
from evergreen.pipeline.scaffold.profile import profile
from evergreen.pipeline.scaffold.project import create


def write_csv(path: Path, columns: dict[str, Iterable], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def shop(rows: int = 600, days: int = 150, **more: Iterable) -> dict[str, list]:
    """A stranger's table: sales of shops, a regression."""
    rng = random.Random(0)
    start = datetime.date(2024, 1, 1)
    return {
        "order id": list(range(1, rows + 1)),
        "day": [(start + datetime.timedelta(days=i * days // rows)).isoformat() for i in range(rows)],
        "store": [f"Store, {rng.randrange(5)}" for _ in range(rows)],
        "zip": [f"0{rng.randrange(5)}123" for _ in range(rows)],
        "weather": [rng.choice(["sun", "rain", ""]) for _ in range(rows)],
        "open": [rng.choice(["true", "false"]) for _ in range(rows)],
        "note": [f"note {i}" for i in range(rows)],
        "country": ["NL"] * rows,
        "visitors": [rng.choice([rng.randrange(500), "NA"]) for _ in range(rows)],
        "revenue": [round(rng.uniform(10, 1000), 2) for _ in range(rows)],
        **more,
    }


def schema(folder: Path) -> dict[str, schema_pb2.Feature]:
    parsed = text_format.Parse((folder / "schema.pbtxt").read_text(), schema_pb2.Schema())
    return {feature.name: feature for feature in parsed.feature}


def constants(folder: Path) -> dict[str, object]:
    """The constants of the features.py that was written."""
    tree = ast.parse((folder / "features.py").read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}


def made(tmp_path: Path, columns: dict[str, Iterable], **options):
    source = write_csv(tmp_path / "source/sales.csv", columns)
    return create(source, tmp_path / "project/evergreen.yaml", **options)


class TestGuesses:
    def test_a_regression_on_a_strangers_csv(self, tmp_path):
        project = made(tmp_path, shop())
        assert (project.guess.label, project.guess.binary) == ("revenue", False)
        assert (project.guess.time, project.guess.time_format.name) == ("day", "ISO 8601")
        assert constants(tmp_path / "project") == {
            "LABEL": "revenue",
            "NUMERIC": ["open", "visitors"],
            "CATEGORICAL": ["store", "zip", "weather"],
            "MOST_CATEGORIES": 1000,
            "LARGEST_SCORE": 10.0,
        }
        assert project.guess.left_out == {
            "order id": "it numbers the rows",
            "day": "it holds times",
            "note": "its texts hardly repeat",
            "country": "it is the same in every row",
        }
        config = load(tmp_path / "project")
        assert config.name == "sales"
        assert config.evaluate.metrics[0] == "root_mean_squared_error"
        assert config.trainer.hyperparameters["label_mean"] == pytest.approx(500, rel=0.1)
        assert config.evaluate.slices == [["store"]]
        check_files(config)

    def test_a_binary_label(self, tmp_path):
        project = made(tmp_path, {"x": [1.5, 2.5] * 50, "late": [0, 1] * 50})
        assert project.guess.binary
        assert project.config.evaluate.metrics[0] == "auc"
        assert "binary_crossentropy" in (tmp_path / "project/model.py").read_text()
        assert "mse" not in (tmp_path / "project/model.py").read_text()

    def test_a_label_of_true_and_false(self, tmp_path):
        project = made(tmp_path, {"x": [1.5, 2.5] * 50, "churned": ["True", "False"] * 50})
        assert (project.guess.label, project.guess.binary) == ("churned", True)
        assert schema(tmp_path / "project")["churned"].type == schema_pb2.INT

    @pytest.mark.parametrize(
        ("columns", "label"),
        [
            ({"Target": [1, 2], "price": [3.5, 4.5], "b": [5, 6]}, "Target"),  # the most trusted name
            ({"a": [1.5, 2.5], "Sale_Price": [3, 4], "b": [5, 6]}, "Sale_Price"),  # without case and underscores
            ({"a": [1.5, 2.5], "b": [3, 4]}, "b"),  # the last column
            ({"a": [1.5, 2.5], "b": [3, 4], "c": ["x", "y"]}, "b"),  # the last one that is a number
            ({"a": [1.5, 2.5], "b": [3, 4], "c": [7, 7]}, "b"),  # and that differs
            ({"a": [1.5, 2.5, 3], "b": [3, 4, 5], "c": [7, "", ""]}, "b"),  # and that most rows have
        ],
    )
    def test_the_label(self, tmp_path, columns, label):
        assert guess(profile([write_csv(tmp_path / "a.csv", columns)])).label == label

    def test_what_is_named_wins(self, tmp_path):
        columns = shop(shipped=shop()["day"])
        project = made(tmp_path, columns, label="visitors", time="shipped", name="my-model")
        assert (project.guess.label, project.guess.time, project.config.name) == ("visitors", "shipped", "my-model")
        assert "revenue" in project.guess.numeric

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"label": "revenu"}, "did you mean `revenue`?"),
            ({"label": "store"}, "received such as 'Store, "),
            ({"label": "country"}, "expected numbers"),
            ({"time": "dai"}, "did you mean `day`?"),
            ({"time": "store"}, "expected one of: ISO 8601, year/month/day"),
        ],
    )
    def test_what_is_named_wrongly(self, tmp_path, options, told):
        with pytest.raises(ConfigError) as caught:
            made(tmp_path, shop(), **options)
        assert told in caught.value.reason
        assert not (tmp_path / "project").exists()

    def test_a_label_that_never_differs(self, tmp_path):
        with pytest.raises(ConfigError, match="the same in every row"):
            made(tmp_path, {"a": [1, 2, 3], "b": [5, 5, 5]}, label="b")

    def test_no_label_or_no_feature(self, tmp_path):
        with pytest.raises(ConfigError, match="no column can be the label"):
            made(tmp_path, {"a": ["x", "y"]})
        with pytest.raises(ConfigError, match="no column can be a feature"):
            made(tmp_path, {"b": [1.5, 2.5]})

    def test_names_that_become_the_same(self, tmp_path):
        project = made(tmp_path, {"a b": [1.5, 2.5], "a_b": [3.5, 4.5], "y": [0, 1]})
        assert project.guess.numeric == ("a b",)
        assert project.guess.left_out == {"a_b": "its name becomes a_b, which is taken"}

    @pytest.mark.parametrize(
        ("texts", "name"),
        [
            (["2024-01-31", "2024-02-01T05:00:00Z"], "ISO 8601"),
            (["2024/01/31"], "year/month/day"),
            (["31.01.2024 05:30"], "day.month.year"),
            (["01/31/2024", "02/01/2024"], "month/day/year"),
            (["31/01/2024", "01/02/2024"], "day/month/year"),
            (["20240131"], "yyyymmdd"),
            (["1706700000"], "seconds since 1970"),
            (["1706700000000"], "milliseconds since 1970"),
            (["2024-01-31", "soon"], None),
            (["20241331"], None),
            ([], None),
        ],
    )
    def test_ways_of_writing_times(self, texts, name):
        found = times.recognise(texts)
        assert (found.name if found else None) == name

    def test_whole_numbers_are_times_only_where_the_name_says_so(self, tmp_path):
        columns = {"code": [20240101, 20240102], "y": [1.5, 2.5]}
        assert guess(profile([write_csv(tmp_path / "a.csv", columns)])).time is None
        columns = {"date": [20240101, 20240102], "x": [1, 2], "y": [1.5, 2.5]}
        assert guess(profile([write_csv(tmp_path / "b.csv", columns)])).time == "date"


class TestSchema:
    def test_a_contract_with_room(self, tmp_path):
        made(tmp_path, shop())
        found = schema(tmp_path / "project")
        assert found["store"].type == schema_pb2.BYTES
        assert list(found["store"].string_domain.value) == [f"Store, {n}" for n in range(5)]
        assert found["store"].distribution_constraints.min_domain_mass == pytest.approx(0.95)
        assert found["store"].presence.min_fraction == pytest.approx(0.99)
        assert found["weather"].presence.min_fraction < 0.6  # a third is missing
        assert found["zip"].type == schema_pb2.BYTES  # as a number it would lose its zeros
        assert found["open"].type == schema_pb2.INT
        assert found["visitors"].type == schema_pb2.INT
        assert found["visitors"].int_domain.max > 2000
        assert found["revenue"].type == schema_pb2.FLOAT
        assert list(found["revenue"].not_in_environment) == ["SERVING"]
        assert found["revenue"].presence.min_fraction == 1
        # What no model reads may change as it likes, but the time must be there.
        assert not found["order id"].HasField("presence")
        assert not found["order id"].HasField("int_domain")
        assert found["day"].HasField("presence")

    def test_a_binary_label_is_0_or_1(self, tmp_path):
        made(tmp_path, {"x": [1.5, 2.5] * 50, "late": [0, 1] * 50})
        domain = schema(tmp_path / "project")["late"].int_domain
        assert (domain.min, domain.max) == (0, 1)

    def test_no_shapes_so_that_a_request_may_lack_any_column(self, tmp_path):
        made(tmp_path, shop())
        assert not any(feature.HasField("shape") for feature in schema(tmp_path / "project").values())

    def test_names_and_values_that_need_quoting(self, tmp_path):
        strange = 'a "b" \\ c\nd'
        made(tmp_path, {strange: ['x"', "\\y\n"] * 50, "late": [0, 1] * 50})
        assert list(schema(tmp_path / "project")[strange].string_domain.value) == sorted(['x"', "\\y\n"])
        assert constants(tmp_path / "project")["CATEGORICAL"] == [strange]


class TestSpans:
    def labels(self, project) -> list[str]:
        return [span.label for span in spans.discover(project.config.data) if span.complete]

    def test_months_with_every_row_as_it_was(self, tmp_path):
        columns = shop()
        project = made(tmp_path, columns)
        assert self.labels(project) == ["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]
        assert project.config.data.pattern == "{YYYY}-{MM}/*.csv"
        assert (project.config.data.time, project.config.data.split_key) == ("day", "day")
        source = read(tmp_path / "source/sales.csv")
        copied = []
        for file in sorted((tmp_path / "project/data").glob("*/*.csv")):
            header, *rows = read(file)
            assert header == source[0]
            assert {row[1][:7] for row in rows} == {file.parent.name}
            copied += rows
        assert copied == source[1:]
        assert len(list((tmp_path / "project/data").glob("*/_SUCCESS"))) == 5

    def test_days_where_there_are_no_months(self, tmp_path):
        project = made(tmp_path, shop(rows=2000, days=10))
        assert self.labels(project)[0] == "2024-01-01"
        assert len(self.labels(project)) == 10
        # The rows of a day cannot be ordered or divided by their day.
        assert project.config.data.time is project.config.data.split_key is None
        assert project.config.data.window == 7

    def test_days_with_a_clock_are_ordered(self, tmp_path):
        columns = shop(rows=1000, days=5)
        columns["day"] = [f"{day} {n % 24:02d}:00:00" for n, day in enumerate(columns["day"])]
        project = made(tmp_path, columns)
        assert (project.config.data.time, project.config.data.split_key) == ("day", None)

    def test_one_span_of_few_rows(self, tmp_path):
        project = made(tmp_path, shop(rows=90))
        assert self.labels(project) == ["1"]
        copied = tmp_path / "project/data/1/sales.csv"
        assert copied.read_bytes() == (tmp_path / "source/sales.csv").read_bytes()

    def test_one_span_without_times(self, tmp_path):
        project = made(tmp_path, {"x": [1.5, 2.5] * 500, "late": [0, 1] * 500})
        assert project.config.data.pattern == "{SPAN}/*.csv"
        assert project.config.data.time is None

    def test_times_that_do_not_sort_divide_but_do_not_order(self, tmp_path):
        columns = shop()
        columns["day"] = [f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in columns["day"]]
        project = made(tmp_path, columns)
        assert len(self.labels(project)) == 5
        assert project.config.data.time is None

    def test_rows_without_a_time_are_counted(self, tmp_path, capsys):
        columns = shop()
        columns["day"][7] = columns["day"][9] = ""
        source = write_csv(tmp_path / "sales.csv", columns)
        assert cli.main(["init", str(source), "--dir", str(tmp_path / "p")]) == 0
        assert "2 rows have no time and are in no span" in capsys.readouterr().out

    def test_a_month_that_is_not_over_is_not_complete(self, tmp_path, capsys):
        source = write_csv(tmp_path / "sales.csv", shop(days=130))  # ends on May 9
        assert cli.main(["init", str(source), "--dir", str(tmp_path / "p")]) == 0
        assert "span 2024-05 has 41 rows only" in capsys.readouterr().out
        listed = spans.discover(load(tmp_path / "p").data)
        assert [span.complete for span in listed] == [True, True, True, True, False]

    def test_semicolons_and_gzip(self, tmp_path):
        plain = write_csv(tmp_path / "sales.csv", shop(), delimiter=";")
        packed = tmp_path / "sales.csv.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        project = create(packed, tmp_path / "p" / "evergreen.yaml")
        assert project.config.data.csv.delimiter == ";"
        assert len(self.labels(project)) == 5
        assert (tmp_path / "p/data/2024-01/sales.csv").read_text().startswith("order id;day;")

    def test_parquet(self, tmp_path):
        rows = 900
        start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
        moments = [start + datetime.timedelta(hours=3 * n) for n in range(rows)]
        table = pa.table(
            {
                "at": pa.array(moments, pa.timestamp("us", tz="UTC")),
                "kind": pa.array(["a", "b", None] * 300).dictionary_encode(),
                "tags": pa.array([["x"], ["y", "z"], []] * 300),
                "x": pa.array([0.5, None, 1.5] * 300, pa.float32()),
                "nothing": pa.nulls(rows),
                "clicked": pa.array([True, False, True] * 300),
            }
        )
        pq.write_table(table, tmp_path / "log.parquet")
        project = create(tmp_path / "log.parquet", tmp_path / "p" / "evergreen.yaml")
        assert (project.guess.label, project.guess.binary, project.guess.time) == ("clicked", True, "at")
        assert project.guess.numeric == ("x",)
        assert project.guess.categorical == ("kind",)
        assert project.guess.left_out["tags"] == "a row holds a list"
        assert project.guess.left_out["nothing"] == "it has no values"
        assert self.labels(project) == ["2024-01", "2024-02", "2024-03", "2024-04"]
        assert sum(pq.read_metadata(file).num_rows for file in (tmp_path / "p/data").glob("*/*.parquet")) == rows
        assert pq.read_table(tmp_path / "p/data/2024-02/part-0000.parquet").schema.equals(table.schema)
        assert schema(tmp_path / "p")["at"].type == schema_pb2.INT
        assert project.config.data.time == "at"

    @pytest.mark.parametrize(
        ("names", "given", "root", "pattern"),
        [
            (["d/2024-01/a.csv", "d/2024-02/a.csv"], "d", "d", "{YYYY}-{MM}/*.csv"),
            (["d/2024-01-05/a.csv", "d/2024-01-06/a.csv"], "d/2024-01-05/a.csv", "d", "{YYYY}-{MM}-{DD}/*.csv"),
            (["d/20240105.csv", "d/20240106.csv"], "d/20240105.csv", "d", "{YYYY}{MM}{DD}.csv"),
            (["d/sales_2024_01.csv", "d/sales_2024_02.csv"], "d", "d", "sales_{YYYY}_{MM}.csv"),
            (["d/01/a.csv", "d/2/b.csv"], "d", "d", "{SPAN}/*.csv"),
            (["d/span-1/a.csv", "d/span-2/b.csv"], "d/span-2/b.csv", "d", "span-{SPAN}/*.csv"),
            (["d/2024/01/a.csv", "d/2024/02/a.csv"], "d", "d", "{YYYY}/{MM}/*.csv"),
            (["d/year=2024/month=01/day=02/a.csv"], "d", "d", "year={YYYY}/month={MM}/day={DD}/*.csv"),
            (["d/2024-01/eu/a.csv", "d/2024-02/us/b.csv"], "d", "d", "{YYYY}-{MM}/*/*.csv"),
        ],
    )
    def test_spans_that_are_there_are_used_where_they_are(self, tmp_path, names, given, root, pattern):
        for name in names:
            write_csv(tmp_path / name, shop(rows=60))
        project = create(tmp_path / given, tmp_path / "p" / "evergreen.yaml")
        assert project.config.data.path == str(tmp_path / root)
        assert project.config.data.pattern == pattern
        assert project.config.data.success_marker is None
        assert len(self.labels(project)) == len(names)
        assert not (tmp_path / "p/data").exists()

    def test_their_markers_are_noticed(self, tmp_path):
        for name in ("d/1/a.csv", "d/2/a.csv"):
            write_csv(tmp_path / name, shop(rows=60))
            (tmp_path / name).with_name("_SUCCESS").touch()
        assert create(tmp_path / "d", tmp_path / "p/evergreen.yaml").config.data.success_marker == "_SUCCESS"

    def test_spans_inside_of_the_project_have_a_relative_path(self, tmp_path):
        for name in ("data/1/a.csv", "data/2/a.csv"):
            write_csv(tmp_path / name, shop(rows=60))
        create(tmp_path / "data", tmp_path / "evergreen.yaml")
        assert "path: data " in (tmp_path / "evergreen.yaml").read_text().replace("\n", " ")

    @pytest.mark.parametrize("name", ["export-2024-01-31.csv", "2024-01/all.csv", "7/all.csv"])
    def test_a_lone_file_is_no_span_whatever_its_name(self, tmp_path, name):
        project = create(write_csv(tmp_path / name, shop()), tmp_path / "p" / "evergreen.yaml")
        assert len(self.labels(project)) == 5
        assert project.config.data.path == str(tmp_path / "p/data")

    def test_the_second_choice_where_there_is_a_data_folder(self, tmp_path):
        source = write_csv(tmp_path / "data/sales.csv", shop())
        assert create(source, tmp_path / "evergreen.yaml").config.data.path == str(tmp_path / "spans")


class TestRefusals:
    def refusal(self, tmp_path, source, error=ConfigError) -> str:
        with pytest.raises(error) as caught:
            create(source, tmp_path / "p" / "evergreen.yaml")
        assert not (tmp_path / "p").exists()
        return str(caught.value)

    def test_files_that_are_no_table(self, tmp_path):
        assert "does not exist" in self.refusal(tmp_path, tmp_path / "nothing.csv")
        (tmp_path / "a.xlsx").write_text("x")
        assert "neither CSV nor Parquet" in self.refusal(tmp_path, tmp_path / "a.xlsx")
        (tmp_path / "b.csv").write_text("a,b\n")
        assert "has no rows" in self.refusal(tmp_path, tmp_path / "b.csv")
        (tmp_path / "c.csv").write_text("1,2.5\n3,4.5\n")
        assert "has no header" in self.refusal(tmp_path, tmp_path / "c.csv")
        (tmp_path / "d").mkdir()
        assert "no CSV or Parquet file" in self.refusal(tmp_path, tmp_path / "d")
        write_csv(tmp_path / "d/sales.csv", shop())
        assert "1 files, such as sales.csv" in self.refusal(tmp_path, tmp_path / "d")

    def test_files_that_cannot_be_read(self, tmp_path):
        (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
        assert "ragged row in line 3" in self.refusal(tmp_path, tmp_path / "a.csv", DataRejected)
        (tmp_path / "b.csv").write_bytes("a,größe\n1,größer\n".encode("latin1"))
        assert "iconv -f latin1" in self.refusal(tmp_path, tmp_path / "b.csv")
        (tmp_path / "c.parquet").write_bytes(b"PAR1 not really")
        assert "not a whole Parquet file" in self.refusal(tmp_path, tmp_path / "c.parquet", DataRejected)
        (tmp_path / "d.csv").write_text("")
        assert "is empty" in self.refusal(tmp_path, tmp_path / "d.csv", DataRejected)

    @pytest.mark.parametrize("name", ["evergreen.yaml", "features.py", "model.py", "schema.pbtxt"])
    def test_nothing_is_overwritten(self, tmp_path, name):
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / name).write_text("mine")
        with pytest.raises(ConfigError, match="already" if name == "evergreen.yaml" else "would overwrite"):
            made(tmp_path, shop())
        assert [path.name for path in (tmp_path / "project").iterdir()] == [name]
        assert (tmp_path / "project" / name).read_text() == "mine"

    def test_a_wrong_setting_leaves_nothing_behind(self, tmp_path):
        with pytest.raises(ConfigError, match="has a mistake"):
            made(tmp_path, shop(), overrides=["trainer.steps=0"])
        assert list((tmp_path / "project").iterdir()) == []


class TestCommand:
    def test_says_what_it_guessed_and_what_comes_next(self, tmp_path, monkeypatch, capsys):
        write_csv(tmp_path / "sales.csv", shop())
        monkeypatch.chdir(tmp_path)
        assert cli.main(["init", "sales.csv"]) == 0
        out = capsys.readouterr().out
        assert "sales: wrote evergreen.yaml, features.py, model.py, schema.pbtxt" in out
        for row in (["label", "revenue"], ["time", "day"], ["spans", "5", "up", "to", "2024-05"]):
            assert any(line.split()[: len(row)] == row for line in out.splitlines())
        assert "left out: note, its texts hardly repeat" in out
        assert "`evergreen run`" in out.splitlines()[-1]
        assert cli.main(["doctor", "--quick"]) == 0
        assert cli.main(["init", "sales.csv"]) == 2

    def test_settings_go_into_the_file(self, tmp_path):
        source = write_csv(tmp_path / "sales.csv", shop())
        file = tmp_path / "p" / "mine.yaml"
        assert cli.main(["init", str(source), "-c", str(file), "--set", "publish.keep=7", "--set", "beam.args=[]"]) == 0
        assert load(file).publish.keep == 7

    def test_without_a_file_the_columns_are_examples(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert cli.main(["init", "--name", "mine"]) == 0
        assert "The columns are examples" in capsys.readouterr().out
        config = load()
        check_files(config)
        assert (config.name, config.evaluate.label) == ("mine", "label")

    def test_two_places_to_write_to(self, tmp_path, capsys):
        assert cli.main(["init", "-c", "a.yaml", "--dir", str(tmp_path)]) == 2
        assert "both say where to write" in capsys.readouterr().err

    def test_what_is_written_is_valid_and_tidy(self, tmp_path):
        made(tmp_path, shop())
        for name in ("features.py", "model.py"):
            text = (tmp_path / "project" / name).read_text()
            compile(text, name, "exec")
            assert "# if " not in text
            assert "..." not in text.partition('"""')[2].partition('"""')[2]
        lines = (tmp_path / "project/evergreen.yaml").read_text().splitlines()
        assert "  time: day                               # orders a span: the exam is its tail" in lines
