"""Options to views: one number for all, or one for each; and what is refused."""

import pytest

from models.methods.view_settings import ViewSettings
from pipelines.plan.views import contrastive


def test_defaults_are_moco_v2s():
    assert ViewSettings().views(3) == (contrastive(224),) * 3


def test_one_number_for_each_view():
    first, second = ViewSettings(crop_size=32, blur=(1.0, 0.1), solarize=(0.0, 0.2), permute=0.8).views(2)
    assert (first.blur_p, second.blur_p) == (1.0, 0.1)
    assert (first.solarize_p, second.solarize_p) == (0.0, 0.2)
    assert first.permute_p == second.permute_p == 0.8
    assert first.jitter_p == second.jitter_p == 0.8


def test_bad_values_are_one_line():
    with pytest.raises(ValueError, match="blur has 3 numbers for 2 views"):
        ViewSettings(blur=(0.1, 0.2, 0.3)).views(2)
    with pytest.raises(ValueError, match="solarize has 0 numbers"):
        ViewSettings(solarize=())
    with pytest.raises(ValueError, match="jitter has 1 strengths"):
        ViewSettings(jitter=(0.4,))
    with pytest.raises(ValueError, match="--crop-size is 4; give at least 8"):
        ViewSettings(crop_size=4)
    with pytest.raises(ValueError, match="crop scale"):
        ViewSettings(crop_scale=0.0)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        ViewSettings(blur=(1.5,))
