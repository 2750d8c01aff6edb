"""What a TFLite file says of itself: features with their meaning, labels, and where its ranges come from.

`evergreen.components.quantizer.lite_file.metadata` reads it; docs/quantization.md shows how to without Evergreen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evergreen.components import model_layout

_MOST_VALUES = 50
_MISSING = {"string": "", "float32": "NaN", "int64": model_layout.MISSING_INT}


def describe_file(
    graph: Any, names: Iterable[str], raw: bool, label: str, probability: bool, threshold: float
) -> dict[str, Any]:
    """Describes inputs and output.

    Args:
      graph: the `TransformGraph`.
      names: the transformed features that the model reads.
      raw: whether the file takes raw features.
      label: what is predicted.
      probability: whether the answer is the probability of the label being 1, or a value.
      threshold: from which on a probability counts as a yes.

    Returns:
      `inputs` (`raw` or `transformed`), `features`, `output` and `labels`; what JSON can say.
    """
    names = list(names)
    features = raw_features(graph, names) if raw else transformed_features(graph, names)
    output: dict[str, Any] = {"name": model_layout.Signature.PREDICTIONS, "of": label}
    if probability:
        output |= {"meaning": f"the probability that {label} is 1", "threshold": threshold}
    else:
        output |= {"meaning": f"the value of {label}"}
    labels = {"0": f"{label} is 0", "1": f"{label} is 1"} if probability else {}
    return {"inputs": "raw" if raw else "transformed", "features": features, "output": output, "labels": labels}


def raw_features(graph: Any, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describes raw features by the schema: type, how a missing value is said, values or range, the comment on it."""
    spec = graph.parsing_spec(list(names))
    schema = graph.output.raw_metadata.schema
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    by_name = {feature.name: feature for feature in schema.feature}
    return {name: _feature(one.dtype.name, by_name.get(name), domains) for name, one in spec.items()}


def transformed_features(graph: Any, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Describes transformed features: type, and the vocabulary's file where the preprocessing kept one by that name."""
    found = {}
    for name in names:
        entry: dict[str, Any] = {"type": graph.specs[name].dtype.name}
        if (vocabulary := graph.vocabulary(name)) is not None:
            entry["vocabulary_size"] = len(vocabulary)
        found[name] = entry
    return found


def calibration(span: int, split: str, rows: int, seed: int) -> dict[str, Any]:
    """Describes where the ranges of activations come from.

    Args:
      span: of the Examples artifact.
      split: of it.
      rows: how many were used.
      seed: that chose them.
    """
    return {"span": span, "split": split, "rows": rows, "seed": seed}


def _feature(dtype: str, feature: Any, domains: Mapping[str, list[str]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": dtype, "missing": _MISSING.get(dtype)}
    if feature is None:
        return entry
    if feature.annotation.comment:
        entry["meaning"] = " ".join(feature.annotation.comment)
    if feature.HasField("int_domain"):
        entry["range"] = [feature.int_domain.min, feature.int_domain.max]
    elif feature.HasField("float_domain"):
        entry["range"] = [feature.float_domain.min, feature.float_domain.max]
    values = list(feature.string_domain.value) or domains.get(feature.domain, [])
    if 0 < len(values) <= _MOST_VALUES:
        entry["values"] = values
    elif values:
        entry["values"] = f"{len(values)} known ones"
    return entry
