"""Export, from a run's folder to files that others load. Repeat the stock classes' part where both libraries import:

    pip install torchvision timm && python -m pytest tests/tools/test_export.py -s

Differences are absolute here, and relative to the largest feature in the program's own table; both keep the limits.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

import tools.export
import tools.exporting.onnx_file
import tools.exporting.verified_export
from models import load_encoder
from pipelines import open_dataset
from tests.support.datasets import photos
from tests.support.images import smooth
from tests.support.run_folders import files, write_checkpoint, write_measured_run, write_run
from tools.export import main
from tools.exporting.parity_check import real_images

NETWORKS = [
    ("resnet18", "small", 32), ("resnet18", "small_pool", 64), ("resnet18", "imagenet", 64),
    ("resnet50", "small", 32), ("resnet50", "imagenet", 64),
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"), each=6)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return write_measured_run(tmp_path_factory.mktemp("runs") / "run", dataset)


def library(name):
    try:
        __import__(name)
    except Exception as error:  # torchvision beside another torch raises RuntimeError
        pytest.skip(f"{name} does not import here ({error})")


def worst(found_BD, expected_BD):
    assert expected_BD.abs().max() > 0.1
    return float((found_BD - expected_BD).abs().max())


def features(network, images_BCHW):
    with torch.no_grad():
        return network.eval()(images_BCHW)


def python_block(card, line):
    """The lines of Python on a card that hold this line."""
    blocks = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    return next(block for block in blocks if line in block)


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
@pytest.mark.parametrize(("name", "stem", "size"), NETWORKS)
def test_the_stock_class_computes_the_same(name, stem, size, layout, dataset, tmp_path, monkeypatch, capsys):
    """Weights are loaded by the very lines that the card tells; images are the data set's."""
    library(layout)
    folder, network = write_run(tmp_path / "run", dataset, backbone=name, stem=stem, image_size=size, width=64)
    onnx = ["--onnx", str(tmp_path / "w.onnx")] if layout == "torchvision" else []
    assert main([str(folder), str(tmp_path / "w.safetensors"), "--layout", layout, *onnx]) == 0
    shown = capsys.readouterr().out
    images = real_images(dataset, load_encoder(folder))
    expected = features(network, images).pooled

    monkeypatch.chdir(tmp_path)
    space = {}
    exec(python_block(tmp_path / "w.md", "model.eval()"), space)
    stock = worst(features(space["model"], images), expected)
    assert stock <= 1e-5
    if stem == "small":  # with the library's own max-pool the weights load too, and compute something else
        space["model"].maxpool = torch.nn.MaxPool2d(3, 2, 1)
        assert worst(features(space["model"], images), expected) > 1e-3
    assert f"{layout}'s {name} ({layout} " in shown and "not compared" not in shown
    told = f"{name} {stem} {size} px, {layout}: {stock:.1e}"
    if onnx:
        in_onnx = worst(tools.exporting.onnx_file.onnx_features(tmp_path / "w.onnx", images), expected)
        assert in_onnx <= 1e-4
        told += f", onnxruntime {in_onnx:.1e}"
    with capsys.disabled():
        print(f"\n{told}, largest feature {expected.abs().max():.2f}", end=" ")


ICCL = {"heads": 12, "qkv_bias": False, "final_norm": False, "norm_epsilon": 1e-5}


@pytest.mark.parametrize(("width", "own"), [(64, {}), (32, {}), (64, ICCL)])
def test_timms_vit_computes_the_same(width, own, dataset, tmp_path, monkeypatch, capsys):
    library("timm")
    vit = {"backbone": "vit_small", "stem": "imagenet", "image_size": 64, "width": width} | own
    folder, network = write_run(tmp_path / "run", dataset, **vit)
    assert main([str(folder), str(tmp_path / "w.safetensors"), "--onnx", str(tmp_path / "w.onnx")]) == 0
    images = real_images(dataset, load_encoder(folder))
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(python_block(tmp_path / "w.md", "model.eval()"), space)
    stock = worst(features(space["model"], images), features(network, images).pooled)
    assert stock <= 1e-5
    with capsys.disabled():
        print(f"\nvit_small of {6 * width} channels, timm: {stock:.1e}", end=" ")


