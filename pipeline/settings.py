"""The sections of evergreen.yaml as pydantic models: each key with its type, range, default and meaning.

Reading the file lives in `config`, what must hold between keys in `config_checks`, how a mistake is told in
`config_errors`. The meanings are printed into docs/configuration.md.
"""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from evergreen.pipeline import connection

STAGES = (
    "SpanExampleGen",
    "StatisticsGen",
    "SpanValidator",
    "ChampionExam",
    "Transform",
    "Trainer",
    "Evaluator",
    "Quantizer",
    "ServingValidator",
    "Pusher",
)
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CRON_FIELD = re.compile(r"[\d*/,A-Za-z?#-]+")


def expected(what: str) -> PydanticCustomError:
    """Returns the error that `config_errors` prints as "received ..., expected <what>"."""
    return PydanticCustomError("expected", "{expected}", {"expected": what})


def is_uri(path: str) -> bool:
    """Tells `gs://bucket/x` and the like from a path of the local file system."""
    return _URI.match(path) is not None


def _resolve(path: str, info: ValidationInfo) -> str:
    if is_uri(path):
        return path
    folder = (info.context or {}).get("folder", "")
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def _function(text: str) -> str:
    if not _FUNCTION.fullmatch(text):
        raise expected("`module:function`, such as `model:build_model`")
    return text


