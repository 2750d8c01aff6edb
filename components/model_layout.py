"""The places inside of a Model artifact that our Trainer wrote.

    Format-Serving/  SavedModel with the signatures of `Signature`; what is evaluated and published
    Core/            SavedModel of the model alone, over transformed features: signature `serving_default`, one input
                     for each transformed feature that the model reads; what is quantized
    warm_start/      weights by variable name and vocabularies by token; what the next training may start from

A module with `run_fn` writes `Format-Serving/` only. This module imports no TensorFlow.
"""

from __future__ import annotations

import os

SERVING = "Format-Serving"
CORE = "Core"
WARM_START = "warm_start"
REPORT_FILE = "report.json"

# How a raw feature that is absent is said in the dense tensors of `predict_raw`.
MISSING_STRING = b""
MISSING_FLOAT = float("nan")
MISSING_INT = -(2**63)


class Signature:
    """The names of the signatures in `Format-Serving/` and of their tensors."""

    SERVING_DEFAULT = "serving_default"
    PREDICT_RAW = "predict_raw"
    TRANSFORM_FEATURES = "transform_features"
    EXAMPLES = "examples"
    PREDICTIONS = "predictions"


def serving_dir(model_uri: str) -> str:
    """Returns the folder of the SavedModel that is served."""
    return os.path.join(model_uri, SERVING)


def core_dir(model_uri: str) -> str:
    """Returns the folder of the SavedModel over transformed features."""
    return os.path.join(model_uri, CORE)


def warm_start_dir(model_uri: str) -> str:
    """Returns the folder of the weights and vocabularies."""
    return os.path.join(model_uri, WARM_START)


def is_saved_model(folder: str) -> bool:
    """Tells whether a folder holds a SavedModel."""
    return os.path.isfile(os.path.join(folder, "saved_model.pb"))
