"""Under every strategy a wrong model gets one clear error, and nothing is left behind."""

import os
from pathlib import Path

import pytest
import trainer_world

from evergreen.components.errors import ConfigError, ModelRejected
from evergreen.components.trainer import child

pytestmark = pytest.mark.tensorflow

MODELS = """
import tf_keras

def nothing(transform_output, hyperparameters):
    pass

def not_compiled(transform_output, hyperparameters):
    size = tf_keras.Input((1,), name="size")
    return tf_keras.Model({"size": size}, tf_keras.layers.Dense(1)(size))

def broken(transform_output, hyperparameters):
    return hyperparameters["units"]

def too_wide(transform_output, hyperparameters):
    size = tf_keras.Input((1,), name="size")
    return compiled(tf_keras.Model({"size": size}, tf_keras.layers.Dense(2)(size)))

def overflowing(transform_output, hyperparameters):
    size = tf_keras.Input((1,), name="size")
    scaled = tf_keras.layers.Rescaling(1e30)(size)
    return compiled(tf_keras.Model({"size": size}, tf_keras.layers.Dense(1)(scaled)))

def compiled(model):
    model.compile("sgd", "mse")
    return model
"""

STRATEGIES = {
    "mirrored": {"devices": 2},
    "central_storage": {"devices": 2},
    "model_parallel": {"mesh": [1, 2]},
    "multi_worker_mirrored": {"cluster": {"workers": 2}},
    "parameter_server": {"cluster": {"workers": 2, "ps": 1}},
}
CASES = {
    "nothing": (ConfigError, "odd_model:nothing does not return a tf_keras.Model", "received builtins.NoneType"),
    "not_compiled": (ConfigError, "odd_model:not_compiled returns a model that is not compiled", "without optimizer"),
    "broken": (ConfigError, "odd_model:broken fails", "KeyError: 'units'"),
    "too_wide": (ConfigError, "odd_model:too_wide returns a model with an output of the shape [None, 2]", "[batch, 1]"),
    "overflowing": (ModelRejected, "training gave NaN", "by step 1; the learning rate is"),
}
QUICK = ("mirrored", "overflowing")


def children() -> list[str]:
    """The training processes that this process has started and that still run."""
    pids = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    commands = (Path(f"/proc/{pid}/cmdline").read_text() for file in pids for pid in file.read_text().split())
    return [command for command in commands if "evergreen.components.trainer" in command]


@pytest.mark.parametrize(
    ("strategy", "case"),
    [
        pytest.param(strategy, case, marks=() if (strategy, case) == QUICK else pytest.mark.slow)
        for strategy in STRATEGIES
        for case in CASES
    ],
)
def test_a_wrong_model_gets_one_error_and_leaves_nothing(world, tmp_path, capfd, strategy, case):
    kind, headline, reason = CASES[case]
    project = trainer_world.write_project(tmp_path / "project", odd_model=MODELS)
    settings = {"model": f"odd_model:{case}", "strategy": strategy, **STRATEGIES[strategy]}
    asked = trainer_world.request(world, tmp_path / "node" / "out", settings, project_dir=str(project))
    with pytest.raises(kind) as error:
        child.train(asked)
    assert error.value.headline == headline
    assert reason in error.value.reason and len(error.value.reason) < 400
    assert "Traceback" not in capfd.readouterr().err
    assert children() == []
    left = [
        path for path in (tmp_path / "node").rglob("*") if path.is_file() and not {"logs", "cluster"} & {*path.parts}
    ]
    assert left == []
