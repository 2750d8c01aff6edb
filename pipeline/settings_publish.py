"""The section `publish` of evergreen.yaml as pydantic models; the other sections are in `settings`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from evergreen.pipeline.settings import PathText, Positive, Section, Text, expected

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")


def _servers(value: Any) -> Any:
    addresses = value if isinstance(value, list) else [value]
    fits = all(isinstance(one, str) and _ADDRESS.fullmatch(one) for one in addresses)
    if value is not None and (not addresses or not fits or len(set(addresses)) < len(addresses)):
        raise expected("`host:port` of a server's gRPC port, such as `127.0.0.1:8500`, or a list of them")
    return value


def _urls(value: list[str]) -> list[str]:
    if not all(_URL.fullmatch(url) for url in value):
        raise expected("URLs such as `http://127.0.0.1:8501/monitoring/prometheus/metrics`")
    return value


class PublishedWatch(Section):
    """How a new version is watched on `publish.server`."""

    timeout: Positive = Field(
        300,
        description="Seconds within which every server must answer with a new version; TensorFlow Serving itself tries "
        "for five minutes to load one.",
    )
    rows: Annotated[int, Field(ge=0)] = Field(
        20,
        description="Exam rows that are sent, and whose answers are compared with the Trainer's as `serving.tolerance` "
        "has it; 0 for none.",
    )


class Canary(Section):
    """A trial beside the stable version before a new one becomes it."""

    label: Text = Field("canary", description="The label of the version on trial.")
    stable: Text = Field("stable", description="The label that moves when the trial is passed.")
    minutes: Annotated[float, Field(gt=0)] = Field(10.0, description="How long the trial takes.")
    max_error_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="By how much the share of failed requests may rise."
    )
    max_latency_ratio: Annotated[float, Field(gt=0)] = Field(
        1.5, description="How long requests may take, as a multiple of the time without the new version."
    )
    metrics: Annotated[list[str], AfterValidator(_urls)] = Field(
        default_factory=list,
        description="URLs of the servers' Prometheus metrics; without them the trial rests on requests of its own.",
    )


class PublishSettings(Section):
    """Where versions go."""

    base_path: PathText = Field(
        description="The folder that TensorFlow Serving reads; the TFLite versions go beside it, to `<base_path>_lite`."
    )
    keep: Positive = Field(
        3,
        description="How many versions stay; older ones are removed, but never the live one, the one before it, or one "
        "that a label points to.",
    )
    warmup: Literal["schema", "real", "none"] = Field(
        "schema",
        description="What a server asks a version before anybody else may: rows made from the schema's domains, the "
        "first rows of the exam (which are published with the model then), or nothing.",
    )
    server: Annotated[str | list[str] | None, BeforeValidator(_servers)] = Field(
        None,
        description="`host:port` of the server's gRPC port, or a list: they must answer with a new version, or it is "
        "withdrawn.",
    )
    watch: PublishedWatch = Field(
        default_factory=PublishedWatch, description="How a new version is watched on `publish.server`."
    )
    canary: Canary | None = Field(None, description="A trial before a new version becomes the stable one.")
    models_config: PathText | None = Field(
        None,
        description="The file that the servers read by --model_config_file; the labels `stable` and `canary` in it are "
        "kept up to date.",
    )
