"""What of a server's answers is taken for a model's predictions."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.components.errors import EvergreenError
from evergreen.components.model_server.rows import Rows
from evergreen.components.pusher import probe

ROWS = Rows([b"a", b"b"], np.array([1.0, 2.0]), [4, 9])


class Answering:
    """Stands for a `Client` whose server gives these outputs, by whatever model it serves."""

    def __init__(self, **outputs: np.ndarray):
        self.outputs = outputs

    def examples(self, *asked: object) -> dict[str, np.ndarray]:
        return self.outputs


def ask(**outputs: np.ndarray) -> np.ndarray:
    return probe.ask(Answering(**outputs), "m", ROWS, "examples")


def test_predictions_or_the_only_output_are_asked_for():
    numbers = np.array([[1], [2]], np.float32)
    assert ask(predictions=numbers, other=np.zeros(3)).tolist() == ask(scores=numbers).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, "received no output"),
        ({"classes": np.zeros(2), "scores": np.zeros(2)}, r"received `classes` float64\[2\], `scores` float64\[2\]"),
        ({"predictions": np.zeros(3)}, r"received `predictions` float64\[3\]"),
        ({"predictions": np.array([b"yes", b"no"], object)}, r"received `predictions` object\[2\]"),
    ],
)
def test_any_other_answer_is_an_error_that_counts_against_the_version(outputs, said):
    with pytest.raises(EvergreenError) as error:
        ask(**outputs)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(error.value.reason)


def test_a_difference_names_the_row_of_the_exam():
    assert probe.difference(np.array([1.0, 2.5]), ROWS, 1e-3).startswith("`predictions` of row 9 is 2.5, expected 2;")
    assert probe.difference(np.array([1.0, 2.0]), ROWS, 1e-3) == ""
