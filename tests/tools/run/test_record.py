"""What a run's folder says about its length."""

import pytest

from tools.run.record import RunRecord


@pytest.mark.parametrize(
    ("recipe", "more", "expected"),
    [
        ({}, {}, 195 * 200),
        ({"fill_last_batch": True}, {}, 196 * 200),
        ({}, {"extended": [{"to_epoch": 300}]}, 195 * 300),
        ({}, {"options": {"max_steps": 50}}, 50),
    ],
)
def test_planned_steps_are_those_of_the_loader(tmp_path, recipe, more, expected):
    known = {"recipe": {"batch_size": 256, "epochs": 200} | recipe, "options": {}, "data": {"number": 50_000}}
    assert RunRecord(tmp_path, known | more, [{"step": 1}], {}, {}).planned_steps == expected
