"""`evergreen backfill`: decides the spans of a range one after the other, and trains on the last."""

from __future__ import annotations

import click

from evergreen.components.errors import EvergreenError, SpanError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, options, spans
from evergreen.pipeline.commands import run
from evergreen.pipeline.span_pattern import Pattern


@click.command()
@click.option("--from", "first", type=str, required=True, metavar="SPAN", help="The first span.")
@click.option("--to", "last", type=str, required=True, metavar="SPAN", help="The last span: it is trained on.")
@options.config
def command(config_file: str | None, overrides: tuple[str, ...], first: str, last: str) -> None:
    """Put the spans of a range through gate 1, oldest first; train on the last one, and publish.

    For data that was there before the schedule was. Each span is compared with the one before it, and the live model
    examined on it; what is decided already is passed over. A span that gate 1 rejects is left out; the rest goes on.

    \b
    Example:
      evergreen backfill --from 1 --to 6
    """
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    out = console.Console()
    labels = _labels(config, first, last)
    with run.held(config):
        for label in labels[:-1]:
            _, refusal = run.once(config, run.Start(None, label, True, "backfill", None), False)
            if refusal is not None:
                if refusal.exit_status != 3:
                    raise refusal
                out.warn(f"{refusal.headline}: {refusal.reason}")
        _, error = run.once(config, run.Start(None, labels[-1], False, "backfill", None), False)
    if error is not None:
        raise error


def _labels(config: configuration.Config, first: str, last: str) -> list[str]:
    """Lists the complete spans of the range, oldest first."""
    pattern = Pattern(config.data.pattern)
    low, high = pattern.parse(first), pattern.parse(last)
    if low > high:
        raise SpanError(
            f"span {first} is newer than {last}", "received a range that ends before it begins", "Swap the two."
        )
    found = spans.discover(config.data)
    for number, text in ((low, first), (high, last)):
        spans.require(found, number, text)
    within = [span for span in found if low <= span.span <= high]
    gaps = sorted({span.label for span in within} - {span.label for span in within if span.complete})
    if gaps:
        raise EvergreenError(
            f"span {gaps[0]} is not complete",
            f"not complete: {', '.join(gaps)}",
            "Deliver it whole, or begin behind it.",
        )
    return list(dict.fromkeys(span.label for span in within))
