"""TensorBoard and W&B get what metrics.jsonl gets, under the same names, and pictures; read back from their files."""

import errno
import json
import struct
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs

LAST = {"knn_every": 2, "images_every": 2, "epochs": 4, "checkpoint_every": 0}  # 12 steps


def numbers(run):
    """Every number of metrics.jsonl by name: {step: value}; of two rows at one step the later one counts."""
    found = {}
    for row in [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]:
        for name, value in row.items():
            if isinstance(value, int | float):
                found.setdefault(name, {})[row["step"]] = value
    return found


def tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    size = {"scalars": 0, "images": 0, "tensors": 0}
    read = EventAccumulator(str(run / "tensorboard"), size_guidance=size)
    read.Reload()
    return read


def test_tensorboard_has_the_names_and_numbers_of_the_metrics(data, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run = tmp_path / "run"
    words = runs.options(data, run, log_with="tensorboard", **LAST)
    assert runs.in_process(train, monkeypatch, *words) == 0
    read = tensorboard(run)
    assert set(read.Tags()["scalars"]) == set(numbers(run))
    for name, values in numbers(run).items():
        told = {event.step: event.value for event in read.Scalars(name)}
        assert told == pytest.approx(values, rel=1e-6), name
    assert sorted(path.name for path in (run / "tensorboard").iterdir()) == [
        path.name for path in (run / "tensorboard").glob("events.out.*")
    ]  # no further runs beside it
    config = read.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(config.removeprefix("```json\n").removesuffix("\n```")) == json.loads(
        (run / "config.json").read_text()
    )
    assert set(read.Tags()["images"]) == {"views", "neighbors"}
    for name, columns in (("views", 5), ("neighbors", 8)):
        shown = read.Images(name)
        assert [event.step for event in shown] == [6, 12]
        assert shown[0].width == columns * 118 + 6 and shown[0].encoded_image_string != shown[1].encoded_image_string


def test_a_disk_that_is_full_for_tensorboard_costs_its_rows_alone(data, tmp_path, monkeypatch, capfd):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.summary.writer.record_writer import RecordWriter

    real, written = RecordWriter.write, []

    def full(self, record):
        written.append(record)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, record)

    monkeypatch.setattr(RecordWriter, "write", full)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # its thread tells the same again
    run = tmp_path / "run"
    words = runs.options(data, run, log_with="tensorboard", **LAST)
    assert runs.in_process(train, monkeypatch, *words) == 0
    told = capfd.readouterr()
    assert told.out.count("WARNING: tensorboard could not be written ([Errno 28] No space left on device)") == 1
    lost = [row.get("lost_by_tracker", 0) for row in runs.rows(run, "loss")]
    assert len(lost) == 12 and lost[0] == 0 and lost[-1] > 3 and lost == sorted(lost)


def test_a_resumed_run_goes_on_in_tensorboard(data, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run = tmp_path / "run"
    words = runs.options(data, run, log_with="tensorboard", **LAST)
    assert runs.in_process(train, monkeypatch, *words, "--max-steps", 8) == 0
    assert runs.in_process(train, monkeypatch, *words, "--max-steps", 12, "--resume") == 0
    steps = [event.step for event in tensorboard(run).Scalars("loss")]
    assert steps == list(range(1, 13))
    # A killed run was further than its checkpoint: what is made again is told once.
    (checkpoint,) = (run / "checkpoints").glob("step-00000012")
    for left in checkpoint.iterdir():
        left.unlink()
    checkpoint.rmdir()
    assert runs.in_process(train, monkeypatch, *words, "--max-steps", 12, "--resume") == 0
    assert [event.step for event in tensorboard(run).Scalars("loss")] == list(range(1, 13))


def records(path):
    """Records of a .wandb file: LevelDB's log format, behind 7 bytes that name the file's kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:  # a block's end is filled up
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_wandb_offline_has_the_names_and_numbers_of_the_metrics(data, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    words = runs.options(data, run, log_with="wandb", **LAST)
    assert runs.in_process(train, monkeypatch, *words, "--max-steps", 6) == 0
    assert runs.in_process(train, monkeypatch, *words, "--resume") == 0
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # one of each start, of one id
    identity = (run / "wandb-id").read_text().strip()
    told, config = {}, {}
    for folder in folders:
        (file,) = folder.glob("run-*.wandb")
        assert file.name == f"run-{identity}.wandb"
        for record in records(file):
            for update in record.run.config.update if record.HasField("run") else record.config.update:
                config[update.key] = json.loads(update.value_json)
            if record.HasField("history"):
                for item in record.history.item:  # of a picture there are several, all under its name
                    name = item.key or item.nested_key[0]
                    told.setdefault(name, {})[record.history.step.num] = json.loads(item.value_json)
    for name, values in numbers(run).items():
        assert told[name] == pytest.approx(values), name
    assert config["method"] == "clim" and config["recipe"]["width"] == 4
    assert set(told["views"]) == set(told["neighbors"]) == {6, 12}
    kept = [path for folder in folders for path in folder.rglob("neighbors_*.png")]
    assert len(kept) == 2 and all(np.asarray(Image.open(path)).std() > 5 for path in kept)