def test_an_unusual_vit_is_named_to_timm(dataset, tmp_path):
    vit = {"backbone": "vit_small", "stem": "imagenet", "image_size": 32, "width": 8} | ICCL
    folder, network = write_run(tmp_path / "run", dataset, **vit)
    assert main([str(folder), str(tmp_path / "w.safetensors")]) == 0
    card = (tmp_path / "w.md").read_text()
    assert "num_heads=12, qkv_bias=False, norm_layer=partial(torch.nn.LayerNorm, eps=1e-05))" in card
    assert "from functools import partial\n" in card and "model.norm = torch.nn.Identity()\n" in card
    encoder = load_encoder(tmp_path / "w.safetensors")
    images = real_images(dataset, encoder)
    assert torch.equal(encoder(images), features(network, images).pooled)
    assert encoder.backbone.blocks[0].attn.heads == 12


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stem", "size"), [*NETWORKS, ("vit_small", "imagenet", 32)])
def test_round_trip_and_onnx(name, stem, size, dataset, tmp_path):
    """Narrow networks, in every environment: read back exactly, and by onnxruntime one by one and many at once."""
    folder, network = write_run(tmp_path / "run", dataset, backbone=name, stem=stem, image_size=size, width=8)
    assert main([str(folder), str(tmp_path / "w.safetensors"), "--onnx", str(tmp_path / "w.onnx")]) == 0
    assert files(tmp_path) == ["run", "w.md", "w.onnx", "w.safetensors"]
    encoder = load_encoder(tmp_path / "w.safetensors")
    images = real_images(dataset, encoder)
    expected = features(network, images).pooled
    assert torch.equal(encoder(images), expected)
    assert load_file(tmp_path / "w.safetensors").keys() == network.state_dict().keys()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "w.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5, len(images)):
        (found,) = session.run(None, {"images": images[:count].numpy()})
        assert worst(torch.from_numpy(found), expected[:count]) <= 1e-4
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["mean"]) == pytest.approx(dataset.mean) and "(pixel / 255 - mean) / std" in facts["input"]
    assert str(Path(tools.export.__file__).parent).encode() not in (tmp_path / "w.onnx").read_bytes()


def test_metadata_say_what_it_is(run, dataset, tmp_path):
    assert main([str(run), str(tmp_path / "w.safetensors")]) == 0
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        facts = file.metadata()
    texts = {"method": "clim", "backbone": "resnet18", "stem": "small", "layout": "torchvision", "step": "12"}
    assert facts.items() >= (texts | {"width": "4", "samples_seen": "192", "crop_ratio": "1.0"}).items()
    assert json.loads(facts["data"]) == {"name": dataset.name, "number": 18, "checksum": dataset.checksum}
    assert json.loads(facts["recipe"])["lr"] == 0.1 and json.loads(facts["sources"]) == {"lr": "paper"}
    knn = {
        "protocol": "knn-k20-t0.1-cosine-student", "data": "test", "images": 12, "step": 12, "top1": 50.5,
        "top5": 90.25, "intervals": {"top1": [40.0, 61.5]},
    }  # fmt: skip
    assert json.loads(facts["results"])[0] == knn
    assert str(dataset.path) not in json.dumps(facts)  # it travels; where the images lay does not
    encoder = load_encoder(tmp_path / "w.safetensors").encoder
    assert (encoder.step, encoder.samples_seen, encoder.mean) == (12, 192, dataset.mean)


def test_the_card(run, tmp_path):
    assert main([str(run), str(tmp_path / "w.safetensors")]) == 0
    card = (tmp_path / "w.md").read_text()
    assert "| `knn-k20-t0.1-cosine-student` | top1 | 50.50 (40.00 to 61.50) | 12 of test | 12 |" in card
    assert "| `linear-cached` | top1 | 40.00 | 12 of test | 4 (not of these weights) |" in card
    assert "| `lr` | 0.1 | paper |" in card


