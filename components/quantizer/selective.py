"""Selective quantization: which layers of an int8 model stay in float, one more at a time. Pure, no TensorFlow.

A layer is chosen by the error of its activations. The error of its weights alone names the wrong ones: what hurts is a
range that several layers share, which only shows in what they compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

PATIENCE = 3
MOST_LAYERS = 12


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One try.

    Attributes:
      layers: what was left in float.
      excess: how far beyond the bounds, as `evergreen.components.quantizer.report.excess` says it; 1 or less passes.
      bytes: of the file.
      result: what the attempt made, for the caller.
    """

    layers: tuple[str, ...]
    excess: float
    bytes: int
    result: Any = None

    @property
    def passes(self) -> bool:
        """Whether no bound is broken."""
        return self.excess <= 1


@dataclasses.dataclass(frozen=True)
class Search:
    """What the search found.

    Attributes:
      attempts: in order, the fully quantized model first.
      best: the first one that passes; else the one least beyond the bounds.
    """

    attempts: tuple[Attempt, ...]
    best: Attempt

    def story(self) -> list[dict[str, Any]]:
        """Returns the attempts for the report: `layers`, `excess`, `bytes`."""
        return [
            {
                "layers": list(one.layers),
                "excess": one.excess if one.excess < float("inf") else None,
                "bytes": one.bytes,
            }
            for one in self.attempts
        ]

    def sentence(self, variant: str) -> str:
        """Says what was left in float and what it cost, or that nothing helped."""
        first = self.attempts[0]
        if self.best.passes:
            cost = self.best.bytes - first.bytes
            return f"{variant} leaves {', '.join(self.best.layers)} in float, which costs {cost:,} bytes"
        tried = max(len(one.layers) for one in self.attempts)
        return f"{variant} could not be saved by leaving its {tried} worst layers in float"


def search(first: Attempt, worst: Sequence[str], attempt: Callable[[tuple[str, ...]], Attempt | None]) -> Search:
    """Leaves one more layer in float until the bounds hold or it gains nothing.

    Args:
      first: the fully quantized model, which breaks a bound.
      worst: the layers, the one with the largest activation error first.
      attempt: makes and measures a model with these layers in float; None where it cannot be made.

    Returns:
      What was found. The search ends after `PATIENCE` attempts in a row that are no better than the best one before, or
      at `MOST_LAYERS`.
    """
    attempts, best, layers, idle = [first], first, [], 0
    for layer in worst[:MOST_LAYERS]:
        layers.append(layer)
        made = attempt(tuple(layers))
        if made is None:
            layers.pop()
            continue
        attempts.append(made)
        if made.excess < best.excess:
            best, idle = made, 0
        else:
            idle += 1
        if best.passes or idle == PATIENCE:
            break
    return Search(tuple(attempts), best)
