"""Starting from the champion's weights, with embedding rows matched by token.

A weight of the new model takes the champion's weight of the same name and shape. The rows of a vocabulary's embedding
are matched by token, because row i of the champion's table is another token in a new window:

- A layer named `<vocabulary>_embedding`, where `<vocabulary>` is a `vocab_filename` of the preprocessing function,
  holds in row i the i-th token of that vocabulary, as `tft.compute_and_apply_vocabulary` numbers them; the rows behind
  the tokens (out of vocabulary, padding) are matched by their place behind them. This holds for every weight of the
  layer with at least as many rows as the vocabulary has tokens.
- What has no counterpart of the same shape keeps its fresh values and is counted in the report.

The slots of the optimizer always start fresh. Weights and vocabularies lie side by side in the champion's folder
`warm_start/`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evergreen.components import model_layout
from evergreen.components.trainer.request import BaseModel
from evergreen.components.trainer.settings import WarmStart
from evergreen.components.trainer.transform_graph import TransformGraph

_WEIGHTS = "weights.npz"
_VOCABULARIES = "vocabularies.npz"
_SUFFIX = "_embedding"


@dataclass
class Result:
    """How a training started.

    Attributes:
      warm: whether any weight came from the champion.
      reason: why it started cold; empty when warm.
      warm_runs: how many trainings in a row, this one included, started warm.
      matched: weights taken whole.
      embeddings: vocabulary to `{tokens, matched, fresh, gone}`: rows taken, started fresh, and tokens of the champion
        that the new vocabulary lacks.
      fresh: weights without a counterpart in the champion.
      changed: weights whose shape is another than the champion's; they start fresh too.
    """

    warm: bool = False
    reason: str = ""
    warm_runs: int = 0
    matched: int = 0
    embeddings: dict[str, dict[str, int]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def apply(model: Any, graph: TransformGraph, base: BaseModel | None, settings: WarmStart | None) -> Result:
    """Gives a fresh model what it can take from the champion.

    Args:
      model: a built model with fresh weights; changed in place.
      graph: the new window's transform graph.
      base: the champion; None if there is none.
      settings: None to start cold always.

    Returns:
      What was taken.
    """
    reason = _cold(base, settings)
    if reason or base is None:
        return Result(reason=reason)
    folder = model_layout.warm_start_dir(base.uri)
    with np.load(os.path.join(folder, _WEIGHTS)) as weights, np.load(os.path.join(folder, _VOCABULARIES)) as tokens:
        result = _transfer(model, graph, dict(weights), dict(tokens))
    result.warm = bool(result.matched or result.embeddings)
    result.warm_runs = base.warm_runs + 1 if result.warm else 0
    if not result.warm:
        result.reason = "no weight of the champion fits this model"
    return result


def _cold(base: BaseModel | None, settings: WarmStart | None) -> str:
    """Says why a training starts from scratch; empty when it need not."""
    if settings is None:
        return "trainer.warm_start is not set"
    if base is None:
        return "there is no champion"
    if not os.path.isfile(os.path.join(model_layout.warm_start_dir(base.uri), _WEIGHTS)):
        return "the champion keeps no weights to start from"
    if base.warm_runs >= settings.cold_every - 1:
        return f"every {settings.cold_every} runs one starts from scratch, and {base.warm_runs} in a row started warm"
    return ""


def save(model: Any, graph: TransformGraph, model_dir: str) -> None:
    """Keeps what a later training can start from.

    Args:
      model: the trained model.
      graph: the window's transform graph.
      model_dir: the Model artifact's folder.
    """
    folder = model_layout.warm_start_dir(model_dir)
    os.makedirs(folder, exist_ok=True)
    weights = names(model)
    np.savez(os.path.join(folder, _WEIGHTS), **{name: variable.numpy() for name, variable in weights.items()})
    vocabularies = {_vocabulary(name): graph.vocabulary(_vocabulary(name)) for name in weights}
    kept = {name: _tokens(tokens) for name, tokens in vocabularies.items() if tokens is not None}
    np.savez(os.path.join(folder, _VOCABULARIES), **kept)


def names(model: Any) -> dict[str, Any]:
    """Names the weights of a model the same in every process.

    Args:
      model: a built model.

    Returns:
      The variable's name (`dense_1/kernel`; the second of the same name `dense_1/kernel#2`) to the variable.
    """
    seen: Counter[str] = Counter()
    found = {}
    for variable in model.weights:
        name = variable.name.partition(":")[0]
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = variable
    return found


def _vocabulary(name: str) -> str:
    """Returns the vocabulary that a weight's layer names; empty if none."""
    layer = name.split("/")[-2] if "/" in name else ""
    return layer[: -len(_SUFFIX)] if layer.endswith(_SUFFIX) else ""


def _tokens(tokens: list[bytes]) -> np.ndarray:
    return np.array(tokens, dtype=np.bytes_) if tokens else np.empty(0, dtype="S1")


def _transfer(
    model: Any, graph: TransformGraph, weights: dict[str, np.ndarray], tokens: dict[str, np.ndarray]
) -> Result:
    result = Result()
    for name, variable in names(model).items():
        if name not in weights:
            result.fresh.append(name)
            continue
        old, new = weights[name], variable.numpy()
        vocabulary = _vocabulary(name)
        new_tokens = graph.vocabulary(vocabulary) if vocabulary in tokens else None
        if new_tokens is not None and _is_table(old, len(tokens[vocabulary])) and _is_table(new, len(new_tokens)):
            if old.shape[1:] == new.shape[1:]:
                table, counts = match_rows(new, _tokens(new_tokens), old, tokens[vocabulary])
                variable.assign(table)
                result.embeddings[vocabulary] = counts
            else:
                result.changed.append(name)
        elif old.shape == new.shape:
            variable.assign(old)
            result.matched += 1
        else:
            result.changed.append(name)
    return result


def _is_table(weight: np.ndarray, tokens: int) -> bool:
    return weight.ndim >= 1 and weight.shape[0] >= tokens


def match_rows(
    new: np.ndarray, new_tokens: np.ndarray, old: np.ndarray, old_tokens: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Moves rows of an embedding to the places of their tokens.

    Args:
      new: the fresh table, [rows, ...]; at least as many rows as `new_tokens`.
      new_tokens: tokens by row of the new table.
      old: the champion's table.
      old_tokens: tokens by row of the champion's table.

    Returns:
      The table to start from, and the counts `tokens`, `matched`, `fresh` and `gone`.
    """
    table = new.copy()
    _, new_rows, old_rows = np.intersect1d(new_tokens, old_tokens, return_indices=True)
    table[new_rows] = old[old_rows]
    extra = min(len(new) - len(new_tokens), len(old) - len(old_tokens))
    table[len(new_tokens) : len(new_tokens) + extra] = old[len(old_tokens) : len(old_tokens) + extra]
    matched = len(new_rows)
    counts = {
        "tokens": len(new_tokens),
        "matched": matched,
        "fresh": len(new_tokens) - matched,
        "gone": len(old_tokens) - matched,
    }
    return table, counts
