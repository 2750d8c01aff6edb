"""From a flight as the airline schedules it to the numbers that the model reads: TFX Transform's `preprocessing_fn`.

Any raw feature may be missing, in training as in a request: an unknown category and a missing one share the row behind
the vocabulary, a missing number becomes the mean, and an indicator says so. Analyzers are few, because each costs
Transform seconds: all numbers go through one, the calendar needs none, and a route tells its two airports.

Temperature and dew point are left out on purpose: over three months they follow the calendar, and a model that learns
the calendar from one winter is wrong about the spring.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_transform as tft

LABEL = "late"
# Each becomes a vocabulary of its own name, which the layer `<name>_embedding` of model.py reads. A token that the
# window has less often than this is unknown: nothing can be learnt about a plane from a handful of flights.
VOCABULARIES = {"carrier": 20, "route": 20, "plane_model": 20, "tailnum": 10}
# Categories that are numbers already, with their sizes; the row behind the last is for what is missing or out of range.
CALENDAR = {"weekday": 7, "hour": 24}
CLIP = 4.0  # standard deviations: one storm must not drown the rest


def _dense(feature: tf.Tensor | tf.SparseTensor, missing: str | float | int) -> tf.Tensor:
    """Returns a raw feature as [batch, 1], `missing` where a row has none."""
    if not isinstance(feature, tf.SparseTensor):
        return feature
    one_column = tf.SparseTensor(feature.indices, feature.values, [feature.dense_shape[0], 1])
    return tf.sparse.to_dense(one_column, default_value=missing)


def _index(value: tf.Tensor, size: int) -> tf.Tensor:
    """Returns int64 numbers of 0 to size - 1 as they are, and `size` for anything else."""
    return tf.where((value >= 0) & (value < size), value, tf.constant(size, tf.int64))


def _z_scores(columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Scales float columns [batch, 1] by the window's mean and deviation with one analyzer; NaN becomes 0, the mean."""
    scaled = tft.scale_to_z_score(tf.concat(list(columns.values()), axis=1), elementwise=True)
    scaled = tf.where(tf.math.is_nan(scaled), tf.zeros_like(scaled), tf.clip_by_value(scaled, -CLIP, CLIP))
    return dict(zip(columns, tf.split(scaled, len(columns), axis=1), strict=True))


def preprocessing_fn(inputs: dict[str, tf.Tensor | tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Transforms a batch of flights.

    Args:
      inputs: the raw features that the schema describes; the columns without `presence` of 1 and a shape are sparse.

    Returns:
      Dense tensors [batch, 1]: int64 row numbers for `VOCABULARIES` and `CALENDAR`, float32 for the rest, and the label
      as int64.
    """
    outputs = {}
    for name, least in VOCABULARIES.items():
        outputs[name] = tft.compute_and_apply_vocabulary(
            _dense(inputs[name], ""), frequency_threshold=least, num_oov_buckets=1, vocab_filename=name
        )

    def number(name: str) -> tf.Tensor:
        if inputs[name].dtype == tf.float32:
            return _dense(inputs[name], math.nan)
        whole = _dense(inputs[name], -1)  # none of the whole numbers here is ever negative
        return tf.where(whole < 0, math.nan, tf.cast(whole, tf.float32))

    outputs["weekday"] = _index(_dense(inputs["weekday"], -1), CALENDAR["weekday"])
    hour = tf.floor(tf.cast(_dense(inputs["departure_minute"], -1), tf.float32) / 60.0)
    outputs["hour"] = _index(tf.cast(hour, tf.int64), CALENDAR["hour"])

    for name, source in (("weather_missing", "humid"), ("pressure_missing", "pressure"), ("plane_missing", "seats")):
        outputs[name] = tf.cast(tf.math.is_nan(number(source)), tf.float32)

    minute = number("departure_minute")
    direction, speed = number("wind_dir") * (math.pi / 180.0), number("wind_speed")
    gust = number("wind_gust")
    columns = {
        "departure_minute": minute,
        "arrival_minute": number("arrival_minute"),
        "scheduled_minutes": number("scheduled_minutes"),
        "distance": number("distance"),
        "plane_age": number("plane_age"),
        "seats": number("seats"),
        "humid": number("humid"),
        "pressure": number("pressure"),
        "wind_speed": speed,
        "wind_gust": tf.where(tf.math.is_nan(gust), tf.zeros_like(gust), gust),  # none is reported where none blows
        "wind_east": tf.sin(direction) * speed,
        "wind_north": tf.cos(direction) * speed,
        "rain": tf.math.log(1.0 + 100.0 * number("precip")),
        "murk": tf.math.log(11.0 - tf.minimum(number("visib"), 10.0)),
    }
    for waves in (1, 2):
        phase = minute * (waves * 2.0 * math.pi / 1440.0)
        columns[f"day_sin_{waves}"] = tf.sin(phase)
        columns[f"day_cos_{waves}"] = tf.cos(phase)
    outputs.update(_z_scores(columns))

    outputs[LABEL] = _dense(inputs[LABEL], 0)
    return outputs
