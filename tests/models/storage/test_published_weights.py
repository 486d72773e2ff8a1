"""Checkpoints of others, written as their code writes them, against the networks that they are of.

Each family stores a known network under its published names, beside what its code stores too (heads, followers, queues,
optimizers, records). What is read must compute that network's features.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.storage.encoder import Encoder, EncoderError, from_weights
from models.storage.weights_file import WeightsError, read_weights
from tests.support.published_networks import ViT, resnet18

State = dict[str, Tensor]
SMALL = {"stem": "small", "image_size": 32}


def under(prefix: str, network: nn.Module) -> State:
    return {prefix + key: value.detach().clone() for key, value in network.state_dict().items()}


def head(prefix: str) -> State:
    return {f"{prefix}.0.weight": torch.randn(4, 4), f"{prefix}.0.bias": torch.randn(4)}


def numbered(network: nn.Sequential, classifier: bool = False) -> nn.Sequential:
    """`nn.Sequential(*list(resnet.children())[:-1])`."""
    layers = [part for part in network if not isinstance(part, nn.Flatten)]
    return nn.Sequential(*layers, *([nn.Linear(4, 2)] if classifier else []))


def optimizer() -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": torch.randn(8, 3, 7, 7)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


TRUE, OTHER = resnet18(), resnet18(seed=1)
CIFAR, SOLO = resnet18("lightly"), resnet18("solo")
VIT, OTHER_VIT = ViT(), ViT(seed=1)
SCALED, MEAN, MEAN_NORM = ViT(scaled=True), ViT(pool="mean"), ViT(pool="mean_norm")
HUGGING = ViT(epsilon=1e-12)


def moco(fc: State) -> dict[str, Any]:
    networks = under("module.encoder_q.", TRUE) | fc | under("module.encoder_k.", OTHER)
    queue = {"module.queue": torch.randn(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": networks | queue, "optimizer": optimizer()}


def moco_v3(network: nn.Module, other: nn.Module, name: str) -> dict[str, Any]:
    ours, theirs = under("module.base_encoder.", network), under("module.momentum_encoder.", other)
    heads = head(f"module.base_encoder.{name}") | head(f"module.momentum_encoder.{name}") | head("module.predictor")
    return {"epoch": 300, "arch": "vit_small", "state_dict": ours | theirs | heads, "optimizer": optimizer()}


def dino() -> dict[str, Any]:
    return {
        "student": under("module.backbone.", OTHER_VIT) | head("module.head.mlp"),
        "teacher": under("backbone.", VIT) | head("head.mlp"),
        "optimizer": optimizer(), "epoch": 100, "args": argparse.Namespace(arch="vit_small", lr=0.0005, path=Path("a")),
        "dino_loss": {"center": torch.zeros(1, 8)}, "fp16_scaler": {"scale": 65536.0},
    }  # fmt: skip


def lightning(state: State) -> dict[str, Any]:
    return {
        "epoch": 399, "global_step": 78000, "pytorch-lightning_version": "2.1.0", "state_dict": state,
        "optimizer_states": [optimizer()], "lr_schedulers": [{"last_epoch": 399, "_last_lr": [np.float64(0.1)]}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "dirpath": "trained"}},
        "hyper_parameters": {"lr": 0.3, "backbone": {"name": "resnet18"}},
    }  # fmt: skip


def torchvision_vit(network: ViT) -> State:
    names = (
        ("cls_token", "class_token"), ("pos_embed", "encoder.pos_embedding"), ("patch_embed.proj", "conv_proj"),
        ("blocks.", "encoder.layers.encoder_layer_"), (".norm1.", ".ln_1."), (".norm2.", ".ln_2."),
        (".attn.qkv.", ".self_attention.in_proj_"), (".attn.proj.", ".self_attention.out_proj."),
        (".mlp.fc1.", ".mlp.0."), (".mlp.fc2.", ".mlp.3."),
    )  # fmt: skip
    found = {}
    for key, value in under("", network).items():
        key = key.replace("norm.", "encoder.ln.") if key.startswith("norm.") else key
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        found[key] = value
    return found | {"heads.head.weight": torch.ones(10, 128), "heads.head.bias": torch.ones(10)}


def hugging_face_vit(network: ViT) -> State:
    found = {}
    names = (
        ("cls_token", "embeddings.cls_token"), ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"), (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."), (".attn.proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense."),
        ("blocks.", "encoder.layer."),
    )  # fmt: skip
    for key, value in under("", network).items():
        key = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"vit.{key.replace('.attn.qkv.', f'.attention.attention.{name}.')}"] = part.clone()
        else:
            found[f"vit.{key}"] = value
    return found | {"classifier.weight": torch.ones(10, 128), "classifier.bias": torch.ones(10)}


byol = {
    "online_network_state_dict": under("encoder.", numbered(TRUE)) | head("projetion.net"),
    "target_network_state_dict": under("encoder.", numbered(OTHER)) | head("projetion.net"),
    "optimizer_state_dict": optimizer(),
}
lucidrains = under("net.", TRUE) | under("online_encoder.net.", TRUE) | under("target_encoder.net.", OTHER)


def swav() -> State:
    return under("module.", TRUE) | head("module.projection_head") | {"module.prototypes.weight": torch.ones(3, 4)}


def vissl() -> dict[str, Any]:
    model = {"trunk": under("_feature_blocks.", TRUE), "heads": head("0.clf")}
    return {"classy_state_dict": {"base_model": {"model": model}, "train_phase_idx": 3}, "iteration": 10}


def mae() -> dict[str, Any]:
    decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8)} | head("decoder_blocks")
    return {"model": under("", VIT) | decoder, "args": argparse.Namespace(lr=1), "optimizer": optimizer(), "epoch": 9}


def lightly(network: nn.Sequential) -> dict[str, Any]:
    followed = under("backbone.", numbered(network)) | under("backbone_momentum.", numbered(OTHER))
    return lightning(followed | head("projection_head"))


def solo_learn() -> dict[str, Any]:
    return lightning(
        under("backbone.", SOLO) | under("momentum_backbone.", OTHER) | head("projector") | head("classifier")
    )


#: family: (what its file holds, the true network, what the user must say, what the line about the rest must name)
FAMILIES: dict[str, tuple[Any, nn.Module, dict[str, Any], str]] = {
    "torchvision": (under("", TRUE) | {"fc.weight": torch.ones(10, 64), "fc.bias": torch.ones(10)}, TRUE, {}, "fc"),
    "MoCo v1": (moco({"module.encoder_q.fc.weight": torch.ones(8, 64)}), TRUE, {}, "module.encoder_k"),
    "MoCo v2": (moco(head("module.encoder_q.fc")), TRUE, {}, "queue, queue_ptr"),
    "MoCo v3, ResNet": (moco_v3(TRUE, OTHER, "fc"), TRUE, {}, "module.momentum_encoder"),
    "MoCo v3, ViT": (moco_v3(VIT, OTHER_VIT, "head"), VIT, {}, "predictor"),
    "DINO": (dino(), VIT, {}, "--network student.module.backbone), head, dino_loss"),
    "DINO, released": (under("", VIT), VIT, {}, "which is all that it holds"),
    "SimCLR, sthalles": ({"state_dict": under("backbone.", TRUE) | head("backbone.fc"), "epoch": 9}, TRUE, {}, "fc"),
    "SimCLR, Spijkervet": (under("encoder.", TRUE) | head("projector"), TRUE, {}, "projector"),
    "SimCLR, leftthomas": (under("f.", numbered(CIFAR)) | head("g"), CIFAR, SMALL, "g"),
    "BYOL, sthalles": (byol, TRUE, {}, "target_network_state_dict.encoder"),
    "BYOL, lucidrains": (lucidrains, TRUE, {}, "target_encoder.net"),
    "lightly": (lightly(CIFAR), CIFAR, SMALL, "backbone_momentum"),
    "lightly, torchvision's": (lightly(TRUE), TRUE, {}, "projection_head"),
    "solo-learn, CIFAR": (solo_learn(), SOLO, {"stem": "small_pad2", "image_size": 32}, "momentum_backbone"),
    "solo-learn, ViT": (lightning(under("backbone.", VIT) | head("projector")), VIT, {}, "projector"),
    "Barlow Twins": ({"model": under("module.backbone.", TRUE) | head("module.projector")}, TRUE, {}, "projector"),
    "SwAV": (swav(), TRUE, {}, "projection_head, prototypes"),
    "VISSL": (vissl(), TRUE, {}, "heads"),
    "mmselfsup": ({"meta": {}, "state_dict": under("backbone.", TRUE) | head("neck")}, TRUE, {}, "neck"),
    "timm, with its average": ({"state_dict": under("", VIT), "state_dict_ema": under("", OTHER_VIT)}, VIT, {}, "_ema"),
    "MAE, pre-training": (mae(), VIT, {}, "mask_token, decoder_pos_embed"),
    "MAE, fine-tuned": ({"model": under("", MEAN_NORM) | head("head")}, MEAN_NORM, {}, "head"),
    "mean of tokens": (under("", MEAN), MEAN, {"pool": "mean"}, "all"),
    "DINOv2": (under("", SCALED) | {"mask_token": torch.zeros(1, 128)}, SCALED, {}, "mask_token"),
    "torchvision, ViT": (torchvision_vit(VIT), VIT, {}, "heads"),
    "Hugging Face, ViT": (hugging_face_vit(HUGGING), HUGGING, {}, "classifier"),
    "compiled": (under("_orig_mod.module.", TRUE), TRUE, {}, "all"),
}


def features(encoder: Encoder, images: Tensor) -> Tensor:
    with torch.no_grad():
        pooled: Tensor = encoder.backbone.eval()(images).pooled
        return pooled


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_computes_what_its_authors_network_does(family: str, tmp_path: Path) -> None:
    content, true, given, left = FAMILIES[family]
    torch.save(content, tmp_path / "w.pth.tar")
    encoder = from_weights(tmp_path / "w.pth.tar", **given)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = true(images)
    assert features(encoder, images) == pytest.approx(expected, abs=1e-5, rel=1e-4)
    taken, assumed = encoder.notes
    assert left in taken and "assumed, as its weights do not tell it" in assumed
    assert all(note.isprintable() for note in encoder.notes)


def test_another_network_of_the_file_by_its_name(tmp_path: Path) -> None:
    torch.save(dino(), tmp_path / "w.pth")
    images = torch.randn(2, 3, 32, 32)
    for name in ("student", "student.module.backbone"):
        found = features(from_weights(tmp_path / "w.pth", network=name), images)
        torch.testing.assert_close(found, OTHER_VIT(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(EncoderError, match=r"no network is at --network tea; the file has teacher\.backbone|student"):
        from_weights(tmp_path / "w.pth", network="tea")
    torch.save(under("left.", TRUE) | under("right.", OTHER), tmp_path / "two.pth")
    with pytest.raises(EncoderError, match=r"two\.pth: it holds several networks: left, right; say with --network"):
        from_weights(tmp_path / "two.pth")
    assert torch.equal(features(from_weights(tmp_path / "two.pth", network="right"), images), OTHER(images))


def test_the_first_bytes_decide_and_not_the_ending(tmp_path: Path) -> None:
    state = under("", TRUE)
    for name in ("a.pth", "a.pth.tar", "a.bin", "a"):
        save_file(state, tmp_path / name)
        assert read_weights(tmp_path / name)[0].keys() == state.keys()
    for name, zipped in (("b.safetensors", True), ("c.safetensors", False), ("d.tar", True)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert read_weights(tmp_path / name)[0].keys() == state.keys()


def test_what_is_no_file_of_weights_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "w.pth.tar", "w") as archive:
        archive.add(__file__, "w.pth")
    np.savez(tmp_path / "w.npz", kernel=np.zeros(3))
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "program.pt")
    for name, content in {
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "page.pth": b"\n<!DOCTYPE html>", "w.pth.gz": b"\x1f\x8b\x08" + bytes(20), "w.h5": b"\x89HDF\r\n\x1a\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    for name, said in {
        "w.pth.tar": "is a tar archive", "w.npz": "holds arrays of NumPy", "program.pt": "is a TorchScript program",
        "pointer.safetensors": "run git lfs pull", "page.pth": "it is a web page", "w.pth.gz": "unpack it with gunzip",
        "w.h5": "it is an HDF5 file",
    }.items():  # fmt: skip
        with pytest.raises(WeightsError) as raised:
            read_weights(tmp_path / name)
        assert said in str(raised.value) and name in str(raised.value) and str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"norm_pre.weight": torch.ones(128)}, "it has norm_pre.weight besides"),
        ({"reg_token": torch.ones(1, 4, 128)}, "it has reg_token besides"),
        ({"pos_embed": torch.ones(1, 18, 128)}, "pos_embed is 1x18x128 and not 1x17x128"),
        ({"blocks.0.ls1.gamma": torch.ones(5)}, "the shapes at"),
        ({"blocks.0.attn.q_norm.weight": torch.ones(64)}, "it has blocks.0.attn.q_norm.weight besides"),
    ],
)
def test_a_vit_that_computes_something_else_is_refused(changed: State, said: str, tmp_path: Path) -> None:
    torch.save(under("", VIT) | changed, tmp_path / "w.pth")
    with pytest.raises(EncoderError) as raised:
        from_weights(tmp_path / "w.pth")
    assert said in str(raised.value)


def sized(dim: int, depth: int = 12, patch: int = 16) -> State:
    """A ViT's weights, all zero: what matters is their shape."""
    with torch.device("meta"):
        shapes = ViT(dim=dim, heads=1, depth=depth).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    return state | {"patch_embed.proj.weight": torch.zeros(dim, 3, patch, patch)}


