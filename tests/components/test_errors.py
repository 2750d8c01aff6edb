"""Refusals: as plain values for another process, and back."""

import dataclasses
import json

import pytest

from evergreen.components import errors
from evergreen.components.errors import Failure


@pytest.mark.parametrize("kind", ["ConfigError", "SpanError", "DataRejected", "ModelRejected", "LockHeld"])
def test_a_refusal_crosses_a_process_boundary_as_json(kind):
    raised = getattr(errors, kind)("no rows", "the span is empty", "Deliver it again.")
    sent = json.dumps(dataclasses.asdict(Failure.of(raised)))
    received = Failure(**json.loads(sent)).exception()
    assert type(received) is type(raised)
    assert str(received) == str(raised)
    assert received.exit_status == raised.exit_status
