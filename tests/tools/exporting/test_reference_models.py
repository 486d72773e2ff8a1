"""The lines of a model card that make a ViT in timm."""

from __future__ import annotations

from typing import Any

import pytest

from tools.exporting.reference_models import reference_code

USUAL = {"stem": "imagenet", "image_size": 64, "width": 64}


@pytest.mark.parametrize(
    ("architecture", "call"),
    [
        ({"name": "vit_tiny"}, '"vit_tiny_patch16_224", num_classes=0, img_size=64'),
        ({"name": "vit_large", "heads": 0, "depth": 0}, '"vit_large_patch16_224", num_classes=0, img_size=64'),
        (
            {"name": "vit_base", "patch": 8, "pool": "mean", "heads": 6},
            '"vit_base_patch16_224", num_classes=0, img_size=64, num_heads=6, patch_size=8, global_pool="avg", '
            "fc_norm=False",
        ),
        (
            {"name": "vit", "width": 128, "depth": 2},
            '"vit_small_patch16_224", num_classes=0, img_size=64, embed_dim=128, num_heads=2, depth=2',
        ),
        ({"name": "vit_small", "width": 32}, '"vit_small_patch16_224", num_classes=0, img_size=64, embed_dim=192'),
    ],
)
def test_timms_nearest_network_and_what_differs(architecture: dict[str, Any], call: str) -> None:
    assert reference_code("timm", USUAL | architecture)[-1] == f"model = timm.create_model({call})"
