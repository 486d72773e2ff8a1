"""The run's folder: rows that survive a kill, files that are whole, and no run over another."""

import json

import pytest

from tools.command_line import Failure
from tools.run.environment import commit
from tools.run.folder import RunFolder
from tools.run.state import RunState


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
    assert again.rewind(2, 3) == []
    assert [row["step"] for row in lines(tmp_path)] == [0, 1, 2] and again.rows == 3
    again.log({"step": 3})
    assert [row["step"] for row in lines(tmp_path)] == [0, 1, 2, 3]
    assert again.rewind(0, 0) == []
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
        with pytest.raises(Failure, match="is being written by another run; wait until it ends, or take another"):
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
    folder.rewind(0, 0)
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
    RunState(**RUN).refuse_another_run(json.loads(json.dumps(RUN)))
    old = {"image_keep": 0.5, "decay_vectors": False}
    now = {"crop_ratio": 0.5, "decay_norm_and_bias": False}
    RunState(**RUN | {"recipe": now}).refuse_another_run(RUN | {"recipe": old})  # the names of earlier versions


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
        RunState(**RUN | changed).refuse_another_run(RUN)


# ---- books that are not whole -------------------------------------------------------------------------------------


def row(step, **more):
    return json.dumps({"step": step, **more})


WHOLE = [row(0, knn_top1=9), row(1), row(2), row(2, knn_top1=9), row(2, partner_share=1), row(3), row(4)]


@pytest.mark.parametrize(
    ("content", "rows", "kept", "lost"),
    [
        ("\n".join(WHOLE) + "\n", 4, WHOLE[:4], 0),  # step 2 was saved before its partners were chosen
        ("\n".join(WHOLE[:4]), 4, WHOLE[:4], 0),  # cut just before the end of the line
        ("\n".join(WHOLE[:3]) + "\n" + WHOLE[3][:9], 4, WHOLE[:3], 1),  # cut inside it
        ("\n".join([WHOLE[0], WHOLE[1][:5], *WHOLE[2:]]), 4, [WHOLE[0], *WHOLE[2:4]], 1),  # damaged in the middle
        ("\n".join([WHOLE[0], "\0" * 99 + WHOLE[3], *WHOLE[4:]]), 4, [WHOLE[0], WHOLE[4]], 2),  # a block is missing
        ("\n".join([WHOLE[0], "[]", '"x"', "null", '{"step": "1"}', "[" * 9999, *WHOLE[1:]]), 2, WHOLE[:2], 0),
        ("\n".join(WHOLE[:2]) + "\n", 4, WHOLE[:2], 2),  # never reached the disk
        ("\n".join(WHOLE) + "\n", 0, WHOLE[:2], 0),  # rows of earlier steps are right, whatever the number says
        ("", 4, [], 4),
    ],
)
def test_a_resumed_run_mends_its_rows_and_loses_none_that_is_right(content, rows, kept, lost, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(content)
    folder = RunFolder(tmp_path, True, True)
    told = folder.rewind(2, rows)
    line = f"warning: metrics.jsonl lacks {lost} of its 4 rows up to step 2: damaged or lost"
    assert told == ([line] if lost else [])
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(f"{line}\n" for line in kept)
    folder.log({"step": 3})
    assert lines(tmp_path)[-1] == {"step": 3} and folder.rows == len(kept) + 1 == len(lines(tmp_path))
    folder.close()


def test_rows_that_cannot_be_read_are_left_as_they_are(tmp_path):
    folder = RunFolder(tmp_path, True, True)
    folder._metrics.unlink()
    folder._metrics.symlink_to("/proc/self/mem")
    with pytest.raises(Failure, match=r"metrics.jsonl cannot be read and written \(Input/output error\)"):
        folder.rewind(2, 3)
    folder.close()


CONFIG = {
    "method": "clim", "recipe": {"lr": 0.1}, "sources": {"lr": "paper"}, "world_size": 1, "commit": None,
    "options": {"precision": "fp32", "loader": "ffcv", "resume": False}, "versions": {"torch": "2.9"},
}  # fmt: skip


def changed(**sections):
    return {
        name: {**CONFIG[name], **new} if isinstance(new, dict) else new for name, new in (CONFIG | sections).items()
    }


def test_config_keeps_what_was_asked_first_and_gets_what_changed(tmp_path):
    folder = RunFolder(tmp_path, False, True)
    assert folder.write_config(CONFIG) == []
    bf16 = changed(options={"precision": "bf16", "resume": True}, versions={"torch": "2.10"}, sources={"lr": "asked"})
    line = "changed since the run's last start: precision fp32 -> bf16, torch 2.9 -> 2.10"
    assert folder.write_config(bf16, 40) == [line]
    assert folder.write_config(bf16, 60) == []
    back = changed(world_size=2, versions={"torch": "2.10"})
    assert folder.write_config(back, 80) == [
        "changed since the run's last start: world_size 1 -> 2, precision bf16 -> fp32"
    ]
    written = json.loads((tmp_path / "config.json").read_text())
    entries = written.pop("resumed")
    assert written == CONFIG and all(entry["time"].endswith("+00:00") for entry in entries)
    assert [(entry["step"], entry["changed"]) for entry in entries] == [
        (40, {"options.precision": "bf16", "versions.torch": "2.10"}),
        (60, {}),
        (80, {"options.precision": "fp32", "world_size": 2}),
    ]
    folder.close()


@pytest.mark.parametrize("content", [None, "", '{"method": "cl', "[]", "{}", "[" * 99_999])
def test_a_config_that_is_lost_is_written_anew(content, tmp_path):
    folder = RunFolder(tmp_path, True, True)
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    (line,) = folder.write_config(CONFIG, 40)
    assert line == "warning: config.json was missing or damaged; it now holds the configuration of this start"
    written = json.loads((tmp_path / "config.json").read_text())
    (entry,) = written.pop("resumed")
    assert written == CONFIG and entry["step"] == 40 and entry["config"] == "was lost: this is what was asked here"
    for odd in ("x", [1, {"changed": 2}]):
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"resumed": odd}))
        assert folder.write_config(CONFIG, 41) == []
    folder.close()
