"""What the integration tests share: one project with two versions, made once in a test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import integration_world as world
import pytest


@pytest.fixture(scope="session")
def lived(build_once: Callable[..., Path]) -> world.Project:
    """A project with two published versions; the answers of its runs lie beside it. Read it, do not change it."""

    def build(folder: Path) -> None:
        project = world.flights_project(folder / "flights")
        project.change(quantize={"variants": ["float32", "float16", "dynamic_int8", "int8"]})
        world.deliver(project, [1, 2, 3])
        first = project.evergreen("run")
        (folder / "first.txt").write_text(first.text)
        assert first.status == 0, first.text
        world.deliver(project, [4])
        second = project.evergreen("run", "--profile")
        (folder / "second.txt").write_text(second.text)
        assert second.status == 0, second.text

    return world.Project(build_once("lived", build) / "flights")
