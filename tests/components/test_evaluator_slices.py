"""Slices and blocks of rows."""

import pyarrow as pa

from evergreen.components.evaluator import slices

TABLE = pa.table(
    {
        "carrier": pa.array(["UA", "AA", None, "UA", "AA", "UA"]),
        "month": pa.array([1, 2, 1, 2, 2, None], pa.int64()),
        "late": pa.array([0.0] * 6),
    }
)


def _members(columns, table=TABLE):
    return {key: rows.tolist() for key, rows in slices.members(table, columns)}


def test_one_column_in_the_order_of_its_values_without_the_rows_that_lack_it():
    assert next(slices.members(TABLE, ["carrier"]))[0] == (("carrier", "AA"),)
    assert _members(["carrier"]) == {(("carrier", "AA"),): [1, 4], (("carrier", "UA"),): [0, 3, 5]}


def test_several_columns_are_named_in_order_and_cut_by_every_combination():
    assert _members(["month", "carrier"]) == {
        (("carrier", "AA"), ("month", 2)): [1, 4],
        (("carrier", "UA"), ("month", 1)): [0],
        (("carrier", "UA"), ("month", 2)): [3],
    }


def test_no_column_is_the_whole():
    assert _members([]) == {(): [0, 1, 2, 3, 4, 5]}


def test_a_column_of_nothing_has_no_slices():
    assert _members(["x"], pa.table({"x": pa.array([None, None], pa.string())})) == {}


def test_chunks_do_not_matter():
    chunked = pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2)])
    assert _members(["carrier"], chunked) == _members(["carrier"])
    assert _members(["carrier"], TABLE.to_batches()[0]) == _members(["carrier"])


def test_blocks_join_equal_values_and_a_missing_one_is_a_value():
    assert slices.blocks(TABLE, []) is None
    found = slices.blocks(TABLE, ["carrier"]).tolist()
    assert [found.index(block) for block in found] == [0, 1, 2, 0, 1, 0]
    assert len(set(slices.blocks(TABLE, ["carrier", "month"]).tolist())) == 5


def test_text():
    assert slices.text((("carrier", "UA"), ("month", 2))) == "carrier=UA, month=2"
    assert slices.text(slices.OVERALL) == "overall"
