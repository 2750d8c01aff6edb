"""The worked notebook, cell after cell, on a project with two versions; no kernel is needed for that."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow
NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / "lineage.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs_and_says_what_the_project_holds(cells, lived):
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names["PROJECT"] = lived.folder
    newest, older = lived.versions()
    assert names["live"].version == newest["version"]  # type: ignore[attr-defined]
    text = printed.getvalue()
    for said in ("gate 4, serving: open", "span 4:", f"warm from version {older['version']}, of spans 1, 2, 3"):
        assert said in text
    assert f"versions ({newest['version']},): trained on it, and is live" in text
    assert {change.name for change in names["changes"] if change.section == "spans"} == {"span 1", "span 4"}  # type: ignore[attr-defined]
    (chances,) = names["probabilities"].values()  # type: ignore[attr-defined]
    assert len(chances) == 2 and all(0 < chance < 1 for chance in chances)


def test_it_is_stored_without_outputs(cells):
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
