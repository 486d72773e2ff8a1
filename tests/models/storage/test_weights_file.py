"""Weights files of both kinds, and pickles that want to run code: they are refused and do not run."""

import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from models import load_encoder
from models.storage.encoder import EncoderError
from models.storage.weights_file import WeightsError, read_weights


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def malicious(path, victim, kind):
    content = {"conv1.weight": torch.zeros(4, 3, 3, 3), "extra": Touch(victim)}
    if kind == "zip":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"conv1.weight": 0, "extra": Touch(victim)}))


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, kind):
    weights, victim = tmp_path / "w.pt", tmp_path / "made by the pickle"
    malicious(weights, victim, kind)
    if kind == "plain":
        pickle.loads(weights.read_bytes())
    else:
        torch.load(weights, weights_only=False)
    assert victim.exists(), "the pickle does no harm, so this test shows nothing"
    victim.unlink()
    for name in ("w.pt", "w.pth", "w.bin", "w.ckpt", "w.safetensors", "w"):
        if not (path := tmp_path / name).exists():
            path.write_bytes(weights.read_bytes())
        with pytest.raises(EncoderError) as raised:
            load_encoder(path)
        assert "\n" not in str(raised.value) and name in str(raised.value)
        assert not victim.exists()


def test_the_refusal_says_why(tmp_path):
    malicious(tmp_path / "w.pt", tmp_path / "x", "zip")
    with pytest.raises(WeightsError, match=r"w\.pt is refused: it is damaged, or holds more than weights .*open"):
        read_weights(tmp_path / "w.pt")


def test_a_refusal_says_what_to_do(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "new.pt", pickle_protocol=4)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}, 4))
    for name in ("new.pt", "plain.pt"):
        with pytest.raises(WeightsError) as raised:
            read_weights(tmp_path / name)
        told = str(raised.value)
        assert "Unsupported operand 149, as of pickle protocol 4 or newer" in told and told.isprintable()
        assert told.endswith("save its state dict again, with torch.save or as safetensors") and "False" not in told


@pytest.mark.parametrize("nested", ["", "state_dict", "model"])
def test_state_dicts_of_torch(tmp_path, nested):
    state = {"a": torch.arange(3.0), "count": torch.tensor(2)}
    torch.save({nested: state, "epoch": 3} if nested else state, tmp_path / "w.pth")
    weights, facts = read_weights(tmp_path / "w.pth")
    assert weights.keys() == state.keys() and torch.equal(weights["a"], state["a"]) and facts == {}


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        torch.zeros(3, device="meta"),
    ],
    ids=["complex", "sparse", "nested", "meta"],
)
def test_tensors_that_no_network_here_has_are_refused(tmp_path, value):
    torch.save({"state_dict": {"a": torch.zeros(3), "odd": value}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth holds '.*odd'"):
        read_weights(tmp_path / "w.pth")


def test_metadata_are_json_or_text(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"stem": "small", "mean": "[1, 2]", "step": "7"})
    assert read_weights(tmp_path / "w.safetensors")[1] == {"stem": "small", "mean": [1, 2], "step": 7}


def test_damaged_files_are_one_line(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "foreign.pt", "w") as archive:
        archive.writestr("readme", "no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, content in {"empty.pt": b"", "cut.pt": whole[: len(whole) // 2], "text.pt": b"not weights"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("empty.pt", "cut.pt", "text.pt", "foreign.pt", "list.pt", "empty.safetensors", "absent.pt"):
        with pytest.raises(WeightsError) as raised:
            read_weights(tmp_path / name)
        assert "\n" not in str(raised.value) and name in str(raised.value)
