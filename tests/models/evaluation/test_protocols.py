"""Protocols: frozen, JSON, and an id that tells apart whatever differs."""

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from models.evaluation.protocols.finetune import FinetuneProtocol
from models.evaluation.protocols.knn import KnnProtocol
from models.evaluation.protocols.linear import LINEAR, LinearProtocol
from models.evaluation.protocols.retrieve import RetrieveProtocol
from models.evaluation.published_linear import published
from models.methods.recipes import names
from models.methods.registry import REGISTRY

USUAL = (KnnProtocol(), LinearProtocol(), FinetuneProtocol(), RetrieveProtocol())


def test_every_number_has_a_protocol_id():
    assert KnnProtocol().id == "knn-k200-t0.1-cosine-student"
    assert KnnProtocol(k=20, temperature=0.07).id == "knn-k20-t0.07-cosine-student"
    assert LinearProtocol().id == "linear-cached-sgd-lr1-b256-e100-student"
    assert LinearProtocol().as_dict()["features"] == "raw pooled, no augmentation"
    sweep = LinearProtocol(lr=(0.1, 1.0), augment=True, labels="10%", checkpoint="best")
    assert sweep.id == "linear-augmented-sgd-lr0.1,1-by-10%-held-out-b256-e100-student-labels-10%-best"
    assert sweep.as_dict()["rate_chosen_by"] == "10% of each class's labels, held out by the seed"
    assert FinetuneProtocol(labels="1%").id == "finetune-sgd-lr0.005+0.02-b256-e70-bf16-student-labels-1%"
    seen = {"precision": "bf16", "pixels": "dali"}
    assert KnnProtocol(**seen).id == "knn-k200-t0.1-cosine-student-bf16-dali"
    assert FinetuneProtocol(**seen).id == "finetune-sgd-lr0.005+0.02-b256-e70-bf16-student-dali"
    assert KnnProtocol(precision="fp16").id == "knn-k200-t0.1-cosine-student-fp16"  # a monitor's, not eval.py's
    assert RetrieveProtocol(bank="leave-one-out").id == "retrieve-r1,5,10-map-cosine-leave-one-out-student"


@pytest.mark.parametrize("protocol", USUAL, ids=lambda protocol: type(protocol).__name__)
def test_they_are_frozen_and_told_whole(protocol):
    with pytest.raises(FrozenInstanceError):
        protocol.labels = "1%"
    told = json.loads(json.dumps(protocol.as_dict()))
    assert told["id"] == protocol.id and {field.name for field in fields(protocol)} <= told.keys()


@pytest.mark.parametrize(
    ("protocol", "changes"),
    [
        (KnnProtocol(), {"k": 5, "temperature": 0.07, "labels": "10%", "checkpoint": "best", "encoder": "pixels",
                         "precision": "bf16", "pixels": "dali"}),
        (LinearProtocol(), {"lr": (0.3,), "epochs": 9, "batch_size": 9, "augment": True, "optimizer": "lars",
                            "labels": "list 0a1b", "settings": "cgh", "precision": "bf16", "pixels": "area+dali"}),
        (replace(LinearProtocol(), lr=(1.0, 2.0)), {"held_out": 0.2}),
        (FinetuneProtocol(), {"lr_backbone": 1.0, "lr_head": 1.0, "epochs": 9, "batch_size": 9, "labels": "1%",
                              "precision": "fp32", "pixels": "dali"}),
        (RetrieveProtocol(), {"k": (1, 2), "bank": "leave-one-out", "checkpoint": "best", "precision": "bf16"}),
    ],
)  # fmt: skip
def test_what_changes_shows_in_the_id(protocol, changes):
    ids = [protocol.id, *(replace(protocol, **{name: value}).id for name, value in changes.items())]
    assert len(set(ids)) == len(ids), ids


def test_published_settings_have_ids_of_their_own_and_every_recipe_has_some():
    assert len({row.id for row in LINEAR.values()}) == len(LINEAR)
    assert all(row.settings == name and row.source for name, row in LINEAR.items())
    for method in REGISTRY:
        for recipe in names(method):
            assert published(method, recipe) in LINEAR
    assert [published(name, "cifar10") for name in ("msvq", "moco", "byol", "simclr", "nnclr")] == ["msvq"] * 2 + [
        "mnn"
    ] * 3
    assert (LINEAR["mnn"].lr, LINEAR["mnn"].nesterov, LINEAR["mnn"].drops) == ((30.0,), True, (0.6, 0.8))
    assert published("ressl", "imagenet") == "cgh" and (LINEAR["cgh"].lr, LINEAR["cgh"].nesterov) == ((0.3,), False)
    assert {published(method, "stl10") for method in ("msvq", "moco", "byol")} == {"msvq-stl10"}
    assert LINEAR["msvq-stl10"].crop_size == 64
    assert (published("mncl", "cifar10"), published("iccl", "imagenet_vit")) == ("mncl", "iccl-vit")
    assert (published("clim", "cifar10"), published("clim", "imagenet")) == ("msvq", "clim")
    assert (LINEAR["clim"].lr, LINEAR["clim"].drops) == ((30.0,), (0.6, 0.8))
    assert (LINEAR["mncl"].optimizer, LINEAR["mncl"].epochs) == ("lars", 90)
