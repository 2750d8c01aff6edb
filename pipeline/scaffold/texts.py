"""The texts of a new project: evergreen.yaml with a comment on what its name does not say, features.py, model.py."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.pipeline.scaffold.guess import Guess
from evergreen.pipeline.scaffold.profile import Profile
from evergreen.pipeline.yaml_file import dump_value

TEMPLATES = Path(__file__).parent / "templates"
_HEAD = "# {name}: predicts `{label}`. Written by `evergreen init`; docs/configuration.md explains every key.\n\n"
_COMMENTS: Mapping[str, Any] = {
    "workspace": "artifacts, metadata, logs",
    "data": {
        "window": "train on so many spans, the newest included",
        "min_window": "with fewer accepted spans nothing is trained",
        "time": "orders a span: the exam is its tail",
        "split_key": "rows with equal values stay on one side of the split",
        "exam": "share of the newest span that judges the model and trains none",
        "validation": "share of the rest, for early stopping",
        "min_rows": "a smaller span is rejected",
        "success_marker": "a span's folder without this file is not complete yet",
    },
    "schema": "what the data must look like; curate it",
    "trainer": {
        "strategy": "`mirrored` for several devices",
        "steps": "at most",
        "warm_start": "from the live model's weights; every tenth run from scratch",
        "hyperparameters": "handed to the model function",
    },
    "evaluate": {"slices": "measured each", "max_regression": "gate 2: how much worse than the live model"},
    "quantize": {"max_drop": "gate 3: how much worse than the unquantized model"},
    "publish": {"base_path": "TensorFlow Serving reads this", "keep": "so many versions stay"},
}
_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 30, 300, 3000
_FEW_SLICES = 30
_COMMENT_FITS = 60
_BINARY_METRICS = ["auc", "log_loss", "accuracy"]
_VALUE_METRICS = ["root_mean_squared_error", "mean_absolute_error", "r2"]


@dataclass(frozen=True)
class Placed:
    """Where the spans are, or will be.

    Attributes:
      path: for `data.path`.
      pattern: for `data.pattern`.
      marker: for `data.success_marker`.
      spans: how many.
      rows: rows of one, about.
    """

    path: str
    pattern: str
    marker: str | None
    spans: int
    rows: int

    @property
    def unit(self) -> str:
        """What a span is: `day`, `month`, or `all` where it is none of these."""
        return "day" if "{DD}" in self.pattern else "month" if "{MM}" in self.pattern else "all"


def config_values(name: str, placed: Placed, profile: Profile, guess: Guess) -> dict[str, Any]:
    """Returns the configuration as plain values.

    Args:
      name: the project's name.
      placed: where the spans are.
      profile: what the columns hold.
      guess: what they are for.
    """
    # The rows of a day cannot be ordered by their day.
    ordered = guess.time_format is not None and guess.time_format.sorts and (guess.clock or placed.unit != "day")
    window = 7 if placed.unit == "day" else 3
    in_window = placed.rows * min(window, placed.spans)
    batch = 2 ** int(math.log2(min(max(in_window / 50, 32), 512)))
    steps = min(max(round(_EPOCHS * in_window / batch / 100) * 100, _FEWEST_STEPS), _MOST_STEPS)
    metrics = _BINARY_METRICS if guess.binary else _VALUE_METRICS
    label = profile.column(guess.label)
    bound = 0.01 if guess.binary else float(f"{0.02 * label.deviation:.2g}")
    hyperparameters: dict[str, Any] = {"hidden_units": [64, 32], "dropout": 0.1, "learning_rate": 0.001}
    if not guess.binary:
        hyperparameters["label_mean"] = float(f"{label.mean:.6g}")
        hyperparameters["label_deviation"] = float(f"{label.deviation:.6g}")
    counted = {name: profile.column(name).counts for name in guess.categorical}
    sliced = [name for name, counts in counted.items() if counts and len(counts) < _FEW_SLICES]
    return {
        "name": name,
        "workspace": ".evergreen",
        "data": {
            "path": placed.path,
            "pattern": placed.pattern,
            "format": profile.format,
            **({"csv": {"delimiter": profile.delimiter}} if profile.delimiter != "," else {}),
            "window": window,
            "min_window": 1,
            **({"time": guess.time} if ordered else {}),
            **({"split_key": guess.time} if ordered and not guess.clock and placed.unit != "all" else {}),
            "exam": 0.25,
            "validation": 0.1,
            "min_rows": max(1, placed.rows // 10),
            **({"success_marker": placed.marker} if placed.marker else {}),
        },
        "schema": "schema.pbtxt",
        "features": "features:preprocessing_fn",
        "trainer": {
            "model": "model:build_model",
            "strategy": "single",
            "seed": 0,
            "global_batch_size": batch,
            "steps": steps,
            "early_stopping": {"metric": "val_loss", "patience": 5, "every": max(steps // 300 * 10, 10)},
            "warm_start": {"cold_every": 10},
            "hyperparameters": hyperparameters,
        },
        "evaluate": {
            "label": guess.label,
            "metrics": metrics,
            "slices": [[name] for name in sliced[:1]],
            "max_regression": {metrics[0]: bound},
        },
        "quantize": {"variants": ["float16", "dynamic_int8"], "max_drop": {metrics[0]: bound}},
        "publish": {"base_path": f"models/{name}", "keep": 3},
    }


def yaml_text(values: Mapping[str, Any], label: str) -> str:
    """Writes the configuration, the keys of the top two levels on a line each.

    Args:
      values: the configuration.
      label: the column that is predicted.
    """
    return _HEAD.format(name=values["name"], label=label) + _lines(values, _COMMENTS)


def _lines(values: Mapping[str, Any], comments: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in values.items():
        comment = comments.get(key)
        if isinstance(value, Mapping) and not indent:
            lines.append(f"{key}:\n" + _lines(value, comment if isinstance(comment, Mapping) else {}, "  "))
        else:
            text = f"{indent}{dump_value(key)}: {dump_value(value)}"
            fits = isinstance(comment, str) and len(text) <= _COMMENT_FITS
            lines.append(f"{text:<40}  # {comment}\n" if fits else f"{text}\n")
    return "".join(lines)


def features_text(guess: Guess) -> str:
    """Writes features.py with the columns' names.

    Args:
      guess: what the columns are for.
    """
    text = (TEMPLATES / "features.py").read_text(encoding="utf-8")
    lists = {"LABEL": guess.label, "NUMERIC": guess.numeric, "CATEGORICAL": guess.categorical}
    for constant, value in lists.items():
        text = text.replace(f"{constant} = ...\n", f"{constant} = {_python(value)}\n")
    left_out = [f"#   {_quoted(name)}: {why}\n" for name, why in guess.left_out.items()]
    return text.replace("# Left out: ...\n", "".join(["# Left out:\n", *left_out]) if left_out else "")


def _python(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return "[" + "".join(f"\n    {_quoted(name)}," for name in value) + ("\n]" if value else "]")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def model_text(binary: bool) -> str:
    """Writes model.py with the output for the kind of label.

    Args:
      binary: whether the label is yes or no.
    """
    text = (TEMPLATES / "model.py").read_text(encoding="utf-8")
    chosen = r"\1" if binary else r"\2"
    return re.sub(r" +# if binary\n(.*?) +# else\n(.*?) +# end\n", chosen, text, flags=re.DOTALL)
