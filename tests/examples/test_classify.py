"""The command-line example, in an environment that has LiteRT and what LiteRT needs, and nothing else."""

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import quantizer_world

pytestmark = pytest.mark.tensorflow
EXAMPLE = Path(__file__).parents[2] / "examples" / "flights" / "classify.py"


def needed(name, found):
    """A distribution and those that it requires, all of them, by their names."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return found  # a requirement of other Pythons
    if distribution.metadata["Name"] not in found:
        found[distribution.metadata["Name"]] = distribution
        for line in distribution.requires or []:
            if "extra ==" not in line:
                needed(re.match(r"[A-Za-z0-9._-]+", line)[0], found)
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A virtual environment whose packages are links to LiteRT's and its requirements'."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in needed("ai-edge-litert", {}).values():
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            source = Path(distribution.locate_file(top))
            if source.exists() and not (packages / top).exists():
                os.symlink(source, packages / top)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def published(build_once):
    """The raw-feature files of float32 and int8 for the small model, as the Quantizer makes them."""
    from evergreen.components.evaluator.settings import EvaluateSettings
    from evergreen.components.quantizer import quantization
    from evergreen.components.quantizer.settings import QuantizeSettings

    def build(folder):
        world = build_once("quantizer", quantizer_world.build)
        names = ("model", "transform_graph", "examples", "evaluation")
        places = ("dense", "transform_graph", "examples", "dense_evaluation")
        inputs = {name: f"{world}/{place}" for name, place in zip(names, places, strict=True)}
        settings = QuantizeSettings(variants=("float32", "int8"))
        evaluate = EvaluateSettings.from_json(quantizer_world.EVALUATE)
        made = quantization.quantize(quantization.Inputs(span=4, **inputs), settings, evaluate)
        for variant, content in made.contents.items():
            (folder / f"{variant}.tflite").write_bytes(content)

    return build_once("classify", build)


def answer(python, *arguments, rows=()):
    """Runs the example; what it prints, line by line."""
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python, EXAMPLE, *arguments],
        input="\n".join(json.dumps(row) for row in rows),
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_has_no_tensorflow(bare_python):
    done = subprocess.run([bare_python, "-c", "import tensorflow"], capture_output=True, text=True)
    assert "No module named 'tensorflow'" in done.stderr
    assert Path(sys.executable).parent != bare_python.parent


@pytest.mark.parametrize(("variant", "tolerance"), [("float32", 1e-5), ("int8", 0.05)])
def test_raw_rows_are_answered_like_the_model_answers_them(build_once, bare_python, published, variant, tolerance):
    import pyarrow.parquet as pq

    rows = quantizer_world.raw_rows()[:20]
    world = build_once("quantizer", quantizer_world.build)
    table = pq.read_table(f"{world}/dense_evaluation/predictions.parquet").sort_by("row").to_pylist()
    expected = [row["prediction"] for row in table if row["split"] == "exam"][: len(rows)]
    assert any("carrier" not in row for row in rows) or any("distance" not in row for row in rows)

    given = [{name: row[name] for name in ("carrier", "distance") if name in row} for row in rows]
    printed = answer(bare_python, published / f"{variant}.tflite", rows=given)
    np.testing.assert_allclose([float(line) for line in printed.split()], expected, atol=tolerance)


def test_the_file_says_what_it_takes(bare_python, published):
    about = json.loads(answer(bare_python, published / "int8.tflite", "--about"))
    assert set(about["features"]) == {"carrier", "distance"}
    assert (about["inputs"], about["variant"]) == ("raw", "int8")
