"""What one training is asked to do: plain values, so that it can be handed to another process.

The request is built from the component's artifacts and parameters; nothing behind it knows TFX's types.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import TrainerSettings

TRAIN = "train"
VALIDATION = "validation"
EVAL = "eval"  # what stock ExampleGens call the rows that are held back
EXAM = "exam"


@dataclass(frozen=True)
class Examples:
    """One Examples artifact of the window.

    Attributes:
      uri: the artifact's folder.
      span: span number.
      version: version of the span.
      splits: names of the splits that it holds.
      rows: split to how many rows were written, where the artifact says so.
    """

    uri: str
    span: int
    version: int
    splits: tuple[str, ...]
    rows: Mapping[str, int] = field(default_factory=dict)

    def files(self, split: str) -> list[str]:
        """Returns the files of a split, sorted; none where it has no such split."""
        if split not in self.splits:
            return []
        folder = os.path.join(self.uri, f"Split-{split}")
        return sorted(entry.path for entry in os.scandir(folder) if entry.is_file())

    def part(self, split: str) -> Part:
        """Returns a split with what is known of it."""
        return Part(self.span, split, tuple(self.files(split)), self.rows.get(split))


@dataclass(frozen=True)
class BaseModel:
    """The champion, as a base for a warm start.

    Attributes:
      uri: the Model artifact's folder.
      warm_runs: how many trainings in a row, up to it, started warm.
    """

    uri: str
    warm_runs: int = 0


@dataclass(frozen=True)
class Request:
    """One training.

    Attributes:
      settings: how to train.
      project_dir: the folder of the user's modules.
      label: the label's name.
      newest_span: the span whose exam rows are kept from the model.
      examples: the window, raw; empty where there are only materialized rows.
      transform_graph: the TransformGraph artifact's folder.
      schema: the schema's file.
      model_dir: the Model artifact's folder, to be written.
      run_dir: the ModelRun artifact's folder, to be written.
      base_model: None without a champion.
      transformed_examples: the window, materialized, in the order of `examples`; a `run_fn` reads it, and a training
        that has no raw rows.
      chief: whether this process exports and reports; the others of a cluster only compute.
      checkpoint_dir: where the checkpoints are; empty for beside the Trainer's outputs.
      picked: why `auto` picked the strategy; empty where the settings name it.
      fingerprint: of the code and the packages: a checkpoint of other code is not gone on with.
      cache_bytes: how much memory the transformed rows may take; None for a share of what the machine has.
    """

    settings: TrainerSettings
    project_dir: str
    label: str
    newest_span: int
    examples: tuple[Examples, ...]
    transform_graph: str
    schema: str
    model_dir: str
    run_dir: str
    base_model: BaseModel | None = None
    transformed_examples: tuple[Examples, ...] = ()
    chief: bool = True
    checkpoint_dir: str = ""
    picked: str = ""
    fingerprint: str = ""
    cache_bytes: int | None = None

    @property
    def window(self) -> tuple[Examples, ...]:
        """The rows that a `build_model` is trained on: raw where there are any, else materialized."""
        return self.examples or self.transformed_examples

    def to_json(self) -> str:
        """Returns the request as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        for key in ("examples", "transformed_examples"):
            values[key] = tuple(Examples(**{**one, "splits": tuple(one["splits"])}) for one in values[key])
        if values["base_model"] is not None:
            values["base_model"] = BaseModel(**values["base_model"])
        values["settings"] = TrainerSettings.from_dict(values["settings"])
        return cls(**values)


@dataclass(frozen=True)
class Part:
    """The files of one split of one span.

    Attributes:
      span: span number.
      split: the split's name.
      files: paths of TFRecord files.
      rows: how many rows were written into them; None where nobody counted.
    """

    span: int
    split: str
    files: tuple[str, ...] = field(repr=False)
    rows: int | None = None


