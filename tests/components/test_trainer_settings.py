"""The section `trainer` as the component reads it."""

import json

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import EarlyStopping, TrainerSettings, WarmStart


def read(**values):
    return TrainerSettings.from_json(json.dumps({"model": "m:f", **values}))


def test_defaults_and_sections():
    settings = read(early_stopping={"metric": "val_auc"}, warm_start={})
    assert (settings.strategy, settings.steps, settings.global_batch_size) == ("single", 2000, 512)
    assert settings.early_stopping == EarlyStopping("val_auc", 3, 200)
    assert settings.warm_start == WarmStart(10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run_fn": "m:f"}, "received 'both', expected one of `model` and `run_fn`"),
        ({"model": None}, "received 'neither'"),
        ({"strategy": "ring"}, "trainer.strategy is wrong\nreceived 'ring', expected one of single, mirrored"),
        ({"precision": "mixed_float16"}, "trainer.precision"),
        ({"steps": 0}, "trainer.steps"),
        ({"devices": 2}, "1 under `single`"),
        ({"strategy": "mirrored", "devices": 3}, "a multiple of the 3 devices"),
        ({"early_stopping": {"evry": 1}}, "trainer.early_stopping.evry"),
        ({"early_stopping": {"every": 0}}, "at least 1"),
        ({"seeds": 1}, "trainer.seeds"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ConfigError) as error:
        read(**values)
    assert message in str(error.value)
