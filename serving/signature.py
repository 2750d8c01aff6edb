"""Checks a request against a SignatureDef, in TensorFlow Serving's words. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.serving import errors


def find_signature(signatures: Mapping[str, Any], key: str) -> Any:
    """Returns the SignatureDef under a key.

    Raises:
      ServingError: FAILED_PRECONDITION where there is none.
    """
    try:
        return signatures[key]
    except KeyError:
        raise errors.failed_precondition(f'Serving signature key "{key}" not found.') from None


def check_inputs(definition: Any, inputs: Mapping[str, np.ndarray], dtypes: Mapping[str, np.dtype]) -> list[np.ndarray]:
    """Returns a request's arrays in the order of their sorted names.

    Args:
      definition: the SignatureDef.
      inputs: the request's arrays.
      dtypes: the dtype that each input needs; object for strings.

    Raises:
      ServingError: INVALID_ARGUMENT for names that are missing or unknown and for other dtypes.
    """
    if inputs.keys() != dtypes.keys():
        sent, known = inputs.keys(), dtypes.keys()
        if len(sent) == len(known):
            alias = min(sent - known)
            raise errors.invalid(
                f"input tensor alias not found in signature: {alias}. "
                f"Inputs expected to be in the set {{{_names(known)}}}."
            )
        raise errors.invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} len({{{_names(sent)}}}) != "
            f"len({{{_names(known)}}}). Sent extra: {{{_names(sent - known)}}}. "
            f"Missing but required: {{{_names(known - sent)}}}."
        )
    return [_as_dtype(definition, name, inputs[name], dtypes[name]) for name in sorted(inputs)]


def check_outputs(definition: Any, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of the outputs wanted, sorted; all of them for None or an empty list.

    Raises:
      ServingError: INVALID_ARGUMENT for a name that the signature does not have.
    """
    known = definition.outputs
    for name in outputs or ():
        if name not in known:
            raise errors.invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {{{_names(known)}}}."
            )
    return tuple(sorted(set(outputs or known)))


def _names(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _as_dtype(definition: Any, name: str, array: np.ndarray, wanted: np.dtype) -> np.ndarray:
    if array.dtype == wanted:
        return array
    if wanted.kind == "O" and array.dtype.kind in "SU":
        return array.astype(object)
    raise errors.invalid(f"input {name} ({definition.inputs[name].name}) expects {wanted}, got {array.dtype}.")
