"""Users' functions are loaded from the project's folder, and named file by file."""

import os
import sys

import pytest

from evergreen.components import user_code
from evergreen.components.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean_interpreter():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def project(folder, **files):
    for name, text in files.items():
        file = folder / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_load_finds_a_function_of_the_project(tmp_path):
    project(tmp_path, my_model="import my_layers\ndef build(): return my_layers.WIDTH", my_layers="WIDTH = 7")
    assert user_code.load("my_model:build", tmp_path)() == 7
    assert sys.path[-1] == str(tmp_path)


def test_load_reaches_into_packages(tmp_path):
    project(tmp_path, nets__deep="def build(): return 'deep'")
    assert user_code.load("nets.deep:build", tmp_path)() == "deep"


def test_two_projects_with_the_same_module_names_do_not_mix(tmp_path):
    first = project(tmp_path / "first", my_model="import my_help\ndef f(): return my_help.X", my_help="X = 1")
    second = project(tmp_path / "second", my_model="import my_help\ndef f(): return my_help.X", my_help="X = 2")
    assert user_code.load("my_model:f", first)() == 1
    assert user_code.load("my_model:f", second)() == 2
    assert user_code.load("my_model:f", first)() == 1
    assert str(second) not in sys.path


def test_a_project_inside_of_another_one_is_kept_apart(tmp_path):
    project(tmp_path, my_model="def f(): return 'outer'")
    project(tmp_path / "inner", my_model="def f(): return 'inner'")
    assert user_code.load("my_model:f", tmp_path)() == "outer"
    assert user_code.load("my_model:f", tmp_path / "inner")() == "inner"


def test_what_another_project_brought_is_not_taken_for_an_installed_module(tmp_path):
    first = project(tmp_path / "first", my_model="def f(): return 1")
    user_code.load("my_model:f", first)
    assert str(first) in sys.path
    assert str(first) not in user_code.import_path(tmp_path / "second")
    assert set(user_code.import_path(first)) == set(sys.path) - {str(first)}


def test_a_file_changed_between_two_runs_is_loaded_anew(tmp_path):
    project(tmp_path, my_model="import my_help\ndef f(): return my_help.X", my_help="X = 1")
    assert user_code.load("my_model:f", tmp_path)() == 1
    project(tmp_path, my_help="X = 234")
    assert user_code.load("my_model:f", tmp_path)() == 234


def test_an_unchanged_module_is_loaded_once(tmp_path):
    project(tmp_path, my_model="def f(): pass")
    assert user_code.load("my_model:f", tmp_path) is user_code.load("my_model:f", tmp_path)


@pytest.mark.parametrize("spec", ["my_model", "my_model:", ":build", "my model:build", "my_model.py:build:x", "1x:f"])
def test_a_malformed_name_says_what_is_expected(tmp_path, spec):
    with pytest.raises(ConfigError, match="expected module:function"):
        user_code.load(spec, tmp_path)


def test_a_missing_module_lists_the_files_that_are_there(tmp_path):
    project(tmp_path, my_model="def build(): pass")
    with pytest.raises(ConfigError, match=r"no module 'my_modle' in .*my_model\.py"):
        user_code.load("my_modle:build", tmp_path)


def test_a_missing_function_lists_what_the_module_offers(tmp_path):
    project(tmp_path, my_model="from os import getcwd\ndef build(): pass\ndef _own(): pass\nWIDTH = 3")
    with pytest.raises(ConfigError, match=r"has nothing of the name 'biuld'; its functions: build\n") as error:
        user_code.load("my_model:biuld", tmp_path)
    assert error.value.headline == "cannot load my_model:biuld"
    with pytest.raises(ConfigError, match="has a int of the name 'WIDTH'"):
        user_code.load("my_model:WIDTH", tmp_path)


