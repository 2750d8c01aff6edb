"""A stock package's `__init__` waits until somebody asks for what it defines."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorflow

PROGRAM = """
import sys
from evergreen.pipeline import light_imports
light_imports.install()
light_imports.install()
from tfx.components.transform.component import Transform
left_out = [name for name in ("keras", "kubernetes", "keras_tuner", "tfx.components.pusher") if name in sys.modules]
assert not left_out, left_out
from evergreen.pipeline import create
assert not {"google.cloud.bigquery.client", "google.cloud.pubsub_v1"} & set(sys.modules)
from google.cloud import bigquery, pubsub
assert bigquery.Client.__module__ == "google.cloud.bigquery.client" and pubsub.PublisherClient
import tensorflow as tf
assert tf.keras.Model.__module__.startswith("tf_keras"), tf.keras.Model
import tfx.components
assert not hasattr(tfx.components, "NoSuchComponent")
assert tfx.components.Transform is Transform
from tfx.components import Pusher
from tfx import v1 as tfx
assert tfx.components.Pusher is Pusher and tfx.components.Transform is Transform
"""


def test_stock_components_are_loaded_on_use_and_are_the_same():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COLLECTOR = """
import gc
from evergreen.pipeline import light_imports
gc.collect()
gc.unfreeze()
with light_imports.uncollected():
    assert not gc.isenabled()
    kept = [[] for _ in range(1000)]
assert gc.isenabled()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
gc.disable()
with light_imports.uncollected():
    pass
assert not gc.isenabled()
"""


def test_the_collector_leaves_alone_what_was_loaded_and_goes_on_after():
    done = subprocess.run([sys.executable, "-c", COLLECTOR], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
