"""`load_encoder` from every place, and its preprocessing beside the loader's."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from models import FrozenEncoder, load_encoder
from models.networks.backbones import build_backbone
from models.storage.encoder import EncoderError
from pipelines import make_loader
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import RAW
from pipelines.plan.views import RESIZE, evaluation
from tests.support.datasets import photos
from tests.support.run_folders import lively, write_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"), each=4, kind="PNG")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", dataset, crop_ratio=0.875, image_size=24)


def test_a_run_in_three_lines(run):
    encoder = load_encoder(run[0])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    features = encoder(encoder.preprocess(image, image.rotate(90)))
    assert features.shape == (2, encoder.dim) and not features.requires_grad
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.no_grad():
        assert torch.equal(features, run[1](encoder.preprocess(image, image.rotate(90))).pooled)
    assert (encoder.image_size, encoder.crop_ratio) == (24, 0.875)
    encoder.train().requires_grad_(True)
    encoder(encoder.preprocess(image, image)).sum().backward()
    assert encoder.backbone.get_parameter("conv1.weight").grad is not None


@pytest.mark.parametrize("resize", RESIZE)
def test_preprocessing_is_the_loaders(run, dataset, resize):
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    encoder = FrozenEncoder(replace(load_encoder(str(run[0])).encoder, resize=resize))
    with EncodedImages(dataset) as images:
        files = [io.BytesIO(images.image_file(number).tobytes()) for number in range(dataset.number)]
    found = encoder.preprocess(*(Image.open(file) for file in files))
    view = evaluation(24, 0.875, resize)
    with make_loader(dataset, [view], dataset.number, loader="ffcv", shuffle=False, drop_last=False) as loader:
        expected = next(iter(loader.epoch(0))).views[0].float()
    levels = (found - expected).abs() * torch.tensor(dataset.std).view(3, 1, 1) * 255
    raw = torch.from_numpy(dataset.table.mode == RAW)
    assert 0 < raw.sum() < len(raw)
    assert levels[raw].max() < 1.01  # the two resizes round differently now and then
    assert levels[~raw].mean() < 1.0  # and the two decoders, on JPEGs


def test_pictures_of_all_kinds(run):
    encoder = load_encoder(run[0])
    plain = Image.fromarray(np.random.default_rng(1).integers(0, 256, (31, 47, 3)).astype(np.uint8))
    expected = encoder.preprocess(plain)
    assert torch.equal(encoder.preprocess(plain.convert("RGBA")), expected)
    clear = plain.convert("RGBA")
    clear.putalpha(0)
    white = encoder.preprocess(Image.new("RGB", plain.size, "white"))
    assert torch.equal(encoder.preprocess(clear), white) and not torch.equal(white, expected)
    grey = plain.convert("L")
    for other in (grey, Image.merge("RGB", [grey] * 3), grey.convert("P")):
        assert torch.equal(encoder.preprocess(other), encoder.preprocess(grey))
    turned, buffer = plain.transpose(Image.Transpose.ROTATE_90), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees when shown
    turned.save(buffer, "PNG", exif=exif)
    assert torch.equal(encoder.preprocess(Image.open(buffer)), expected)


def test_a_state_dict_of_torchvisions_keys(tmp_path):
    torch.manual_seed(0)
    network = lively(build_backbone("resnet18", width=8), 32)
    state = network.state_dict() | {"fc.weight": torch.zeros(3, 64), "fc.bias": torch.zeros(3)}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    encoder = load_encoder(tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(images), network(images).pooled)
    picture = Image.new("RGB", (300, 200), "red")
    with pytest.raises(
        EncoderError, match=r"w\.pth does not say how its images are normalised; give load_encoder mean"
    ):
        encoder.preprocess(picture)
    told = load_encoder(tmp_path / "w.pth", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), image_size=48)
    view = told.preprocess(picture)
    assert view.shape == (1, 3, 48, 48)
    assert torch.equal(view[0, :, 0, 0], torch.tensor([1.0, -1.0, 0.0]))
    with pytest.raises(EncoderError, match=r"mean is \(0.5, 0.5\); give three numbers"):
        load_encoder(tmp_path / "w.pth", mean=(0.5, 0.5))


def test_half_precision_weights_compute_in_float32(tmp_path):
    torch.manual_seed(0)
    network = lively(build_backbone("resnet18", width=4), 32)
    torch.save(
        {key: v.half() if v.is_floating_point() else v for key, v in network.state_dict().items()}, tmp_path / "w.pt"
    )
    assert load_encoder(tmp_path / "w.pt")(torch.randn(1, 3, 32, 32)).dtype == torch.float32


def test_nothing_there(tmp_path):
    with pytest.raises(EncoderError, match="there is no weights file"):
        load_encoder(tmp_path / "nowhere.safetensors")
    with pytest.raises(EncoderError, match=r"is no run of train\.py"):
        load_encoder(tmp_path)
