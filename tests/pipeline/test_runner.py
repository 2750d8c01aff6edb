"""A run's id is its own."""

from evergreen.pipeline import runner


def test_runs_of_one_second_and_one_process_have_different_ids_that_sort():
    ids = [runner.new_run_id() for _ in range(9)]
    assert len(set(ids)) == 9
    assert sorted(ids) == ids
