"""The section `quantize` of evergreen.yaml as a pydantic model; the other sections are in `settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from evergreen.components.quantizer.settings import VARIANTS
from evergreen.pipeline.settings import Positive, Section, expected


def _variant(text: str) -> str:
    if text not in VARIANTS:
        raise expected("one of " + ", ".join(f"`{variant}`" for variant in VARIANTS))
    return text


Variant = Annotated[str, AfterValidator(_variant)]


class QuantizeSettings(Section):
    """Gate 3: the TFLite variants."""

    variants: list[Variant] = Field(
        default_factory=lambda: ["float16", "dynamic_int8"], description="The variants that are made and measured."
    )
    max_drop: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How much worse than the unquantized model a metric may be."
    )
    max_bytes: Positive | None = Field(None, description="The largest file that passes.")
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="How long one row on one thread may take, as a multiple of float32's time."
    )
    max_abs_difference: Annotated[float, Field(ge=0)] | None = Field(
        None, description="How far an answer to an exam row may be from the unquantized model's."
    )
    required: list[Variant] = Field(
        default_factory=list,
        description="Variants without which nothing is published; others are left out with a warning.",
    )
    publish: Variant | None = Field(
        None, description="The variant that is published; by default the one that `prefer` picks."
    )
    prefer: Literal["smallest", "fastest"] = Field(
        "smallest", description="Which of the variants that passed is published."
    )
    when_none: Literal["withdraw", "refuse"] = Field(
        "withdraw",
        description="Where no variant passes: the published TFLite versions are withdrawn, or nothing is published.",
    )
    calibration_rows: Positive = Field(
        500, description="Training rows of the newest span from which the ranges of int8 are learnt."
    )
    calibration_seed: Annotated[int, Field(ge=0)] = Field(0, description="Chooses these rows.")
    convert_seconds: Annotated[float, Field(gt=0)] = Field(
        300.0, description="The longest that one conversion may take; its variant is lost then."
    )
    allow_select_ops: bool = Field(
        False, description="Whether operators that TFLite lacks may be TensorFlow's own; LiteRT alone cannot run them."
    )
