"""The splits of benchmarks/model_parallel.py train as one device does and move what they should; wrong ones show."""

import importlib
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from evergreen.components.errors import EvergreenError

pytestmark = pytest.mark.tensorflow

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
DENSE = (4, 3, 6)
CONVOLUTIONAL = (2, 2, 4, 6)


@pytest.fixture(scope="module")
def modules():
    """The two modules, which are programs and no package: model_parallel, model_splits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("model_parallel"), importlib.import_module("model_splits")
    for name in ("model_parallel", "model_splits"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("split", "sizes", "values", "share"),
    [
        ("layers", DENSE, 4 * 6, 0.5),
        # Three layers' halves and five logits forward, the halves again backward.
        ("units", DENSE, 3 * 4 * 3 + 4 * 5 + 3 * 4 * 3, 0.5),
        # Two halo rows forward and one backward, the means, kernels and biases.
        ("regions", CONVOLUTIONAL, 3 * (2 * 6 * 4) + 2 * 4 + 2 * (9 * 4 * 4 + 4), 1),
    ],
)
def test_a_split_trains_as_one_device_and_moves_what_it_should(modules, split, sizes, values, share):
    model_parallel, model_splits = modules
    result = model_parallel.measure(split, model_splits.Network(*sizes), steps=1, gbit=10)
    assert result["largest_difference"] < 1e-6 < 1e-3 < result["largest_change"]
    assert result["bytes"] == 2 * 4 * values
    assert result["link_ms"] == pytest.approx(2 * 4 * values * 8 / 10e9 * 1e3)
    assert len(result["idle"]) == 2 and all(0 < idle < 1 for idle in result["idle"])
    assert result["weights"] == pytest.approx(share, abs=0.2 * (share < 1))


def test_a_split_without_its_halo_is_noticed(modules, monkeypatch):
    model_parallel, model_splits = modules
    whole = model_splits.attach
    monkeypatch.setattr(model_splits, "attach", lambda rows, row, half: whole(rows, tf.zeros_like(row), half))
    with pytest.raises(EvergreenError, match="split by regions does not train as on one device"):
        model_parallel.measure("regions", model_splits.Network(*CONVOLUTIONAL), steps=1, gbit=10)


def test_bytes_that_should_not_move_are_noticed(modules, monkeypatch):
    model_parallel, model_splits = modules
    monkeypatch.setattr(model_parallel, "expected_bytes", lambda split, network: 4 * 4 * 6 - 4)
    with pytest.raises(EvergreenError, match="moves other bytes than it should"):
        model_parallel.measure("layers", model_splits.Network(*DENSE), steps=1, gbit=10)


def test_operations_that_overlap_are_busy_once(modules):
    assert modules[0].covered([(10, 14), (11, 12), (13, 15), (20, 21)]) == 6


@pytest.mark.parametrize(
    ("ratio", "linked", "share", "advice"),
    [
        (
            0.95,
            0.97,
            0.5,
            "Take it where the weights do not fit one device (a device holds 50% of the weights), not for",
        ),
        (1.02, 1.1, 1.0, "Leave it: a step takes 1.02 of one device's time"),
        (0.55, 1.2, 0.5, "Take it only where the devices share memory or a faster link"),
        (0.55, 0.6, 0.5, "Take it for speed and for room"),
        (0.55, 0.6, 1.0, "Take it for speed, not for room"),
    ],
)
def test_the_advice_follows_from_the_figures(modules, ratio, linked, share, advice):
    figures = {"ratio": ratio, "ratio_with_link": linked, "weights": share, "gbit": 10, "least_gbit": 2.5}
    assert modules[0].advise({**figures, "idle": [0.5, 0.4]}).startswith(advice)


def test_a_network_without_halves_is_refused(modules, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["model_parallel.py", "--dense", "4,3,5"])
    assert modules[0].main() == 2
    assert "Expected two layers or more, an even width" in capsys.readouterr().err


def test_a_busy_machine_is_noticed(modules):
    idle = {"idle": [0.1, 0.1]}
    assert not modules[0].busy_machine({**idle, "step": {"one": {"cores": 0.99}, "two": {"cores": 1.8}}})
    assert modules[0].busy_machine({**idle, "step": {"one": {"cores": 0.99}, "two": {"cores": 1.2}}})
    assert modules[0].busy_machine({**idle, "step": {"one": {"cores": 0.7}, "two": {"cores": 1.8}}})
