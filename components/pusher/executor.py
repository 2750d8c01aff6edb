"""Executor of the Pusher: reads the artifacts' properties, publishes, writes down what was done."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from evergreen.components import atomic, model_layout, progress
from evergreen.components.pusher import catalog, publish, versions, warmup, watch, watch_plan, withdrawal

_log = logging.getLogger(__name__)

_MANIFEST_COPY = "evergreen.json"

_Artifacts = dict[str, list[types.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Publishes a model that every gate has let through; see `evergreen.components.pusher.component.Pusher`."""

    def Do(self, input_dict: _Artifacts, output_dict: _Artifacts, exec_properties: dict[str, Any]) -> None:
        """Publishes the model, unless a gate is closed.

        Args:
          input_dict: `model`, and where given `quantized_models`, `blessing`, `quantization_report`, `infra_blessing`,
            `champion`, `schema`, `examples` and `evaluation`.
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
        watching = watch_plan.parse_settings(settings)
        if versions.is_uri(settings["base_path"]):
            # Probation is a matter of files beside the versions.
            self._publish(input_dict, exec_properties, settings, pushed, None)
            return
        with (
            watch.Watch(watching, settings["base_path"], exec_properties["name"], progress.report) as watched,
            watched.held() if watching.servers else nullcontext(),
        ):
            _tell(watched.finish())
            watched.check()
            self._publish(input_dict, exec_properties, settings, pushed, watched if watching.servers else None)

    def _publish(
        self,
        input_dict: _Artifacts,
        exec_properties: dict[str, Any],
        settings: dict[str, Any],
        pushed: types.Artifact,
        watched: watch.Watch | None,
    ) -> None:
        """Publishes the model, and watches it where there is a watch."""
        champion = input_dict.get("champion")
        blessings = input_dict.get("blessing") or []
        uris = ["".join(artifact.uri for artifact in input_dict.get(key) or []) for key in ("examples", "evaluation")]
        outcome = publish.publish(
            settings["base_path"],
            self._candidate(input_dict, exec_properties, settings),
            keep=settings.get("keep", 3),
            protected=watch.protected(watch_plan.parse_settings(settings), exec_properties["name"]),
            announce=(lambda version: watched.announce(version, *uris)) if watched is not None else None,
            # An input that was not given is not checked; an empty one means that ML Metadata knew no champion.
            champion_model_uri=None if champion is None else "".join(artifact.uri for artifact in champion),
            examined_at=_created(blessings[0]) / 1000 if blessings and _created(blessings[0]) else None,
        )
        for warning in outcome.warnings:
            _log.warning(warning)
        ended = _tell(watched.run()) if watched is not None and outcome.published else None
        describe_push(
            pushed,
            int(exec_properties["span"]),
            published=outcome.published and not (ended and ended.withdrawn),
            message=f"{outcome.message} {ended.text}" if ended else outcome.message,
            version=outcome.version,
            destination=str(outcome.path),
            reason=ended.reason if ended else "",
            measured=ended.measured if ended else None,
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
        ("infra_blessing", "blessed", "Not published: no server answered with the model as it should."),
    ):
        if any(artifact.get_int_custom_property(verdict) != 1 for artifact in input_dict.get(key) or []):
            return words
    return ""


def _created(artifact: types.Artifact) -> int:
    """Returns when ML Metadata first knew an artifact, milliseconds since 1970; 0 outside of a pipeline."""
    return artifact.mlmd_artifact.create_time_since_epoch


def _withdrawn_path(destination: str) -> str:
    """Returns where the files of a version lie once it has been withdrawn."""
    parent, slash, name = destination.rpartition("/")
    return f"{parent}{slash}{withdrawal.PREFIX}{name}"


def _tell(ended: watch_plan.Watched | None) -> watch_plan.Watched | None:
    """Writes how a watch ended into the log, and hands it on."""
    if ended is not None:
        _log.info(ended.text)
        for warning in ended.warnings:
            _log.warning(warning)
    return ended


def _json_property(artifact: types.Artifact | None, name: str) -> Any:
    text = artifact.get_string_custom_property(name) if artifact else ""
    return json.loads(text) if text else None


def describe_push(
    pushed: types.Artifact,
    span: int,
    *,
    published: bool,
    message: str,
    version: int = 0,
    destination: str = "",
    reason: str = "",
    measured: dict[str, Any] | None = None,
) -> None:
    """Sets the stock Pusher's properties and ours, and copies the version's manifest into the artifact.

    Args:
      pushed: the PushedModel.
      span: newest span of the training window.
      published: whether this push made the version, and did not find it there.
      message: what was done, in a sentence.
      version: the version that holds the model; 0 where none does.
      destination: its directory.
      reason: why the version was withdrawn after it had been published; empty where it was not.
      measured: what a canary's trial measured; None without one.
    """
    _log.info(message)
    pushed.set_int_custom_property("pushed", int(version > 0 and not reason))
    pushed.set_int_custom_property("published", int(published))
    pushed.set_int_custom_property("withdrawn", int(bool(reason)))
    pushed.set_int_custom_property("span", span)
    pushed.set_string_custom_property("message", message)
    if reason:
        pushed.set_string_custom_property("reason", reason)
    if measured:
        pushed.set_string_custom_property("canary", json.dumps(measured))
    if not version:
        return
    pushed.set_string_custom_property("pushed_version", str(version))
    pushed.set_string_custom_property("pushed_destination", destination)
    # A version that was withdrawn lies under another name.
    manifest = catalog.version_manifest(destination) or catalog.version_manifest(_withdrawn_path(destination))
    if manifest is not None:
        atomic.make_directory(pushed.uri)
        atomic.write_file(Path(pushed.uri) / _MANIFEST_COPY, manifest.to_json())