@pytest.mark.parametrize(
    ("state", "name", "heads", "said"),
    [
        (lambda: sized(192), "vit_tiny", 3, "3 heads of 64 channels (--heads)"),
        (lambda: sized(384, patch=8), "vit_small", 6, "4 x 4 patches of 8 px for images of 32 px"),
        (lambda: sized(768, 1), "vit", 12, "12 heads of 64 channels"),
        (lambda: {f"module.base_encoder.{key}": v for key, v in sized(384).items()}, "vit_small", 12, "12 heads of 32"),
    ],
)
def test_heads_are_64_channels_wide_unless_the_family_says_otherwise(
    state: Any, name: str, heads: int, said: str, tmp_path: Path
) -> None:
    torch.save(state(), tmp_path / "w.pth")
    encoder = from_weights(tmp_path / "w.pth")
    assert (encoder.architecture["name"], encoder.backbone.get_submodule("blocks.0.attn").heads) == (name, heads)
    assert said in encoder.notes[1]
    other = from_weights(tmp_path / "w.pth", heads=2)
    assert other.backbone.get_submodule("blocks.0.attn").heads == 2 and "heads" not in other.notes[1]


def test_a_position_table_is_resized_for_views_of_another_size(tmp_path: Path) -> None:
    torch.save(under("", VIT), tmp_path / "w.pth")
    encoder = from_weights(tmp_path / "w.pth", image_size=48)
    assert (encoder.image_size, encoder.architecture["image_size"]) == (48, 32)
    assert "position table of 4 x 4 patches of 8 px, resized (bicubic) to 6 x 6" in encoder.notes[1]
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(features(encoder, images), VIT(images), atol=1e-5, rtol=1e-4)
    assert features(encoder, torch.randn(1, 3, 48, 48)).shape == (1, 128)


