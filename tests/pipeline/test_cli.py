"""The command line: its exit statuses, its messages, and what it does not import."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import types

import click
import pytest
from project_world import YAML

from evergreen.components.errors import DataRejected, LockHeld, ModelRejected, SpanError
from evergreen.pipeline import cli, options


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def use(monkeypatch):
    """Puts a command of the test's own in the place of `run`."""

    def put(body, *decorators):
        command = body
        for decorator in (*decorators, options.config):
            command = decorator(command)
        module = types.ModuleType("evergreen.pipeline.commands.run")
        module.command = click.command()(command)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


class TestHelp:
    def test_names_every_command(self, capsys):
        status, out, _ = run(capsys, "--help")
        assert status == 0
        for name in cli.COMMANDS:
            assert f"\n  {name} " in out

    def test_without_arguments_too(self, capsys):
        assert "Usage: evergreen" in "".join(run(capsys)[1:])

    def test_the_version(self, capsys):
        assert run(capsys, "--version")[1].startswith("evergreen 0.")

    @pytest.mark.parametrize(
        "name",
        [
            "init",
            "versions",
            "rollback",
            "release",
            "logs",
            "scaling",
            "doctor",
            "schedule",
            "backfill",
            "gc",
            "migrate",
        ],
    )
    def test_of_a_command_has_an_example_and_the_shared_options(self, capsys, name):
        status, out, _ = run(capsys, name, "--help")
        assert status == 0
        assert f"evergreen {name}" in out.partition("Example:")[2]
        for option in ("-c, --config FILE", "--set KEY.PATH=VALUE", "--debug"):
            assert option in out


class TestStatuses:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (SpanError("no span"), 2),
            (DataRejected("bad rows"), 3),
            (ModelRejected("worse"), 4),
            (LockHeld("busy"), 5),
        ],
    )
    def test_of_refusals(self, use, capsys, error, status):
        def body(**_):
            raise error

        use(body)
        assert run(capsys, "run") == (status, "", f"Error: {error.headline}\n")

    def test_of_a_command_that_returns_one(self, use, capsys):
        use(lambda **_: 1)
        assert run(capsys, "run")[0] == 1
        use(lambda **_: None)
        assert run(capsys, "run")[0] == 0
        use(lambda **_: click.get_current_context().exit(3))
        assert run(capsys, "run")[0] == 3

    def test_of_wrong_usage(self, capsys):
        status, _, err = run(capsys, "rum")
        assert status == 2
        assert "There is no command `rum`. Did you mean `run`?" in err
        status, _, err = run(capsys, "versions", "--nonsense")
        assert status == 2
        assert "--nonsense" in err

    def test_of_a_wrong_configuration(self, project, capsys):
        status, out, err = run(capsys, "versions", "--set", "data.window=0")
        assert (status, out) == (2, "")
        assert "Error: evergreen.yaml has a mistake\n  data.window (--set): received 0" in err
        assert "Next: " in err

    def test_of_no_project(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        status, _, err = run(capsys, "versions")
        assert status == 2
        assert "evergreen init" in err

    @pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
    def test_of_an_interruption(self, use, capsys, error):
        def body(**_):
            raise error

        use(body)
        status, _, err = run(capsys, "run")
        assert status == 130
        assert err.strip() == "interrupted"

    def test_of_a_reader_that_left(self, project):
        (project / ".evergreen/logs/r1").mkdir(parents=True)
        (project / ".evergreen/logs/r1/run.log").write_text("line\n" * 200_000)
        program = "import sys; from evergreen.pipeline.cli import main; sys.exit(main(['logs', 'r1']))"
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"line\n"
            child.stdout.close()
            assert child.stderr.read() == b""
            assert child.wait() == 0


class TestDefects:
    @pytest.fixture
    def defect(self, use):
        def body(**_):
            raise TypeError("unsupported operand\nsecond line")

        use(body)

    def test_a_headline_and_the_traceback_in_a_file(self, project, defect, capsys):
        status, _, err = run(capsys, "run")
        log = project / ".evergreen/logs/errors.log"
        assert status == 1
        assert err.splitlines()[:2] == ["Error: unexpected error", "  TypeError: unsupported operand"]
        assert str(log) in err
        assert "Traceback" not in err
        assert "second line" in log.read_text()

    def test_the_file_lies_in_the_workspace_that_the_command_used(self, project, defect, capsys):
        run(capsys, "run", "--set", "workspace=other")
        assert (project / "other/logs/errors.log").exists()

    def test_outside_of_a_project(self, tmp_path, monkeypatch, defect, capsys):
        monkeypatch.chdir(tmp_path)
        status, _, err = run(capsys, "run")
        assert status == 1
        assert "Add --debug to see the traceback" in err

    @pytest.mark.parametrize("arguments", [("run", "--debug"), ("--debug", "run")])
    def test_the_traceback_with_debug(self, project, defect, capsys, arguments):
        status, _, err = run(capsys, *arguments)
        assert status == 1
        assert "Traceback (most recent call last)" in err
        assert not (project / ".evergreen").exists()

    def test_a_refusal_has_one_with_debug_only(self, use, capsys):
        def body(**_):
            raise SpanError("no span")

        use(body)
        assert "Traceback" not in run(capsys, "run")[2]
        assert "Traceback" in run(capsys, "run", "--debug")[2]


class TestSharedOptions:
    @pytest.fixture
    def received(self, use):
        got = {}
        use(lambda **given: got.update(given), options.json_output)
        return got

    def test_behind_the_command(self, received, capsys):
        run(capsys, "run", "-c", "a.yaml", "--set", "x=1", "--set", "y=2", "--json")
        assert received == {"config_file": "a.yaml", "overrides": ("x=1", "y=2"), "as_json": True}

    def test_before_the_command(self, received, capsys):
        run(capsys, "-c", "a.yaml", "--set", "x=1", "run")
        assert received == {"config_file": "a.yaml", "overrides": ("x=1",), "as_json": False}

    def test_on_both_sides_settings_add_up_and_the_later_file_wins(self, received, capsys):
        run(capsys, "-c", "a.yaml", "--set", "x=1", "run", "--config", "b.yaml", "--set", "x=2")
        assert received["config_file"] == "b.yaml"
        assert received["overrides"] == ("x=1", "x=2")

    def test_every_registered_command_has_them(self):
        context = click.Context(cli.cli)
        for name in ("init", "versions", "logs", "scaling", "doctor"):
            names = {parameter.name for parameter in cli.cli.get_command(context, name).params}
            assert {"config_file", "overrides", "debug"} <= names


HEAVY = ("tensorflow", "apache_beam", "tfx", "tf_keras", "tensorflow_transform")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["versions", "--json"],
        ["logs"],
        ["doctor", "--help"],
        ["init", "--help"],
        ["doctor", "--quick"],
        ["scaling", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(project, arguments):
    program = f"""
import json, sys
from evergreen.pipeline.cli import main
status = main({arguments!r})
print(json.dumps([status, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    status, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert arguments[0] == "doctor" or status == 0


def test_help_answers_at_once():
    # Processor time, which the other tests that run beside this one do not stretch.
    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = seconds()
    program = "from evergreen.pipeline.cli import main; main(['--help'])"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert seconds() - began < 0.4