def _exam(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value != "span" and not (number and 0 < value < 1):
        raise expected("a fraction above 0 and below 1, or `span` for the whole span")
    return value if value == "span" else float(value)


def _slices(value: Any) -> Any:
    lists = isinstance(value, list) and all(isinstance(one, list) and one for one in value)
    if not lists or not all(isinstance(feature, str) for one in value for feature in one):
        raise expected("a list of lists of features, such as `[[carrier], [carrier, origin]]`")
    return value


def _json_values(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise expected("plain values: numbers, text, true or false, lists, and maps with text as keys") from None
    return value


def _cron(text: str) -> str:
    fields = text.split()
    if len(fields) != 5 or not all(_CRON_FIELD.fullmatch(field) for field in fields):
        raise expected('five fields (minute, hour, day, month, weekday), such as `"0 3 * * *"`')
    return text


def _every(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[smhd]", text):
        raise expected("a number with `s`, `m`, `h` or `d`, such as `6h`")
    return text


def _flags(values: list[str]) -> list[str]:
    if not all(value.startswith("--") for value in values):
        raise expected("Beam options, each beginning with `--`, such as `--direct_num_workers=2`")
    return values


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", text):
        raise expected("a letter, then at most 62 letters, digits, `-` or `_`")
    return text


def _metadata(text: str) -> str:
    try:
        connection.parse(text, "")
    except ValueError as error:
        raise expected(str(error)) from None
    return text


def _stage(text: str) -> str:
    if text not in STAGES:
        raise expected("one of " + ", ".join(f"`{stage}`" for stage in STAGES))
    return text


Text = Annotated[str, StringConstraints(min_length=1)]
MetadataText = Annotated[str, AfterValidator(_metadata)]
Name = Annotated[str, AfterValidator(_name)]
PathText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_resolve)]
FunctionText = Annotated[str, AfterValidator(_function)]
Positive = Annotated[int, Field(ge=1)]
Bounds = dict[str, float]


class Section(BaseModel):
    """Base of every section: unknown keys and values of another type are refused, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CsvSettings(Section):
    """How CSV files are written."""

    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = Field(
        ",", description="The character between two fields."
    )


class DataSettings(Section):
    """Where the spans are, and how a span is split."""

    path: PathText = Field(description="The folder that holds the spans.")
    pattern: Text = Field(
        description="A span's files below `path`: `{SPAN}`, `{SPAN:2}` (two digits), `{YYYY}-{MM}-{DD}` or "
        "`{YYYY}-{MM}` stand for the span, `{VERSION}` for its version, `*`, `?` and `[ab]` for the rest."
    )
    format: Literal["parquet", "csv", "tfrecord"] = Field("parquet", description="The files' format.")
    window: Positive = Field(3, description="How many spans, the newest included, a model is trained on.")
    min_window: Positive = Field(1, description="How few accepted spans a window may hold.")
    time: Text | None = Field(
        None, description="The column by which a span is ordered: the exam is its tail. Without one, a hash draws it."
    )
    split_key: Text | None = Field(
        None,
        description="The column whose hash divides training from validation, such as the date: equal keys stay "
        "together.",
    )
    exam: Annotated[float | Literal["span"], BeforeValidator(_exam)] = Field(
        0.25,
        description="The share of the newest span on which champion and challenger are judged, or `span` for all.",
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="The share of the other rows that is kept for early stopping."
    )
    min_rows: Positive = Field(1, description="A span with fewer rows is rejected.")
    success_marker: Text | None = Field(
        None, description="The file, such as `_SUCCESS`, without which a span's folder is not complete yet."
    )
    on_anomalies: Literal["reject", "warn"] = Field(
        "reject", description="Whether anomalies reject a span or are only printed."
    )
    csv: CsvSettings = Field(default_factory=CsvSettings, description="How CSV files are written.")


class EarlyStopping(Section):
    """When training ends before its last step."""

    metric: Text = Field("val_loss", description="What is watched: `val_loss` or `val_<a metric of the model>`.")
    patience: Positive = Field(3, description="How many measurements without a gain end the training.")
    every: Positive = Field(200, description="Steps between two measurements.")


class WarmStart(Section):
    """Training that starts from the champion's weights."""

    cold_every: Positive = Field(
        10, description="Every so many runs start from scratch, so that errors do not live for ever."
    )


class Cluster(Section):
    """The local processes of a cluster. A cluster that TF_CONFIG names goes before them; `timeout` counts for both."""

    workers: Positive = Field(2, description="Worker processes.")
    ps: Positive = Field(1, description="Parameter servers, under `parameter_server`.")
    timeout: Positive = Field(60, description="Seconds after which a process that does not answer is taken for lost.")


class Staleness(Section):
    """What bounds the staleness of asynchronous updates."""

    scale: bool = Field(False, description="Divides a gradient by one plus its staleness.")
    max_in_flight: Positive | None = Field(
        None, description="How many gradients are computed at once; by default as many as there are workers."
    )


class AllReduce(Section):
    """How gradients are averaged among devices."""

    algorithm: Literal["auto", "nccl", "hierarchical", "one_device", "ring"] = Field(
        "auto",
        description="`nccl`, `hierarchical` (copies among neighbours) or `one_device` under `mirrored`; `nccl` or "
        "`ring` under `multi_worker_mirrored`.",
    )
    bytes_per_pack: Annotated[int, Field(ge=0)] = Field(
        0, description="Gradients are sent in packs of so many bytes; 0 lets TensorFlow choose."
    )


class Threads(Section):
    """TensorFlow's threads in the process that trains."""

    inter_op: Annotated[int, Field(ge=0)] = Field(0, description="Operations side by side; 0 lets TensorFlow choose.")
    intra_op: Annotated[int, Field(ge=0)] = Field(0, description="Threads within one; 0 lets TensorFlow choose.")


class TrainerSettings(Section):
    """How a model is trained."""

    model: FunctionText | None = Field(
        None, description="`module:function` that returns a compiled `tf_keras.Model`; this or `run_fn`."
    )
    run_fn: FunctionText | None = Field(
        None, description="`module:function`, a `run_fn` as stock TFX's Trainer calls it."
    )
    strategy: Literal[
        "auto",
        "single",
        "mirrored",
        "central_storage",
        "multi_worker_mirrored",
        "parameter_server",
        "model_parallel",
    ] = Field("single", description="The distribution strategy; `auto` chooses by what it sees and says so.")
    devices: Positive | None = Field(
        None, description="How many devices: GPUs, or logical CPU devices where there is none; all of them by default."
    )
    mesh: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [1, 2],
        description="Under `model_parallel`, how many devices along the batch and along the model.",
    )
    cluster: Cluster = Field(default_factory=Cluster, description="Local processes, where TF_CONFIG names no cluster.")
    update: Literal["sync", "async"] = Field(
        "sync",
        description="Under `parameter_server`: one update a step from all workers' gradients, or one from each "
        "gradient as it comes. Asynchronous gradients grow stale.",
    )
    backup_workers: Annotated[int, Field(ge=0)] = Field(
        0, description="Under `parameter_server` with `sync`: workers that compute a late part of a step once more."
    )
    staleness: Staleness = Field(
        default_factory=Staleness, description="Under `parameter_server` with `async`: what bounds it."
    )
    all_reduce: AllReduce = Field(default_factory=AllReduce, description="How gradients are averaged.")
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        3, description="How often a cluster that lost a process it needs starts again from its last checkpoint."
    )
    checkpoint_every: Annotated[int, Field(ge=0)] = Field(
        200, description="Steps between two checkpoints, from which a run that was killed goes on; 0 for none."
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="The precision of the computation; weights, output layer and loss stay in float32."
    )
    threads: Threads = Field(default_factory=Threads, description="TensorFlow's threads.")
    profile: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="The first and the last step of a TensorBoard trace of the executor."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Sets every random generator.")
    global_batch_size: Positive = Field(512, description="Rows in a step, over all devices together.")
    steps: Positive = Field(2000, description="Training steps at most.")
    early_stopping: EarlyStopping | None = Field(None, description="When training ends early; never by default.")
    warm_start: WarmStart | None = Field(
        None, description="Starts from the champion's weights; from scratch by default."
    )
    hyperparameters: Annotated[dict[str, Any], AfterValidator(_json_values)] = Field(
        default_factory=dict, description="Handed to the model function as they are."
    )


