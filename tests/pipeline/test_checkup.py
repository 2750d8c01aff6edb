"""`evergreen doctor`: what it finds wrong, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock

from evergreen.pipeline import checkup, checkup_project, cli
from evergreen.pipeline.checkup import Level
from evergreen.pipeline.config import load

YAML = """\
name: flights
data: {path: data, pattern: "{SPAN}/*.csv", format: csv, success_marker: _SUCCESS}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {model: "model:build_model"}
evaluate: {label: late, metrics: [auc]}
publish: {base_path: models/flights}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    (tmp_path / "schema.pbtxt").write_text('feature { name: "late" type: INT }')
    (tmp_path / "features.py").write_text("def preprocessing_fn(inputs): ...\n")
    (tmp_path / "model.py").write_text("def build_model(transform_output, hyperparameters): ...\n")
    for name in ("data/1/a.csv", "data/1/_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checks(project, *overrides, **options) -> dict[str, checkup.Check]:
    return {check.name: check for check in checkup_project.checkup_project(load(project, overrides), **options)}


class TestMachine:
    def test_this_machine_has_a_supported_stack(self):
        found = list(checkup.packages())
        assert [check.level for check in found] == [Level.OK], found

    @pytest.mark.parametrize(
        ("versions", "told"),
        [
            ({"tfx": "1.16.0", "apache-beam": "2.70.0"}, "apache-beam 2.70.0, expected <2.66"),
            ({"tfx": "1.16.0", "tf-keras": None}, "tf-keras is missing, expected ==2.16.*"),
            ({"tfx": "1.16.0", "python": "3.12.1"}, "python 3.12.1, expected ==3.10.*"),
            ({"tfx": "1.14.0"}, "tfx 1.14.0"),
            ({"tfx": None}, "tfx is not installed"),
        ],
    )
    def test_packages_that_do_not_belong_together(self, monkeypatch, versions, told):
        fitting = {"apache-beam": "2.65.0"} | {
            name: wanted.removeprefix("==").replace("*", "0")
            for name, wanted in checkup.STACKS["1.16"].items()
            if "==" in wanted
        }
        monkeypatch.setattr(checkup, "_installed", lambda name: {**fitting, **versions}[name])
        (check,) = checkup.packages()
        assert check.level is Level.FAIL
        assert told in check.found
        assert "make setup" in check.mend

    def test_the_newest_stack_on_an_old_c_library(self, monkeypatch):
        monkeypatch.setattr(checkup, "_installed", lambda name: "1.21.0")
        monkeypatch.setattr(checkup.platform, "libc_ver", lambda: ("glibc", "2.36"))
        assert checkup.c_library().level is Level.FAIL
        monkeypatch.setattr(checkup.platform, "libc_ver", lambda: ("glibc", "2.41"))
        assert checkup.c_library().level is Level.OK
        monkeypatch.setattr(checkup.platform, "libc_ver", lambda: ("", ""))
        assert checkup.c_library().level is Level.WARN

    def test_packages_without_bytecode(self, monkeypatch, tmp_path):
        package = tmp_path / "barepackage"
        package.mkdir()
        (package / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(checkup, "HEAVY_PACKAGES", ("barepackage",))
        check = checkup.bytecode()
        assert check.level is Level.WARN
        assert "barepackage 0% compiled" in check.found
        assert f"-m compileall -q -j 0 {tmp_path}" in check.mend
        (package / "__pycache__").mkdir()
        Path(checkup.importlib.util.cache_from_source(str(package / "__init__.py"))).write_bytes(b"")
        assert checkup.bytecode().level is Level.OK

    def test_memory_within_the_limit_of_a_container(self, tmp_path):
        (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
        read = checkup._available_memory
        assert read(tmp_path / "meminfo", tmp_path) == 8_192_000_000
        (tmp_path / "memory.max").write_text("3000000000\n")
        (tmp_path / "memory.current").write_text("1000000000\n")
        assert read(tmp_path / "meminfo", tmp_path) == 2_000_000_000
        (tmp_path / "memory.max").write_text("max\n")
        assert read(tmp_path / "meminfo", tmp_path) == 8_192_000_000

    @pytest.mark.parametrize(("bytes_", "level"), [(1e9, Level.FAIL), (3e9, Level.WARN), (9e9, Level.OK)])
    def test_too_little_memory(self, monkeypatch, bytes_, level):
        monkeypatch.setattr(checkup, "_available_memory", lambda: bytes_)
        assert checkup.memory().level is level

    @pytest.mark.parametrize(("free", "level"), [(1e8, Level.FAIL), (2e9, Level.WARN), (9e9, Level.OK)])
    def test_too_little_disk(self, monkeypatch, tmp_path, free, level):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1e12, 0, free))
        assert checkup.disk("disk", tmp_path / "not" / "yet").level is level


class TestProject:
    def test_a_sound_one_and_nothing_left_behind(self, project):
        before = sorted(project.rglob("*"))
        found = checks(project)
        assert {name: check.found for name, check in found.items() if check.level is not Level.OK} == {}
        assert found["spans"].found == "1 complete, the newest is 1"
        assert found["functions"].found == "features:preprocessing_fn, model:build_model"
        after = [path for path in sorted(project.rglob("*")) if "__pycache__" not in path.parts]
        assert after == before

    def test_a_span_without_its_marker(self, project):
        (project / "data/2").mkdir()
        (project / "data/2/a.csv").write_text("x")
        found = checks(project, with_functions=False)
        assert found["spans"].level is Level.WARN
        assert "1 not complete, such as 2: 2 has no _SUCCESS yet" in found["spans"].found
        (project / "data/1/_SUCCESS").unlink()
        assert checks(project, with_functions=False)["spans"].level is Level.FAIL

    def test_no_spans(self, project):
        found = checks(project, "data.path=dat", with_functions=False)["spans"]
        assert found.level is Level.FAIL
        assert "did you mean" in found.found

    def test_a_missing_file_spares_the_import(self, project):
        (project / "model.py").unlink()
        found = checks(project)
        assert found["files"].level is Level.FAIL
        assert "functions" not in found

    def test_functions_that_cannot_be_imported(self, project):
        (project / "model.py").write_text("import nonsense_package\ndef build_model(a, b): ...\n")
        found = checks(project)["functions"]
        assert found.level is Level.FAIL
        assert "cannot load model:build_model" in found.found
        assert "nonsense_package" in found.found

    def test_functions_whose_import_kills_the_process(self, project):
        (project / "model.py").write_text("import os\nos._exit(7)\ndef build_model(a, b): ...\n")
        assert checks(project)["functions"].found == "the process ended with 7"

    def test_functions_whose_import_never_ends(self, project, monkeypatch):
        monkeypatch.setattr(checkup_project, "IMPORT_SECONDS", 0.5)
        (project / "model.py").write_text("import time\ntime.sleep(60)\ndef build_model(a, b): ...\n")
        assert "took more than 0.5 s" in checks(project)["functions"].found

    def test_a_held_lock(self, project):
        config = load(project)
        config.lock_path.parent.mkdir(parents=True)
        with FileLock(str(config.lock_path)):
            held = checkup_project.lock(config.lock_path)
        assert held.level is Level.WARN
        assert checkup_project.lock(config.lock_path).level is Level.OK

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_a_place_that_cannot_be_written(self, project):
        (project / "models").mkdir(mode=0o500)
        assert checks(project, with_functions=False)["base path"].level is Level.FAIL

    def test_a_place_that_is_no_place(self, monkeypatch, tmp_path):
        def refuse(*_):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "rename", refuse)
        check = checkup_project.writable("base path", tmp_path)
        assert check.level is Level.FAIL
        assert "Invalid cross-device link" in check.found
        assert list(tmp_path.iterdir()) == []

    def test_a_broken_metadata_file(self, project):
        config = load(project)
        config.db_path.parent.mkdir(parents=True)
        with sqlite3.connect(config.db_path) as database:
            database.execute("create table MLMDEnv (schema_version integer)")
        database.close()
        assert checkup_project.metadata(config).level is Level.OK
        config.db_path.write_bytes(b"not a database at all" * 100)
        broken = checkup_project.metadata(config)
        assert broken.level is Level.FAIL
        assert "file is not a database" in broken.found

    def test_a_metadata_server(self, project):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            config = load(project, [f"metadata=mysql://bob@127.0.0.1:{port}/e"])
            assert checkup_project.metadata(config).level is Level.OK
        assert checkup_project.metadata(config).level is Level.FAIL


class TestCommand:
    def test_a_table_and_the_mend(self, project, capsys):
        shutil.rmtree(project / "data")
        assert cli.main(["doctor", "--quick"]) == 1
        out = capsys.readouterr().out
        assert "fail spans: data.path does not exist" in out
        assert "mend: Correct `data.path`" in out
        assert out.splitlines()[-1].endswith("1 to mend")

    def test_json(self, project, capsys):
        assert cli.main(["doctor", "--quick", "--json"]) == 0
        listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
        assert listed["configuration"] == {
            "name": "configuration", "level": "ok", "found": str(project / "evergreen.yaml"), "mend": ""
        }  # fmt: skip
        assert "functions" not in listed

    def test_a_wrong_configuration_is_a_finding(self, project, capsys):
        assert cli.main(["doctor", "--set", "data.window=0"]) == 1
        assert "fail configuration: evergreen.yaml has a mistake: data.window" in capsys.readouterr().out

    def test_outside_of_a_project_only_the_machine(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        assert cli.main(["doctor"]) == 0
        assert "warn configuration: there is no evergreen.yaml here" in capsys.readouterr().out
