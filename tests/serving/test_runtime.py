"""TensorFlow as a server loads it: without what stands behind Keras, and Keras still there for who asks."""

import json
import subprocess
import sys

import pytest
import serving_world

pytestmark = pytest.mark.tensorflow

PROGRAM = """
import json, sys
from evergreen.serving.runtime import tf
found = [name for name in ("keras", "tf_keras", "pandas") if name in sys.modules]
print(json.dumps([found, tf.keras.layers.Dense.__module__.partition(".")[0]]))
"""


def test_a_server_loads_no_keras_until_somebody_asks_for_it():
    environment = {name: value for name, value in serving_world.environment().items() if "KERAS" not in name}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[], "tf_keras"]
