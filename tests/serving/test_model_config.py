"""ModelServerConfig: what is taken, and what is refused with which words."""

import grpc
import pytest

from evergreen.serving import model_config
from evergreen.serving.errors import ServingError

GOOD = """
model_config_list {
  config {
    name: "flights" base_path: "/models/flights" model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
    version_labels { key: "stable" value: 41 }
  }
  config { name: "old" base_path: "/models/old" model_type: TENSORFLOW }
}
"""


def one(rest: str) -> str:
    return f"model_config_list {{ config {{ {rest} }} }}"


def test_a_config_is_read(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(GOOD)
    first, second = model_config.read(file).model_config_list.config
    assert (first.name, first.base_path, dict(first.version_labels)) == ("flights", "/models/flights", {"stable": 41})
    assert first.model_version_policy.latest.num_versions == 2
    assert second.name == "old"


def test_two_flags_make_a_config():
    (model,) = model_config.of_flags("m", "/models/m").model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("m", "/models/m", "tensorflow")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("model_config {", "INVALID_ARGUMENT", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (one('name: "a" base_path: "b" model_platform: "tensorflow"'), "INVALID_ARGUMENT", "absolute path"),
        (one('base_path: "/b" model_platform: "tensorflow"'), "INVALID_ARGUMENT", "no name"),
        (one('name: "a" base_path: "/b"'), "INVALID_ARGUMENT", "no model_platform"),
        (one('name: "a" base_path: "/b" model_platform: "caffe"'), "UNIMPLEMENTED", '"caffe" is not served'),
        (one('name: "a" base_path: "gs://b" model_platform: "tensorflow"'), "UNIMPLEMENTED", "not a local folder"),
        (
            one('name: "a" base_path: "/b" model_platform: "tensorflow" model_version_policy { specific {} }'),
            "INVALID_ARGUMENT",
            "names no version",
        ),
        (
            one('name: "a" base_path: "/b" model_platform: "tensorflow" } config { name: "a"'),
            "INVALID_ARGUMENT",
            "Duplicate model name: a",
        ),
    ],
)
def test_a_wrong_config_is_refused(text, code, words):
    with pytest.raises(ServingError, match=words) as refused:
        model_config.parse(text, "models.config")
    assert refused.value.code is grpc.StatusCode[code]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ServingError, match=r"nowhere\.config cannot be read: No such file"):
        model_config.read(tmp_path / "nowhere.config")
