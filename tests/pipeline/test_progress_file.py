"""What a run says of its progress is read by another process, and never taken for another run's."""

from __future__ import annotations

from evergreen.pipeline import progress_file


def test_what_is_said_is_read(tmp_path):
    progress_file.write(tmp_path, "r1", "Trainer", 0.25, "step 500 of 2,000")
    assert progress_file.read(tmp_path, "r1", "Trainer") == {"fraction": 0.25, "text": "step 500 of 2,000"}


def test_another_run_or_stage_has_said_nothing(tmp_path):
    progress_file.write(tmp_path, "r1", "Trainer", 0.25, "step 500 of 2,000")
    assert progress_file.read(tmp_path, "r2", "Trainer") is None
    assert progress_file.read(tmp_path, "r1", "Evaluator") is None


def test_a_workspace_that_is_gone_stops_no_run(tmp_path):
    progress_file.write(tmp_path / "gone", "r1", "Trainer", None, "")
    assert progress_file.read(tmp_path / "gone", "r1", "Trainer") is None
    (tmp_path / progress_file.NAME).write_text("[]")
    assert progress_file.read(tmp_path, "r1", "Trainer") is None
