"""How fast the local web page answers, and the memory that it takes, with many runs in the store.

    .venv/bin/python benchmarks/web_pages.py --runs 10000

Writes a store of synthetic runs into a new folder, starts `evergreen ui` on it, asks for each page twice and prints the
seconds of the first and the second answer, and the server's memory at its highest after each page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from lineage_store import FIRST_VERSION, Writer, write_versions

_YAML = """\
name: many
data: {path: data, pattern: '{SPAN}/*.csv', format: csv}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {model: model:build_model}
evaluate: {label: y, metrics: [auc]}
publish: {base_path: serving/many}
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--project", type=Path, help="an evergreen.yaml whose store is there already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.project or make(Path(folder), given.runs)
        code = "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "-c", str(file), "ui", "--port", "0"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().partition("/?")[0]
            print(f"{'start':<16} {time.monotonic() - began:6.2f} s")
            for path in ("/", "/runs", "/history", f"/version/{FIRST_VERSION + (given.runs - 2) * 3600}", "/compare"):
                first, second = (seconds(address + path) for _ in range(2))
                print(f"{path:<20} {first:6.2f} s {second:6.2f} s {peak_mb(process.pid):6.0f} MB")
        finally:
            process.terminate()
            process.wait()


def make(folder: Path, runs: int) -> Path:
    """Writes a project of so many runs; returns its evergreen.yaml."""
    (folder / ".evergreen").mkdir()
    writer = Writer(folder / ".evergreen" / "metadata.db")
    writer.write(runs)
    write_versions(folder / "serving" / "many", writer)
    (folder / "schema.pbtxt").write_text('feature { name: "x" type: FLOAT }')
    (folder / "evergreen.yaml").write_text(_YAML)
    return folder / "evergreen.yaml"


def seconds(address: str) -> float:
    """Returns how long a page takes."""
    began = time.monotonic()
    with urllib.request.urlopen(address) as answer:
        answer.read()
    return time.monotonic() - began


def peak_mb(pid: int) -> float:
    """Returns the most memory that a process held, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1000


if __name__ == "__main__":
    main()