def test_a_module_that_cannot_be_imported_says_where(tmp_path):
    project(
        tmp_path, my_broken="x = 1\n\nraise KeyError('speed')", my_syntax="def f(:\n  pass", my_needs="import nowhere_x"
    )
    with pytest.raises(ConfigError, match=r"KeyError: 'speed' \(.*my_broken\.py, line 3\)"):
        user_code.load("my_broken:f", tmp_path)
    with pytest.raises(ConfigError, match=r"SyntaxError: .*my_syntax\.py, line 1"):
        user_code.load("my_syntax:f", tmp_path)
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError: No module named 'nowhere_x' \(.*my_needs\.py, line 1"):
        user_code.load("my_needs:f", tmp_path)


def test_an_installed_module_of_the_same_name_is_not_taken_silently(tmp_path):
    project(tmp_path, json="def f(): pass")
    with pytest.raises(ConfigError, match="has the same name as the project's json"):
        user_code.load("json:f", tmp_path)


def test_an_installed_function_can_be_named(tmp_path):
    assert user_code.load("json:dumps", tmp_path)([1]) == "[1]"


def test_closure_follows_every_kind_of_import(tmp_path):
    project(
        tmp_path,
        my_model="import os\nimport nets.deep\ndef f():\n    from my_late import x\n",
        my_late="x = 1",
        my_unused="x = 1",
        nets__deep="from . import wide\nfrom .blocks.dense import Dense\nfrom nets import flat as f\n",
        nets__wide="",
        nets__flat="",
        nets__blocks__dense="class Dense: pass",
        nets__tall="",
    )
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "blocks" / "__init__.py").write_text("from .. import tall")
    names = [str(path.relative_to(tmp_path)) for path in user_code.closure("my_model:f", tmp_path)]
    assert names == [
        "my_late.py",
        "my_model.py",
        "nets/__init__.py",
        "nets/blocks/__init__.py",
        "nets/blocks/dense.py",
        "nets/deep.py",
        "nets/flat.py",
        "nets/tall.py",
        "nets/wide.py",
    ]


def test_closure_imports_nothing(tmp_path):
    project(tmp_path, my_model="raise SystemExit")
    assert [path.name for path in user_code.closure("my_model:f", tmp_path)] == ["my_model.py"]
    assert "my_model" not in sys.modules


def test_closure_of_what_is_installed_or_absent_is_empty(tmp_path):
    assert user_code.closure("json:dumps", tmp_path) == []


def test_closure_ends_on_circular_imports(tmp_path):
    project(tmp_path, my_a="import my_b", my_b="import my_a")
    assert [path.name for path in user_code.closure("my_a:f", tmp_path)] == ["my_a.py", "my_b.py"]


def test_closure_names_the_line_that_is_not_python(tmp_path):
    project(tmp_path, my_model="import my_bad", my_bad="x = 1\ny = (\n")
    with pytest.raises(ConfigError, match=r"my_bad\.py, line"):
        user_code.closure("my_model:f", tmp_path)


def test_child_environment_puts_the_project_last(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/first", str(tmp_path), "/second"]))
    assert user_code.child_environment(tmp_path)["PYTHONPATH"].split(os.pathsep) == ["/first", "/second", str(tmp_path)]


def test_a_projects_files_are_named_and_hashed_alike_through_a_link(tmp_path):
    project(tmp_path / "real", my_model="import nets.deep", nets__deep="x = 1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    hashes = user_code.hashes("my_model:f", tmp_path / "link")
    assert list(hashes) == ["my_model.py", "nets/deep.py"]
    assert hashes == user_code.hashes("my_model:f", tmp_path / "real")
    assert user_code.digest("my_model:f", tmp_path / "link") == user_code.digest("my_model:f", tmp_path / "real")
    (tmp_path / "real" / "nets" / "deep.py").write_text("x = 2")
    changed = user_code.hashes("my_model:f", tmp_path / "link")
    assert {name for name in hashes if hashes[name] != changed[name]} == {"nets/deep.py"}
