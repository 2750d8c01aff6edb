"""Whether a server's answers are those that the Trainer's model gave. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_DIGITS = 6


def differences(
    expected: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    tolerance: float,
    rows: Sequence[int] | None = None,
    known: float = 0.0,
) -> list[str]:
    """Compares answers output by output.

    Two numbers agree when they differ by no more than `tolerance`, or by no more than `tolerance` times the expected
    one where that is greater than 1; NaN agrees with NaN. Anything else agrees when it is equal.

    Args:
      expected: by output, [rows, ...].
      given: the same from the server; outputs that nobody expected are ignored.
      tolerance: see above.
      rows: how the rows are called in a sentence; counted from 0 by default.
      known: a difference of numbers that was measured before and counts nothing.

    Returns:
      A sentence for each output that differs: the worst row, both values, how many rows differ. None where none does.
    """
    found = []
    for name, wanted in expected.items():
        if name not in given:
            outputs = ", ".join(f"`{one}`" for one in sorted(given)) or "no outputs"
            found.append(f"`{name}` is not among the server's answers: {outputs}")
            continue
        answer = given[name]
        if answer.size == wanted.size and len(answer) == len(wanted):
            answer = answer.reshape(wanted.shape)
        if answer.shape != wanted.shape:
            found.append(f"`{name}` has the shape {list(answer.shape)}, expected {list(wanted.shape)}")
            continue
        excess = _excess(wanted, answer, tolerance, known).reshape(len(wanted), -1).max(axis=1, initial=0)
        if not (excess > 1).any():
            continue
        row, many = int(np.argmax(excess)), int(np.count_nonzero(excess > 1))
        found.append(
            f"`{name}` of row {rows[row] if rows is not None else row} is {_text(answer[row])}, expected "
            f"{_text(wanted[row])}; {many} of {len(wanted)} rows differ by more than {tolerance + known:g}"
        )
    return found


def largest(expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float:
    """Returns the largest difference between two numbers; 0 where there are no numbers.

    Args:
      expected: by output, [rows, ...].
      given: the same, of the same number of values.
    """
    found = 0.0
    for name, wanted in expected.items():
        if wanted.dtype.kind in "fiub" and name in given and given[name].size == wanted.size:
            apart = np.abs(given[name].astype(np.float64).reshape(-1) - wanted.astype(np.float64).reshape(-1))
            found = max(found, float(np.nanmax(apart, initial=0)))
    return found


def _excess(wanted: np.ndarray, answer: np.ndarray, tolerance: float, known: float) -> np.ndarray:
    """Returns by how many times of the tolerance values are apart; infinite where they cannot be compared."""
    if wanted.dtype.kind in "fiub" and answer.dtype.kind in "fiub":
        first, second = wanted.astype(np.float64), answer.astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.maximum(0, np.abs(second - first) - known) / (tolerance * np.maximum(1, np.abs(first)))
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        return np.where(same, 0, np.where(np.isnan(apart), np.inf, apart))
    return np.where(wanted == answer, 0, np.inf)


def _text(value: np.ndarray) -> str:
    flat = np.asarray(value).reshape(-1).tolist()
    shown = [f"{one:.{_DIGITS}g}" if isinstance(one, float) else repr(one) for one in flat[:3]]
    text = ", ".join(shown) + (", ..." if len(flat) > 3 else "")
    return text if len(flat) == 1 else f"[{text}]"
