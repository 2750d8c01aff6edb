"""`evergreen migrate` to MariaDB and PostgreSQL: what the commands answer, and that the store lives on there."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing

import database_world
import integration_world as world
import pytest
import web_world
import yaml

from evergreen.pipeline.connection import PASSWORD_VARIABLE
from evergreen.pipeline.migration import servers
from evergreen.pipeline.migration.rows import TABLES
from evergreen.pipeline.store import Result

pytestmark = pytest.mark.slow
RUNS = 31  # the last but one is refused by gate 2


@pytest.fixture
def project(tmp_path) -> world.Project:
    made = world.Project(web_world.make(tmp_path, runs=RUNS).parent)
    add_odd_records(made)
    return made


def add_odd_records(project: world.Project) -> None:
    """Adds an artifact with what databases stumble over."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    store = project.store().mlmd
    kind = store.put_artifact_type(pb.ArtifactType(name="é漢", properties={"n": pb.INT}))
    odd = pb.Artifact(type_id=kind, uri="/é漢😀\\x'\"\n\t\\N", name="%s", state=pb.Artifact.LIVE)
    odd.properties["n"].int_value = -1
    odd.custom_properties["empty"].string_value = ""
    odd.custom_properties["large"].int_value = 2**40
    odd.custom_properties["long"].string_value = "ß" * 100_000
    odd.custom_properties["no"].bool_value = False
    odd.custom_properties["share"].double_value = 1e-9
    odd.custom_properties["struct"].struct_value["k"] = "é"
    odd.custom_properties["proto"].proto_value.Pack(pb.Artifact(uri="é"))
    store.put_artifacts([odd])


def odd_record(project: world.Project):
    (artifact,) = project.store().mlmd.get_artifacts_by_type("é漢")
    if artifact.custom_properties["large"].double_value:
        artifact.custom_properties["large"].int_value = int(artifact.custom_properties["large"].double_value)
    return artifact


def answers(project: world.Project) -> dict[str, object]:
    """What the commands answer, as JSON."""
    newest, older, *_ = (version["version"] for version in project.versions())
    asked = {
        "runs": ("runs", "--all"),
        "versions": ("versions",),
        "lineage": ("lineage",),
        "older": ("lineage", str(older)),
        "span": ("lineage", "--span", "12"),
        "diff": ("diff", str(older), str(newest)),
    }
    found = {}
    for name, arguments in asked.items():
        answer = project.evergreen(*arguments, "--json")
        assert answer.status == 0, answer.text
        found[name] = answer.json
    return found


def rows_of(project: world.Project) -> dict[str, int]:
    with closing(sqlite3.connect(project.workspace / "metadata.db")) as file:
        return {table: file.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}


def test_every_answer_is_the_same_after_the_move_and_new_runs_follow(database_server, project):
    file = project.workspace / "metadata.db"
    before, odd, rows = answers(project), odd_record(project), rows_of(project)
    bytes_before = hashlib.sha256(file.read_bytes()).hexdigest()
    moved = project.evergreen("migrate", "--to", database_server.url)
    assert moved.status == 0, moved.text
    assert f"metadata: {database_server.url}" in moved.text and database_world.PASSWORD not in moved.text
    assert f"{rows['ArtifactProperty']:,}" in moved.text
    assert hashlib.sha256(file.read_bytes()).hexdigest() == bytes_before
    project.change(metadata=database_server.url)
    file.rename(file.with_suffix(".aside"))
    assert project.store().runs(), "the server answers, not the file"
    assert answers(project) == before
    assert odd_record(project) == odd
    store = project.store()
    highest = max(context.id for context in store.mlmd.get_contexts())
    store.begin_run("20300101T000000-1", {"span": 99})
    store.end_run("20300101T000000-1", Result.UNCHANGED, {})
    newest = store.runs()[-1]
    assert (newest.id, newest.result) == ("20300101T000000-1", Result.UNCHANGED)
    assert max(context.id for context in store.mlmd.get_contexts()) == highest + 1
    again = project.evergreen("migrate", "--to", database_server.url)
    assert again.status == 2 and "on a server already" in again.text


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl makes the certificate")
def test_a_server_that_demands_tls_gets_the_store_and_the_next_run(project, tmp_path_factory, monkeypatch):
    if database_world.programs("mysql") is None:
        pytest.skip("no mysql server is installed")
    monkeypatch.setenv(PASSWORD_VARIABLE, database_world.PASSWORD)
    with database_world.running("mysql", tmp_path_factory.mktemp("server"), tls=True) as server:
        before = answers(project)
        bare = server.url.partition("?")[0]
        refused = project.evergreen("migrate", "--to", bare)
        assert refused.status == 1 and "?tls=unverified" in refused.text
        moved = project.evergreen("migrate", "--to", server.url)
        assert moved.status == 0, moved.text
        project.change(metadata=server.url)
        assert answers(project) == before
        store = project.store()
        store.begin_run("20300101T000000-1", {"span": 99})
        assert project.store().newest_runs(1)[0].id == "20300101T000000-1"
        project.change(metadata=bare)
        assert "cannot be opened" in project.evergreen("runs").text


def test_a_target_with_records_is_refused_and_keeps_them(database_server, project):
    assert project.evergreen("migrate", "--to", database_server.url).status == 0
    again = project.evergreen("migrate", "--to", database_server.url)
    assert again.status == 2, again.text
    assert "the target is not empty" in again.text and "rows of Artifact" in again.text


def test_a_move_that_breaks_off_leaves_the_target_empty_for_the_next(database_server, project, monkeypatch):
    kind = servers.MySQL if database_server.kind == "mysql" else servers.PostgreSQL
    insert = kind.insert

    def broken(self, table, columns, rows):
        if table == "Event":
            raise KeyboardInterrupt
        insert(self, table, columns, rows)

    monkeypatch.setattr(kind, "insert", broken)
    assert project.evergreen("migrate", "--to", database_server.url).status == 130
    monkeypatch.setattr(kind, "insert", insert)
    monkeypatch.setattr(kind, "commit", lambda self: None)  # dies with everything sent
    project.evergreen("migrate", "--to", database_server.url)
    monkeypatch.undo()
    monkeypatch.setenv(PASSWORD_VARIABLE, database_world.PASSWORD)
    moved = project.evergreen("migrate", "--to", database_server.url)
    assert moved.status == 0, moved.text


def test_rows_that_arrive_changed_are_not_committed(database_server, project, monkeypatch):
    kind = servers.MySQL if database_server.kind == "mysql" else servers.PostgreSQL
    insert = kind.insert

    def altered(self, table, columns, rows):
        insert(self, table, columns, [(*rows[0][:2], 9, *rows[0][3:]), *rows[1:]] if table == "Event" else rows)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "insert", altered)
        moved = project.evergreen("migrate", "--to", database_server.url)
    assert moved.status == 1 and "Event: " in moved.text and "with other values" in moved.text
    assert yaml.safe_load(project.config_file.read_text()).get("metadata") is None
    assert project.evergreen("migrate", "--to", database_server.url).status == 0
