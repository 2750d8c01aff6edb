"""Which gate keeps a stage from running."""

import pytest
from ml_metadata.proto import metadata_store_pb2

from evergreen.pipeline import stages


def verdict(name: str, value: int):
    artifact = metadata_store_pb2.Artifact()
    artifact.custom_properties[name].int_value = value
    return [artifact]


GATE_1 = {"SpanValidator": {"anomalies": verdict("accepted", 1)}}
GATE_2 = {"Evaluator": {"blessing": verdict("blessed", 1)}}
GATE_3 = {"Quantizer": {"report": verdict("passed", 1)}}
GATE_4 = {"ServingValidator": {"blessing": verdict("blessed", 1)}}


@pytest.mark.parametrize("node_id", ["SpanExampleGen", "SpanValidator", "QualityGate", "Trainer", "Pusher", "Mine"])
def test_open_gates_keep_nothing(node_id):
    assert stages.closed_gate(node_id, {**GATE_1, **GATE_2, **GATE_3, **GATE_4}) is None
    assert stages.closed_gate(node_id, {}) is None


@pytest.mark.parametrize(
    ("closed", "gate", "kept"),
    [
        (
            {"SpanValidator": {"anomalies": verdict("accepted", 0)}},
            "gate 1",
            ["Trainer", "Quantizer", "ServingValidator", "Pusher"],
        ),
        ({"Evaluator": {"blessing": verdict("blessed", 0)}}, "gate 2", ["Quantizer", "ServingValidator", "Pusher"]),
        ({"Quantizer": {"report": verdict("passed", 0)}}, "gate 3", ["ServingValidator", "Pusher"]),
        ({"ServingValidator": {"blessing": verdict("blessed", 0)}}, "gate 4", ["Pusher"]),
    ],
)
def test_a_closed_gate_keeps_all_that_follows(closed, gate, kept):
    outputs = {**GATE_1, **closed}
    names = ["SpanValidator", "SpanExampleGen.7", "Trainer", "Quantizer", "VariantsGate", "ServingValidator", "Pusher"]
    assert [name for name in names if stages.closed_gate(name, outputs) == gate] == kept


def pushed(message: str, **numbers: int):
    artifact = metadata_store_pb2.Artifact()
    artifact.custom_properties["pushed_version"].string_value = "17"
    artifact.custom_properties["message"].string_value = message
    for name, value in numbers.items():
        artifact.custom_properties[name].int_value = value
    return artifact


def test_what_is_said_of_a_push():
    watched = pushed("Published as version 17. a:8500 answers with version 17.", published=1)
    assert stages.summary("Pusher", {"pushed_model": [watched]}) == "version 17; a:8500 answers with version 17"
    plain = pushed("Published as version 17.", published=1)
    assert stages.summary("Pusher", {"pushed_model": [plain]}) == "version 17"
    assert stages.withdrawal(plain) is None


def test_a_withdrawn_version_is_a_rejected_model():
    gone = pushed("Published as version 17. Withdrew version 17: boom.", published=0, withdrawn=1)
    gone.custom_properties["reason"].string_value = "boom"
    assert stages.summary("Pusher", {"pushed_model": [gone]}) == "version 17 withdrawn"
    error = stages.withdrawal(gone)
    assert (error.exit_status, error.reason) == (4, "boom")
    assert error.headline == "version 17 was withdrawn after it had been published"
