"""Models that tests of serving share; built once for all workers, and never changed."""

import pytest
import serving_world


@pytest.fixture(scope="session")
def tf2(build_once):
    """A TF2 SavedModel with all signatures of serving_world.tf2_model and a bias of 1."""
    return build_once("serving_tf2", lambda folder: serving_world.tf2_model(folder / "model", 1.0)) / "model"


@pytest.fixture(scope="session")
def tf1(build_once):
    """A TF1 SavedModel with a bias of 1."""
    return build_once("serving_tf1", lambda folder: serving_world.tf1_model(folder / "model", 1.0)) / "model"


@pytest.fixture(scope="session")
def tflite(build_once):
    """A directory with a model.tflite with a bias of 1."""
    return build_once("serving_tflite", lambda folder: serving_world.tflite_model(folder / "model", 1.0)) / "model"


@pytest.fixture(scope="session")
def models(build_once):
    """Base paths: `two` with the TF2 versions 1 and 2 (biases 1 and 2), `one` with a TF1 version 1 (bias 1)."""

    def build(folder):
        for name in ("two", "one"):
            (folder / name).mkdir()
        serving_world.tf2_model(folder / "two" / "1", 1.0)
        serving_world.tf2_model(folder / "two" / "2", 2.0)
        serving_world.tf1_model(folder / "one" / "1", 1.0)

    return build_once("serving_models", build)
