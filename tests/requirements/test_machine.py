"""The set-up's choices: the stack, the Python and the package index, on machines made of small scripts."""

import sys
from pathlib import Path

import machine
import pytest


def script(path: Path, *lines: str) -> Path:
    """Writes a command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def python(path: Path, version: str, headers: bool = True) -> Path:
    """Writes a command that answers the probe as a Python of `version` (such as `3 10`) would."""
    return script(path, f"echo {path}", f"echo {version}", f"echo {int(headers)}")


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A machine with a C++ compiler, a uv that cannot download, and no Python."""
    script(tmp_path / "bin" / "c++")
    script(tmp_path / "bin" / "uv", "echo 'no network' >&2", "exit 1")
    monkeypatch.setattr(machine.os, "environ", {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})
    monkeypatch.setattr(machine.shutil, "which", lambda name: str(tmp_path / "bin" / name) if name == "c++" else None)
    return tmp_path


@pytest.mark.parametrize(
    ("library", "name"), [((2, 36), "TFX 1.16"), ((2, 38), "TFX 1.16"), ((2, 39), "TFX 1.21"), ((2, 41), "TFX 1.21")]
)
def test_the_c_library_chooses_the_stack(library, name):
    assert machine.choose_stack(library).name == name


def test_probe_tells_the_truth_of_this_python():
    found = machine.probe(Path(sys.executable))
    assert found is not None and found.version == sys.version_info[:2]


def test_a_shim_that_fails_is_passed_over_for_pyenvs_newest(bare):
    script(bare / "bin" / "python3.10", "echo 'pyenv: python3.10: command not found' >&2", "exit 127")
    python(bare / "bin" / "python3", "3 11")
    python(bare / ".pyenv" / "versions" / "3.10.9" / "bin" / "python3.10", "3 10")
    newest = python(bare / ".pyenv" / "versions" / "3.10.13" / "bin" / "python3.10", "3 10")
    assert machine.find_python(machine.TFX_1_16, bare / "bin" / "uv").path == newest


def test_a_python_on_path_comes_before_pyenvs(bare):
    wanted = python(bare / "bin" / "python3", "3 12")
    python(bare / ".pyenv" / "versions" / "3.13.1" / "bin" / "python3.13", "3 13")
    assert machine.find_python(machine.TFX_1_21, bare / "bin" / "uv").path == wanted


def test_a_python_without_headers_is_passed_over(bare):
    python(bare / "bin" / "python3.13", "3 13", headers=False)
    wanted = python(bare / ".pyenv" / "versions" / "3.11.4" / "bin" / "python3.11", "3 11")
    assert machine.find_python(machine.TFX_1_21, bare / "bin" / "uv").path == wanted


def test_missing_headers_are_named_where_nothing_else_is_left(bare):
    python(bare / "bin" / "python3.13", "3 13", headers=False)
    with pytest.raises(machine.SetupError, match=r"headers of Python 3\.13 are missing[^$]*python3\.13-dev"):
        machine.find_python(machine.TFX_1_21, bare / "bin" / "uv")


def test_no_python_says_what_was_sought_and_what_to_install(bare):
    with pytest.raises(machine.SetupError, match=r"no Python 3\.10 was found[^$]*no network[^$]*pyenv install 3\.10"):
        machine.find_python(machine.TFX_1_16, bare / "bin" / "uv")


def test_no_compiler_is_said_before_anything_is_downloaded(bare, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(machine.SetupError, match="no C\\+\\+ compiler"):
        machine.find_python(machine.TFX_1_16, bare / "bin" / "uv")


def test_uv_uses_the_index_that_pip_is_set_up_for(tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror.example/simple\nfind-links = /wheels\n  /more\n")
    settings = machine.index_settings(
        {
            "HOME": str(tmp_path),
            "PIP_CONFIG_FILE": str(config),
            "PIP_CERT": "/certs.pem",
            "PIP_EXTRA_INDEX_URL": "https://b",
        }
    )
    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert settings["UV_FIND_LINKS"] == "/wheels,/more"
    assert settings["SSL_CERT_FILE"] == "/certs.pem"
    assert "https://b" not in str(settings)


def test_a_variable_of_pip_wins_over_its_file(tmp_path):
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\nindex-url = https://file.example\n")
    settings = machine.index_settings({"HOME": str(tmp_path), "PIP_INDEX_URL": "https://variable.example"})
    assert settings["UV_DEFAULT_INDEX"] == "https://variable.example"


def test_uvs_own_settings_stand(tmp_path):
    environment = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://pip.example"}
    assert machine.index_settings({**environment, "UV_DEFAULT_INDEX": "https://uv.example"}) == {}
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").write_text("")
    assert machine.index_settings(environment) == {}
