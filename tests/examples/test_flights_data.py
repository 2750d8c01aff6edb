"""The flights as spans: the figures that the issue and the README name, nothing learnt too late, whole files."""

from __future__ import annotations

import argparse
import gzip
import re

import integration_world as world
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

data = world.flights_data()

# Columns of the source that say how the flight went, or follow from it.
AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}


@pytest.fixture(scope="module")
def year() -> pa.Table:
    return data.load_flights()


@pytest.fixture(scope="module")
def source() -> pd.DataFrame:
    return pd.read_csv(data.source_folder() / "flights.csv.zip")


def test_the_year_has_327346_labelled_flights_of_which_a_quarter_is_late(year, source):
    assert year.num_rows == 327_346
    assert year.num_rows == source["arr_delay"].notna().sum()
    assert pc.sum(year["late"]).as_py() == (source["arr_delay"] >= 15).sum() == 80_100


def test_a_span_has_between_23_and_29_thousand_flights(year):
    months = pc.utf8_slice_codeunits(year["date"], 0, 7).value_counts().to_pylist()
    assert len(months) == 12
    assert sum(month["counts"] for month in months) == year.num_rows
    assert min(month["counts"] for month in months) == 23_611
    assert max(month["counts"] for month in months) == 28_756


def test_nothing_that_was_learnt_after_the_scheduled_departure_is_a_column(year):
    assert not AFTERWARDS & set(year.column_names)
    assert year.column_names == data.SCHEMA.names


def test_no_column_follows_the_delay(year):
    """A leak under another name would rank late flights far better than the best honest feature does (0.61)."""
    late = year["late"].to_numpy()
    for field in data.SCHEMA:
        if field.name == "late" or pa.types.is_string(field.type) or pa.types.is_timestamp(field.type):
            continue
        values = year[field.name].to_numpy()
        known = ~np.isnan(values)
        ranks = pd.Series(values[known]).rank().to_numpy()
        positive = late[known] == 1
        ones, zeros = positive.sum(), (~positive).sum()
        auc = (ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros)
        assert 0.35 < auc < 0.65, field.name


def test_the_weather_is_that_of_the_scheduled_hour_at_the_origin(year):
    """The source writes `time_hour` in UTC in both tables; its local hours agree too, in winter as in summer."""
    weather = pd.read_csv(data.source_folder() / "weather.csv")
    flights = year.select(["date", "departure_minute", "origin", "temp"]).to_pandas()
    local = pd.to_datetime(flights["date"])
    flights = flights.assign(month=local.dt.month, day=local.dt.day, hour=flights["departure_minute"] // 60)
    joined = flights.merge(weather, how="left", on=["origin", "month", "day", "hour"], suffixes=("", "_source"))
    known = joined["temp_source"].notna()
    assert known.mean() > 0.995
    np.testing.assert_allclose(joined["temp"][known], joined["temp_source"][known], rtol=1e-6)
    assert joined["temp"].notna().mean() == known.mean()


def test_time_hour_is_the_hour_of_the_departure_in_utc(year):
    local = pd.to_datetime(year["time_hour"].to_pandas()).dt.tz_convert("America/New_York")
    assert (local.dt.strftime("%Y-%m-%d") == year["date"].to_pandas()).all()
    assert (local.dt.hour == year["departure_minute"].to_pandas() // 60).all()


def test_unknown_planes_and_missing_weather_stay_null(year):
    missing = {name: year[name].null_count / year.num_rows for name in ("seats", "plane_age", "pressure", "wind_gust")}
    assert missing == pytest.approx(
        {"seats": 0.148, "plane_age": 0.163, "pressure": 0.110, "wind_gust": 0.763}, abs=1e-3
    )
    for field in data.SCHEMA:
        if not field.nullable:
            assert year[field.name].null_count == 0, field.name


def test_the_impossible_wind_is_left_out():
    weather = data._weather(data.source_folder())
    assert weather["wind_speed"].max() < 60


def test_a_span_is_finished_by_its_marker_and_holds_its_month(tmp_path):
    assert data.write_spans(tmp_path, [4]) == {4: 27_564}
    assert sorted(path.name for path in (tmp_path / "4").iterdir()) == ["_SUCCESS", "flights.parquet"]
    table = pq.read_table(tmp_path / "4" / "flights.parquet")
    assert table.schema.names == data.SCHEMA.names
    assert table.schema.field("time_hour").type == pa.timestamp("ms", tz="UTC")
    assert set(pc.utf8_slice_codeunits(table["date"], 0, 7).to_pylist()) == {"2013-04"}
    assert table["time_hour"].to_pylist() == sorted(table["time_hour"].to_pylist())


def test_a_delivery_that_breaks_off_leaves_no_marker(tmp_path, monkeypatch):
    data.write_spans(tmp_path, [4])

    def broken(table: pa.Table, path: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setitem(data.FORMATS, "parquet", ("flights.parquet", broken))
    with pytest.raises(OSError, match="full"):
        data.write_spans(tmp_path, [4])
    assert not (tmp_path / "4" / "_SUCCESS").exists()


@pytest.mark.parametrize("format", ["csv", "csv.gz"])
def test_csv_holds_the_same_rows(tmp_path, format):
    data.write_spans(tmp_path, [2], format)
    path = tmp_path / "2" / f"flights.{format}"
    content = gzip.decompress(path.read_bytes()) if format.endswith("gz") else path.read_bytes()
    first = content.split(b"\n", 2)[1]
    assert re.match(rb'"2013-02-01T10:00:00Z","2013-02-01",[01],"\w\w"', first), first
    rows = pd.read_csv(path)
    expected = data.load_month(2).to_pandas()
    assert list(rows.columns) == list(expected.columns)
    pd.testing.assert_series_equal(rows["wind_gust"], expected["wind_gust"].astype("float64"), check_exact=False)
    assert (rows["tailnum"] == expected["tailnum"]).all()


def test_flipped_labels_are_the_share_asked_for_and_nothing_else_changes():
    table = data.load_month(9)
    spoilt = data.flip(table, 0.25, seed=1)
    changed = pc.not_equal(table["late"], spoilt["late"])
    assert pc.mean(changed).as_py() == pytest.approx(0.25, abs=0.01)
    assert set(pc.unique(spoilt["late"]).to_pylist()) == {0, 1}
    assert spoilt.drop(["late"]).equals(table.drop(["late"]))
    assert spoilt.equals(data.flip(table, 0.25, seed=1))
    assert not spoilt.equals(data.flip(table, 0.25, seed=2))


def test_months_as_people_write_them():
    assert data.parse_months("4") == [4]
    assert data.parse_months("1-3") == [1, 2, 3]
    assert data.parse_months("1,3,6-8") == [1, 3, 6, 7, 8]
    for wrong in ("0", "13", "4-2", "April", "", "1--3"):
        with pytest.raises(argparse.ArgumentTypeError):
            data.parse_months(wrong)


def test_the_command_line_writes_and_tells(tmp_path, capsys):
    assert data.main(["--out", str(tmp_path), "--months", "1-2"]) == 0
    assert "span 1: 26,398 flights" in capsys.readouterr().out
    assert (tmp_path / "2" / "_SUCCESS").exists()


def test_a_month_that_is_none_is_refused():
    with pytest.raises(ValueError, match="month=13"):
        data.load_month(13)
