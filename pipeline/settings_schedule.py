"""The section `schedule` of evergreen.yaml as a pydantic model; the other sections are in `settings`."""

from __future__ import annotations

import re
import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from evergreen.pipeline.settings import PathText, Positive, Section, Text, expected

EVENTS = ("published", "not_published", "failed", "paused", "late", "stale")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_PLACES = re.compile(r"\$\{([^}]*)\}")


def seconds(text: str) -> int:
    """Returns a duration's seconds.

    Args:
      text: a number with `s`, `m`, `h` or `d`.
    """
    return int(text[:-1]) * SECONDS[text[-1]]


def size_bytes(text: str) -> int:
    """Returns a size's bytes.

    Args:
      text: a number with `MB`, `GB`, `MiB` or `GiB`.
    """
    found = re.fullmatch(r"(\d+)([A-Za-z]+)", text)
    assert found is not None
    return int(found[1]) * _BYTES[found[2]]


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise expected('five fields (minute, hour, day, month, weekday), such as `"0 3 * * *"`')
    # APScheduler is imported by those who have a schedule, not by every command.
    from evergreen.pipeline.schedule import times

    try:
        times.Cron(text, "UTC")
    except ValueError as error:
        raise expected(f"a cron expression that comes true: {error}") from None
    return text


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[smhd]", text):
        raise expected("a number with `s`, `m`, `h` or `d`, such as `6h`")
    return text


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(MB|GB|MiB|GiB)", text):
        raise expected("a number with `MB`, `GB`, `MiB` or `GiB`, such as `8GB`")
    return text


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise expected("a time zone's name, such as `Europe/Berlin` or `UTC`") from None
    return text


def _event(text: str) -> str:
    if text not in EVENTS:
        raise expected("one of " + ", ".join(f"`{event}`" for event in EVENTS))
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", text):
        raise expected("the name of an environment variable; the secret itself never stands in the file")
    return text


def _webhook(text: str) -> str:
    if not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in _PLACES.findall(text)):
        raise expected("`${NAME}` with the name of an environment variable")
    if "${" not in text and not re.match(r"https?://[^/@\s]+(/\S*)?$", text):
        raise expected("a URL `https://host/path` without a password in it; `${NAME}` is an environment variable")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Event = Annotated[str, AfterValidator(_event)]


class Retries(Section):
    """How often a run that failed by something that can pass is tried again."""

    attempts: Annotated[int, Field(ge=1)] = Field(4, description="Attempts in all, the first included.")
    first: Duration = Field("1m", description="The pause before the second attempt; each one after is twice as long.")
    longest: Duration = Field("1h", description="The longest pause.")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="By what share a pause is drawn longer or shorter, so that not everybody comes at once."
    )


class Notification(Section):
    """Who is told: a command or a webhook."""

    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="A program with its arguments; it gets the event as JSON on its standard input."
    )
    webhook: Annotated[str, AfterValidator(_webhook)] | None = Field(
        None, description="A URL to which the event is posted as JSON; `${NAME}` in it is an environment variable."
    )
    secret_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None, description="The environment variable with the secret that signs a webhook's body by HMAC-SHA256."
    )
    template: PathText | None = Field(
        None, description="A file with `${event}`, `${message}` and the like, which is posted instead of the JSON."
    )
    on: list[Event] = Field(default_factory=lambda: list(EVENTS), description="The events; all of them by default.")


class ScheduleSettings(Section):
    """When a retraining starts by itself, and what becomes of it."""

    cron: Annotated[str, AfterValidator(_cron)] | None = Field(
        None, description="Five cron fields: minute, hour, day of the month, month, day of the week."
    )
    every: Duration | None = Field(
        None, description="An interval such as `6h`, counted from midnight UTC of 1970-01-01."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="The time zone of `cron`, and of the days that spans are named by."
    )
    span_lag: Duration | None = Field(
        None, description="Spans named by dates: how long after its end a span is due; at once by default."
    )
    wait_for_span: Duration | None = Field(
        None, description="How long a run waits for its span; one that is missing then is reported as late."
    )
    overrun: Literal["skip", "queue"] = Field(
        "skip", description="What becomes of a run whose time comes while another goes on."
    )
    catch_up: Literal["none", "last", "all"] = Field(
        "last",
        description="Which runs that were missed are made up for; of `all`, only the newest trains and publishes, "
        "the others put their spans through gate 1.",
    )
    catch_up_limit: Positive = Field(10, description="How many of them at most, the newest ones.")
    on_new_span: bool = Field(False, description="Starts a run when a complete span has appeared.")
    on_drift: bool = Field(
        False,
        description="Starts a run when the newest span has drifted from the span that the live model was trained on, "
        "by the comparators of the schema.",
    )
    on_metric_drop: dict[str, float] = Field(
        default_factory=dict,
        description="Starts a run when the live model does worse than this on the newest span, by metric.",
    )
    poll: Duration = Field("1m", description="How often the data directory is looked at.")
    time_limit: Duration = Field("1d", description="How long a run may take; it is stopped then, and tried again.")
    memory_limit: Annotated[str, AfterValidator(_size)] | None = Field(
        None,
        description="The memory that a run with all its processes may hold, such as `8GB`; without limit by default.",
    )
    grace: Duration = Field("10m", description="How long a run may go on after the scheduler was told to end.")
    retries: Retries = Field(default_factory=Retries, description="How often a run that failed is tried again.")
    max_consecutive_failures: Positive = Field(
        3, description="After so many failed runs in a row the schedule pauses; a rejection is no failure."
    )
    max_model_age: Duration | None = Field(None, description="A live model older than this is reported as stale.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="The port on 127.0.0.1 of `/healthz` and `/metrics`; none by default."
    )
    notify: list[Notification] = Field(default_factory=list, description="Who is told, of which events.")

    @model_validator(mode="after")
    def _one_way_each(self) -> Any:
        for entry in self.notify:
            if (entry.command is None) == (entry.webhook is None):
                raise expected("`command` or `webhook` in each entry of `notify`, one of the two")
            if entry.command is not None and (entry.secret_env or entry.template):
                raise expected("`secret_env` and `template` beside `webhook` only")
        return self

    @property
    def starts_by_itself(self) -> bool:
        """Whether there is a time or a trigger at all."""
        return bool(self.cron or self.every or self.watches_spans)

    @property
    def watches_spans(self) -> bool:
        """Whether a new span starts something."""
        return self.on_new_span or self.on_drift or bool(self.on_metric_drop)