class Bootstrap(Section):
    """The paired bootstrap by which challenger and champion are compared."""

    samples: Annotated[int, Field(ge=100)] = Field(1000, description="How many resamples of the exam rows.")
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(0.95, description="The confidence of the interval.")
    block: list[Text] = Field(
        default_factory=list,
        description="Columns whose equal values are drawn together, such as the date; by default rows are drawn.",
    )


class EvaluateSettings(Section):
    """Gate 2: what a model must show on rows that nobody trained on."""

    label: Text = Field(description="The column that the model predicts, a number.")
    metrics: Annotated[list[Text], Field(min_length=1)] = Field(
        description="What is measured; the metrics also say whether the model gives a probability or a value."
    )
    slices: Annotated[list[list[str]], BeforeValidator(_slices)] = Field(
        default_factory=list, description="Groups of rows that are measured each, by one column or several."
    )
    min_slice_rows: Positive = Field(500, description="A slice with fewer rows is shown and vetoes nothing.")
    min: Bounds = Field(default_factory=dict, description="A metric's worst value that passes.")
    max_regression: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How much worse than the champion a metric may be."
    )
    slice_max_regression: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="The same for each slice of enough rows; by default slices are shown and veto nothing.",
    )
    bootstrap: Bootstrap = Field(default_factory=Bootstrap, description="How certain the comparison must be.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="The probability from which on a row counts as positive."
    )


class ServingSettings(Section):
    """Gate 4: a real model server answers real rows."""

    rows: Positive = Field(50, description="Rows of the exam that the server is asked about.")
    seconds: Annotated[float, Field(gt=0)] = Field(
        300.0, description="The longest that it may take, from the server's start to its last answer."
    )
    max_bytes: Positive = Field(8_000_000_000, description="The most memory that the server may use.")
    tolerance: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="How far an answer may be from the trained model's; by default 0.001, and 0.02 in mixed precision.",
    )


class ScheduleSettings(Section):
    """When a retraining starts by itself."""

    cron: Annotated[str, AfterValidator(_cron)] | None = Field(None, description="Five cron fields.")
    every: Annotated[str, AfterValidator(_every)] | None = Field(None, description="An interval such as `6h`.")


class BeamSettings(Section):
    """What runs the data-parallel stages."""

    runner: Text = Field("direct", description="`direct` is Beam's in-process runner; else a runner's name.")
    args: Annotated[list[str], AfterValidator(_flags)] = Field(
        default_factory=list, description="Options of Beam and of the runner."
    )


class ExtraComponent(Section):
    """A TFX component of the project's own."""

    function: FunctionText = Field(
        description="`module:function` that gets the nodes so far and the configuration, and returns a component or a "
        "list."
    )
    after: Annotated[str, AfterValidator(_stage)] = Field(description="The stage behind which they stand.")
