"""What must hold between the keys of a configuration, and between the configuration and the files that it names.

`check_between` is part of loading and reads no file; `check_files` runs before a pipeline is planned, so that a missing
schema or a misspelt function is found before the first stage and not after an hour. Nothing of the user's code is
imported.
"""

from __future__ import annotations

import ast
import importlib.machinery
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.components import schema_file, user_code
from evergreen.components.errors import ConfigError
from evergreen.components.evaluator import metrics as known_metrics
from evergreen.components.evaluator.settings import RESERVED_COLUMNS
from evergreen.components.trainer import settings as component_settings
from evergreen.pipeline.config_errors import Problem, did_you_mean, mismatch
from evergreen.pipeline.settings import (
    DataSettings,
    EvaluateSettings,
    TrainerSettings,
    is_uri,
)
from evergreen.pipeline.settings_publish import PublishSettings
from evergreen.pipeline.settings_quantize import QuantizeSettings
from evergreen.pipeline.settings_schedule import ScheduleSettings
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.yaml_file import KeyPath

if TYPE_CHECKING:
    from evergreen.pipeline.config import Config


def check_between(sections: Mapping[str, Any]) -> list[Problem]:
    """Checks what must hold between keys.

    Args:
      sections: the sections that are valid in themselves, by their names; also `workspace`, a path.

    Returns:
      The mistakes.
    """
    data: DataSettings | None = sections.get("data")
    trainer: TrainerSettings | None = sections.get("trainer")
    evaluate: EvaluateSettings | None = sections.get("evaluate")
    quantize: QuantizeSettings | None = sections.get("quantize")
    publish: PublishSettings | None = sections.get("publish")
    schedule: ScheduleSettings | None = sections.get("schedule")
    problems: list[Problem] = []
    if data is not None:
        problems += _data(data)
    if trainer is not None:
        problems += _trainer(trainer, data)
    if evaluate is not None:
        problems += _evaluate(evaluate)
    if quantize is not None:
        problems += _quantize(quantize, evaluate)
    if publish is not None and sections.get("workspace"):
        problems += _places(publish, sections["workspace"])
    if publish is not None:
        problems += _publish(publish)
    if schedule is not None:
        problems += _schedule(schedule, evaluate)
    return problems


def _schedule(schedule: ScheduleSettings, evaluate: EvaluateSettings | None) -> Iterator[Problem]:
    if schedule.cron and schedule.every:
        yield Problem(("schedule",), "expected `cron` or `every`, one of the two")
    if not schedule.starts_by_itself:
        yield Problem(("schedule",), "expected `cron`, `every`, `on_new_span`, `on_drift` or `on_metric_drop`")
    for metric in schedule.on_metric_drop:
        if evaluate is not None and metric not in evaluate.metrics:
            yield _unknown(
                ("schedule", "on_metric_drop", metric), metric, evaluate.metrics, "one of `evaluate.metrics`"
            )


def _data(data: DataSettings) -> Iterator[Problem]:
    if data.min_window > data.window:
        yield mismatch(("data", "min_window"), data.min_window, f"at most `data.window`, which is {data.window}")
    if isinstance(data.exam, float) and data.exam + data.validation >= 1:
        yield mismatch(
            ("data", "validation"),
            data.validation,
            f"less than {1 - data.exam:g}: with `data.exam` it must stay below 1",
        )
    try:
        pattern = Pattern(data.pattern)
    except ConfigError as error:
        yield mismatch(("data", "pattern"), data.pattern, error.reason)
        return
    if data.success_marker is None:
        return
    if "/" in data.success_marker:
        yield mismatch(("data", "success_marker"), data.success_marker, "a file's name without folders")
    elif not pattern.has_folder:
        yield mismatch(
            ("data", "success_marker"),
            data.success_marker,
            f"a `data.pattern` in which a folder stands for the span, such as `{{SPAN}}/*`; it is `{data.pattern}`",
        )


def _trainer(trainer: TrainerSettings, data: DataSettings | None) -> Iterator[Problem]:
    for key, received, expected in component_settings.parse(trainer.model_dump(mode="json")).problems():
        path = tuple(key.split("."))
        words = f"received {received}, expected {expected}"
        yield Problem(path, words) if path == ("trainer",) else mismatch(path, received, expected)
    stopping = trainer.early_stopping
    if stopping is None:
        return
    if stopping.every > trainer.steps:
        yield mismatch(
            ("trainer", "early_stopping", "every"), stopping.every, f"at most `trainer.steps`, which is {trainer.steps}"
        )
    if data is not None and data.validation == 0:
        yield mismatch(
            ("data", "validation"), 0, "more than 0, because `trainer.early_stopping` measures on these rows"
        )