def test_an_option_that_the_network_does_not_have(tmp_path: Path) -> None:
    torch.save(under("", TRUE), tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="holds a resnet18, which has no heads; leave it out"):
        from_weights(tmp_path / "w.pth", heads=3)
    torch.save(under("", VIT), tmp_path / "v.pth")
    with pytest.raises(EncoderError, match="images of 50 px do not divide into patches of 8 px"):
        from_weights(tmp_path / "v.pth", image_size=50)


def test_a_checkpoint_of_this_project_gives_its_student(tmp_path: Path) -> None:
    networks = under("student.backbone.", TRUE) | under("teacher.network.backbone.", OTHER)
    save_file(networks | under("second_teacher.network.backbone.", OTHER), tmp_path / "model.safetensors")
    encoder = from_weights(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(features(encoder, images), TRUE(images)) and "--network second_teacher" in encoder.notes[0]


def test_timms_own_networks(tmp_path: Path) -> None:
    """Ti and S with patches of 16 and B with 32, as timm makes and stores them."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    images = torch.randn(2, 3, 224, 224)
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch32_224"):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=3).eval()
        torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
        with torch.no_grad():
            expected = network.forward_head(network.forward_features(images), pre_logits=True)
        found = features(from_weights(tmp_path / "w.pth"), images)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
