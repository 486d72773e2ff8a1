"""Whatever stands in a checkpoint's JSON, a run goes on from a checkpoint that is right, or says in a line why not."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.storage import checkpoint
from models.storage.snapshot import HostCopy
from tests.support.states import run_state
from tests.support.toy_checkpoints import Toy, made
from tools.command_line import Failure
from tools.run.folder import RunFolder
from tools.run.resume import resume
from tools.run.state import check_state

SCALER = {"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}


def state(step):
    """What train.py keeps of a run that is so far."""
    further = {
        "step": step,
        "samples_seen": 3 * step,
        "seconds": 1.5,
        "rows": step,
        "loss": 0.5,
        "recent_losses": [0.5, 0.25],
    }
    return run_state().as_dict() | further | {"knn_top1": 40.0, "knn_step": 3, "best_top1": 40.0, "scaler": SCALER}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run with checkpoints of the steps 3 and 5 and a row for each step."""
    run = tmp_path_factory.mktemp("sound") / "run"
    for step in (3, 5):
        checkpoint.save(run / "checkpoints", *made(steps=1), state(step))
    (run / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 8)))
    return run


def gone_on(run):
    """(what was told, the state) of a resume that also trains and can be saved; the folder is let go."""
    folder = RunFolder(run, True, True)
    try:
        method, optimizer = made(seed=7, steps=0)
        reached = run_state()
        told = resume(folder, method, optimizer, None, reached, 1)
        method.train_step(optimizer, 0)
        HostCopy().take(method, optimizer, reached.as_dict())
        return told, reached.as_dict()
    finally:
        folder.close()


PATHS = [
    ("step",), ("samples_seen",), ("seconds",), ("rows",), ("loss",), ("knn_top1",), ("knn_step",), ("best_top1",),
    ("shown_step",), ("recent_losses",), ("recent_losses", 0), ("in_spike",), ("skipped_steps",), ("method",),
    ("seed",), ("accumulate",), ("data_checksum",), ("recipe",), ("recipe", "lr"), ("recipe", "resolutions"),
    ("scaler",), ("scaler", "scale"), ("optimizer",), ("optimizer", "state"), ("optimizer", "param_groups"),
    ("optimizer", "param_groups", 0), ("optimizer", "param_groups", 0, "params"),
    ("optimizer", "param_groups", 0, "weight_decay"), (),
]  # fmt: skip
ODD = st.one_of(
    st.sampled_from([None, True, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "5", "a\nb", "\ud800", [], {}]),
    st.sampled_from([{"0": 1}, {"x": {}}, {"9": {"a": 1}}, {"0": {"momentum_buffer": "x"}}, [[]], [{}], "x" * 9000]),
    st.recursive(st.none() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
        st.text(), inner), max_leaves=4),
)  # fmt: skip


def edited(value, path, odd, gone):
    """The JSON with another value at `path`, or without it."""
    if not path:
        return odd
    changed = copy.deepcopy(value)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    if gone:
        del inside[path[-1]]
    else:
        inside[path[-1]] = odd
    return changed


OF_THE_RUN = ("method", "seed", "accumulate", "data_checksum", "recipe")  # another one is another run


def outcome(run):
    """(why the run is not gone on with, or nothing; what was told; the state)."""
    try:
        return "", *gone_on(run)
    except Failure as refusal:
        return str(refusal), [], {}


QUICK = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUICK
@given(path=st.sampled_from(PATHS), odd=ODD, gone=st.booleans())
def test_any_state_is_gone_on_from_skipped_or_refused(path, odd, gone, sound, tmp_path):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(sound, run)
    newest = run / "checkpoints" / "step-00000005"
    file = newest / "state.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), path, odd, gone)))
    checkpoint.write_manifest(newest)
    before = (run / "metrics.jsonl").read_text()
    refusal, told, reached = outcome(run)
    if refusal:
        assert path and path[0] in OF_THE_RUN and "\n" not in refusal and len(refusal) < 600, refusal
        assert (run / "metrics.jsonl").read_text() == before
        return
    check_state(reached)
    assert all("\n" not in line and len(line) < 600 for line in told), told
    assert reached["step"] == (3 if "is damaged and was skipped (state.json: " in told[0] else 5)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[: reached["step"] - 1] == list(range(1, reached["step"]))  # no row that is right is lost