def test_every_way_to_load_that_the_card_shows_gives_the_same_features(run, tmp_path, monkeypatch):
    """Those that need no import of this project stand first."""
    assert main([str(run), str(tmp_path / "w.safetensors"), "--onnx", str(tmp_path / "w.onnx")]) == 0
    card = tmp_path / "w.md"
    monkeypatch.chdir(tmp_path)
    Image.fromarray(smooth(37, 50, 3)).save("photo.jpg", quality=95)
    own, plain = {}, {}
    exec(python_block(card, "load_encoder"), own)
    assert own["features"].shape == (1, 32)
    exec(python_block(card, "np.einsum"), plain)
    expected = own["encoder"].preprocess(Image.open("photo.jpg"))
    torch.testing.assert_close(plain["images"], expected, rtol=0, atol=1e-3)  # the card rounds mean and deviation
    exec(python_block(card, "import onnxruntime"), plain)
    torch.testing.assert_close(torch.from_numpy(plain["features"]), own["features"], rtol=0, atol=1e-3)
    text = card.read_text()
    assert text.index("import onnxruntime") < text.index("np.einsum") < text.index("from models import load_encoder")
    assert "needs the checkout on Python's path" in text and "fails in a folder that has a `models` of its own" in text


def test_a_run_of_train_py(whole, data, tmp_path):
    """Trained for a few steps: the exported features are those of the student in its newest checkpoint."""
    run, _ = whole
    assert main([str(run), str(tmp_path / "w.safetensors")]) == 0
    config, summary = (json.loads((run / name).read_text()) for name in ("config.json", "summary.json"))
    encoder, card = load_encoder(tmp_path / "w.safetensors"), (tmp_path / "w.md").read_text()
    assert (encoder.encoder.step, encoder.encoder.samples_seen) == (summary["step"], summary["samples_seen"])
    assert config["data"]["checksum"] in card and "| `queue_size` | 64 | command line |" in card
    images = real_images(open_dataset(data.train), encoder)
    assert torch.equal(encoder(images), load_encoder(run)(images))


def test_the_best_checkpoint(dataset, tmp_path, capsys):
    folder, network = write_run(tmp_path / "run", dataset)
    words = [str(folder), str(tmp_path / "w.safetensors"), "--checkpoint"]
    assert main([*words, "best"]) == 2
    assert "none was written where kNN was measured" in capsys.readouterr().err
    write_checkpoint(folder, network, 16, knn_top1=50.0, knn_step=16)
    write_checkpoint(folder, network, 20, knn_top1=40.0, knn_step=20)
    for which, step in (("best", 16), ("newest", 20)):
        assert main([*words, which, "--force"]) == 0
        assert load_encoder(tmp_path / "w.safetensors").encoder.step == step
        assert load_encoder(folder, checkpoint=which).encoder.step == step


def test_images_from_elsewhere(run, dataset, tmp_path, capsys):
    other = photos(tmp_path / "other", classes=1, each=2)
    gone = tmp_path / "gone"
    config = json.loads((run / "config.json").read_text())
    folder, _ = write_run(gone, dataset)
    (folder / "config.json").write_text(json.dumps(config | {"data": config["data"] | {"path": "nowhere.beton"}}))
    out = tmp_path / "w.safetensors"
    assert main([str(folder), str(out)]) == 2
    assert "weights are compared on real images; give some with --data FILE (there is no" in capsys.readouterr().err
    assert not out.exists()
    assert main([str(folder), str(out), "--data", str(other.path)]) == 0
    assert "2 of 2" in out.with_suffix(".md").read_text()
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()["data"])["name"] == "nowhere"
    (folder / "config.json").write_text(json.dumps(config | {"data": config["data"] | {"path": str(other.path)}}))
    assert main([str(folder), str(out), "--force"]) == 2
    assert "is no longer what the run was trained on" in capsys.readouterr().err


def test_weights_that_compute_something_else_leave_nothing(run, tmp_path, monkeypatch, capsys):
    def damaged(state, facts):
        return save(state | {"conv1.weight": state["conv1.weight"] * 1.001}, facts)

    monkeypatch.setattr(tools.exporting.verified_export, "save", damaged)
    assert main([str(run), str(tmp_path / "out" / "w.safetensors")]) == 2
    assert re.search(
        r"read back differs from the run's backbone by \S+, more than 1e-05; nothing", capsys.readouterr().err
    )
    assert files(tmp_path / "out") == []

    def broken(state, facts):
        return save(state | {"bn1.bias": state["bn1.bias"] * float("nan")}, facts)

    monkeypatch.setattr(tools.exporting.verified_export, "save", broken)
    assert main([str(run), str(tmp_path / "out" / "w.safetensors")]) == 2
    assert "differs from the run's backbone by nan" in capsys.readouterr().err
    assert files(tmp_path / "out") == []
