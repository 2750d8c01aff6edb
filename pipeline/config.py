"""The configuration of a model project: evergreen.yaml, found, read, checked, and its places on disk.

`load` gives a `Config` or one `ConfigError` with every mistake. It looks at no other file than the YAML; whether the
files and functions that it names exist is asked by `config_checks.check_files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field, PrivateAttr

from evergreen.components.errors import ConfigError
from evergreen.pipeline import connection, yaml_file
from evergreen.pipeline.config_checks import check_between, check_files
from evergreen.pipeline.config_errors import Problem, config_error, from_validation, inner_model, names
from evergreen.pipeline.settings import (
    BeamSettings,
    DataSettings,
    EvaluateSettings,
    ExtraComponent,
    FunctionText,
    MetadataText,
    Name,
    PathText,
    Section,
    ServingSettings,
    TrainerSettings,
)
from evergreen.pipeline.settings_publish import PublishSettings
from evergreen.pipeline.settings_quantize import QuantizeSettings
from evergreen.pipeline.settings_schedule import ScheduleSettings

__all__ = ["FILE_NAME", "Config", "NoProject", "check_files", "find", "load"]

FILE_NAME = "evergreen.yaml"
# How far a server's answer may be from the trained model's, in float32 and in mixed precision.
TOLERANCE, MIXED_TOLERANCE = 1e-3, 2e-2


class NoProject(ConfigError):
    """There is no configuration in the current folder or above it."""


class Config(Section):
    """A model project's configuration; `load` makes it. Paths in it are absolute, or URIs."""

    name: Name = Field(description="The model's name, for the pipeline and for the server.")
    workspace: PathText = Field(
        ".evergreen", validate_default=True, description="The folder for artifacts, metadata.db, locks and logs."
    )
    data: DataSettings = Field(description="Where the spans are, and how a span is split.")
    schema_path: PathText = Field(alias="schema", description="The data contract, a schema.pbtxt curated by hand.")
    features: FunctionText = Field(description="`module:function`, a TFX Transform `preprocessing_fn`.")
    trainer: TrainerSettings = Field(description="How a model is trained.")
    evaluate: EvaluateSettings = Field(description="Gate 2: what a model must show on rows that nobody trained on.")
    quantize: QuantizeSettings = Field(default_factory=QuantizeSettings, description="Gate 3: the TFLite variants.")
    serving: ServingSettings = Field(
        default_factory=ServingSettings, description="Gate 4: a real model server answers real rows."
    )
    publish: PublishSettings = Field(description="Where versions go.")
    schedule: ScheduleSettings | None = Field(None, description="When a retraining starts by itself.")
    metadata: MetadataText = Field(
        "sqlite",
        description="Where ML Metadata keeps its records: `sqlite` (metadata.db in the workspace), "
        "`mysql://user@host/database` or `postgresql://user@host/database`; the password comes from "
        f"{connection.PASSWORD_VARIABLE}. `?{connection.TLS}` behind a MySQL database encrypts the connection.",
    )
    beam: BeamSettings = Field(default_factory=BeamSettings, description="What runs the data-parallel stages.")
    components: list[ExtraComponent] = Field(default_factory=list, description="TFX components of the project's own.")

    _file: Path = PrivateAttr()

    @property
    def file(self) -> Path:
        """The YAML file."""
        return self._file

    @property
    def project_dir(self) -> Path:
        """The YAML file's folder, where the user's modules are found."""
        return self._file.parent

    @property
    def workspace_dir(self) -> Path:
        """The workspace."""
        return Path(self.workspace)

    @property
    def pipeline_root(self) -> Path:
        """Where the artifacts lie."""
        return self.workspace_dir / "artifacts"

    @property
    def db_path(self) -> Path:
        """The SQLite file of ML Metadata, where that is the store."""
        return self.workspace_dir / "metadata.db"

    @property
    def logs_dir(self) -> Path:
        """Where each run has a folder of logs."""
        return self.workspace_dir / "logs"

    @property
    def lock_path(self) -> Path:
        """The file that a run locks."""
        return self.workspace_dir / "run.lock"

    @property
    def tolerance(self) -> float:
        """How far a server's answer may be from the trained model's."""
        given = self.serving.tolerance
        return given if given is not None else TOLERANCE if self.trainer.precision == "float32" else MIXED_TOLERANCE

    def publish_settings(self) -> dict[str, Any]:
        """Returns the section `publish` as the Pusher takes it, with the tolerance of the watch."""
        values = self.publish.model_dump(mode="json")
        return {**values, "watch": {**values["watch"], "tolerance": self.tolerance}}

    @property
    def connection(self) -> connection.Connection:
        """The metadata store's place."""
        return connection.parse(self.metadata, self.db_path)


