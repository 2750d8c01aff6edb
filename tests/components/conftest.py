"""What the components' tests share: the Trainer's small world, built once in a test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trainer_world


@pytest.fixture(scope="session")
def world(build_once: Callable[..., Path]) -> Path:
    """The folder of `trainer_world`: a project, three spans and their transform graph. A module may have another."""
    return build_once("trainer_world", trainer_world.build)


@pytest.fixture(scope="session")
def materialized(world: Path, build_once: Callable[..., Path]) -> Path:
    """The world's window as Transform materializes it, a folder for each span."""
    return build_once("trainer_materialized", lambda folder: trainer_world.materialize(world, folder))
