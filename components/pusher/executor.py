"""Executor of the Pusher: reads the artifacts' properties, publishes, writes down what was done."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from evergreen.components import atomic, model_layout
from evergreen.components.pusher import publish, versions, warmup
from evergreen.components.pusher.manifest import read_manifest

_log = logging.getLogger(__name__)

_MANIFEST_COPY = "evergreen.json"

_Artifacts = dict[str, list[types.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Publishes a model that every gate has let through; see `evergreen.components.pusher.component.Pusher`."""

    def Do(self, input_dict: _Artifacts, output_dict: _Artifacts, exec_properties: dict[str, Any]) -> None:
        """Publishes the model, unless a gate is closed.

        Args:
          input_dict: `model`, and where given `quantized_models`, `blessing`, `quantization_report`, `champion`,
            `schema` and `examples`.
          output_dict: `pushed_model`.
          exec_properties: `settings` (JSON of the configuration's `publish`), `span`, `span_version`, `name`.

        Raises:
          EvergreenError: the version could not be published, or must not be.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        span = int(exec_properties["span"])
        closed = _closed_gate(input_dict)
        if closed:
            describe_push(pushed, span, published=False, message=closed)
            return
        settings = json.loads(exec_properties["settings"])
        champion = input_dict.get("champion")
        blessings = input_dict.get("blessing") or []
        outcome = publish.publish(
            settings["base_path"],
            self._candidate(input_dict, exec_properties, settings),
            keep=settings.get("keep", 3),
            # An input that was not given is not checked; an empty one means that ML Metadata knew no champion.
            champion_model_uri=None if champion is None else "".join(artifact.uri for artifact in champion),
            examined_at=_created(blessings[0]) / 1000 if blessings and _created(blessings[0]) else None,
        )
        for warning in outcome.warnings:
            _log.warning(warning)
        describe_push(
            pushed,
            span,
            published=outcome.published,
            message=outcome.message,
            version=outcome.version,
            destination=str(outcome.path),
        )

    def _candidate(
        self, input_dict: _Artifacts, exec_properties: dict[str, Any], settings: dict[str, Any]
    ) -> publish.Candidate:
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = next(iter(input_dict.get("blessing") or []), None)
        chosen = [a for a in input_dict.get("quantized_models") or [] if a.get_int_custom_property("chosen") == 1]
        tflite = artifact_utils.get_single_instance(chosen) if chosen else None
        run, execution = "", ""
        if self._context:
            run = self._context.pipeline_run_id or ""
            execution = self._context._unique_id or ""  # the execution's id, for which TFX has no public name
        saved_model = Path(model_layout.serving_dir(model.uri))
        return publish.Candidate(
            saved_model=saved_model,
            model_artifact_id=model.id,
            model_uri=model.uri,
            model_created=_created(model),
            name=exec_properties["name"],
            run=run,
            span=int(exec_properties["span"]),
            span_version=exec_properties.get("span_version"),
            pushed_by=execution,
            metrics=_json_property(blessing, "metrics") or {},
            champion_on_span=_json_property(blessing, "champion_on_span") or None,
            tflite=Path(model_layout.serving_dir(tflite.uri)) / versions.TFLITE_FILE if tflite else None,
            withdraw_tflite=any(
                report.get_int_custom_property("withdraw") == 1
                for report in input_dict.get("quantization_report") or []
            ),
            tflite_metrics=_json_property(tflite, "metrics") or {},
            tflite_variant=tflite.get_string_custom_property("quantization") if tflite else "",
            warm_up=_warm_up(input_dict, saved_model, settings, exec_properties["name"]),
        )


def _warm_up(input_dict: _Artifacts, saved_model: Path, settings: dict[str, Any], name: str) -> bytes:
    """Makes the file of warm-up requests; a record that the model does not answer is left out, with a warning."""
    uris = {key: [artifact.uri for artifact in input_dict.get(key) or []] for key in ("schema", "examples")}
    rows = warmup.rows_for(settings.get("warmup", "schema"), uris["schema"], uris["examples"])
    if not rows or not versions.is_complete(saved_model):
        return b""
    made = warmup.make(saved_model, rows, name)
    for warning in made.warnings:
        _log.warning(warning)
    _log.info("%d warm-up requests", made.records)
    return made.content


def _closed_gate(input_dict: _Artifacts) -> str:
    """Says which gate is closed, or ''. Our pipeline skips the Pusher then; in another pipeline nothing may."""
    for key, verdict, words in (
        ("blessing", "blessed", "Not published: the Evaluator has not blessed the model."),
        ("quantization_report", "passed", "Not published: a required quantized variant was lost."),
    ):
        if any(artifact.get_int_custom_property(verdict) != 1 for artifact in input_dict.get(key) or []):
            return words
    return ""


def _created(artifact: types.Artifact) -> int:
    """Returns when ML Metadata first knew an artifact, milliseconds since 1970; 0 outside of a pipeline."""
    return artifact.mlmd_artifact.create_time_since_epoch


def _json_property(artifact: types.Artifact | None, name: str) -> Any:
    text = artifact.get_string_custom_property(name) if artifact else ""
    return json.loads(text) if text else None


def describe_push(
    pushed: types.Artifact, span: int, *, published: bool, message: str, version: int = 0, destination: str = ""
) -> None:
    """Sets the stock Pusher's properties and ours, and copies the version's manifest into the artifact.

    Args:
      pushed: the PushedModel.
      span: newest span of the training window.
      published: whether this push made the version, and did not find it there.
      message: what was done, in a sentence.
      version: the version that holds the model; 0 where none does.
      destination: its directory.
    """
    _log.info(message)
    pushed.set_int_custom_property("pushed", int(version > 0))
    pushed.set_int_custom_property("published", int(published))
    pushed.set_int_custom_property("span", span)
    pushed.set_string_custom_property("message", message)
    if not version:
        return
    pushed.set_string_custom_property("pushed_version", str(version))
    pushed.set_string_custom_property("pushed_destination", destination)
    manifest = read_manifest(Path(destination))
    if manifest is not None:
        atomic.make_directory(pushed.uri)
        atomic.write_file(Path(pushed.uri) / _MANIFEST_COPY, manifest.to_json())
