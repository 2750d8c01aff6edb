"""What a row becomes on its way to a server, and what `evergreen migrate` refuses before it connects to one."""

from __future__ import annotations

import base64
import importlib

import pytest
from filelock import FileLock
from web_world import make

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import cli
from evergreen.pipeline.connection import PASSWORD_VARIABLE
from evergreen.pipeline.migration.rows import Checksum, Column, Encoder, not_empty

PROPERTY = ("artifact_id", "name", "is_custom_property", "int_value", "double_value", "string_value", "proto_value")
MYSQL = [Column(n, k) for n, k in zip(PROPERTY, ("int", "text", "int", "int", "float", "text", "bytes"), strict=True)]
POSTGRESQL = [
    Column(name, kind, name == "proto_value")
    for name, kind in zip(PROPERTY, ("int", "text", "bool", "int", "float", "text", "bytes"), strict=True)
]
URL = "mysql://evergreen@127.0.0.1:1/evergreen"


class TestEncoder:
    def test_a_custom_integer_of_more_than_32_bits_becomes_a_double(self):
        encoder = Encoder("ArtifactProperty", MYSQL)
        assert encoder.encode((1, "at", 1, 2**31, None, None, None)) == (1, "at", 1, None, 2.0**31, None, None)
        assert encoder.encode((1, "at", 1, -(2**53), None, None, None))[4] == -(2.0**53)
        assert encoder.encode((1, "at", 1, 2**31 - 1, None, None, None))[3] == 2**31 - 1
        assert encoder.doubles == 2

    @pytest.mark.parametrize(("custom", "number"), [(0, 2**31), (1, 2**53 + 1)])
    def test_what_a_double_cannot_stand_for_is_refused_with_its_row(self, custom, number):
        with pytest.raises(EvergreenError) as refused:
            Encoder("ArtifactProperty", MYSQL).encode((7, "at", custom, number, None, None, None))
        assert "ArtifactProperty.int_value" in refused.value.reason
        assert str(number) in refused.value.reason and "artifact_id 7, name at" in refused.value.reason

    def test_protos_lose_their_base64_in_postgresql_alone(self):
        text = base64.b64encode(b"proto").decode()
        row = (1, "p", 1, None, None, None, text)
        assert Encoder("ArtifactProperty", POSTGRESQL).encode(row) == (1, "p", True, None, None, None, b"proto")
        assert Encoder("ArtifactProperty", MYSQL).encode(row)[6] == text.encode()


def test_a_checksum_sees_a_changed_value_and_a_lost_row_but_no_order():
    sums = []
    for rows in ([(1, "a"), (2, None)], [(2, None), (1, "a")], [(1, "a"), (2, "")], [(1, "a")]):
        sums.append(Checksum())
        for row in rows:
            sums[-1].add(row)
    assert sums[0] == sums[1] != sums[2]
    assert sums[0] != sums[3]


def test_a_fresh_database_is_empty_though_ml_metadata_has_filled_two_tables():
    fresh = {"MLMDEnv": 1, "Type": 9, "Artifact": 0}
    assert not_empty(fresh, 0) == ""
    assert not_empty(fresh, 1) == "1 rows of Type"
    assert not_empty({**fresh, "Artifact": 1234}, 0) == "1,234 rows of Artifact"


class TestCommand:
    @pytest.fixture
    def config(self, tmp_path):
        return make(tmp_path, runs=1)

    def refused(self, capsys, config, *arguments: str) -> tuple[int, str]:
        status = cli.main(["migrate", "-c", str(config), *arguments])
        return status, capsys.readouterr().err

    @pytest.mark.parametrize("url", ["sqlite", "oracle://me@host/db", "mysql://host/db"])
    def test_a_url_that_names_no_server(self, capsys, config, url):
        status, text = self.refused(capsys, config, "--to", url)
        assert status == 2 and "mysql://user@host" in text

    def test_what_is_wrong_with_a_url_s_tls_is_said(self, capsys, config):
        status, text = self.refused(capsys, config, "--to", "mysql://me@host/db?tls=1")
        assert status == 2 and "?tls=unverified" in text
        status, text = self.refused(capsys, config, "--to", "postgresql://me@host/db?tls=unverified")
        assert status == 2 and "tunnel" in text

    def test_a_password_in_the_url_is_not_repeated(self, capsys, config):
        status, text = self.refused(capsys, config, "--to", "mysql://me:hunter2@host/db")
        assert status == 2 and PASSWORD_VARIABLE in text and "hunter2" not in text

    @pytest.mark.parametrize("lock", ["run.lock", "schedule/lock"])
    def test_a_run_or_a_scheduler_at_work(self, capsys, config, lock):
        path = config.parent / ".evergreen" / lock
        path.parent.mkdir(exist_ok=True)
        with FileLock(str(path)):
            status, text = self.refused(capsys, config, "--to", URL)
        assert status == 5 and str(path) in text

    def test_no_store_yet(self, capsys, config):
        (config.parent / ".evergreen" / "metadata.db").unlink()
        status, text = self.refused(capsys, config, "--to", URL)
        assert status == 2 and "there is no metadata store to move" in text

    def test_a_store_that_is_on_a_server_already(self, capsys, config):
        status, text = self.refused(capsys, config, "--to", URL, "--set", f"metadata={URL}")
        assert status == 2 and "mysqldump" in text

    def test_a_driver_that_is_not_installed(self, capsys, config, monkeypatch):
        real = importlib.import_module

        def without(name, *rest):
            if name == "pymysql":
                raise ModuleNotFoundError(name)
            return real(name, *rest)

        monkeypatch.setattr(importlib, "import_module", without)
        status, text = self.refused(capsys, config, "--to", URL)
        assert status == 2 and "pip install 'evergreen-tfx[databases]'" in text

    def test_a_server_that_does_not_answer(self, capsys, config):
        pytest.importorskip("pymysql")
        status, text = self.refused(capsys, config, "--to", URL)
        assert status == 1 and "127.0.0.1:1/evergreen cannot be reached" in text
