"""A push of a real SavedModel, killed at a sample of system calls: what a server finds loads and answers."""

from __future__ import annotations

import pytest
from kill_world import World, in_memory, killable

from evergreen.components.pusher import versions
from evergreen.components.pusher.manifest import read_manifest

pytestmark = pytest.mark.tensorflow

POINTS = 8


def save(path, factor: float) -> None:
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.factor = tf.Variable(factor)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def predict(self, x):
            return {"y": x * self.factor}

    module = Module()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


def test_every_version_that_can_be_seen_loads_and_answers(tmp_path):
    import tensorflow as tf

    with in_memory(tmp_path) as folder, killable() as child:
        world = World(folder, 0)
        for number in (1, 3):
            world.models[number] = folder / f"real{number}"
            save(world.models[number], float(number))
        world.push(1, now=100.0)
        world.keep_as_template()
        order = world.order("push")
        calls = child({**order, "kill_at": 0})["calls"]
        answered = set()
        for point in range(POINTS):
            world.reset()
            # The last calls are the renames and what comes behind them.
            assert child({**order, "kill_at": len(calls) - point * point})["status"] < 0
            for version, path in versions.list_entries(world.base).items():
                (answer,) = tf.saved_model.load(str(path)).signatures["serving_default"](x=tf.constant([2.0])).values()
                assert answer.numpy().tolist() == [2.0 * read_manifest(path).model_artifact_id]
                answered.add(version)
        assert answered == {100, 1000}
