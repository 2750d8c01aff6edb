"""Which directories are versions, and what a policy makes of them."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from evergreen.serving.versions import chosen, next_step, version_of, versions_of


def policy(text: str = ""):
    config = text_format.Parse(f"model_version_policy {{ {text} }}", model_server_config_pb2.ModelConfig())
    return config.model_version_policy


@pytest.mark.parametrize(("name", "version"), [("0", 0), ("7", 7), ("00000123", 123), (str(2**63 - 1), 2**63 - 1)])
def test_numbers_are_versions(name, version):
    assert version_of(name) == version


@pytest.mark.parametrize("name", ["", "v1", "1.tmp", ".tmp-5", "2.denied", "-1", "+1", "1 ", "1_000", "٣", str(2**63)])
def test_other_names_are_not(name):
    assert version_of(name) is None


def test_one_number_under_two_names_is_one_version():
    assert versions_of(["007", "7", "8", "latest"]) == {7: "7", 8: "8"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {9}),
        ("latest {}", {9}),
        ("latest {num_versions: 2}", {5, 9}),
        ("latest {num_versions: 10}", {1, 2, 5, 9}),
        ("all {}", {1, 2, 5, 9}),
        ("specific {versions: 2 versions: 3}", {2}),
    ],
)
def test_a_policy_chooses(text, wanted):
    assert chosen(policy(text), [9, 1, 5, 2]) == wanted
    assert chosen(policy(text), []) == set()


def step(text, found, usable=None, due=(), loaded=()):
    planned = next_step(policy(text), found, found if usable is None else usable, due, loaded)
    return set(planned.unload), planned.load


def test_the_old_version_goes_only_when_the_new_one_is_loaded():
    assert step("", found=[1, 2], loaded=[1]) == (set(), 2)
    assert step("", found=[1, 2], loaded=[1, 2]) == ({1}, None)


def test_the_older_version_loads_before_a_removed_one_goes():
    assert step("", found=[1], loaded=[2]) == (set(), 1)
    assert step("", found=[1], loaded=[1, 2]) == ({2}, None)


def test_an_empty_base_path_unloads_everything():
    assert step("", found=[], loaded=[1, 2]) == ({1, 2}, None)
    assert step("specific {versions: 9}", found=[1], loaded=[1]) == ({1}, None)


def test_a_version_that_failed_does_not_take_the_place_of_a_good_one():
    assert step("", found=[4, 5], usable=[4]) == (set(), 4)
    assert step("", found=[4, 5], usable=[4], loaded=[4]) == (set(), None)
    # nor does a server lose the removed version that it serves to one that fails
    assert step("", found=[5], usable=[], loaded=[4]) == (set(), None)


def test_a_failed_version_is_tried_again_when_it_is_due_and_still_wanted():
    assert step("", found=[4, 5], usable=[4], due=[5], loaded=[4]) == (set(), 5)
    assert step("", found=[4, 5, 6], usable=[4, 6], due=[5], loaded=[6]) == (set(), None)


def test_the_status_is_about_versions_that_somebody_wants():
    def wanted(text, found, usable):
        return set(next_step(policy(text), found, usable, (), ()).wanted)

    assert wanted("", [1, 2, 3], [1, 2, 3]) == {3}
    assert wanted("", [1, 2, 3, 4, 5], [1, 2, 4]) == {4, 5}  # 5 failed, and would be served else; 3 would not
    assert wanted("latest {num_versions: 3}", [1, 2], [2]) == {1, 2}
    assert wanted("specific {versions: 2}", [1, 2], [1]) == {2}


def test_all_versions_load_newest_first():
    assert step("all {}", found=[1, 2, 3]) == (set(), 3)
    assert step("all {}", found=[1, 2, 3], loaded=[3]) == (set(), 2)
