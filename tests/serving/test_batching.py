"""Requests that arrive together run as one, and none of them notices."""

import threading
import time

import grpc
import numpy as np
import pytest

from evergreen.serving.batching_config import BatchingParameters
from evergreen.serving.errors import ServingError, invalid
from evergreen.serving.servable import Servable

pytestmark = pytest.mark.tensorflow


class Recorder(Servable):
    """Doubles its input and keeps the shapes of what it was asked; `gate` holds answers back."""

    def __init__(self):
        self.name, self.version, self.path = "m", 1, None
        self.signatures = {"double": None, "sum": None}
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.unloaded = False

    def run(self, signature, inputs, outputs=None):
        x = inputs["x"]
        self.asked.append(x.shape)
        assert self.gate.wait(60)
        if x.dtype.kind == "f" and np.isnan(x).any():
            raise invalid("not a number")
        return {"sum": np.sum(x)} if signature == "sum" else {"y": x + x}

    def unload(self):
        self.unloaded = True


@pytest.fixture
def batched():
    from evergreen.serving.batching import Batched

    made = []

    def make(**parameters):
        waited = []
        made.append(
            Batched(
                Recorder(),
                BatchingParameters(**{"max_batch_size": 8, "batch_timeout_micros": 300_000, **parameters}),
                lambda model, seconds: waited.append(seconds),
            )
        )
        made[-1].waited = waited
        return made[-1]

    yield make
    for one in made:
        one.unload()
        assert one._inner.unloaded


def together(model, *inputs, signature="double"):
    """Asks for all inputs at the same time; returns the answers or errors in their order."""
    results = [None] * len(inputs)

    def ask(number):
        try:
            results[number] = model.run(signature, {"x": inputs[number]})
        except ServingError as error:
            results[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def rows(*values):
    return np.array(values, np.float32)


def test_requests_that_arrive_together_run_as_one(batched):
    model = batched()
    answers = together(model, rows(1, 2), rows(3), rows(4, 5), rows(6, 7, 8))
    assert [answer["y"].tolist() for answer in answers] == [[2, 4], [6], [8, 10], [12, 14, 16]]
    assert model._inner.asked == [(8,)]  # full, so it did not wait for its time
    assert len(model.waited) == 4 and all(seconds >= 0 for seconds in model.waited)


def test_strings_are_batched(batched):
    answers = together(batched(), np.array([b"a\0"], object), np.array([b"b", b""], object))
    assert [answer["y"].tolist() for answer in answers] == [[b"a\0a\0"], [b"bb", b""]]


def test_a_request_that_fails_harms_no_other(batched):
    good, bad = together(batched(), rows(1), rows(float("nan")))
    assert good["y"].tolist() == [2]
    assert (bad.code, bad.message) == (grpc.StatusCode.INVALID_ARGUMENT, "not a number")


def test_requests_of_different_shapes_run_apart(batched):
    model = batched()
    one, other = together(model, rows([1, 2]), rows([1, 2, 3]))
    assert (one["y"].tolist(), other["y"].tolist()) == ([[2, 4]], [[2, 4, 6]])
    assert sorted(model._inner.asked) == [(1, 2), (1, 3)]


def test_rows_of_different_lengths_are_padded_where_asked_for(batched):
    model = batched(pad_variable_length_inputs=True)
    one, other = together(model, rows([1, 2]), rows([1, 2, 3]))
    assert model._inner.asked == [(2, 3)]
    assert one["y"].tolist() == [[2, 4, 2]]  # padded with its first value
    assert other["y"].tolist() == [[2, 4, 6]]


def test_batches_are_padded_to_allowed_sizes(batched):
    model = batched(allowed_batch_sizes=(4, 8), batch_timeout_micros=0)
    assert model.run("double", {"x": rows(1, 2, 3)})["y"].tolist() == [2, 4, 6]
    assert model._inner.asked == [(4,)]


def test_an_output_without_rows_is_not_batched(batched):
    model = batched()
    answers = together(model, rows(1, 2), rows(3), signature="sum")
    assert [float(answer["sum"]) for answer in answers] == [3, 3]
    begin = time.monotonic()
    assert float(model.run("sum", {"x": rows(1, 2)})["sum"]) == 3
    assert time.monotonic() - begin < 0.25  # at once: it waits for no company any more


def test_scalars_and_no_rows_run_at_once(batched):
    model = batched(batch_timeout_micros=60_000_000)
    assert model.run("double", {"x": np.float32(2)[()].reshape(())})["y"] == 4
    assert model.run("double", {"x": rows()})["y"].tolist() == []


def test_a_request_larger_than_a_batch_is_refused(batched):
    with pytest.raises(ServingError, match="larger than maximum input batch size 8") as refused:
        batched().run("double", {"x": np.zeros(9, np.float32)})
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_full_queue_is_unavailable_at_once(batched):
    model = batched(max_batch_size=1, batch_timeout_micros=0, max_enqueued_batches=1, num_batch_threads=1)
    model._inner.gate.clear()
    release = threading.Timer(2.0, model._inner.gate.set)
    release.start()
    answers = together(model, *(rows(number) for number in range(8)))
    refused = [one for one in answers if isinstance(one, ServingError)]
    assert {one.code for one in refused} == {grpc.StatusCode.UNAVAILABLE}
    assert 1 <= len(refused) < 8
    assert [one["y"].tolist() for one in answers if one not in refused] == [
        [2.0 * number] for number, one in enumerate(answers) if one not in refused
    ]


def test_an_unknown_signature_is_refused_before_it_queues(batched):
    with pytest.raises(ServingError, match='Serving signature key "none" not found'):
        batched(batch_timeout_micros=60_000_000).run("none", {"x": rows(1)})


@pytest.mark.parametrize("kind", ["tf2", "tf1"])
def test_a_saved_model_is_batched(kind, request):
    from evergreen.serving.batching import Batched
    from evergreen.serving.saved_model import SavedModel

    parameters = BatchingParameters(max_batch_size=8, batch_timeout_micros=300_000)
    model = Batched(SavedModel("m", 1, request.getfixturevalue(kind)), parameters)
    answers = together(model, *(rows(number) for number in range(8)), signature="raw")
    assert [answer["y"].tolist() for answer in answers] == [[2 * number + 1] for number in range(8)]
    model.unload()
