"""The data contract: it describes exactly the spans' columns, accepts all real months and refuses broken ones."""

from __future__ import annotations

import integration_world as world
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

pytestmark = pytest.mark.tensorflow

data = world.flights_data()
SCHEMA = world.ROOT / "schemas" / "flights" / "schema.pbtxt"


@pytest.fixture(scope="module")
def schema() -> schema_pb2.Schema:
    return tfdv.load_schema_text(str(SCHEMA))


def rows(month: int) -> pd.DataFrame:
    """A month as a span's tf.Examples hold it: times in seconds since 1970."""
    table = data.load_month(month)
    seconds = table["time_hour"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    return table.set_column(0, "time_hour", seconds).to_pandas()


def anomalies(frame: pd.DataFrame, schema: schema_pb2.Schema, before: pd.DataFrame | None = None) -> dict[str, str]:
    """What TFDV finds: feature to the names of its anomalies."""
    statistics = tfdv.generate_statistics_from_dataframe(frame.reset_index(drop=True))
    previous = None if before is None else tfdv.generate_statistics_from_dataframe(before.reset_index(drop=True))
    found = tfdv.validate_statistics(statistics, schema, environment="TRAINING", previous_statistics=previous)
    return {
        name: " ".join(sorted(type(info).Type.Name(reason.type) for reason in info.reason))
        for name, info in found.anomaly_info.items()
    }


def test_it_describes_exactly_the_columns_in_their_order_and_with_their_types(schema):
    assert [feature.name for feature in schema.feature] == data.SCHEMA.names
    for feature, field in zip(schema.feature, data.SCHEMA, strict=True):
        kind = "BYTES" if pa.types.is_string(field.type) else "FLOAT" if pa.types.is_floating(field.type) else "INT"
        assert schema_pb2.FeatureType.Name(feature.type) == kind, feature.name
        assert (feature.presence.min_fraction == 1.0) == (not field.nullable), feature.name


def test_a_request_has_neither_label_nor_bookkeeping(schema):
    assert set(schema.default_environment) == {"TRAINING", "SERVING"}
    absent = {feature.name for feature in schema.feature if "SERVING" in feature.not_in_environment}
    assert absent == {"late", "time_hour", "date"}


def test_every_feature_is_sparse_so_that_a_request_may_lack_it(schema):
    assert not [feature.name for feature in schema.feature if feature.HasField("shape")]


def test_what_is_compared_with_the_month_before_and_with_what_is_served(schema):
    drift = {feature.name for feature in schema.feature if feature.HasField("drift_comparator")}
    skew = {feature.name for feature in schema.feature if feature.HasField("skew_comparator")}
    assert {"late", "carrier", "origin", "route", "distance", "departure_minute"} <= drift
    assert {"carrier", "origin", "route", "distance", "departure_minute"} <= skew
    assert "late" not in skew


def test_a_real_month_passes(schema):
    assert anomalies(rows(4), schema, before=rows(3)) == {}


@pytest.mark.slow
def test_all_twelve_months_pass_whole_and_without_their_last_week(schema):
    before = None
    for month in range(1, 13):
        whole = rows(month)
        assert anomalies(whole, schema) == {}, month
        train = whole[whole["time_hour"] < whole["time_hour"].quantile(0.75)]
        assert anomalies(train, schema, before) == {}, month
        before = train


def shifted(frame: pd.DataFrame, name: str, share: float, value: object) -> pd.DataFrame:
    """The frame with `value` in a share of the rows of a column."""
    frame = frame.copy()
    chosen = np.random.default_rng(0).random(len(frame)) < share
    frame.loc[chosen, name] = value
    return frame


def test_broken_months_are_found(schema):
    good, before = rows(4), rows(3)
    found = anomalies(good.drop(columns=["carrier"]), schema)
    assert "MISSING" in found["carrier"]
    assert "UNEXPECTED" in anomalies(shifted(good, "carrier", 0.02, "ZZ"), schema)["carrier"]
    assert anomalies(shifted(good, "carrier", 0.001, "ZZ"), schema) == {}, "a new airline's first flights are no error"
    assert "UNEXPECTED" in anomalies(shifted(good, "origin", 0.001, "BOS"), schema)["origin"]
    assert "dest" in anomalies(shifted(good, "dest", 0.03, "XXX"), schema)
    assert "seats" in anomalies(shifted(good, "seats", 0.5, np.nan), schema)
    assert "temp" in anomalies(good.assign(temp=good["temp"] + 273.15), schema), "Kelvin"
    assert "late" in anomalies(shifted(good, "late", 0.01, 2), schema)
    assert "late" in anomalies(good.assign(late=1 - good["late"]), schema, before)
    assert "wind_speed" in anomalies(good.assign(wind_speed=good["wind_speed"] * 0.447), schema, before), "metres"
    assert "carrier" in anomalies(good[good["carrier"] != "UA"], schema, before), "an airline's feed is missing"
    assert "distance" in anomalies(good.assign(distance=(good["distance"] * 1.609).astype(int)), schema, before)
    assert "departure_minute" in anomalies(
        good.assign(departure_minute=(good["departure_minute"] + 300) % 1440), schema, before
    ), "UTC instead of local time"
