"""The demo: three months of real flights become a published version, then the next month a fresher one.

Nothing here is special to the demo: it delivers spans with data.py and calls the commands that a user would call. Run
again, it goes on with the month after; `make clean` starts it afresh.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import data

HERE = Path(__file__).parent
CONFIG = HERE / "evergreen.yaml"
SPANS = HERE.parent.parent / ".evergreen" / "flights-data"
FIRST_MONTHS = (1, 2, 3)
MONTHS_OF_THE_YEAR = 12


def say(text: str) -> None:
    """Prints one line of the demo's own."""
    print(f"\n# {text}", flush=True)


def evergreen(*arguments: str) -> None:
    """Runs a command of Evergreen as the user would type it; ends the demo where it fails."""
    print(f"$ evergreen {' '.join(arguments)} -c {CONFIG.relative_to(Path.cwd())}", flush=True)
    command = [str(Path(sys.executable).with_name("evergreen")), *arguments, "-c", str(CONFIG)]
    status = subprocess.run(command).returncode
    if status:
        sys.exit(status)


def deliver(months: tuple[int, ...]) -> None:
    """Writes one span for each month into the data directory."""
    for month in months:
        rows = data.write_spans(SPANS, [month])[month]
        print(f"  {SPANS.relative_to(Path.cwd())}/{month}/flights.parquet  {rows:,} flights")


def delivered() -> list[int]:
    """Lists the months that are there already."""
    return sorted(int(marker.parent.name) for marker in SPANS.glob("*/_SUCCESS"))


def main() -> None:
    """Delivers, trains, delivers the next month, trains again, and shows what is published."""
    started = time.monotonic()
    if not delivered():
        say("Three months of real flights from New York's airports arrive, one span a month.")
        deliver(FIRST_MONTHS)
    say("The first retraining: every gate, then a version for TensorFlow Serving.")
    evergreen("run")
    following = delivered()[-1] + 1
    if following <= MONTHS_OF_THE_YEAR:
        say(f"Month {following} arrives. The live model is measured on it before anything is trained.")
        deliver((following,))
        evergreen("run")
    say("What the base path holds.")
    evergreen("versions")
    config = CONFIG.relative_to(Path.cwd())
    print(
        f"""
Done in {time.monotonic() - started:.0f} s. What to type next:
  .venv/bin/evergreen status   -c {config}     what is live, how old it is, what comes next
  .venv/bin/evergreen runs     -c {config}     every run with its result
  .venv/bin/evergreen logs     -c {config}     what a run's stages printed
  make demo                    the month after arrives and is trained on
  .venv/bin/evergreen init     a project of your own"""
    )


if __name__ == "__main__":
    main()
