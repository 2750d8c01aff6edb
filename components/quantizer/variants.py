"""Makes one variant of a model and says what it is made of; measuring its answers is `runtime` and `measure`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.components.quantizer import anatomy, assemble, lite_file
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.settings import CALIBRATED
from evergreen.components.quantizer.worker import Worker, conversion


@dataclasses.dataclass(frozen=True)
class Source:
    """What variants are made from.

    Attributes:
      core: the folder of the SavedModel over transformed features.
      front: the preprocessing as a TFLite file; None where the variants take transformed features.
      rows: transformed rows that calibrate, [rows, ...] by feature.
      metadata: what each file says of itself; the variant's name is added.
      select_ops: whether operators that TFLite lacks may be TensorFlow's own.
    """

    core: str
    front: bytes | None
    rows: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]
    select_ops: bool = False


@dataclasses.dataclass(frozen=True)
class Made:
    """A variant.

    Attributes:
      variant: its name.
      content: the file to publish.
      core: the model alone, as the converter made it, with the names of its layers.
      select_ops: whether it has operators of TensorFlow's.
    """

    variant: str
    content: bytes
    core: bytes
    select_ops: bool


def make(worker: Worker, source: Source, variant: str, denied: Sequence[str] = ()) -> Made:
    """Converts and finishes a variant.

    Args:
      worker: what converts.
      source: what from.
      variant: which.
      denied: layers that int8 leaves in float.

    Raises:
      ConversionFailed: with the reason for the report.
    """
    rows = _rows(variant, source.rows)
    core = worker.convert(source.core, variant, rows, denied, source.select_ops)
    metadata = {**source.metadata, "variant": variant}
    if variant not in CALIBRATED:
        metadata.pop("calibration", None)
    try:
        content = assemble.assemble(core, source.front, variant, metadata)
    except ValueError as error:
        raise ConversionFailed(f"the preprocessing and the model do not fit together: {error}") from error
    model = lite_file.read(core)
    select_ops = any(operator.startswith("Flex") for operator in anatomy.operators(model))
    return Made(variant, content, core, select_ops)


def begin(
    worker: Worker, core: str, calibration: Mapping[str, np.ndarray], select_ops: bool, variants: Sequence[str]
) -> None:
    """Starts conversions that `make` will ask for, side by side.

    Args:
      worker: what converts.
      core: as in `Source`.
      calibration: the same's `rows`.
      select_ops: as in `Source`.
      variants: which.
    """
    for variant in variants:
        with contextlib.suppress(ConversionFailed):  # `make` says so
            worker.begin(conversion(core, variant, select=select_ops), _rows(variant, calibration))


def _rows(variant: str, calibration: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Returns the rows that a conversion needs, if any; raises ConversionFailed where they cannot calibrate."""
    if variant not in CALIBRATED:
        return None
    if problem := calibration_problem(calibration):
        raise ConversionFailed(problem)
    return dict(calibration)


def calibration_problem(rows: Mapping[str, np.ndarray]) -> str:
    """Says why rows cannot calibrate; empty where they can.

    Args:
      rows: [rows, ...] by feature.
    """
    if not rows or not len(next(iter(rows.values()))):
        return "there are no rows to calibrate with: the split `train` of the newest span is empty"
    for name, values in rows.items():
        if values.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(values)))):
            return (
                f"{bad} values of the transformed feature {name} are NaN or infinite in the calibration rows; a range "
                "cannot be learnt from them: let the preprocessing fill what is missing"
            )
    return ""


def describe(made: Made, baseline: Made | None, front: bytes | None) -> dict[str, Any]:
    """Says what a variant is made of.

    Args:
      made: the variant.
      baseline: float32; None where that could not be converted, and errors of weights are not known.
      front: the preprocessing in the file.

    Returns:
      `parts`, `operators`, `float_operators`, `multiply_adds` and `weights`, for the report.
    """
    model = lite_file.read(made.core)
    exact = lite_file.read(baseline.core) if baseline is not None else None
    # The joined file's own operators: what the phone runs. The floats that count are those of the model alone.
    return {
        "parts": assemble.parts(made.content, front),
        "operators": anatomy.operators(lite_file.read(made.content)),
        "float_operators": anatomy.float_operators(model),
        "multiply_adds": anatomy.multiply_adds(model),
        "weights": [] if exact is None or made is baseline else anatomy.weights(model, exact),
    }