def _evaluate(evaluate: EvaluateSettings) -> Iterator[Problem]:
    known = list(known_metrics.names())
    for index, metric in enumerate(evaluate.metrics):
        if metric not in known:
            yield _unknown(("evaluate", "metrics", index), metric, known, "a metric")
    for key in ("min", "max_regression", "slice_max_regression"):
        for metric in getattr(evaluate, key):
            if metric not in known:
                yield _unknown(("evaluate", key, metric), metric, known, "a metric")
    for index, features in enumerate(evaluate.slices):
        if evaluate.label in features:
            yield mismatch(("evaluate", "slices", index), features, "features; the label is what is predicted")
        for name in sorted(set(features) & set(RESERVED_COLUMNS)):
            yield mismatch(
                ("evaluate", "slices", index), name, "a column that the predictions' own table does not have"
            )


def _quantize(quantize: QuantizeSettings, evaluate: EvaluateSettings | None) -> Iterator[Problem]:
    for index, variant in enumerate(quantize.required):
        if variant not in quantize.variants:
            yield _unknown(("quantize", "required", index), variant, quantize.variants, "one of `quantize.variants`")
    if quantize.publish is not None and quantize.publish not in quantize.variants:
        yield _unknown(("quantize", "publish"), quantize.publish, quantize.variants, "one of `quantize.variants`")
    for metric in quantize.max_drop:
        if evaluate is not None and metric not in evaluate.metrics:
            yield _unknown(("quantize", "max_drop", metric), metric, evaluate.metrics, "one of `evaluate.metrics`")


def _places(publish: PublishSettings, workspace: str) -> Iterator[Problem]:
    if is_uri(workspace):  # metadata and locks need a file system
        yield mismatch(("workspace",), workspace, "a path of a local or mounted file system")
    if is_uri(workspace) or is_uri(publish.base_path):
        return
    artifacts, base = Path(workspace) / "artifacts", Path(publish.base_path)
    if base == artifacts or artifacts in base.parents or base in artifacts.parents:
        yield mismatch(
            ("publish", "base_path"),
            publish.base_path,
            f"a folder outside of the workspace's artifacts ({artifacts}), which `gc` cleans",
        )


def _publish(publish: PublishSettings) -> Iterator[Problem]:
    if publish.server is None and publish.models_config is not None:
        yield mismatch(
            ("publish", "models_config"),
            publish.models_config,
            "a `publish.server`, which is told when labels move",
        )
    if publish.server is not None and is_uri(publish.base_path):
        yield mismatch(
            ("publish", "server"),
            publish.server,
            "a `publish.base_path` on a file system: on an object store no version can be on probation",
        )
    if publish.canary is None:
        return
    for key in ("server", "models_config"):
        if getattr(publish, key) is None:
            yield Problem(("publish", "canary"), f"expected `publish.{key}` too: a trial needs it to move labels")
    if not publish.watch.rows and not publish.canary.metrics:
        yield mismatch(
            ("publish", "watch", "rows"),
            0,
            "more than 0, or `publish.canary.metrics`: a trial needs something to judge",
        )
    if publish.canary.label == publish.canary.stable:
        yield mismatch(
            ("publish", "canary", "label"), publish.canary.label, "another label than `publish.canary.stable`"
        )


def _unknown(path: KeyPath, received: str, known: Iterable[str], what: str) -> Problem:
    known = list(known)
    guess = did_you_mean(received, known)
    listed = ", ".join(f"`{name}`" for name in known) or "none"
    return mismatch(path, received, f"{what} ({listed})" + (f"; {guess}" if guess else ""))


def check_files(config: Config) -> None:
    """Checks that the files exist which the configuration names, and that they fit it.

    Args:
      config: a configuration.

    Raises:
      ConfigError: with every mistake at once: the schema is missing, broken or without the label or a column of a slice
        or block; a module is missing, has a syntax error, or does not define the function.
    """
    problems = [*_schema(config), *_functions(config)]
    if problems:
        lines = [f"{'.'.join(str(part) for part in problem.path)}: {problem.text}" for problem in problems]
        raise ConfigError(
            f"{config.file.name} names what is not there",
            "\n".join(lines),
            "Correct the path or the name; relative paths begin at the YAML file's folder.",
        )


