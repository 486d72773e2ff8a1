"""The run's folder: rows that survive a kill, files that are whole, and no run over another."""

import json

import pytest

from tools.options import Failure
from tools.run_folder import RunFolder, commit
from tools.run_state import refuse_another_run


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_on_their_way_at_once_and_counted(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run", False, True)
    for step in range(3):
        folder.log({"step": step})
        assert lines(folder.path)[-1] == {"step": step} and folder.rows == step + 1


def test_a_resumed_run_goes_back_to_the_rows_of_its_checkpoint(tmp_path):
    folder = RunFolder(tmp_path, False, True)
    for step in range(5):
        folder.log({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a row
    folder.close()
    again = RunFolder(tmp_path, True, True)
    again.rewind(3)
    assert [row["step"] for row in lines(tmp_path)] == [0, 1, 2] and again.rows == 3
    again.log({"step": 3})
    assert [row["step"] for row in lines(tmp_path)] == [0, 1, 2, 3]
    again.rewind(0)
    assert lines(tmp_path) == [] and again.rows == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_a_folder_with_a_run_needs_resume(tmp_path):
    RunFolder(tmp_path, False, True)
    RunFolder(tmp_path, False, True).log({"step": 0})  # a start that logged nothing is no run
    with pytest.raises(Failure, match="holds a run; go on with --resume, move it aside with --force, or take another"):
        RunFolder(tmp_path, False, True)
    assert RunFolder(tmp_path, True, True).path == tmp_path


def test_force_moves_a_run_aside_and_loses_nothing(tmp_path):
    run = tmp_path / "run"
    for number in range(3):
        folder = RunFolder(run, False, True, force=True)
        folder.log({"number": number})
        folder.write_config({"number": number})
        folder.close()
        assert folder.note == (f"moved the run that was in {run} to {run}-before-{number}" if number else "")
    assert lines(run) == [{"number": 2}]
    for number in (1, 2):
        assert lines(tmp_path / f"run-before-{number}") == [{"number": number - 1}]
        assert json.loads((tmp_path / f"run-before-{number}/config.json").read_text()) == {"number": number - 1}


def test_two_runs_never_write_into_one_folder(tmp_path):
    first = RunFolder(tmp_path, False, True)
    first.log({"step": 0})
    for resume, force in ((True, False), (False, True)):
        with pytest.raises(Failure, match="is being written by another run; wait for its end, or take another"):
            RunFolder(tmp_path, resume, True, force)
    assert RunFolder(tmp_path, True, False).path == tmp_path  # the other processes of one run
    first.close()
    RunFolder(tmp_path, True, True).close()


def test_the_commit_of_the_sources_is_told(monkeypatch, tmp_path):
    found = commit()
    assert found is None or len(found.removesuffix("+changes")) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None  # no git


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match=r"cannot write the run's folder .*: Not a directory; take another --output"):
        RunFolder(tmp_path / "file" / "run", False, True)


def test_only_the_main_process_writes(tmp_path):
    folder = RunFolder(tmp_path / "run", False, False)
    folder.write_config({"a": 1})
    folder.log({"step": 1})
    folder.rewind(0)
    folder.write_summary({"a": 1})
    assert not (tmp_path / "run").exists()


def test_config_and_summary_are_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path, False, True)
    for value in (1, 2):
        folder.write_config({"value": value})
        folder.write_summary({"value": value})
    for name in ("config.json", "summary.json"):
        assert json.loads((tmp_path / name).read_text()) == {"value": 2}
    with pytest.raises(TypeError):
        folder.write_summary({"value": object()})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"value": 2}
    assert not list(tmp_path.glob(".*"))


RUN = {"method": "clim", "seed": 0, "accumulate": 1, "data_checksum": "c", "recipe": {"lr": 0.1, "resolutions": [16]}}


def test_the_same_run_is_let_through():
    refuse_another_run(json.loads(json.dumps(RUN)), RUN)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "moco"}, "started with method clim, not moco"),
        ({"seed": 3}, "started with seed 0, not 3"),
        ({"accumulate": 2}, "started with accumulate 1, not 2"),
        ({"recipe": {"lr": 0.2, "resolutions": [16]}}, "started with lr 0.1, not 0.2"),
        ({"recipe": RUN["recipe"] | {"new": 1}}, "started with new None, not 1"),
        ({"data_checksum": "d"}, "other data than --data"),
    ],
)
def test_another_run_is_refused(changed, message):
    with pytest.raises(Failure, match=message):
        refuse_another_run(RUN, RUN | changed)
