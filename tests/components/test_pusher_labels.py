"""Labels in a models.config: only they change, and a label never points to a version that no server keeps."""

from __future__ import annotations

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.pusher import labels

TEXT = """\
# two models, written by hand
model_config_list {
  config {
    name: "taxi"
    base_path: "/models/taxi"
    model_platform: "tensorflow"
    version_labels { key: "stable" value: 7 }
  }
  config {
    name: 'flights'  # the one with a } in its comment
    base_path: "/models/flights"
    model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
  }
}
"""


def test_labels_are_set_and_nothing_else_changes():
    first = labels.edited(TEXT, "flights", {"stable": 5, "canary": 6}, "f")
    assert [line for line in first.splitlines() if line not in TEXT.splitlines()] == [
        '    version_labels { key: "canary" value: 6 }',
        '    version_labels { key: "stable" value: 5 }',
    ]
    assert [line for line in TEXT.splitlines() if line not in first.splitlines()] == []
    moved = labels.edited(first, "flights", {"stable": 6}, "f")
    assert moved == first.replace("value: 5", "value: 6")
    assert labels.edited(moved, "flights", {"stable": None, "canary": None}, "f") == TEXT
    assert labels.edited(TEXT, "flights", {"canary": None}, "f") == TEXT


def test_another_model_keeps_its_labels():
    both = labels.parse(labels.edited(TEXT, "flights", {"stable": 9}, "f"), "f")
    assert [dict(config.version_labels) for config in both.model_config_list.config] == [{"stable": 7}, {"stable": 9}]


@pytest.mark.parametrize(
    "text",
    [
        'model_config_list { config { name: "m" base_path: "/m" version_labels { key: "stable" value: 1 } } }',
        'model_config_list: { config: { name: "m", base_path: "/m", version_labels: { key: "stable", value: 1 } } }',
        'model_config_list < config < name: "m" base_path: "/m" version_labels < key: "stable" value: 1 > > >',
        'model_config_list { config: [{ name: "m" base_path: "/m" version_labels { key: "stable" value: 1 } }] }',
        'model_config_list {\nconfig {\n name: "m"\nbase_path: "/m"\n version_labels {\nkey: "stable"\n value: 1\n}}}',
        'model_config_list { config { base_path: "/{m}\\"#" version_labels { key: "stable" value: 1 } name: "m" } }',
    ],
)
def test_any_form_of_the_syntax_keeps_its_meaning(text):
    before = labels.parse(text, "f")
    after = labels.parse(labels.edited(text, "m", {"stable": 2, "canary": 3}, "f"), "f")
    (config,) = after.model_config_list.config
    assert dict(config.version_labels) == {"stable": 2, "canary": 3}
    config.version_labels.clear()
    before.model_config_list.config[0].version_labels.clear()
    assert after == before


def test_reading_says_what_is_wrong(tmp_path):
    path = tmp_path / "models.config"
    with pytest.raises(ConfigError, match="No such file"):
        labels.read(path, "flights")
    path.write_text("model_config_list { config { nam: 'x' } }")
    with pytest.raises(ConfigError, match="ModelServerConfig"):
        labels.read(path, "flights")
    path.write_text(TEXT)
    assert labels.read(path, "taxi") == {"stable": 7}
    with pytest.raises(ConfigError, match="names `taxi`, `flights`"):
        labels.read(path, "flight")


def config(policy: str = "", **pointing: int):
    text = f'model_config_list {{ config {{ name: "m" base_path: "/m" {policy} }} }}'
    return labels.parse(labels.edited(text, "m", pointing, "f"), "f").model_config_list.config[0]


LATEST_2 = "model_version_policy { latest { num_versions: 2 } }"


class TestPolicy:
    def test_what_a_server_keeps_loaded(self):
        for policy, expected in [
            ("", {9}),
            ("model_version_policy { latest {} }", {9}),
            (LATEST_2, {8, 9}),
            ("model_version_policy { all {} }", {3, 8, 9}),
            ("model_version_policy { specific { versions: 3 versions: 4 } }", {3}),
        ]:
            assert labels.loaded(config(policy).model_version_policy, [3, 8, 9]) == expected

    def test_two_versions_keep_stable_beside_the_new_one(self):
        labels.check_policy(config(LATEST_2, stable=8), [7, 8], 9, True, "f")
        labels.check_policy(config(LATEST_2), [], 1, True, "f")
        labels.check_policy(config(), [8], 9, False, "f")

    @pytest.mark.parametrize(
        ("policy", "pointing", "trial", "words"),
        [
            ("", {"stable": 8}, False, "`stable` points to 8"),
            ("", {}, True, "only the newest version"),
            (LATEST_2, {"pinned": 7, "stable": 8}, False, "`pinned` points to 7"),
            ("model_version_policy { specific { versions: 8 } }", {}, False, "`specific`"),
        ],
    )
    def test_a_label_that_would_lose_its_version_is_refused(self, policy, pointing, trial, words):
        with pytest.raises(ConfigError, match=words):
            labels.check_policy(config(policy, **pointing), [7, 8], 9, trial, "f")

    def test_a_label_that_moves_is_repaired_where_its_version_has_gone_already(self):
        stale = config(LATEST_2, stable=3)
        with pytest.raises(ConfigError, match="`stable` points to 3"):
            labels.check_policy(stale, [7, 8], 9, False, "f")
        labels.check_policy(stale, [7, 8], 9, False, "f", moving=["stable"])
