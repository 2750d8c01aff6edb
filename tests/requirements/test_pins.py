"""The pin files: complete, exact, and of no particular machine."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent
STACKS = ("tfx-1.16.txt", "tfx-1.21.txt")
FILES = (*STACKS, "airflow.txt")


def lines(name: str) -> list[str]:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_one_exact_pin(name):
    for line in filter(None, (line.split("#")[0].strip() for line in lines(name))):
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", line), line
        assert not re.search(r"==[0-9.]+rc", line), line


@pytest.mark.parametrize("name", FILES)
def test_no_line_names_a_machine_or_an_index(name):
    assert not [line for line in lines(name) if re.search(r"://|--index|--find-links|\s/|file:", line)]


@pytest.mark.parametrize("name", STACKS)
def test_pins_hold_all_that_setup_py_asks_for(name):
    pins = [Requirement(line.split("#")[0]) for line in lines(name) if line.split("#")[0].strip()]
    wanted = re.findall(
        r'^\s+"([A-Za-z0-9-]+[><=!]*[^"\s:]*)",$', (ROOT / "setup.py").read_text(encoding="utf-8"), re.M
    )
    assert {"tfx>=1.16,<1.22", "types-PyYAML"} <= set(wanted)
    for requirement in map(Requirement, wanted):
        found = [pin for pin in pins if pin.name.lower() == requirement.name.lower()]
        assert found, f"{requirement} is not pinned: run `make requirements`"
        for pin in found:
            assert requirement.specifier.contains(next(iter(pin.specifier)).version), f"{pin} against {requirement}"
