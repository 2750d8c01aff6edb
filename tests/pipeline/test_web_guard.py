"""Who may ask the local server, and what a rollback's form confirms."""

import pytest

from evergreen.pipeline.web.guard import Guard

OURS = "http://127.0.0.1:8888"


@pytest.mark.parametrize(
    ("method", "host", "origin", "site", "passes"),
    [
        ("GET", "127.0.0.1:8888", None, None, True),
        ("GET", "localhost:8888", None, "none", True),
        ("GET", "127.0.0.1:8888", OURS, "same-origin", True),
        ("GET", "evil.example:8888", None, None, False),  # a name that its owner points to this machine
        ("GET", "127.0.0.1:9999", None, None, False),
        ("GET", None, None, None, False),
        ("GET", "127.0.0.1:8888", "http://evil.example", "cross-site", False),
        ("POST", "127.0.0.1:8888", OURS, "same-origin", True),
        ("POST", "127.0.0.1:8888", None, None, False),
        ("POST", "127.0.0.1:8888", "null", None, False),
        ("POST", "127.0.0.1:8888", "http://localhost:8888", None, False),
        ("POST", "127.0.0.1:8888", "https://127.0.0.1:8888", None, False),
        ("POST", "127.0.0.1:8888", OURS, "cross-site", False),
    ],
)
def test_only_this_machine_s_own_pages_may_ask(method, host, origin, site, passes):
    assert (Guard(8888).refusal(method, host, origin, site) == "") is passes


def test_a_form_confirms_one_action_of_one_start():
    guard = Guard(8888, "secret")
    token = guard.form_token("roll back to 1 from 2")
    assert guard.confirms("roll back to 1 from 2", token)
    assert not guard.confirms("roll back to 1 from 3", token)
    assert not Guard(8888).confirms("roll back to 1 from 2", token)
    assert not guard.confirms("roll back to 1 from 2", "")


def test_tokens_are_compared_whole_and_differ_from_start_to_start():
    guard = Guard(8888)
    assert guard.knows(guard.token)
    assert not guard.knows(guard.token[:-1]) and not guard.knows("") and not guard.knows(None)
    assert guard.token != Guard(8888).token and len(guard.token) >= 32
