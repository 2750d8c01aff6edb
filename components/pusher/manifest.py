"""The manifest of a published version: `assets.extra/evergreen.json`, which says where the version came from.

TensorFlow Serving ignores the file. It is what joins a directory in the base path to ML Metadata: the champion is the
Model that the live version's manifest names.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from evergreen.components.errors import EvergreenError

MANIFEST_FILE = "assets.extra/evergreen.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What is known of one published version.

    Attributes:
      version: the version number.
      name: the pipeline's name.
      published: ISO-8601 time of the push, UTC.
      run: id of the pipeline run.
      span: newest span of the training window.
      span_version: that span's version; None where unknown.
      model_artifact_id: id of the Model artifact in ML Metadata.
      model_uri: its URI.
      model_created: its creation in ML Metadata, milliseconds since 1970; 0 where unknown. A workspace that was thrown
        away and made anew gives the same ids and URIs to other models; the time tells them apart.
      pushed_by: id of the Pusher's execution; empty where unknown.
      metrics: the model's metrics on the exam, by name.
      champion_on_span: the earlier champion's metrics on the whole span before any training; None without a champion.
      restores: the version whose model a rollback has published again; None otherwise.
      tflite: `{"variant": str, "bytes": int, "metrics": dict}` of the paired TFLite model, the metrics where they are
        known; None without one.
      bytes: size of the SavedModel.
    """

    version: int
    name: str
    published: str
    run: str
    span: int
    model_artifact_id: int
    model_uri: str
    bytes: int
    span_version: int | None = None
    model_created: int = 0
    pushed_by: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    champion_on_span: dict[str, Any] | None = None
    restores: int | None = None
    tflite: dict[str, Any] | None = None

    def carries(self, model_artifact_id: int, model_uri: str, model_created: int) -> bool:
        """Says whether this version is the given Model artifact.

        Args:
          model_artifact_id: id in ML Metadata.
          model_uri: the artifact's URI.
          model_created: milliseconds since 1970, `create_time_since_epoch` of the artifact; 0 where unknown.
        """
        return (
            self.model_artifact_id == model_artifact_id
            and self.model_uri == model_uri
            and (not self.model_created or not model_created or self.model_created == model_created)
        )

    def to_json(self) -> str:
        """Returns the file's contents."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


# JSON types by field; a bool is no number here.
_TYPES: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "name": (str,),
    "published": (str,),
    "run": (str,),
    "span": (int,),
    "model_artifact_id": (int,),
    "model_uri": (str,),
    "bytes": (int,),
    "span_version": (int, type(None)),
    "model_created": (int,),
    "pushed_by": (str,),
    "metrics": (dict,),
    "champion_on_span": (dict, type(None)),
    "restores": (int, type(None)),
    "tflite": (dict, type(None)),
}


def utc_time(seconds: float) -> str:
    """Writes seconds since 1970 as ISO-8601 in UTC, such as `2024-05-01T03:00:12Z`, which sorts as text."""
    return datetime.fromtimestamp(int(seconds), tz=timezone.utc).isoformat().replace("+00:00", "Z")


def _broken(where: str, reason: str) -> EvergreenError:
    return EvergreenError(
        "a version's manifest cannot be read",
        f"{where}: {reason}",
        "The version serves all the same; remove its directory from the base path if it should not be there.",
    )


def parse_manifest(text: str, where: str) -> Manifest:
    """Reads a manifest's contents.

    Args:
      text: JSON; keys that this release does not know are passed over.
      where: what to call it in an error.

    Returns:
      The manifest.

    Raises:
      EvergreenError: it is no JSON object, of a newer format, or a key is missing or of another type.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _broken(where, f"it is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise _broken(where, "it is not a JSON object")
    if data.get("format") != FORMAT:
        raise _broken(where, f"received format={data.get('format')!r}, expected {FORMAT}, which this release writes")
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Manifest):
        if item.name not in data:
            required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            if required:
                raise _broken(where, f"the key {item.name!r} is missing")
            continue
        value, types = data[item.name], _TYPES[item.name]
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise _broken(where, f"received {item.name}={value!r}, expected {expected}")
        values[item.name] = value
    return Manifest(**values)


def read_manifest(version_path: Path) -> Manifest | None:
    """Reads the manifest of a version.

    Args:
      version_path: the version's directory.

    Returns:
      The manifest, or None where there is none: somebody else put the version there, or it has just gone.

    Raises:
      EvergreenError: the manifest is broken.
    """
    path = version_path / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, str(path))
