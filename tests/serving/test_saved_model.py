"""SavedModels of both formats answer, refuse what is wrong, and are freed."""

import gc
import threading
import weakref

import grpc
import numpy as np
import pytest
import serving_world

from evergreen.serving.errors import ServingError

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def model(tf2):
    from evergreen.serving.saved_model import SavedModel

    loaded = SavedModel("m", 3, tf2)
    yield loaded
    loaded.unload()


def floats(*values):
    return np.array(values, np.float32)


def words(*values):
    return np.array(values, object)


def test_signatures_are_the_clients_ones(model):
    assert set(model.signatures) == {
        "serving_default", "raw", "wide", "pair", "kinds", "text", "classify", "regress",
    }  # fmt: skip
    assert model.signatures["raw"].inputs["x"].tensor_shape.dim[0].size == -1


def test_tensors_go_in_and_come_out(model):
    np.testing.assert_array_equal(model.run("raw", {"x": floats(1, 2)})["y"], floats(3, 5))
    scores = model.run("serving_default", {"examples": words(serving_world.example(x=4.0))})["scores"]
    np.testing.assert_array_equal(scores, [[9.0]])


def test_all_kinds_of_values_keep_their_types(model):
    given = {"flag": np.array([True, False]), "count": np.array([1, -2], np.int32), "word": words(b"a\0", b"\xff")}
    out = model.run("kinds", given)
    assert {name: array.dtype for name, array in out.items()} == {
        "flag_out": np.bool_, "count_out": np.int32, "word_out": object,
    }  # fmt: skip
    assert out["word_out"].tolist() == [b"a\0", b"\xff"]  # zero bytes at the end stay
    assert out["flag_out"].tolist() == [True, False] and out["count_out"].tolist() == [1, -2]


def test_outputs_can_be_chosen(model):
    given = {"a": floats(1), "b": np.array([2])}
    assert set(model.run("pair", given)) == {"sum", "bias"}
    assert set(model.run("pair", given, ["bias"])) == {"bias"}


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "code", "message"),
    [
        ("none", {}, None, "FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
        ("__saved_model_init_op", {}, None, "FAILED_PRECONDITION", "not found"),
        ("raw", {}, None, "INVALID_ARGUMENT", r"input size does not match signature: 0!=1 .*required: \{x\}\."),
        ("raw", {"x": floats(1), "z": floats(1)}, None, "INVALID_ARGUMENT", r"Sent extra: \{z\}"),
        ("raw", {"z": floats(1)}, None, "INVALID_ARGUMENT", "input tensor alias not found in signature: z"),
        ("raw", {"x": np.array([1.0])}, None, "INVALID_ARGUMENT", "input x .* expects float32, got float64"),
        ("raw", {"x": words(b"1")}, None, "INVALID_ARGUMENT", "expects float32"),
        ("raw", {"x": floats(1)}, ["z"], "INVALID_ARGUMENT", "output tensor alias not found in signature: z"),
        ("pair", {"a": floats(1, 2, 3), "b": np.array([1, 2])}, None, "INVALID_ARGUMENT", "Incompatible shapes"),
        ("serving_default", {"examples": words(b"no example")}, None, "INVALID_ARGUMENT", "parse"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(model, signature, inputs, outputs, code, message):
    with pytest.raises(ServingError, match=message) as refused:
        model.run(signature, inputs, outputs)
    assert refused.value.code is grpc.StatusCode[code]


def test_threads_ask_at_the_same_time(model):
    wrong = []

    def ask(number):
        for _ in range(100):
            answer = model.run("raw", {"x": floats(number)})["y"][0]
            if answer != 2 * number + 1:
                wrong.append((number, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_tf1_model_answers_by_the_same_means(tf1):
    from evergreen.serving.saved_model import SavedModel

    model = SavedModel("old", 1, tf1)
    assert model.run("raw", {"x": floats(1)})["y"].tolist() == [3]
    assert model.run("look_up", {"word": words(b"a", b"z")})["id"].tolist() == [0, 2]
    out = model.run("serving_default", {"inputs": words(serving_world.example(x=0.0))})
    assert out["classes"].tolist() == [[b"no", b"yes"]]
    model.unload()


def test_scalars_are_arrays_too(tmp_path):
    import tensorflow as tf

    from evergreen.serving.saved_model import SavedModel

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def count(self, x):
            return {"rows": tf.shape(x)[0], "kind": tf.constant("floats\0")}

    made = Model()
    tf.saved_model.save(made, str(tmp_path / "1"), signatures={"count": made.count})
    model = SavedModel("m", 1, tmp_path / "1")
    out = model.run("count", {"x": floats(1, 2)})
    assert (out["rows"].shape, out["rows"].dtype, int(out["rows"])) == ((), np.int32, 2)
    assert (out["kind"].shape, out["kind"].dtype, out["kind"].item()) == ((), object, b"floats\0")
    model.unload()


def test_a_tensor_may_have_two_names_and_a_signature_may_be_unusable(tmp_path):
    import tensorflow as tf

    from evergreen.serving.saved_model import SavedModel

    v1 = tf.compat.v1
    make = v1.saved_model.signature_def_utils.predict_signature_def
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None])
        y = 2 * x
        sparse = v1.sparse_placeholder(tf.float32)
        builder = v1.saved_model.Builder(str(tmp_path / "1"))
        signatures = {"twice": make({"x": x}, {"y": y, "also_y": y}), "sparse": make({"x": sparse}, {"y": y})}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    model = SavedModel("m", 1, tmp_path / "1")
    assert {name: array.tolist() for name, array in model.run("twice", {"x": floats(1)}).items()} == {
        "y": [2], "also_y": [2],
    }  # fmt: skip
    with pytest.raises(ServingError, match="'x' is sparse or composite") as refused:
        model.run("sparse", {"x": floats(1)})
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED
    model.unload()


def test_a_folder_without_a_model_says_so(tmp_path):
    from evergreen.serving.saved_model import SavedModel

    with pytest.raises(ServingError, match=r"it has no saved_model\.pb"):
        SavedModel("m", 1, tmp_path)


def test_unloaded_models_are_freed(tf2):
    from evergreen.serving.runtime import tf
    from evergreen.serving.saved_model import SavedModel

    kept = []
    for version in range(5):
        model = SavedModel("m", version, tf2)
        model.run("raw", {"x": floats(1)})
        kept += [weakref.ref(model), weakref.ref(model._session), weakref.ref(model._session.graph)]
        model.unload()
        del model
    gc.collect()
    assert [one for one in kept if one() is not None] == []
    assert tf.executing_eagerly()  # nothing of the sessions is left on this thread
