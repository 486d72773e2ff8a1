"""Finding the student backbone in runs and weights files, and saying in one line why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.networks.backbones import build_backbone
from models.storage.encoder import EncoderError, RawPixels, from_run, from_weights
from tests.support.encoder_runs import RECIPE, backbone, prefixed, write_checkpoint, write_run


@pytest.mark.parametrize("prefix", ["student.backbone.", "backbone."])
def test_newest_checkpoint_of_a_run_student_not_teacher(tmp_path: Path, prefix: str) -> None:
    run = write_run(tmp_path / "run", steps=(5,))
    write_checkpoint(run, 12, prefix, seed=12)
    encoder = from_run(run)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.backbone.eval()(images).pooled, backbone(12).eval()(images).pooled)
    assert (encoder.step, encoder.image_size, encoder.crop_ratio) == (12, 16, 0.875)
    assert encoder.mean == (0.5, 0.4, 0.3)


def test_damaged_newest_checkpoint_is_skipped_and_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step-00000012" / "model.safetensors").write_bytes(b"cut")
    encoder = from_run(run)
    assert encoder.step == 5
    assert "step-00000012" in encoder.notes[0]


def test_untrained_twin_is_seeded_and_leaves_the_global_generator(tmp_path: Path) -> None:
    encoder = from_run(write_run(tmp_path / "run"))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = encoder.untrained(), encoder.untrained()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.get_parameter("conv1.weight"), two.get_parameter("conv1.weight"))
    assert not torch.equal(one.get_parameter("conv1.weight"), encoder.backbone.get_parameter("conv1.weight"))


@pytest.mark.parametrize("changes", [{"name": "resnet34"}, {"name": "resnet50"}, {"stem": "imagenet", "width": 8}])
def test_weights_file_by_the_shapes_of_its_tensors(tmp_path: Path, changes: dict[str, object]) -> None:
    network = backbone(**changes)
    save_file(prefixed(network, "") | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    known = {} if "stem" in changes else {"stem": "small", "image_size": 32}
    encoder = from_weights(tmp_path / "w.safetensors", **known)  # type: ignore[arg-type]
    assert encoder.architecture["name"] == changes.get("name", "resnet18")
    assert torch.equal(encoder.backbone.get_parameter("conv1.weight"), network.get_parameter("conv1.weight"))
    assert encoder.image_size == (224 if "stem" in changes else 32)


def test_weights_file_by_its_metadata_and_vit(tmp_path: Path) -> None:
    facts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in RECIPE.items()}
    facts["mean"] = facts["std"] = "[0.5, 0.5, 0.5]"
    save_file(prefixed(backbone(), ""), tmp_path / "w.safetensors", metadata=facts)
    encoder = from_weights(tmp_path / "w.safetensors")
    assert (encoder.crop_ratio, encoder.std, encoder.step) == (0.875, (0.5, 0.5, 0.5), None)
    vit = build_backbone("vit_small", width=2, image_size=32)
    save_file(vit.state_dict(), tmp_path / "v.safetensors")
    assert from_weights(tmp_path / "v.safetensors").image_size == 32


def test_what_shapes_do_not_tell_of_a_vit_is_in_its_metadata(tmp_path: Path) -> None:
    """Heads and epsilon change the features and no shape; a file of an earlier version, without them, has the usual."""
    own = {"heads": 12, "qkv_bias": False, "final_norm": False, "norm_epsilon": 1e-5}
    vit = build_backbone("vit_small", width=2, image_size=32, **own).eval()  # type: ignore[arg-type]
    facts = {"backbone": "vit_small", "width": 2, "stem": "imagenet", "image_size": 32, **own}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    save_file(vit.state_dict(), tmp_path / "v.safetensors", metadata=texts)
    encoder, images = from_weights(tmp_path / "v.safetensors"), torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder.backbone.eval()(images).pooled, vit(images).pooled)
    assert {name: encoder.architecture[name] for name in own} == own
    assert encoder.untrained().state_dict().keys() == vit.state_dict().keys()
    usual = build_backbone("vit_small", width=2, image_size=32)
    save_file(usual.state_dict(), tmp_path / "old.safetensors", metadata={n: texts[n] for n in texts if n not in own})
    old = from_weights(tmp_path / "old.safetensors")
    assert old.backbone.get_submodule("blocks.0.attn").heads == 6 and "heads" not in old.architecture


@pytest.mark.parametrize(
    "claim",
    [
        {"width": 10**9}, {"width": "wide"}, {"width": -1}, {"backbone": "resnet1000"}, {"backbone": ["resnet18"]},
        {"image_size": 0}, {"image_size": "big"}, {"crop_ratio": 2}, {"crop_ratio": "all"},
        {"crop_ratio": float("nan")}, {"mean": [1, 2]}, {"mean": "grey"}, {"std": [0.1, 0.0, 0.1]},
        {"std": [0.1, None, 0.1]}, {"stem": {"a": 1}},
        {"heads": 0}, {"heads": 1.5}, {"qkv_bias": "yes"}, {"final_norm": 2},
        {"norm_epsilon": 0}, {"norm_epsilon": "x"}, {"initialisation": "zeros"},
    ],
)  # fmt: skip
def test_a_file_that_claims_nonsense_is_one_line_and_takes_no_memory(tmp_path: Path, claim: dict[str, object]) -> None:
    facts = {"backbone": "resnet18", "width": 4, "stem": "small", "image_size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (facts | claim).items()}
    save_file(prefixed(backbone(), ""), tmp_path / "w.safetensors", metadata=facts)
    with pytest.raises(EncoderError, match=r"w\.safetensors does not hold the backbone") as raised:
        from_weights(tmp_path / "w.safetensors")
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=())
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file(prefixed(backbone(), ""), tmp_path / "small.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    broken = write_run(tmp_path / "broken")
    (broken / "config.json").write_text(
        json.dumps({"recipe": RECIPE | {"width": 8}, "data": {"mean": [0] * 3, "std": [1] * 3}})
    )
    for name, config in (("listed", []), ("bare", {"recipe": RECIPE, "data": {"mean": [0] * 3}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    listed, bare = tmp_path / "listed", tmp_path / "bare"
    cases = [
        (lambda: from_run(tmp_path / "nowhere"), r"is no run of train\.py"),
        (lambda: from_run(run), "holds no checkpoint"),
        (
            lambda: from_run(broken, "best"),
            r"where kNN was measured; train\.py measures it with --val-data",
        ),
        (lambda: from_run(listed), r"config\.json cannot be read \(TypeError"),
        (lambda: from_run(bare), r"config\.json cannot be read \(KeyError: 'std'"),
        (lambda: from_run(broken), "does not hold the backbone resnet18"),
        (lambda: from_weights(tmp_path / "nowhere"), "there is no weights file"),
        (lambda: from_weights(tmp_path / "text.safetensors"), "cannot be read as safetensors"),
        (lambda: from_weights(tmp_path / "other.safetensors"), "nothing says the network's 'backbone'"),
        (lambda: from_weights(tmp_path / "small.safetensors"), "nothing says the network's 'stem'"),
    ]
    for call, message in cases:
        with pytest.raises(EncoderError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_raw_pixels() -> None:
    assert RawPixels(32)(torch.randn(2, 3, 16, 16)).shape == (2, 768)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(RawPixels(32)(images), nn.functional.avg_pool2d(images, 2).flatten(1))
