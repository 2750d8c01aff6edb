"""The Quantizer's settings: defaults, and the names that mean nothing."""

import dataclasses
import json

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.quantizer.settings import QuantizeSettings


def test_defaults():
    settings = QuantizeSettings.from_json("{}")
    assert settings == QuantizeSettings(variants=("float16", "dynamic_int8"), prefer="smallest", when_none="withdraw")


def test_reads_every_key():
    given = {
        "variants": ["float16", "float16", "float32"],
        "max_drop": {"auc": 0.01},
        "required": ["float16"],
        "publish": "float32",
        "prefer": "fastest",
        "max_bytes": 1000,
        "max_latency_ratio": 1.5,
        "max_abs_difference": 0.01,
        "when_none": "refuse",
        "calibration_rows": 10,
        "calibration_seed": 3,
        "convert_seconds": 20.5,
        "allow_select_ops": True,
    }
    settings = QuantizeSettings.from_json(json.dumps(given))
    expected = {**given, "variants": ("float16", "float32"), "required": ("float16",)}
    assert dataclasses.asdict(settings) == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"variants": ["int4"]}, "'int4'"),
        ({"required": ["float32"]}, "'float32'"),
        ({"variants": ["float16"], "publish": "dynamic_int8"}, "'dynamic_int8'"),
        ({"max_drop": {"auc": -0.1}}, "quantize.max_drop.auc"),
        ({"max_drop": {"acu": 0.1}}, "`acu`"),
        ({"max_bytes": -1}, "quantize.max_bytes"),
        ({"prefer": "largest"}, "smallest, fastest"),
        ({"when_none": "panic"}, "withdraw, refuse"),
        ({"calibration_rows": 0}, "quantize.calibration_rows"),
        ({"max_dorp": {"auc": 0.1}}, "quantize.max_dorp"),
    ],
)
def test_refuses_what_means_nothing(given, named):
    with pytest.raises(ConfigError) as refused:
        QuantizeSettings.from_json(json.dumps(given))
    assert named in str(refused.value)


def test_an_unknown_variant_is_answered_with_the_valid_ones():
    with pytest.raises(ConfigError, match="float32, float16, dynamic_int8, int8, int8_float_io, int16x8"):
        QuantizeSettings.from_json('{"variants": ["int4"]}')
