"""`evergreen run`: what it says before it trains, and how it is stopped."""

from __future__ import annotations

import io
import signal

import pytest
from filelock import FileLock
from project_world import YAML

from evergreen.components.model_server.process import free_port
from evergreen.pipeline import config
from evergreen.pipeline.commands.run import held, warn_of_servers
from evergreen.pipeline.console import Console


def test_a_server_that_is_away_is_named_before_the_training(tmp_path):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    printed = io.StringIO()
    warn_of_servers(config.load(tmp_path), Console(printed))
    assert printed.getvalue() == ""
    away = f"127.0.0.1:{free_port()}"
    warn_of_servers(config.load(tmp_path, [f"publish.server='{away}'"]), Console(printed))
    assert (
        printed.getvalue() == f"warning the server {away} does not answer; while it is away nothing can be published\n"
    )


def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    project = config.load(tmp_path)
    with pytest.raises(KeyboardInterrupt), held(project):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    FileLock(str(project.lock_path)).acquire(timeout=0).lock.release()


def test_whoever_listens_to_sigterm_goes_on_listening(tmp_path):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with held(config.load(tmp_path)):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [1]
