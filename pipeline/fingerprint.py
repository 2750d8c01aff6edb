"""What a cached result depends on beside its inputs: our code, the user's code, the installed packages.

TFX's cache key holds a node's inputs and parameters, but neither the executor's code nor the versions of the
packages. Each node of an Evergreen pipeline carries a fingerprint of them as a parameter, so that a change of code is
never answered with yesterday's artifact.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from evergreen import components
from evergreen.components import user_code

_CHIEF_PACKAGES = (
    "evergreen-tfx",
    "tfx",
    "tensorflow",
    "tf-keras",
    "tensorflow-data-validation",
    "tensorflow-transform",
    "tensorflow-model-analysis",
    "tfx-bsl",
    "apache-beam",
    "ml-metadata",
    "ai-edge-litert",
    "numpy",
    "pyarrow",
    "protobuf",
)


@functools.cache
def packages() -> str:
    """Returns the hash of every installed distribution's name and version."""
    found = {
        f"{distribution.metadata['Name']}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"] != "evergreen-tfx"
    }
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def chief_packages() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide what a model becomes, for the run's record."""
    found = {"python": platform.python_version()}
    for name in _CHIEF_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def own_code() -> str:
    """Returns the hash of the source of `evergreen.components`."""
    root = Path(next(iter(components.__path__)))
    return user_code.digest_files((str(path.relative_to(root)), path) for path in root.rglob("*.py"))


def combine(*parts: str) -> str:
    """Hashes several fingerprints into a short one, fit for a parameter in ML Metadata."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def base() -> str:
    """Returns the fingerprint of a node that runs none of the user's code."""
    return combine(packages(), own_code())


def code_version(project_dir: str) -> str:
    """Names the version of the user's code.

    Args:
      project_dir: the folder of the YAML file.

    Returns:
      The git commit, with `+` behind it where the folder has uncommitted changes; empty outside of a repository.
    """

    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", "-C", project_dir, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return answer.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
