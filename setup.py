"""Builds the package `evergreen-tfx`: the command `evergreen` and the packages `evergreen.pipeline`,
`evergreen.components` and `evergreen.serving`.

The folders at the root keep short names; `package_dir` maps them under one name, so that the wheel puts nothing into
site-packages that a TFX project's own `pipeline/` or `components/` could collide with. Ranges stand here; the pins of the
two supported stacks stand in requirements/.
"""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
FOLDERS = ("pipeline", "components", "serving")


def packages() -> dict[str, str]:
    """Maps every package name under `evergreen.` to its folder, relative to the root."""
    found = {}
    for folder in FOLDERS:
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            relative = init.parent.relative_to(ROOT)
            found["evergreen." + ".".join(relative.parts)] = str(relative)
    return found


PACKAGE_DIR = packages()

setup(
    name="evergreen-tfx",
    version="0.1.0",
    description="Continuous training for TensorFlow on TFX: from new data to a published, proven model version",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=list(PACKAGE_DIR),
    package_dir=PACKAGE_DIR,
    install_requires=[
        "tfx>=1.16,<1.22",
        "click>=8.1,<9",
        "filelock>=3.12",
        "pydantic>=2.6,<3",
        "pyyaml>=6",
        "rich>=13",
    ],
    entry_points={"console_scripts": ["evergreen = evergreen.pipeline.cli:main"]},
)
