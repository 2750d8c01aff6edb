"""The wheel: what is in it, and that it works away from the checkout, beside a project's own `pipeline` folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pipeline", "components", "serving")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Runs a command that must succeed, with `variables` added to the environment; returns its stdout."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(build_once) -> Path:
    """The wheel made of the source distribution, as `python -m build` does, and as Beam's workers get our code."""

    def build(folder: Path) -> None:
        files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
        for name in filter(None, files):
            source, copy = ROOT / name, folder / "checkout" / name
            if source.is_file() and (name.split("/")[0] in FOLDERS or "/" not in name):
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(source.read_bytes())
        # What a used checkout has lying about must not get in.
        for package in ("pipeline", "pipeline/scaffold/templates"):
            stray = folder / "checkout" / package / "__pycache__" / "stray.cpython-310.pyc"
            stray.parent.mkdir()
            stray.write_bytes(b"")
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=folder / "checkout")

    return next(build_once("wheel", build).glob("evergreen_tfx-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel and nothing else; put on PYTHONPATH it comes before the checkout."""
    target = tmp_path_factory.mktemp("installed")
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    run(*install, cwd=target)
    return target


@pytest.fixture
def project(tmp_path) -> Path:
    """A TFX project's folder, with packages of its own that are named as our folders are."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'user'\n")
    return tmp_path


def test_wheel_holds_every_file_of_the_packages_and_no_other(wheel):
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *FOLDERS, cwd=ROOT)
    expected = {f"evergreen/{name}" for name in listed.split("\0") if name and (ROOT / name).is_file()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {f"evergreen/{folder}/py.typed" for folder in FOLDERS} <= packed


def test_wheel_names_its_licence_and_its_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    assert "Apache-2.0" in metadata
    assert {"Provides-Extra: dev", "Provides-Extra: examples"} <= set(metadata.splitlines())
    assert any(name.endswith("/LICENSE") for name in archive.namelist())


def test_installed_wheel_leaves_a_projects_own_packages_alone(installed, project):
    code = (
        "import pipeline, components, serving, evergreen.pipeline, evergreen.components.errors, evergreen.serving\n"
        "print(pipeline.OWNER, components.OWNER, serving.OWNER)\n"
        "print(evergreen.components.errors.__file__)"
    )
    owners, where = run(sys.executable, "-c", code, cwd=project, PYTHONPATH=str(installed)).splitlines()
    assert owners == "user user user"
    assert Path(where) == installed / "evergreen" / "components" / "errors.py"


def test_command_of_the_installed_wheel_answers(installed, project):
    printed = run(installed / "bin" / "evergreen", "--help", cwd=project, PYTHONPATH=str(installed))
    assert "Usage: evergreen" in printed
