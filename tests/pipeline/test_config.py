"""What a configuration accepts, where its paths point, and what each mistake is told."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
from project_world import YAML

from evergreen.components import user_code
from evergreen.components.errors import ConfigError
from evergreen.pipeline import config as config_module
from evergreen.pipeline import config_reference
from evergreen.pipeline.config import Config, check_files, load

SCHEMA = """\
feature { name: "late" type: INT }
feature { name: "carrier" type: BYTES }
"""


@pytest.fixture
def project(tmp_path):
    """A project with all its files."""
    (tmp_path / "evergreen.yaml").write_text(YAML)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    (tmp_path / "features.py").write_text("def preprocessing_fn(inputs):\n    return inputs\n")
    (tmp_path / "model.py").write_text("def build_model(transform_output, hyperparameters):\n    pass\n")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "evergreen.yaml"
    file.write_text(text)
    return file


def refusal(folder: Path, text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), overrides)
    assert caught.value.exit_status == 2
    return caught.value


def reason(folder: Path, *overrides: str) -> str:
    """What the base configuration with overrides is told."""
    return refusal(folder, YAML, *overrides).reason


class TestFinding:
    def test_the_nearest_file_above_the_current_folder(self, project, monkeypatch):
        inner = project / "notebooks" / "deep"
        inner.mkdir(parents=True)
        monkeypatch.chdir(inner)
        assert load().file == project / "evergreen.yaml"

    def test_a_folder_stands_for_the_file_in_it(self, project):
        assert load(project).name == "flights"

    def test_no_file_anywhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"there is no evergreen\.yaml here") as caught:
            load()
        assert str(tmp_path) in caught.value.reason
        assert "evergreen init" in caught.value.next_step

    def test_a_named_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match=r"other\.yaml does not exist"):
            load(tmp_path / "other.yaml")


class TestPlaces:
    def test_relative_paths_begin_at_the_file(self, project, monkeypatch):
        monkeypatch.chdir("/")
        config = load(project / "evergreen.yaml")
        assert config.project_dir == project
        assert config.data.path == str(project / "data")
        assert config.schema_path == str(project / "schema.pbtxt")
        assert config.publish.base_path == str(project / "serving/flights")
        assert config.workspace_dir == project / ".evergreen"
        assert config.pipeline_root == project / ".evergreen/artifacts"
        assert config.db_path == project / ".evergreen/metadata.db"
        assert config.logs_dir == project / ".evergreen/logs"
        assert config.lock_path.parent == project / ".evergreen"

    def test_a_relative_file_name(self, project, monkeypatch):
        monkeypatch.chdir(project)
        assert load("evergreen.yaml").project_dir == project

    def test_uris_and_home_and_absolute_paths(self, project):
        config = load(
            project, ["data.path=gs://bucket/spans", "schema=/etc/s.pbtxt", "workspace=~/w", "publish.base_path=../m"]
        )
        assert config.data.path == "gs://bucket/spans"
        assert config.schema_path == "/etc/s.pbtxt"
        assert config.workspace_dir == Path.home() / "w"
        assert config.publish.base_path == str(project.parent / "m")
        assert load(project, ["publish.base_path=gs://bucket/m"]).publish.base_path == "gs://bucket/m"

    def test_survives_pickling(self, project):
        config = load(project)
        assert pickle.loads(pickle.dumps(config)).project_dir == config.project_dir

    def test_sections_become_json(self, project):
        data = json.loads(load(project).data.model_dump_json())
        assert data["exam"] == 0.25
        assert data["csv"] == {"delimiter": ","}


class TestValues:
    def test_defaults(self, project):
        config = load(project)
        assert (config.data.window, config.data.min_window, config.data.validation) == (3, 1, 0.1)
        assert config.data.format == "parquet"
        assert config.trainer.global_batch_size == 512
        assert config.trainer.warm_start is None
        assert config.evaluate.bootstrap.samples == 1000
        assert config.evaluate.bootstrap.block == []
        assert config.evaluate.slice_max_regression == {}
        assert config.quantize.variants == ["float16", "dynamic_int8"]
        assert config.publish.keep == 3
        assert config.beam.runner == "direct"
        assert config.components == []

    def test_numbers_that_yaml_1_1_takes_for_text_and_text_that_it_takes_for_something_else(self, project):
        write(project, YAML + "quantize: {max_drop: {auc: 5e-3}}\nschedule: {every: 12h}\n")
        config = load(
            project, ["trainer.hyperparameters={rate: 1e-3, country: no, day: 2013-01-02, at: 12:30, code: 08}"]
        )
        assert config.quantize.max_drop == {"auc": 0.005}
        assert config.trainer.hyperparameters == {
            "rate": 0.001,
            "country": "no",
            "day": "2013-01-02",
            "at": "12:30",
            "code": 8,
        }

    def test_the_exam_may_be_the_whole_span(self, project):
        assert load(project, ["data.exam=span"]).data.exam == "span"

    def test_an_empty_warm_start_has_its_defaults(self, project):
        assert load(project, ["trainer.warm_start={}"]).trainer.warm_start.cold_every == 10

    def test_run_fn_in_place_of_a_model(self, project):
        config = load(project, ["trainer={run_fn: 'stock:run_fn'}"])
        assert config.trainer.model is None

    def test_extra_components(self, project):
        config = load(project, ["components=[{function: 'mine:add', after: Trainer}]"])
        assert (config.components[0].function, config.components[0].after) == ("mine:add", "Trainer")

    def test_a_loaded_configuration_never_changes(self, project):
        with pytest.raises(ValueError, match="frozen"):
            load(project).name = "other"


class TestOverrides:
    def test_win_over_the_file_and_create_what_is_missing(self, project):
        config = load(project, ["trainer.steps=7", "data.csv.delimiter=;", "trainer.early_stopping.every=5"])
        assert config.trainer.steps == 7
        assert config.trainer.model == "model:build_model"
        assert config.data.csv.delimiter == ";"
        assert config.trainer.early_stopping.every == 5

    def test_null_takes_a_value_away(self, project):
        assert load(project, ["trainer.warm_start={}", "trainer.warm_start=null"]).trainer.warm_start is None

    @pytest.mark.parametrize("text", ["trainer.steps", "=3", "trainer..steps=3"])
    def test_without_a_key_or_a_value(self, project, text):
        assert "expected key.path=value" in reason(project, text)

    def test_below_a_plain_value(self, project):
        assert "`name` is 'flights'" in reason(project, "name.first=x")

    def test_mistakes_say_that_they_come_from_the_option(self, project):
        assert reason(project, "trainer.steps=0") == "trainer.steps (--set): received 0, expected a number, 1 or more"


class TestMistakes:
    def test_all_of_a_file_at_once_with_their_lines(self, project):
        error = refusal(
            project, YAML.replace("metrics: [auc]", "metrics: [auc, acuracy]") + "data2: 1\nbeam: {runer: x}\n"
        )
        assert error.headline == "evergreen.yaml has 3 mistakes"
        lines = error.reason.splitlines()
        assert lines[0].startswith('evaluate.metrics.1 (line 6): received "acuracy", expected a metric (')
        assert lines[0].endswith("did you mean `accuracy`?")
        assert lines[1].startswith("data2 (line 8): unknown key; did you mean `data`?")
        assert lines[2].startswith(
            "beam.runer (line 9): unknown key; did you mean `runner`? (known here: runner, args)"
        )

    def test_a_key_of_another_section(self, project):
        assert (
            "window (line 8): unknown key; did you mean `data.window`?" in refusal(project, YAML + "window: 3\n").reason
        )

    def test_what_is_missing_says_what_it_means(self, project):
        text = refusal(project, "name: x\n").reason
        for key in ("data", "schema", "features", "trainer", "evaluate", "publish"):
            assert f"{key}: is missing: " in text

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("name=3", "name (--set): received 3, expected text (in quotes where it looks like a number)"),
            ("name='my model'", "expected a letter, then"),
            ("data=[1]", "data (--set): received [1], expected a map"),
            ("data.window=0", "expected a number, 1 or more"),
            ("data.window=2.5", "expected a whole number"),
            ("data.window='3'", "expected a whole number"),
            ("data.window=true", "expected a whole number"),
            ("data.exam=1", "expected a fraction above 0 and below 1, or `span`"),
            ("data.exam=all", "expected a fraction above 0 and below 1, or `span`"),
            ("data.format=parqet", "one of `parquet`, `csv`, `tfrecord`; did you mean `parquet`?"),
            ("data.csv.delimiter=ab", "expected a single character"),
            ("data.time=''", "expected text that is not empty"),
            ("data.min_window=4", "data.min_window (--set): received 4, expected at most `data.window`, which is 3"),
            ("data.validation=0.8", "expected less than 0.75"),
            ("data.pattern='*.csv'", "`{SPAN}` or a date"),
            ("data.pattern='{SPAM}/*.csv'", "not `{SPAM}`"),
            ("data.success_marker=a/b", "a file's name without folders"),
            ("trainer.run_fn=m:f", "trainer (line 5): received both, expected one of `model` and `run_fn`"),
            ("trainer.model=null", "trainer (line 5): received neither"),
            ("trainer.model=model.build", "expected `module:function`, such as `model:build_model`"),
            ("trainer.devices=2", "expected 1; several under mirrored, central_storage, model_parallel"),
            (
                "trainer={run_fn: 'm:f', strategy: parameter_server}",
                'trainer.strategy (--set): received "parameter_server", expected one of auto, single, mirrored, '
                "central_storage with `run_fn`",
            ),
            ("trainer.seed=-1", "expected a number, 0 or more"),
            ("trainer.warm_start=true", "expected a map"),
            ("trainer.early_stopping={every: 3000}", "expected at most `trainer.steps`, which is 2000"),
            ("trainer.hyperparameters={a: .nan}", "expected plain values"),
            ("evaluate.metrics=[]", "expected at least one entry"),
            ("evaluate.metrics=auc", "expected a list"),
            (
                "evaluate.min={acc: 1}",
                'evaluate.min.acc (--set): received "acc", expected a metric (`accuracy`, `auc`,',
            ),
            ("evaluate.slices=[[split]]", "a column that the predictions' own table does not have"),
            ("evaluate.max_regression={auc: -0.1}", "expected a number, 0 or more"),
            ("evaluate.max_regression={auc: .inf}", "expected a finite number"),
            ("evaluate.slices=[carrier]", "expected a list of lists of features"),
            ("evaluate.slices=[[late]]", "the label is what is predicted"),
            ("evaluate.threshold=1", "less than 1"),
            ("quantize.variants=[int9]", "expected one of `float32`, `float16`, `dynamic_int8`"),
            (
                "quantize={variants: [float16], required: [dynamic_int8]}",
                "expected one of `quantize.variants` (`float16`)",
            ),
            ("quantize={variants: [float16], publish: dynamic_int8}", "quantize.publish (--set)"),
            ("quantize.max_drop={rmse: 1}", "expected one of `evaluate.metrics` (`auc`)"),
            ("publish.keep=0", "expected a number, 1 or more"),
            ("publish.base_path=.evergreen/artifacts/models", "expected a folder outside of the workspace's artifacts"),
            ("publish.base_path=.evergreen", "expected a folder outside of the workspace's artifacts"),
            ("publish.server=8500", "expected `host:port` of a server's gRPC port, such as `127.0.0.1:8500`"),
            ("publish.server=[]", "or a list of them"),
            ("publish.server=['a:1', 'a:1']", "or a list of them"),
            ("publish.models_config=m.config", "expected a `publish.server`, which is told when labels move"),
            ("publish.watch.timeout=0", "expected a number, 1 or more"),
            ("workspace=s3://bucket/w", "expected a path of a local or mounted file system"),
            ("schedule={cron: '0 3 * *'}", "expected five fields"),
            ("schedule={every: 6 hours}", "expected a number with `s`, `m`, `h` or `d`"),
            ("schedule={cron: '0 3 * * *', every: 6h}", "expected `cron` or `every`, one of the two"),
            ("schedule={cronn: x}", "did you mean `cron`?"),
            ("metadata=oracle://u@h/d", "expected `sqlite`, `mysql://user@host:3306/database`"),
            ("beam.args=[direct_num_workers=2]", "each beginning with `--`"),
            ("components=[{function: 'a:b', after: trainer}]", "components.0.after (--set)"),
        ],
    )
    def test_each_names_the_key_what_was_received_and_what_was_expected(self, project, override, told):
        text = reason(project, override)
        assert told in text
        assert len(text.splitlines()) == 1

    def test_a_trial_needs_servers_and_their_configuration(self, project):
        told = reason(project, "publish.canary={}")
        assert "expected `publish.server` too" in told and "expected `publish.models_config` too" in told
        given = ("publish.server='a:1'", "publish.models_config=m.config")
        told = reason(project, *given, "publish.canary={label: stable}")
        assert "expected another label than `publish.canary.stable`" in told
        told = reason(project, *given, "publish.canary={metrics: [a/m]}")
        assert "URLs such as" in told
        assert "publish.watch.rows" in reason(project, *given, "publish.canary={}", "publish.watch={rows: 0}")
        assert "no version can be on probation" in reason(project, given[0], "publish.base_path=gs://bucket/models")
        config = load(project, [*given, "publish.canary={metrics: ['http://a:8501/m']}"])
        assert config.publish.models_config == str(project / "m.config")
        assert config.publish_settings()["watch"] == {"timeout": 300, "rows": 20, "tolerance": 0.001}

    def test_a_marker_needs_a_folder_for_the_span(self, project):
        text = reason(project, "data.pattern='span-{SPAN}.csv'", "data.success_marker=_SUCCESS")
        assert "a `data.pattern` in which a folder stands for the span" in text

    def test_a_batch_is_divided_among_the_devices(self, project):
        text = reason(project, "trainer.strategy=mirrored", "trainer.devices=3")
        assert "trainer.global_batch_size (line 5): received 512, expected a multiple of the 3 devices" in text

    def test_early_stopping_needs_rows_to_measure_on(self, project):
        assert "more than 0, because" in reason(project, "data.validation=0", "trainer.early_stopping={}")


class TestYaml:
    def test_a_syntax_error_has_its_line(self, project):
        error = refusal(project, "name: flights\ndata: {path: a\ntrainer: b\n")
        assert error.headline == "evergreen.yaml is not valid YAML"
        assert error.reason.startswith("line 3, column")

    def test_a_key_twice(self, project):
        error = refusal(project, YAML + "trainer:\n  model: a:b\n")
        assert error.headline == "evergreen.yaml has the key `trainer` twice"
        assert error.reason.startswith("lines 5 and 8")

    def test_an_inner_key_twice(self, project):
        assert "`beam.args` twice" in refusal(project, YAML + "beam:\n  args: []\n  args: []\n").headline

    @pytest.mark.parametrize(("text", "kind"), [("- a\n", "list"), ("hello\n", "str")])
    def test_something_else_than_keys(self, project, text, kind):
        assert f"received {kind}" in refusal(project, text).reason

    def test_an_empty_file_lacks_everything(self, project):
        assert "name: is missing" in refusal(project, "# nothing\n").reason

    def test_a_file_that_is_not_text(self, project):
        (project / "evergreen.yaml").write_bytes(b"name: \xff\xfe")
        with pytest.raises(ConfigError) as caught:
            load(project)
        assert caught.value.reason == "it is not UTF-8 text"

    def test_an_alias_of_itself(self, project):
        assert "contains itself" in refusal(project, "a: &x [*x]\n").headline

    def test_anchors_and_merges_work(self, project):
        text = YAML.replace("trainer: {model", "trainer: {<<: &t {steps: 9}, model")
        assert load(write(project, text)).trainer.steps == 9


class TestConnection:
    def test_sqlite_lies_in_the_workspace(self, project):
        connection = load(project).connection
        assert (connection.kind, connection.path) == ("sqlite", str(project / ".evergreen/metadata.db"))

    def test_a_server_and_its_password(self, project, monkeypatch):
        monkeypatch.setenv("EVERGREEN_METADATA_PASSWORD", "hush")
        connection = load(project, ["metadata=mysql://bob@db.example:3307/evergreen"]).connection
        assert (connection.kind, connection.host, connection.port) == ("mysql", "db.example", 3307)
        assert (connection.user, connection.database, connection.password) == ("bob", "evergreen", "hush")
        assert "hush" not in connection.describe() + repr(connection)
        assert load(project, ["metadata=postgresql://bob@db/e"]).connection.port == 5432

    def test_a_password_in_the_file_is_refused_and_not_repeated(self, project):
        error = refusal(project, YAML, "metadata=mysql://bob:hush@db/e")
        assert "EVERGREEN_METADATA_PASSWORD" in error.reason
        assert "hush" not in str(error)

    def test_tls_is_asked_of_mysql_by_its_only_name_and_not_of_postgresql(self, project):
        connection = load(project, ["metadata=mysql://bob@db/e?tls=unverified"]).connection
        assert connection.tls and connection.describe() == "mysql://bob@db:3306/e?tls=unverified"
        assert not load(project, ["metadata=mysql://bob@db/e"]).connection.tls
        assert "tls=unverified" in refusal(project, YAML, "metadata=mysql://bob@db/e?tls=true").reason
        assert "tunnel" in refusal(project, YAML, "metadata=postgresql://bob@db/e?sslmode=require").reason


class TestFiles:
    def test_a_whole_project(self, project):
        check_files(load(project))

    def told(self, project: Path, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            check_files(load(project, overrides))
        return caught.value.reason

    def test_a_schema_that_is_not_there(self, project):
        assert "did you mean `schema.pbtxt`?" in self.told(project, "schema=shema.pbtxt")
        assert "nor does its folder" in self.told(project, "schema=x/schema.pbtxt")

    def test_a_broken_schema(self, project):
        (project / "schema.pbtxt").write_text("feature { nam: 'x' }")
        assert "not a schema in protobuf's text format: 1:" in self.told(project)

    def test_the_label_and_the_slices_are_features_of_the_schema(self, project):
        text = self.told(project, "evaluate.label=lat", "evaluate.slices=[[carier]]", "evaluate.bootstrap.block=[dat]")
        assert "evaluate.bootstrap.block: the schema has no feature `dat`" in text
        assert "evaluate.label: the schema has no feature `lat`; did you mean `late`?" in text
        assert "evaluate.slices.0: the schema has no feature `carier`; did you mean `carrier`?" in text

    def test_the_label_is_a_number(self, project):
        assert "`carrier` is BYTES, expected INT or FLOAT" in self.told(project, "evaluate.label=carrier")

    def test_a_module_that_is_not_there(self, project):
        assert "there is no module `modell` in" in self.told(project, "trainer.model=modell:build_model")
        assert "did you mean `model`?" in self.told(project, "trainer.model=modell:build_model")

    def test_a_module_of_another_project_is_not_this_ones(self, project, tmp_path_factory, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        other = tmp_path_factory.mktemp("other")
        (other / "modell.py").write_text("def build_model(transform_output, hyperparameters): ...\n")
        user_code.activate(other)
        assert "there is no module `modell` in" in self.told(project, "trainer.model=modell:build_model")

    def test_a_function_that_is_not_there(self, project):
        text = self.told(project, "features=features:preprocess")
        assert text.endswith("features.py does not define `preprocess`; it has `preprocessing_fn`")

    def test_a_module_that_is_no_python(self, project):
        (project / "model.py").write_text("def build_model(:\n")
        assert "is not valid Python in line 1" in self.told(project)

    def test_names_that_are_bound_otherwise_than_by_def_count(self, project):
        (project / "model.py").write_text("try:\n    from x import build_model\nexcept ImportError:\n    pass\n")
        (project / "features.py").write_text("from y import *\n")
        check_files(load(project))

    def test_modules_inside_of_packages(self, project):
        (project / "parts").mkdir()
        (project / "parts" / "model.py").write_text("build_model = print\n")
        check_files(load(project, ["trainer.model=parts.model:build_model"]))
        assert "does not define `other`" in self.told(project, "trainer.model=parts.model:other")

    def test_a_module_that_an_installed_one_hides(self, project):
        (project / "statistics.py").write_text("def build_model(a, b): ...\n")
        text = self.told(project, "trainer.model=statistics:build_model")
        assert "an installed module of the same name comes first" in text

    def test_user_code_is_not_run(self, project):
        (project / "model.py").write_text("def build_model(a, b): ...\nraise SystemExit\n")
        check_files(load(project))


def test_every_key_has_a_meaning():
    from evergreen.pipeline.config_errors import inner_model, names

    def walk(model):
        for name, info in names(model).items():
            assert info.description, f"{model.__name__}.{name} has no description"
            inner = inner_model(info.annotation)
            if inner is not None:
                walk(inner)

    walk(Config)


def test_the_reference_of_all_keys_is_fresh():
    docs = Path(__file__).parents[2] / "docs" / "configuration.md"
    command = "python -m evergreen.pipeline.config_reference > docs/configuration.md"
    assert docs.read_text(encoding="utf-8") == config_reference.markdown(), f"run: {command}"


def test_the_file_name_is_what_init_and_find_share():
    assert config_module.FILE_NAME == "evergreen.yaml"