def training_parts(window: Iterable[Examples], newest_span: int) -> list[Part]:
    """Chooses the rows that a model learns from.

    The exam rows of older spans are training rows; those of the newest are what the model is examined on.

    Args:
      window: the Examples of the window.
      newest_span: the span that is examined on.

    Returns:
      The parts, oldest span first.
    """
    ordered = _ordered(window)
    parts = []
    for position, examples in enumerate(ordered):
        held_back = examples.span >= newest_span or position == len(ordered) - 1
        for split in (TRAIN,) if held_back else (TRAIN, EXAM):
            parts.append(examples.part(split))
    return [part for part in parts if part.files]


def validation_parts(window: Iterable[Examples]) -> list[Part]:
    """Chooses the rows that early stopping watches: of every span the split `validation`, or `eval` without one.

    Args:
      window: the Examples of the window.

    Returns:
      The parts, oldest span first.
    """
    parts = [one.part(VALIDATION if VALIDATION in one.splits else EVAL) for one in _ordered(window)]
    return [part for part in parts if part.files]


def _ordered(window: Iterable[Examples]) -> list[Examples]:
    return sorted(window, key=lambda examples: (examples.span, examples.version))


def from_artifacts(
    input_dict: Mapping[str, list[Any]], output_dict: Mapping[str, list[Any]], parameters: Mapping[str, Any]
) -> Request:
    """Builds the request of an execution.

    Args:
      input_dict: artifacts by channel; see `component.Trainer`.
      output_dict: artifacts by channel.
      parameters: the component's parameters.

    Returns:
      The request.

    Raises:
      ConfigError: the settings are wrong, or the examples are no tf.Examples.
    """
    from tfx.types import artifact_utils
    from tfx.utils import io_utils

    def one(artifact: Any) -> Examples:
        _check_payload(artifact)
        splits = tuple(artifact_utils.decode_split_names(artifact.split_names))
        counted = {split: f"rows_{split}" for split in splits if artifact.has_custom_property(f"rows_{split}")}
        return Examples(
            artifact.uri,
            int(artifact.span or 0),
            int(artifact.version or 0),
            splits,
            {split: artifact.get_int_custom_property(name) for split, name in counted.items()},
        )

    def window(channel: str) -> tuple[Examples, ...]:
        return tuple(one(artifact) for artifact in input_dict.get(channel) or [])

    examples = window("examples")
    transformed = sorted(window("transformed_examples"), key=lambda one: _position(one.uri))
    if examples:
        transformed = [
            dataclasses.replace(one, span=raw.span, version=raw.version)
            for one, raw in zip(transformed, examples, strict=False)
        ]
    newest = parameters.get("newest_span")
    if newest is None:
        newest = max((one.span for one in examples or transformed), default=0)
    base = input_dict.get("base_model") or []
    schema = input_dict.get("schema") or []
    return Request(
        settings=TrainerSettings.from_json(parameters["settings"]),
        project_dir=parameters["project_dir"],
        label=parameters["label"],
        newest_span=int(newest),
        examples=examples,
        transform_graph=artifact_utils.get_single_uri(input_dict["transform_graph"]),
        schema=io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(schema)) if schema else "",
        model_dir=artifact_utils.get_single_uri(output_dict["model"]),
        run_dir=artifact_utils.get_single_uri(output_dict["model_run"]),
        base_model=BaseModel(base[0].uri, base[0].get_int_custom_property("warm_runs")) if base else None,
        transformed_examples=tuple(transformed),
        fingerprint=parameters.get("fingerprint") or "",
    )


def _check_payload(artifact: Any) -> None:
    """Refuses rows that are no tf.Examples: TFRecords of another kind would fail far from here."""
    key, expected = "payload_format", "FORMAT_TF_EXAMPLE"
    received = artifact.get_string_custom_property(key) if artifact.has_custom_property(key) else ""
    if received not in ("", expected):
        raise ConfigError(
            "the Trainer reads tf.Examples only",
            f"received Examples with {key} {received}, expected {expected}: {artifact.uri}",
            "Choose that payload format in the ExampleGen.",
        )


def _position(uri: str) -> tuple[int, str]:
    """Orders what Transform materialized: it numbers the folders in the order of its inputs."""
    name = os.path.basename(uri.rstrip("/"))
    return (int(name) if name.isdigit() else 0, uri)
