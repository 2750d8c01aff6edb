"""Which layers of an int8 model stay in float: when the search goes on, and when it ends."""

from evergreen.components.quantizer import selective
from evergreen.components.quantizer.selective import Attempt

WORST = [f"layer{number}" for number in range(8)]


def searched(excesses):
    """Searches where the n-th attempt is so far beyond the bounds; None is one that cannot be made."""
    tried = []

    def attempt(layers):
        tried.append(layers)
        excess = excesses[len(tried) - 1]
        return None if excess is None else Attempt(layers, excess, 1000 + 100 * len(layers))

    return selective.search(Attempt((), 9.0, 1000), WORST, attempt), tried


def test_it_ends_with_the_first_that_passes():
    found, tried = searched([5.0, 0.9, 0.1])
    assert tried == [("layer0",), ("layer0", "layer1")]
    assert found.best.passes
    assert found.sentence("int8") == "int8 leaves layer0, layer1 in float, which costs 200 bytes"
    assert [step["bytes"] for step in found.story()] == [1000, 1100, 1200]


def test_it_ends_when_nothing_is_gained_any_more():
    found, tried = searched([5.0, 5.5, 5.0, 6.0, 0.1])
    assert len(tried) == 1 + selective.PATIENCE
    assert not found.best.passes
    assert found.best.layers == ("layer0",)
    assert found.sentence("int8") == "int8 could not be saved by leaving its 4 worst layers in float"


def test_one_step_back_does_not_end_it():
    found, _ = searched([5.0, 5.5, 0.5])
    assert found.best.layers == ("layer0", "layer1", "layer2")


def test_a_layer_that_the_converter_cannot_leave_out_is_passed_over():
    found, tried = searched([None, 0.5])
    assert tried == [("layer0",), ("layer1",)]
    assert found.best.layers == ("layer1",)


def test_answers_that_are_not_finite_can_be_told():
    found, _ = searched([float("inf")] * 8)
    assert found.story()[1]["excess"] is None
