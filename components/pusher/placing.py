"""Puts the files of a new version beside the others and shows them: the TFLite model first, the SavedModel last.

The caller holds the base path's lock. The SavedModel's rename is the commit: before it nothing has happened, after it
the version is published whatever comes next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import ConfigError
from evergreen.components.pusher import hold, versions, withdrawal
from evergreen.components.pusher.catalog import saved_model_bytes
from evergreen.components.pusher.manifest import MANIFEST_FILE, Manifest, utc_time


@dataclass(frozen=True)
class Candidate:
    """A model that passed its gates, and what its manifest will say.

    Attributes:
      saved_model: directory of the SavedModel.
      model_artifact_id: id of the Model artifact in ML Metadata.
      model_uri: its URI.
      name: the pipeline's name.
      run: id of the pipeline run.
      span: newest span of the training window.
      span_version: that span's version; None where unknown.
      model_created: the artifact's creation, milliseconds since 1970; 0 where unknown.
      pushed_by: id of the Pusher's execution.
      metrics: metrics on the exam, by name.
      champion_on_span: the earlier champion's metrics on the whole span; None without a champion.
      tflite: the chosen TFLite model's file; None to publish none.
      tflite_variant: how it was quantized.
      tflite_metrics: its metrics on the exam, by name.
      withdraw_tflite: without a TFLite model, whether the earlier versions' are to go.
      warm_up: the file of warm-up requests; empty for none. A model that brings one keeps it.
      restores: the version whose model a rollback publishes again; None otherwise.
      hold_reason: why publishing is held from the commit on; empty where it is not.
    """

    saved_model: Path
    model_artifact_id: int
    model_uri: str
    name: str
    run: str
    span: int
    span_version: int | None = None
    model_created: int = 0
    pushed_by: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    champion_on_span: dict[str, Any] | None = None
    tflite: Path | None = None
    tflite_variant: str = ""
    tflite_metrics: dict[str, Any] = field(default_factory=dict)
    withdraw_tflite: bool = False
    warm_up: bytes = b""
    restores: int | None = None
    hold_reason: str = ""


def check_source(candidate: Candidate) -> None:
    """Refuses a candidate whose files are not there.

    Args:
      candidate: the model.

    Raises:
      ConfigError: there is no SavedModel, or no TFLite model where one is named.
    """
    if not versions.is_complete(candidate.saved_model):
        raise ConfigError(
            "the model to publish is not a SavedModel",
            f"{candidate.saved_model} has no saved_model.pb",
            "Save the model with signatures by tf.saved_model.save (run_fn: into fn_args.serving_model_dir).",
        )
    if candidate.tflite is not None and not candidate.tflite.is_file():
        raise ConfigError(
            "the TFLite model to publish does not exist",
            f"{candidate.tflite} is not a file",
            "Run again, so that the Quantizer writes it anew.",
        )


def put(base: Path, version: int, candidate: Candidate, now: float) -> Path:
    """Stages both copies, then shows them.

    Args:
      base: the base path of the SavedModels.
      version: the new version's number.
      candidate: the model.
      now: seconds since 1970.

    Returns:
      The version's directory.

    Raises:
      OSError: the file system refused; what is staged is for recovery to remove.
    """
    target = base / str(version)
    tflite: dict[str, Any] | None = None
    content = b""
    if candidate.tflite is not None:
        content = _stamped(candidate.tflite, {"name": candidate.name, "version": version})
        tflite = {"variant": candidate.tflite_variant, "bytes": len(content)}
        if candidate.tflite_metrics:
            tflite["metrics"] = candidate.tflite_metrics
    staged = atomic.stage(target)
    atomic.copy_tree(candidate.saved_model, staged)
    if candidate.warm_up and not (staged / versions.WARMUP_FILE).exists():
        atomic.make_directory((staged / versions.WARMUP_FILE).parent)
        atomic.write_file(staged / versions.WARMUP_FILE, candidate.warm_up)
    manifest = Manifest(
        version=version,
        name=candidate.name,
        published=utc_time(now),
        run=candidate.run,
        span=candidate.span,
        span_version=candidate.span_version,
        model_artifact_id=candidate.model_artifact_id,
        model_uri=candidate.model_uri,
        model_created=candidate.model_created,
        pushed_by=candidate.pushed_by,
        metrics=candidate.metrics,
        champion_on_span=candidate.champion_on_span,
        restores=candidate.restores,
        tflite=tflite,
        bytes=saved_model_bytes(staged),
    )
    _write_manifest(staged, manifest)
    lite = None
    if candidate.tflite is not None:
        lite_target = versions.lite_path(base) / str(version)
        atomic.make_directory(lite_target.parent)
        lite = atomic.stage(lite_target)
        atomic.write_file(lite / versions.TFLITE_FILE, content)
        _write_manifest(lite, manifest)
    # A number that a server may have seen is never used again, even if this process dies between here and the commit.
    versions.write_highest(base, version)
    if lite is not None:
        atomic.commit(lite, lite_target)
    elif candidate.withdraw_tflite:
        withdrawal.announce(base, version)
    if candidate.hold_reason:
        hold.prepare(base, version, candidate.hold_reason, utc_time(now))
    atomic.commit(staged, target)
    return target


def _stamped(path: Path, values: dict[str, Any]) -> bytes:
    """Returns a TFLite file with these values in its metadata; one that is not of our Quantizer stays as it is."""
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        return content
    from evergreen.components.quantizer import lite_file  # brings the schema along, which few pushes need

    return lite_file.stamp(content, values)


def _write_manifest(staged: Path, manifest: Manifest) -> None:
    atomic.make_directory((staged / MANIFEST_FILE).parent)
    atomic.write_file(staged / MANIFEST_FILE, manifest.to_json())
    atomic.sync_directory(staged)
