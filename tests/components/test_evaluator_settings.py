"""The section `evaluate`, as the components read it."""

import json

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.evaluator.settings import Bootstrap, EvaluateSettings


def _read(**section):
    return EvaluateSettings.from_json(json.dumps({"label": "late", "metrics": ["auc"], **section}))


def test_defaults():
    assert _read() == EvaluateSettings(label="late", metrics=("auc",))
    assert _read().bootstrap == Bootstrap(1000, 0.95, ())


def test_what_a_bound_names_is_measured_too():
    found = _read(min={"recall": 0.1}, max_regression={"auc": 0.01}, slice_max_regression={"brier": 0.1})
    assert found.metrics == ("auc", "recall", "brier")


def test_columns_are_those_of_slices_and_blocks_each_once():
    found = _read(slices=[["carrier"], ["carrier", "origin"]], bootstrap={"block": ["date", "origin"], "samples": 200})
    assert found.columns == ("carrier", "origin", "date")
    assert found.bootstrap.samples == 200
    assert _read(bootstrap={"block": "date"}).bootstrap.block == ("date",)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"label": ""}, "evaluate.label"),
        ({"metrics": []}, "evaluate.metrics"),
        ({"metrics": ["auk"]}, "auk"),
        ({"max_regression": {"auk": 0.1}}, "auk"),
        ({"slices": [["split"]]}, "split"),
        ({"bootstrap": {"block": "row"}}, "row"),
    ],
)
def test_mistakes_are_named(section, named):
    with pytest.raises(ConfigError, match=named):
        _read(**section)
