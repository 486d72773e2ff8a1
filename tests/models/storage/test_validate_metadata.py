"""What files and callers say of a network: whatever it is, an encoder or one line comes out."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from models import load_encoder
from models.networks.backbones import build_backbone
from models.storage.encoder import EncoderError
from models.storage.validate_metadata import check_metadata

FACTS = {
    "backbone": "resnet18", "width": 1, "stem": "small", "image_size": 16, "crop_ratio": 1.0, "mean": [0.5] * 3,
    "std": [0.5] * 3, "step": 3, "samples_seen": 48,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    return build_backbone("resnet18", 1, "small").state_dict()


def written(path, weights, facts):
    save_file(weights, path, {name: v if isinstance(v, str) else json.dumps(v) for name, v in facts.items()})
    return path


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**8, 10**400, -1, 0, 1, 16, math.nan, math.inf, 1e-300, True, None])
)
WORDS = st.text(max_size=20) | st.sampled_from(["resnet50", "vit_small", "imagenet", "small_pool", "1" * 5000])
VALUES = st.one_of(NUMBERS, WORDS, st.lists(NUMBERS | WORDS, max_size=4), st.dictionaries(WORDS, NUMBERS, max_size=1))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(st.sampled_from(sorted(FACTS)), VALUES, min_size=1, max_size=2))
def test_whatever_a_file_says_is_an_encoder_or_one_line(weights, tmp_path_factory, said):
    path = written(tmp_path_factory.getbasetemp() / "said.safetensors", weights, FACTS | said)
    encoder, told = None, ""
    try:
        encoder = load_encoder(path)
    except EncoderError as error:
        told = str(error)
    if encoder is None:
        assert told.isprintable() and len(told) < 600
        return
    assert f"{encoder.encoder.step:,} {encoder.encoder.samples_seen:,}"
    if encoder.image_size <= 64:
        assert encoder(encoder.preprocess(Image.new("RGB", (20, 30), "red"))).isfinite().all()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"image_size": 10**8}, "image_size is 100000000; give a whole number from 1 to 4,096"),
        ({"step": [1, 2]}, r"step is \[1, 2\]; give a whole number"),
        ({"mean": [10**400] * 3}, "give three numbers on the scale 0 to 1"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean is .*; give three numbers on the scale 0 to 1"),
        ({"crop_ratio": 10**400}, "give a share above 0, at most 1"),
        ({"std": [1e-300] * 3}, "give numbers above 0"),
        ({"mean": list(range(10**5))}, r"mean is \[0, 1, 2, 3, 4, 5, ...\]; "),
        ({"resize": "lanczos"}, "resize is 'lanczos'; take one of area, bilinear, bicubic"),
        ({"stem": "a\nb\x1b[31m"}, r"stem is 'a\\nb\\x1b\[31m'; take one of imagenet, small, small_pool"),
    ],
)
def test_the_line_names_the_value_and_what_it_may_be(said, told):
    with pytest.raises(ValueError, match=told):
        check_metadata(FACTS | said)
    check_metadata(FACTS)


def test_keys_of_another_network_are_named(weights, tmp_path):
    def refused(state, **given):
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(EncoderError) as raised:
            load_encoder(tmp_path / "w.pt", **given)
        return str(raised.value)

    small = {"stem": "small", "image_size": 16}
    vgg = {"features.0.weight": torch.zeros(2), "features.0.bias": torch.zeros(2), "fc.weight": torch.zeros(2)}
    assert "it holds features.0.weight, features.0.bias and 1 more, no keys of torchvision's ResNets" in refused(vgg)
    other = {key: value for key, value in weights.items() if not key.startswith("layer4.1.bn")}
    other |= {f"layer1.0.se{n}\n": torch.zeros(1) for n in range(3)}
    told = refused(other, **small)
    assert "it lacks layer4.1.bn1.weight, layer4.1.bn1.bias and 6 more" in told
    assert r"it has layer1.0.se0\n, layer1.0.se1\n and 1 more besides" in told and told.isprintable()
    told = refused(weights)
    assert "nothing says the network's 'stem' and 'image_size'; give --stem imagenet|small|small_pool and" in told
    assert "--image-size PIXELS (load_encoder: stem=, image_size=)" in told
    wide = build_backbone("resnet18", 2, "imagenet").state_dict()
    assert "conv1.weight is 2x3x7x7 and not 2x3x3x3; its first convolution is that of --stem imagenet" in refused(
        wide, **small
    )
    assert "--stem small or small_pool" in refused(weights, stem="imagenet", image_size=16)
    for key, shape in (("conv1.weight", (3, 3)), ("patch_embed.proj.weight", (2,))):
        assert "nothing says the network's 'backbone'" in refused(
            {key: torch.zeros(shape), "pos_embed": torch.zeros(3)}
        )


def test_what_would_be_ignored_is_refused(weights, tmp_path):
    path = written(tmp_path / "w.safetensors", weights, FACTS)
    (tmp_path / "run").mkdir()
    for name, value in {"stem": "small", "image_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}.items():
        with pytest.raises(EncoderError, match=f"is a run, which says its {name} itself; leave {name}= out"):
            load_encoder(tmp_path / "run", **{name: value})
    with pytest.raises(EncoderError, match="is no folder of a run; leave checkpoint='best' out"):
        load_encoder(path, checkpoint="best")
    with pytest.raises(EncoderError, match="checkpoint is 'bset'; take newest or best"):
        load_encoder(tmp_path / "run", checkpoint="bset")
