"""Progress reaches whoever listens, and not too often."""

import pytest

from evergreen.components import progress


@pytest.fixture
def heard():
    reports = []
    progress.set_listener(lambda fraction, text: reports.append((fraction, text)))
    yield reports
    progress.set_listener(None)


def test_reports_are_passed_on_at_most_twice_a_second(heard, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for step in range(10):
        progress.report(step / 20, f"step {step}")
        now[0] += 0.2
    assert [text for _, text in heard] == ["step 0", "step 3", "step 6", "step 9"]


def test_a_phase_and_the_end_are_always_heard(heard):
    progress.report(0.1, "reading")
    progress.report(None, "exporting")
    progress.report(1.0, "done")
    assert heard == [(0.1, "reading"), (None, "exporting"), (1.0, "done")]


def test_nobody_listening_is_no_error():
    progress.set_listener(None)
    progress.report(0.5, "alone")
