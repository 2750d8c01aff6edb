"""The spans of scale.py: as many flights as wanted, a real month's repeated with noise. Pure, but for `write`.

No two rows of a span are equal: a row's number in it stands behind the binary point of its temperature and dew point,
which the example's features do not read. Wind and humidity get noise, so that the numbers have as many distinct values
as they would in real rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples" / "flights"))

import data

MONTHS = 12
CHUNK_ROWS = 1 << 19
_DIGITS = 12  # bits of the row's number in either column; float32 has room for them behind 7 bits of degrees
MOST_ROWS = 1 << (2 * _DIGITS)
_NOISE = {"humid": (1.0, 0.0, 100.0), "wind_speed": (1.0, 0.0, 150.0), "visib": (0.05, 0.0, 10.0)}
_MISSING_F = 50.0


def repeat(month: pa.Table, first: int, last: int, rows: int, seed: int) -> pa.Table:
    """Makes rows `first` to `last` of a span of `rows` flights, in the order of their departure.

    Args:
      month: real flights, in that order.
      first: the first row, from 0.
      last: the one behind the last row.
      rows: of the whole span, at most `MOST_ROWS`.
      seed: of the noise.

    Returns:
      A table of the month's schema: each of its flights as often as every other one, or evenly chosen ones of them
      where fewer rows are wanted than it has.
    """
    if rows > MOST_ROWS:
        raise ValueError(f"Invalid value for argument `rows`. Received: rows={rows}. Expected at most {MOST_ROWS}.")
    numbers = np.arange(first, last)
    table = month.take(pa.array(numbers * month.num_rows // rows))
    random = np.random.default_rng((seed, first))
    made = {}
    for name, (deviation, least, most) in _NOISE.items():
        noisy = table[name].to_numpy() + random.normal(0.0, deviation, len(numbers))
        made[name] = np.clip(noisy, least, most).astype(np.float32)
    for name, part in (("temp", numbers % (1 << _DIGITS)), ("dewp", numbers >> _DIGITS)):
        degrees = np.floor(np.nan_to_num(table[name].to_numpy().astype(np.float64), nan=_MISSING_F))
        made[name] = (degrees + part / (1 << _DIGITS)).astype(np.float32)
    for name, values in made.items():
        position = table.schema.get_field_index(name)
        # NaN is what pandas makes of a missing number.
        table = table.set_column(position, table.schema.field(position), pa.array(values, from_pandas=True))
    return table


def write(folder: Path, span: int, rows: int) -> None:
    """Writes a span as the example's data.py does: a Parquet file, then its marker.

    Args:
      folder: of the spans.
      span: its number, from 1; the flights are those of its month, from 13 on of the year's months again.
      rows: how many flights.
    """
    month = data.load_month((span - 1) % MONTHS + 1)
    name, _ = data.FORMATS["parquet"]
    target = folder / str(span)
    target.mkdir(parents=True)
    with pq.ParquetWriter(target / name, data.SCHEMA) as writer:
        for first in range(0, rows, CHUNK_ROWS):
            writer.write_table(repeat(month, first, min(first + CHUNK_ROWS, rows), rows, span))
    (target / data.SUCCESS_MARKER).touch()