def find(folder: Path) -> Path:
    """Finds the nearest evergreen.yaml.

    Args:
      folder: where to begin; the folders above follow.

    Returns:
      The file.

    Raises:
      NoProject: there is none.
    """
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    raise NoProject(
        f"there is no {FILE_NAME} here",
        f"looked in {folder} and the folders above it",
        "Change to the project's folder, name the file with -c FILE, or start a project with `evergreen init`.",
    )


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a configuration.

    Args:
      path: the YAML file, or a folder that holds evergreen.yaml; None to look in the current folder and above.
      overrides: `key.path=value` each, the value read as YAML; they win over the file. Relative paths among them are
        relative to the file, as in it.

    Returns:
      The configuration.

    Raises:
      ConfigError: with every mistake at once.
    """
    file = find(Path.cwd()) if path is None else Path(path).expanduser().absolute()
    if file.is_dir():
        file = file / FILE_NAME
    if not file.is_file():
        raise ConfigError(
            f"the configuration file {path} does not exist",
            f"received -c {path}, expected a YAML file",
            "Correct the path, or leave -c away inside of the project's folder.",
        )
    document = yaml_file.read(file)
    values = with_overrides(document.values, overrides)
    overridden = [_parse_override(override)[0] for override in overrides]
    context = {"folder": str(file.parent)}
    problems: list[Problem] = []
    config = None
    try:
        config = Config.model_validate(values, context=context)
    except pydantic.ValidationError as error:
        problems += from_validation(error, Config)
    problems += check_between(_valid_sections(values, context))
    if problems or config is None:
        raise config_error(problems, file.name, document, overridden)
    config._file = file
    return config


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Sets keys in a configuration's plain values.

    Args:
      values: the values; not changed.
      overrides: `key.path=value` each, the value read as YAML.

    Returns:
      A copy with the keys set.

    Raises:
      ConfigError: an override has another form, or its path runs into a value that holds no keys.
    """
    changed = dict(values)
    for override in overrides:
        path, value = _parse_override(override)
        changed = _with(changed, path, value, override)
    return changed


def _valid_sections(values: Mapping[str, Any], context: Mapping[str, str]) -> dict[str, Any]:
    """Validates each section by itself, so that checks between keys run although another one is wrong."""
    found: dict[str, Any] = {}
    for name, info in names(Config).items():
        section, given = inner_model(info.annotation), values.get(name, {})
        if section is None or not isinstance(given, dict) or (not given and info.default is None):
            continue
        try:
            found[name] = section.model_validate(given, context=context)
        except pydantic.ValidationError:
            continue
    workspace = values.get("workspace", ".evergreen")
    if isinstance(workspace, str) and workspace:
        found["workspace"] = pydantic.TypeAdapter(PathText).validate_python(workspace, context=dict(context))
    return found


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(
            f"--set {text} is not understood",
            f"received {text!r}, expected key.path=value",
            "Write it like --set trainer.steps=500; the value is read as YAML.",
        )
    return path, yaml_file.parse_value(value, f"the value of --set {key}")


def _with(values: Mapping[str, Any], path: Iterable[str], value: Any, override: str) -> dict[str, Any]:
    """Returns a copy of the values in which one key is set."""
    first, *rest = path
    changed = dict(values)
    if not rest:
        changed[first] = value
        return changed
    inner = changed.get(first)
    if inner is not None and not isinstance(inner, Mapping):
        raise ConfigError(
            f"--set {override} cannot be applied",
            f"`{first}` is {inner!r} in the file and holds no keys",
            "Correct the key's path.",
        )
    changed[first] = _with(inner or {}, rest, value, override)
    return changed
