"""When `.venv` is kept, brought up to date or made anew; what an update that fails leaves."""

import sys
from pathlib import Path

import machine
import pytest
import setup_venv

HERE = machine.Stack("this stack", "pins.txt", (sys.version_info[:2],))
OTHER = machine.Stack("another stack", "pins.txt", ((3, 9),))


@pytest.fixture
def venv(tmp_path, monkeypatch) -> Path:
    """A checkout whose `.venv` was set up, with the Python of these tests."""
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pins.txt").write_text("tfx==1.16.0\n")
    (tmp_path / "setup.py").write_text("")
    for name, value in {
        "ROOT": tmp_path,
        "VENV": folder,
        "STAMP": folder / "stamp.json",
        "UNFINISHED": folder / "unfinished",
        "TOOLS": folder / "tools",
        "LOCK": folder / "lock",
    }.items():
        monkeypatch.setattr(setup_venv, name, value)
    return folder


def stamp(root: Path) -> dict[str, str]:
    return {"root": str(root), "stack": HERE.name, "digest": ""}


def test_a_finished_venv_is_kept(venv):
    assert setup_venv.why_anew(HERE, stamp(venv.parent)) is None


def test_a_venv_without_a_stamp_is_adopted(venv):
    assert setup_venv.why_anew(HERE, {}) is None


def test_a_venv_that_was_cut_off_is_made_anew(venv):
    setup_venv.UNFINISHED.touch()
    assert setup_venv.why_anew(HERE, {}) == "the last set-up was cut off"


def test_a_moved_checkout_makes_it_anew(venv):
    assert "moved here from /elsewhere" in (setup_venv.why_anew(HERE, stamp(Path("/elsewhere"))) or "")


def test_a_python_that_is_gone_or_of_another_stack_makes_it_anew(venv):
    assert "does not run on" in (setup_venv.why_anew(OTHER, stamp(venv.parent)) or "")
    (venv / "bin" / "python").unlink()
    assert setup_venv.why_anew(HERE, stamp(venv.parent)) == "its Python does not run"


def test_new_pins_or_a_new_setup_put_the_stamp_out_of_date(venv):
    before = setup_venv.fingerprint(HERE)
    assert setup_venv.fingerprint(HERE) == before
    (venv.parent / "pins.txt").write_text("tfx==1.21.0\n")
    pinned = setup_venv.fingerprint(HERE)
    (venv.parent / "setup.py").write_text("# changed\n")
    assert len({str(before), str(pinned), str(setup_venv.fingerprint(HERE))}) == 3


def test_an_update_that_uv_refuses_keeps_what_was_there(venv):
    with pytest.raises(machine.SetupError, match="exit status"):
        setup_venv.install(HERE, Path("/bin/false"), None)
    assert not setup_venv.UNFINISHED.exists()


def test_making_it_anew_keeps_only_our_uv_and_the_marks(venv):
    for name in ("tools", "lib"):
        (venv / name).mkdir()
    setup_venv.UNFINISHED.touch()
    setup_venv.clear()
    assert sorted(path.name for path in venv.iterdir()) == ["tools", "unfinished"]
