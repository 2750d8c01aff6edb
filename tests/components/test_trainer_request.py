"""Which rows a model learns from, and requests that travel between processes."""

import pytest

from evergreen.components.trainer.request import (
    BaseModel,
    Examples,
    Part,
    Request,
    training_parts,
    validation_parts,
)
from evergreen.components.trainer.settings import EarlyStopping, TrainerSettings, WarmStart


def examples(folder, span, version=1, splits=("train", "validation", "exam"), files=1):
    for split in splits:
        place = folder / f"{span}-{version}" / f"Split-{split}"
        place.mkdir(parents=True)
        for number in range(files):
            (place / f"data-{number}").touch()
    return Examples(str(folder / f"{span}-{version}"), span, version, splits)


def chosen(parts):
    return [(part.span, part.split) for part in parts]


def test_exam_rows_train_except_those_of_the_newest_span(tmp_path):
    window = [examples(tmp_path, span) for span in (3, 1, 2)]
    assert chosen(training_parts(window, newest_span=3)) == [
        (1, "train"),
        (1, "exam"),
        (2, "train"),
        (2, "exam"),
        (3, "train"),
    ]
    assert chosen(validation_parts(window)) == [(1, "validation"), (2, "validation"), (3, "validation")]


def test_exam_rows_of_the_last_artifact_are_held_back_whatever_the_newest_span_is_called(tmp_path):
    window = [examples(tmp_path, 1), examples(tmp_path, 2)]
    assert (2, "exam") not in chosen(training_parts(window, newest_span=7))
    assert chosen(training_parts(window, newest_span=1)) == [(1, "train"), (2, "train")]


def test_eval_is_the_validation_of_a_stock_example_gen(tmp_path):
    stock = examples(tmp_path, 0, splits=("train", "eval"))
    assert chosen(training_parts([stock], newest_span=0)) == [(0, "train")]
    assert chosen(validation_parts([stock])) == [(0, "eval")]
    both = examples(tmp_path, 1, splits=("train", "eval", "validation"))
    assert chosen(validation_parts([stock, both])) == [(0, "eval"), (1, "validation")]


def test_only_splits_and_files_that_exist_are_read(tmp_path):
    window = [examples(tmp_path, 1, splits=("train",)), examples(tmp_path, 2, files=2)]
    parts = training_parts(window, newest_span=2)
    assert chosen(parts) == [(1, "train"), (2, "train")]
    assert [file.rsplit("/", 1)[1] for file in parts[1].files] == ["data-0", "data-1"]
    assert isinstance(parts[0], Part)


@pytest.mark.parametrize("base", [None, BaseModel("/champion", 3)])
def test_a_request_survives_json(base):
    settings = TrainerSettings(
        model="m:f", early_stopping=EarlyStopping(every=5), warm_start=WarmStart(3), hyperparameters={"units": [8, 4]}
    )
    window = (Examples("/a", 1, 2, ("train", "exam")),)
    request = Request(settings, "/p", "late", 1, window, "/g", "/s", "/m", "/r", base, window, 10)
    assert Request.from_json(request.to_json()) == request
