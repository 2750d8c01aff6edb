"""A SavedModel is loaded once for several stages, and again when it is another one."""

import os

import pytest

from evergreen.components import loaded

pytestmark = pytest.mark.tensorflow


def write(folder, factor):
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(factor)
    module.times = tf.function(lambda x: x * module.factor, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.times})
    return folder


def answer(model):
    import tensorflow as tf

    return float(next(iter(model.signatures["serving_default"](x=tf.constant(2.0)).values())))


def test_is_loaded_once_wherever_it_is_asked_for(tmp_path):
    first = loaded.saved_model(write(tmp_path / "a", 3.0))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert loaded.saved_model(str(tmp_path / "link")) is first
    assert answer(first) == 6.0


def test_one_that_was_written_again_is_loaded_again(tmp_path):
    first = loaded.saved_model(write(tmp_path / "a", 3.0))
    write(tmp_path / "a", 5.0)
    os.utime(tmp_path / "a" / "variables" / "variables.index", ns=(1, 1))
    assert answer(loaded.saved_model(tmp_path / "a")) == 10.0
    assert answer(first) == 6.0


def test_only_the_last_is_kept(tmp_path):
    first = loaded.saved_model(write(tmp_path / "a", 3.0))
    assert answer(loaded.saved_model(write(tmp_path / "b", 5.0))) == 10.0
    assert loaded.saved_model(tmp_path / "a") is not first


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError, match="missing"):
        loaded.saved_model(tmp_path / "missing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "saved_model.pb").write_bytes(b"no graph")
    for _ in range(2):
        with pytest.raises(Exception, match=r"saved_model\.pb"):
            loaded.saved_model(tmp_path / "bad")


def test_the_pusher_asks_the_model_that_the_evaluator_loaded(tmp_path, monkeypatch):
    import tensorflow as tf

    from evergreen.components.pusher import warmup

    first = loaded.saved_model(write(tmp_path / "a", 3.0))
    monkeypatch.setattr(tf.saved_model, "load", lambda *_, **__: pytest.fail("it is loaded"))
    warmup.make(tmp_path / "a", [{"x": 2.0}], "m")
    assert loaded.saved_model(tmp_path / "a") is first
