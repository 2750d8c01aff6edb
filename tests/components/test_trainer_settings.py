"""The section `trainer` as the component reads it."""

import json

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import EarlyStopping, TrainerSettings, WarmStart


def read(**values):
    return TrainerSettings.from_json(json.dumps({"model": "m:f", **values}))


STOCK = {"model": None, "run_fn": "m:run_fn"}


@pytest.mark.parametrize("strategy", ["auto", "single", "mirrored", "central_storage"])
def test_a_run_fn_may_have_a_strategy_of_this_machine(strategy):
    assert read(**STOCK, strategy=strategy).strategy == strategy


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
        (
            {"strategy": "ring"},
            "trainer.strategy is wrong\nreceived 'ring', expected one of auto, single, mirrored, central_storage",
        ),
        ({"precision": "float16"}, "expected one of float32, mixed_bfloat16, mixed_float16"),
        ({"steps": 0}, "trainer.steps"),
        ({"devices": 2}, "1; several under mirrored"),
        ({"strategy": "parameter_server", "cluster": {"workers": 3}, "backup_workers": 3}, "fewer than"),
        ({"strategy": "multi_worker_mirrored", "cluster": {"workers": 3}}, "a multiple of the 3 devices or workers"),
        ({"strategy": "model_parallel", "precision": "mixed_bfloat16"}, "float32 under model_parallel"),
        ({"update": "sometimes"}, "expected one of sync, async"),
        ({"all_reduce": {"algorithm": "gossip"}}, "trainer.all_reduce.algorithm"),
        ({"profile": [5, 2]}, "the first and the last step"),
        (
            {**STOCK, "strategy": "parameter_server"},
            "trainer.strategy is wrong\nreceived 'parameter_server', expected one of auto, single, mirrored, "
            "central_storage with `run_fn`",
        ),
        ({**STOCK, "strategy": "multi_worker_mirrored"}, "central_storage with `run_fn`"),
        ({**STOCK, "strategy": "model_parallel"}, "central_storage with `run_fn`"),
        ({**STOCK, "precision": "mixed_bfloat16"}, "float32 with `run_fn`"),
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


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ({}, 1),
        ({"strategy": "mirrored", "devices": 4}, 4),
        ({"strategy": "model_parallel", "mesh": [2, 4]}, 2),
        ({"strategy": "multi_worker_mirrored", "cluster": {"workers": 2}}, 2),
        ({"strategy": "parameter_server", "cluster": {"workers": 3}, "backup_workers": 1}, 2),
        ({"strategy": "parameter_server", "cluster": {"workers": 3}, "update": "async"}, 1),
    ],
)
def test_a_batch_is_cut_into_as_many_parts_as_are_computed_at_once(values, shares):
    assert read(global_batch_size=240, **values).shares == shares
