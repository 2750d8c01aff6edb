"""Loads TensorFlow for a server: quietly, and without Keras. To be imported before anything that imports TensorFlow."""

from __future__ import annotations

import os
import sys

# Set, TensorFlow leaves out Keras 3; no layer runs in a server.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Level 2 would say at each start that CUDA registered twice; what fails is an error of ours, with TensorFlow's words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow loads Keras 2 instead, with pandas behind it, unless that fails: a part of a server's start and
# of its memory. Whoever asks for Keras later gets it.
_OPTIMIZERS = "tf_keras.src.optimizers"
_blocked = "tensorflow" not in sys.modules and _OPTIMIZERS not in sys.modules
if _blocked:
    sys.modules[_OPTIMIZERS] = None  # type: ignore[assignment]

try:
    import tensorflow as tf
finally:
    if _blocked:
        del sys.modules[_OPTIMIZERS]

tf.get_logger().setLevel("WARNING")  # each load would say which file it reads

__all__ = ["tf"]
