"""CSV: quoted, over several lines, packed; types by the schema; and one clear refusal for each kind of damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from evergreen.components.errors import DataRejected
from evergreen.components.span_example_gen import columns, csv_source, csv_values
from evergreen.components.span_example_gen.batches import Part


def write(folder: Path, text: str | bytes, name: str = "a.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def read(path: str, types: dict[str, str] | None = None, delimiter: str = ",") -> dict[str, list]:
    kinds = csv_source.survey(path, [], delimiter, types).kinds
    found: dict[str, list] = {}
    for batch in csv_source.read(Part(path), kinds, delimiter):
        for name, array in batch.values.items():
            found.setdefault(name, []).extend(array.to_pylist())
    return found


def refusal(path: str, types: dict[str, str] | None = None) -> DataRejected:
    with pytest.raises(DataRejected) as caught:
        read(path, {} if types is None else types)
    return caught.value


def test_quoted_fields_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,"x, ""y""\nz"\n2,plain\n')
    assert read(path, {"a": "INT", "b": "BYTES"}) == {"a": [1, 2], "b": [b'x, "y"\nz', b"plain"]}


def test_gzip_is_told_by_the_content_and_not_by_the_name(tmp_path: Path) -> None:
    packed = gzip.compress(b"a\n1\n")
    for name in ("a.csv.gz", "a.csv"):
        assert read(write(tmp_path, packed, name), {"a": "INT"}) == {"a": [1]}


def test_a_byte_order_mark_windows_line_ends_and_another_delimiter(tmp_path: Path) -> None:
    assert read(write(tmp_path, "\ufeffa;b\r\n1;x\r\n"), {"a": "INT"}, ";") == {"a": [1], "b": [b"x"]}


def test_na_is_missing_among_numbers_and_a_word_among_strings(tmp_path: Path) -> None:
    path = write(tmp_path, "n,f,s\nNA,nan,NA\n1,1.5,\nnull, 2.5 ,x\n")
    types = {"n": "INT", "f": "FLOAT", "s": "BYTES"}
    assert read(path, types) == {"n": [None, 1, None], "f": [None, 1.5, 2.5], "s": [b"NA", None, b"x"]}


def test_int_columns_read_what_pandas_and_parquet_make_of_whole_numbers() -> None:
    texts = pa.array(["5.0", "1e3", "true", "False", "2013-01-01 00:00:00", "2013-01-01T09:00:00+09:00", " 7 ", None])
    seconds = 1356998400
    assert csv_values.parse(texts, "INT").to_pylist() == [5, 1000, 1, 0, seconds, seconds, 7, None]


@pytest.mark.parametrize("text", ["5.5", "abc", "1_000", "99999999999999999999", "12-2013"])
def test_int_columns_refuse_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(columns.BadValue) as caught:
        csv_values.parse(pa.array(["1", "1", text, text]), "INT")
    assert (caught.value.index, caught.value.value) == (2, text)


def test_a_zip_code_keeps_its_zeros_where_the_schema_says_bytes(tmp_path: Path) -> None:
    assert read(write(tmp_path, "zip\n00501\n"), {"zip": "BYTES"}) == {"zip": [b"00501"]}


def test_a_column_that_the_schema_does_not_know_is_bytes(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a,new\n1,2\n"), {"a": "INT"}) == {"a": [1], "new": [b"2"]}


def test_without_a_schema_types_are_inferred_from_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", 64)
    lines = ["whole,real,text,none", *("1,1,1,NA" for _ in range(50)), "2,2.5,x,", "3,NA,y,"]
    path = write(tmp_path, "\n".join(lines) + "\n")
    assert csv_source.survey(path, [], ",", None).kinds == {
        "whole": "INT",
        "real": "FLOAT",
        "text": "BYTES",
        "none": columns.MISSING,
    }


def test_a_string_in_a_number_column_names_column_file_line_and_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", 64)
    lines = ["n,s", *('1,"two\nlines"' for _ in range(30)), "oops,x"]
    error = refusal(write(tmp_path, "\n".join(lines) + "\n"), {"n": "INT"})
    assert error.headline == "column `n` of a.csv, line 62 (row 31): 'oops' is not a whole number, as the schema wants"
    assert error.next_step
    assert error.exit_status == 3


@pytest.mark.parametrize(("row", "fields"), [("1,2,3", 3), ("1", 1)])
def test_a_ragged_row_names_the_file_and_the_line(tmp_path: Path, row: str, fields: int) -> None:
    error = refusal(write(tmp_path, f'a,b\n"two\nlines",2\n{row}\n4,5\n'))
    assert error.headline == "a.csv has a ragged row in line 4"
    assert f"Received: {fields} fields. Expected: 2" in error.reason


def test_damage_of_other_kinds(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 50000)
    assert refusal(write(tmp_path, "")).headline == "a.csv is empty"
    assert refusal(write(tmp_path, "\n\n")).headline == "a.csv is empty"
    assert refusal(write(tmp_path, b"a\n\xff\xfe\n")).headline == "a.csv is not UTF-8"
    assert refusal(write(tmp_path, packed[:-20])).headline == "a.csv cannot be read as CSV"


def test_columns_that_cannot_be_told_apart(tmp_path: Path) -> None:
    unnamed = refusal(write(tmp_path, ",a\n0,1\n"))
    assert unnamed.headline == "column 1 of a.csv has no name"
    assert "index=False" in unnamed.next_step
    assert refusal(write(tmp_path, "a,a\n0,1\n")).headline == "column `a` stands twice in a.csv"


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataRejected) as caught:
        csv_source.survey(write(tmp_path, "a,b\n1,2\n"), ["day"], ",", {})
    assert caught.value.headline == "column `day` is missing in a.csv"
    assert "a, b" in caught.value.reason


def test_a_header_alone_is_a_file_without_rows(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a,b\n"), {}) == {}


def test_a_row_longer_than_a_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "_BLOCK_BYTES", 64)
    assert read(write(tmp_path, "s\n" + "x" * 1000 + "\n"), {}) == {"s": [b"x" * 1000]}


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,oops\n")
    (batch,) = csv_source.read(Part(path), {"a": "INT", "b": "INT"}, ",", ["a"])
    assert batch.values["a"].to_pylist() == [1]
    assert list(batch.values) == ["a"]