def _schema(config: Config) -> Iterator[Problem]:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    file = Path(config.schema_path)
    if is_uri(config.schema_path):
        return
    if not file.is_file():
        yield Problem(("schema",), f"{file} does not exist{_near_file(file)}")
        return
    try:
        schema = schema_file.read(file)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        yield Problem(("schema",), f"{file} is not a schema in protobuf's text format: {error}")
        return
    columns = {feature.name: feature for feature in schema.feature}
    label = config.evaluate.label
    if label not in columns:
        yield Problem(("evaluate", "label"), f"the schema has no feature `{label}`{_near_name(label, columns)}")
    elif columns[label].type not in (schema_pb2.INT, schema_pb2.FLOAT):
        kind = schema_pb2.FeatureType.Name(columns[label].type)
        yield Problem(("evaluate", "label"), f"the schema says that `{label}` is {kind}, expected INT or FLOAT")
    named: list[tuple[KeyPath, str]] = [
        (("evaluate", "slices", index), name) for index, one in enumerate(config.evaluate.slices) for name in one
    ]
    named += [(("evaluate", "bootstrap", "block"), name) for name in config.evaluate.bootstrap.block]
    for path, name in named:
        if name not in columns:
            yield Problem(path, f"the schema has no feature `{name}`{_near_name(name, columns)}")


def _functions(config: Config) -> Iterator[Problem]:
    named: list[tuple[KeyPath, str | None]] = [
        (("features",), config.features),
        (("trainer", "model"), config.trainer.model),
        (("trainer", "run_fn"), config.trainer.run_fn),
    ]
    named += [(("components", index), extra.function) for index, extra in enumerate(config.components)]
    for path, function in named:
        if function is not None:
            text = missing_function(function, config.project_dir)
            if text:
                yield Problem(path, text)


def missing_function(function: str, project_dir: Path) -> str:
    """Looks for a user's function without importing anything.

    Args:
      function: `module:function`.
      project_dir: the folder of the YAML file, searched first.

    Returns:
      What is wrong, empty where the function is there or cannot be judged by reading (a compiled module).
    """
    module, _, name = function.partition(":")
    file = _module_file(module, project_dir)
    if file is None:
        candidates = [path.stem for path in project_dir.glob("*.py")]
        return (
            f"received `{function}`, but there is no module `{module}` in {project_dir}{_near_name(module, candidates)}"
        )
    if file.suffix != ".py":
        return ""
    hidden_by = _installed_namesake(module.partition(".")[0], file, project_dir)
    if hidden_by:
        return f"an installed module of the same name comes first ({hidden_by}); rename the project's `{module}`"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        place = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{file} is not valid Python{place}: {getattr(error, 'msg', error)}"
    defined = set(_defined(tree.body))
    if name in defined or "*" in defined:
        return ""
    functions = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    there = f"; it has {', '.join(f'`{one}`' for one in functions)}" if functions else ""
    return f"{file} does not define `{name}`{there}"


def _module_file(module: str, project_dir: Path) -> Path | None:
    """Finds a module's source as the import system would, package by package."""
    search = [str(project_dir), *user_code.import_path(project_dir)]
    origin: str | None = None
    for index, _ in enumerate(parts := module.split(".")):
        name = ".".join(parts[: index + 1])
        spec = importlib.machinery.PathFinder.find_spec(name, search)
        if spec is None:
            return None
        origin, search = spec.origin, list(spec.submodule_search_locations or [])
    return Path(origin) if origin else None


def _installed_namesake(top: str, file: Path, project_dir: Path) -> str | None:
    """Returns the place of an installed module that hides the project's own, which stands last on the import path."""
    if project_dir not in file.parents:
        return None
    spec = importlib.machinery.PathFinder.find_spec(top, user_code.import_path(project_dir))
    return spec.origin if spec is not None else None


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yields the names that a module's statements bind, `*` for a star import."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _defined([*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])])
            for handler in getattr(node, "handlers", []):
                yield from _defined(handler.body)


def _near_name(name: str, known: Iterable[str]) -> str:
    guess = did_you_mean(name, known)
    return f"; {guess}" if guess else ""


def _near_file(file: Path) -> str:
    if not file.parent.is_dir():
        return f", nor does its folder {file.parent}"
    return _near_name(file.name, [path.name for path in file.parent.iterdir()])
