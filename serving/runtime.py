"""Loads TensorFlow for a server: once, quietly, without Keras 3. Import it before anything that imports TensorFlow."""

from __future__ import annotations

import os

# Set, TensorFlow does not load Keras 3 and what stands behind it: seconds of the server's start. No layer runs here.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

tf.get_logger().setLevel("WARNING")  # each load would say which file it reads

__all__ = ["tf"]
