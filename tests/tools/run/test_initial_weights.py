"""`--init`: an encoder of a run or of any file in every backbone of a method, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import build, resolve
from models.networks.backbone import Backbone
from models.networks.backbones import build_backbone
from models.networks.vit import resized_positions
from pipelines import Dataset
from tests.support.datasets import photos
from tests.support.encoder_runs import write_run
from tools.command_line import Failure
from tools.run.initial_weights import start_from_weights
from tools.run.options import RunOptions

SMALL = {"width": 4, "stem": "small", "image_size": 32, "batch_size": 16, "bn_splits": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return photos(tmp_path_factory.mktemp("data"), each=2)


def moco_file(path: Path, network: torch.nn.Module) -> str:
    state = {f"module.encoder_q.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state | {"module.queue": torch.zeros(2, 2)}}, path)
    return str(path)


def started(method: str, dataset: Dataset, init: str, **values: Any) -> tuple[Any, Any, Any, list[str]]:
    """The method before and after, the record and the lines."""
    recipe = resolve(method, "cifar10", **SMALL | values)
    torch.manual_seed(0)
    before = build(method, recipe)
    torch.manual_seed(0)
    after = build(method, recipe)
    options = RunOptions(method=method, data="x", init=init, output="no/such/run")
    record, lines = start_from_weights(options, recipe.training, dataset, after)
    return before, after, record, lines


@pytest.mark.parametrize(("method", "count"), [("simclr", 1), ("moco", 2), ("byol", 2), ("msvq", 3), ("iccl", 2)])
def test_student_and_teachers_start_from_a_file(method: str, count: int, dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(9)
    network = build_backbone("resnet18", 4, "small")
    before, after, record, lines = started(method, dataset, moco_file(tmp_path / "w.pth", network))
    backbones = {name for name, module in after.named_modules() if isinstance(module, Backbone)}
    assert len(backbones) == count and f"{count} backbones (student, teachers) start from it" in "\n".join(lines)
    given, fresh = network.state_dict(), before.state_dict()
    for name, value in after.state_dict().items():
        inside = [name.removeprefix(f"{place}.") for place in backbones if name.startswith(f"{place}.")]
        assert torch.equal(value, given[inside[0]] if inside else fresh[name]), name
    assert "module.encoder_q; left queue" in lines[0] and "how its images were normalised" in lines[-1]
    assert len(record["digest"]) == 16 and record["path"] == str(tmp_path / "w.pth")


def test_from_a_run(dataset: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    _, after, record, lines = started("moco", dataset, str(run))
    assert record["step"] == 12 and "step-00000012: took the encoder alone" in lines[0]
    assert "its images were normalised by mean 0.5,0.4,0.3 and std 0.2,0.2,0.2, here they are by" in lines[-1]
    torch.manual_seed(12)
    expected = build_backbone("resnet18", 4, "small").get_parameter("conv1.weight")
    assert torch.equal(after.student.backbone.conv1.weight, expected)
    assert torch.equal(after.teacher.network.backbone.conv1.weight, expected)


def test_a_vit_of_the_recipes_heads_and_another_size(dataset: Dataset, tmp_path: Path) -> None:
    """Shapes do not tell the heads: the recipe's count, and the position table is resized."""
    network = build_backbone("vit", width=24, heads=4, depth=1, patch=8, image_size=32)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    own = {"backbone": "vit", "width": 24, "heads": 4, "depth": 1, "patch": 8, "image_size": 48}
    _, after, _, lines = started("moco", dataset, str(tmp_path / "w.pth"), **own)
    expected = resized_positions(network.get_parameter("pos_embed"), 6, 6)
    assert torch.equal(after.student.backbone.pos_embed, expected) and after.student.backbone.blocks[0].attn.heads == 4
    assert "its position table was resized (bicubic) to 6 x 6" in "\n".join(lines)


def test_another_network_than_the_recipes_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    torch.save(build_backbone("resnet34", 8, "imagenet").state_dict(), tmp_path / "r.pth")
    with pytest.raises(Failure, match="--backbone resnet34 --width 8 --stem imagenet to train it"):
        started("moco", dataset, str(tmp_path / "r.pth"))
    vit = {"backbone": "vit", "width": 64, "depth": 1}
    torch.save(build_backbone("vit", 64, depth=1, final_norm=False, image_size=32).state_dict(), tmp_path / "v.pth")
    with pytest.raises(Failure, match=r"v\.pth has final_norm False, and this run True; give --no-final-norm"):
        started("moco", dataset, str(tmp_path / "v.pth"), **vit)
    started("moco", dataset, str(tmp_path / "v.pth"), **vit, final_norm=False)
    with pytest.raises(Failure, match="has channels 64, and this run 128; give --backbone vit --width 64"):
        started("moco", dataset, str(tmp_path / "v.pth"), **vit | {"width": 128})
