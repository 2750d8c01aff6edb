"""Files are divided into pieces of about one size, and their columns agree before anything is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.components.errors import DataRejected, SpanError
from evergreen.components.span_example_gen import files, parquet_source, pieces
from evergreen.components.span_example_gen.batches import FileSurvey, Part
from evergreen.components.span_example_gen.pieces import Piece
from evergreen.components.span_example_gen.settings import Settings


def survey(path: str, *sizes: int, **kinds: str) -> FileSurvey:
    return FileSurvey(path, kinds, sizes)


def test_row_groups_of_a_big_file_are_spread_over_pieces() -> None:
    assert pieces.divide([survey("a", 6, 6, 6)], piece_bytes=10) == [
        Piece(0, (Part("a", 0, 2),)),
        Piece(1, (Part("a", 2, 3),)),
    ]


def test_small_files_share_a_piece_in_their_order() -> None:
    found = pieces.divide([survey("a", 4), survey("b", 4), survey("c", 4), survey("d", 1)], piece_bytes=10)
    assert found == [Piece(0, (Part("a"), Part("b"), Part("c"))), Piece(1, (Part("d"),))]


def test_a_file_without_row_groups_makes_no_piece() -> None:
    assert pieces.divide([survey("a")]) == []


def test_the_order_of_rows_does_not_hang_on_the_order_of_the_listing() -> None:
    assert pieces.paths("/d", ["b", "a"]) == pieces.paths("/d", ["a", "b"]) == ["/d/a", "/d/b"]


def test_numbers_of_several_files_become_the_wider_kind_and_what_the_schema_says() -> None:
    files = [survey("a", 1, n="INT", m="INT", x=""), survey("b", 1, n="FLOAT", m="FLOAT", x="BYTES")]
    kinds = {"n": "FLOAT", "m": "INT", "x": "BYTES"}
    assert pieces.common_kinds(files, "parquet", {"m": "INT", "x": "INT"}) == kinds


def test_a_number_in_one_file_and_a_string_in_another_is_refused() -> None:
    with pytest.raises(DataRejected, match="column `n` is INT in one file of the span and BYTES in another") as caught:
        pieces.common_kinds([survey("a", 1, n="INT"), survey("b", 1, n="BYTES")], "parquet", None)
    assert "INT: a; BYTES: b" in caught.value.reason


def test_inferred_csv_columns_fall_back_to_text() -> None:
    assert pieces.common_kinds([survey("a", 1, n="INT"), survey("b", 1, n="BYTES")], "csv", None) == {"n": "BYTES"}


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(100), "day": ["x"] * 100}), path, row_group_size=30)
    return path


def test_row_groups_are_read_by_themselves_with_the_columns_that_are_wanted(parquet: Path) -> None:
    found = parquet_source.survey(str(parquet), ["day"])
    assert len(found.sizes) == 4
    read = list(parquet_source.read(Part(str(parquet), 1, 3), found.kinds, ["n"]))
    assert [value for batch in read for value in batch.values["n"].to_pylist()] == list(range(30, 90))
    assert list(read[0].values) == ["n"]


def test_a_number_that_the_schema_refuses_is_named_with_its_row_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [*map(float, range(50)), 50.5]}), path, row_group_size=20)
    with pytest.raises(DataRejected, match=r"column `n` of a.parquet, row 51: 50.5 is not a whole number"):
        list(parquet_source.read(Part(str(path), 2, 3), {"n": "INT"}))


def test_the_index_that_pandas_stores_is_no_feature(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1], "__index_level_0__": [0]}), path)
    assert parquet_source.survey(str(path), []).kinds == {"n": "INT"}


def test_a_column_of_a_type_that_cannot_be_held_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1], "place": [{"x": 1.0}]}), path)
    with pytest.raises(DataRejected, match=r"`place` has a type that a tf.Example cannot hold") as caught:
        parquet_source.survey(str(path), [])
    assert "struct<x: double>" in caught.value.reason


def test_parquet_that_is_empty_truncated_damaged_or_gone(parquet: Path, tmp_path: Path) -> None:
    whole = parquet.read_bytes()
    broken = tmp_path / "b.parquet"
    for content, headline in ((b"", "b.parquet is empty"), (whole[:-40], "b.parquet is not a whole Parquet file")):
        broken.write_bytes(content)
        with pytest.raises(DataRejected, match=headline):
            parquet_source.survey(str(broken), [])
    broken.write_bytes(whole[:4] + bytes(200) + whole[204:])
    kinds = parquet_source.survey(str(broken), []).kinds
    with pytest.raises(DataRejected, match=r"b.parquet is not a whole Parquet file"):
        list(parquet_source.read(Part(str(broken), 0, 1), kinds))
    with pytest.raises(SpanError, match="a file of the span is gone"):
        parquet_source.survey(str(tmp_path / "c.parquet"), [])


def test_an_error_of_the_disk_says_nothing_about_the_file() -> None:
    failing = OSError(5, "Input/output error")
    assert files.damaged("a.parquet", "is not a whole Parquet file", failing) is failing
    error = files.damaged("a.parquet", "is not a whole Parquet file", OSError("Couldn't deserialize thrift"))
    assert isinstance(error, DataRejected)


def test_each_format_is_looked_at_by_its_reader(parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,m\n1,2\n")
    (tmp_path / "a.tfrecord").write_bytes(b"12345")
    assert pieces.survey(str(parquet), "parquet", Settings(), None).kinds == {"n": "INT", "day": "BYTES"}
    assert pieces.survey(str(tmp_path / "a.csv"), "csv", Settings(), {"n": "INT"}).kinds == {"n": "INT", "m": "BYTES"}
    assert pieces.survey(str(tmp_path / "a.tfrecord"), "tfrecord", Settings(), None).sizes == (5,)
