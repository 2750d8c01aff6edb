"""Answers that agree, and answers that do not: which row, which output, which values."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.components.model_server import compare


def differ(expected, given, tolerance=1e-3, **others) -> list[str]:
    return compare.differences({"y": np.asarray(expected)}, {"y": np.asarray(given)}, tolerance, **others)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ([0.5, 0.25], [[0.5009], [0.2491]]),  # a column of its own
        ([1000.0], [1000.9]),  # beyond 1 the tolerance is a share
        ([np.nan, np.inf], [np.nan, np.inf]),
        ([b"a", b"b"], np.array([b"a", b"b"], object)),
        ([[1, 2]], [[1, 2]]),
    ],
)
def test_what_agrees(expected, given):
    assert differ(expected, given) == []


@pytest.mark.parametrize(
    ("expected", "given"),
    [([0.5], [0.502]), ([1000.0], [1002.0]), ([np.nan], [0.0]), ([0.5], [np.nan]), ([np.inf], [1.0])],
)
def test_what_does_not(expected, given):
    assert len(differ(expected, given)) == 1


def test_the_sentence_names_the_worst_row_and_both_values():
    (sentence,) = differ([0.1, 0.2, 0.3], [0.1, 0.25, 0.9], rows=[4, 7, 19])
    assert sentence == "`y` of row 19 is 0.9, expected 0.3; 2 of 3 rows differ by more than 0.001"


def test_shapes_and_names_must_fit():
    assert "has the shape [3], expected [2]" in differ([1.0, 2.0], [1.0, 2.0, 3.0])[0]
    (missing,) = compare.differences({"y": np.zeros(1)}, {"z": np.zeros(1)}, 1)
    assert missing == "`y` is not among the server's answers: `z`"


def test_the_largest_difference():
    assert compare.largest({"y": np.array([1.0, 2.0])}, {"y": np.array([[1.5], [2.0]])}) == 0.5
    assert compare.largest({"y": np.array([b"a"], object)}, {"y": np.array([b"b"], object)}) == 0