@QUICK
@given(name=st.sampled_from(["model.safetensors", "state.json", "more", None]), odd=ODD, gone=st.booleans())
def test_any_manifest_is_skipped(name, odd, gone, sound, tmp_path):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(sound, run)
    file = run / "checkpoints" / "step-00000005" / "manifest.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(edited(whole, (name,) if name else (), odd, gone and name in whole)))
    found, (note,) = checkpoint.newest(run / "checkpoints", check_state)
    assert found.state["step"] == 3 and "step-00000005 is damaged and was skipped (" in note and "\n" not in note


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\xfe", b'{"step": ' + b"9" * 5000 + b"}", b"null"])
@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
def test_what_is_no_json_is_skipped(content, name, sound, tmp_path):
    run = shutil.copytree(sound, tmp_path / "run")
    newest = run / "checkpoints" / "step-00000005"
    (newest / name).write_bytes(content)
    if name == "state.json":
        checkpoint.write_manifest(newest)
    told, reached = gone_on(run)
    assert reached["step"] == 3 and f"was skipped ({name}" in told[0] and "\n" not in told[0]


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("samples_seen", "80", "state.json: samples_seen is '80'"),
        ("seconds", float("nan"), "state.json: seconds is nan"),
        ("recent_losses", {"0": 1}, "state.json: recent_losses is {'0': 1}"),
        ("scaler", {}, "state.json: scaler is {}"),
        ("step", -5, "state.json: its step is not 5, that of the folder"),
    ],
)
def test_the_field_is_named(field, value, line, sound, tmp_path):
    run = shutil.copytree(sound, tmp_path / "run")
    newest = run / "checkpoints" / "step-00000005"
    (newest / "state.json").write_text(json.dumps(json.loads((newest / "state.json").read_text()) | {field: value}))
    checkpoint.write_manifest(newest)
    told, _ = gone_on(run)
    assert told[0] == f"step-00000005 is damaged and was skipped ({line})"


def tree(run):
    return {
        path: os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in run.rglob("*")
    }


def test_a_disk_that_cannot_be_read_is_no_fresh_start(sound, tmp_path):
    run = shutil.copytree(sound, tmp_path / "run")
    weights = run / "checkpoints" / "step-00000005" / "model.safetensors"
    weights.unlink()
    weights.symlink_to("/proc/self/mem")  # an input/output error, whoever reads
    before = tree(run)
    with pytest.raises(Failure) as refusal:
        gone_on(run)
    assert str(refusal.value) == (
        f"{weights} cannot be read (Input/output error); fix that, or start again with --force instead of --resume"
    )
    assert tree(run) == before


def test_checkpoints_that_cannot_be_listed_are_a_run(sound, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 0, "knn_top1": 9}\n')
    (run / "checkpoints").symlink_to(run / "checkpoints")
    before = tree(run)
    for again in (True, False):
        with pytest.raises(Failure, match=r"checkpoints cannot be read \(Too many .*\); fix that, move the run aside"):
            RunFolder(run, again, True)
    assert tree(run) == before
    folder = RunFolder(run, False, True, force=True)
    assert Path(f"{run}-before-1/checkpoints").is_symlink() and folder.note.endswith("run-before-1")
    folder.close()


def test_another_network_is_one_line(sound, tmp_path):
    run = shutil.copytree(sound, tmp_path / "run")
    folder = RunFolder(run, True, True)
    method = Toy(width=7)
    _, optimizer = made(steps=0)
    with pytest.raises(Failure, match=r"step-00000005 is of another network \(.*size mismatch") as refusal:
        resume(folder, method, optimizer, None, run_state(), 1)
    assert "\n" not in str(refusal.value)
    folder.close()


def test_accuracies_of_other_held_out_images_are_not_compared():
    saved = run_state().as_dict()
    now = run_state()
    now.held_out_checksum = "bb"
    now.refuse_another_run(saved)  # of a version that did not say
    with pytest.raises(Failure, match="kNN was measured on other held-out images; give those with --val-data"):
        now.refuse_another_run(saved | {"held_out_checksum": "aa"})
    now.refuse_another_run(saved | {"held_out_checksum": "bb"})
