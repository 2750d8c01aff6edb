"""Who may import whom, and what an import costs: the rules of the house that no single module's tests would notice."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_NOT_IMPORT = {
    "components": ("evergreen.pipeline", "evergreen.serving"),
    "serving": ("evergreen.pipeline", "evergreen.components"),
    "pipeline": ("evergreen.serving",),
}
# Seconds each, and needed only once a node runs: executors import them inside of their functions.
OF_NODES = ("tensorflow_data_validation", "tensorflow_model_analysis", "tensorflow_transform", "tf_keras")
# A large part of what `import tfx.v1` loads, and nothing of it is used.
OF_TFX_V1 = ("google.cloud.aiplatform", "tfx.v1")


def sources(folder: str) -> list[Path]:
    """Lists a folder's modules; templates are not ours to import."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "templates" not in path.parts]


def imported(path: Path) -> Iterator[str]:
    """Yields the name of every module that a file imports, at its top or inside of a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    """Returns a source file's module name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("evergreen", *(parts[:-1] if parts[-1] == "__init__" else parts)))


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_imports_go_one_way(folder):
    against = MAY_NOT_IMPORT[folder]
    for path in sources(folder):
        wrong = [name for name in imported(path) if f"{name}.".startswith(tuple(f"{other}." for other in against))]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_nothing_imports_the_ten_seconds_of_tfx_v1(folder):
    for path in sources(folder):
        assert not [name for name in imported(path) if f"{name}.".startswith("tfx.v1.")], path.relative_to(ROOT)


PROGRAM = """
import importlib, json, sys, traceback
components, modules, of_nodes, of_tfx_v1 = json.loads(sys.stdin.read())
for name in components:
    importlib.import_module(name)
found = {"components": [name for name in of_nodes if name in sys.modules]}
importlib.import_module("evergreen.pipeline.create")
found["create"] = [name for name in of_tfx_v1 if name in sys.modules]
found["failed"] = []
for name in modules:
    try:
        importlib.import_module(name)
    except Exception:
        found["failed"].append(name + ": " + traceback.format_exc(limit=-1))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, list[str]]:
    """What a fresh process had loaded after the component classes, then after create.py; and what failed to import."""
    # The base of our StatisticsGen is TFX's, whose package imports all of TFX's components.
    stock = ROOT / "components" / "statistics_gen" / "component.py"
    components = [path for path in sources("components") if path.name == "component.py" and path != stock]
    modules = [path for folder in MAY_NOT_IMPORT for path in sources(folder)]
    given = [[*map(module_name, components)], [*map(module_name, modules)], OF_NODES, OF_TFX_V1]
    # TensorFlow imports tf_keras by itself where this is set, as libraries set it for the process of an earlier test.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.tensorflow
def test_component_classes_import_no_library_that_only_their_nodes_need(fresh):
    assert fresh["components"] == []


@pytest.mark.tensorflow
def test_building_a_pipeline_loads_nothing_of_tfx_v1(fresh):
    assert fresh["create"] == []


@pytest.mark.tensorflow
def test_every_module_imports(fresh):
    assert fresh["failed"] == []
