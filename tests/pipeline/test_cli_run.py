"""`evergreen run`: what it says before it trains."""

from __future__ import annotations

import io

from pusher_world import YAML

from evergreen.components.model_server.process import free_port
from evergreen.pipeline import config
from evergreen.pipeline.commands.run import warn_of_servers
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
