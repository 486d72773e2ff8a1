"""CutMix with relative rectangles against a loop over pixels."""

import pytest
import torch

from models.losses.mixture import cutmix


@pytest.mark.parametrize("side", [32, 24, 17])
def test_cutmix_equals_a_loop_over_pixels(side):
    generator = torch.Generator().manual_seed(side)
    anchor, partner = torch.rand(2, 6, 3, side, side, generator=generator)
    box = torch.rand(6, 4, generator=generator)
    box = torch.stack([*torch.minimum(box[:, :2], box[:, 2:]).T, *torch.maximum(box[:, :2], box[:, 2:]).T], 1)
    box[0] = 0  # an anchor without a partner
    box[1] = torch.tensor([0.0, 0.0, 1.0, 1.0])  # nothing is kept
    mixed, kept = cutmix(anchor, partner, box)
    for n in range(6):
        pasted = 0
        top, left, bottom, right = (round(float(share) * side) for share in box[n])
        for row in range(side):
            for column in range(side):
                inside = top <= row < bottom and left <= column < right
                pasted += inside
                source = partner if inside else anchor
                assert torch.equal(mixed[n, :, row, column], source[n, :, row, column])
        assert kept[n].item() == pytest.approx(1 - pasted / side**2, abs=1e-6)
    assert kept[0] == 1 and kept[1] == 0


def test_lambda_is_close_to_the_planned_share_on_every_resolution():
    box = torch.tensor([[0.2, 0.1, 0.8, 0.6]])
    shares = [cutmix(torch.zeros(1, 3, s, s), torch.ones(1, 3, s, s), box)[1].item() for s in (224, 160, 32, 24)]
    assert all(abs(share - 0.7) < 0.03 for share in shares)


def test_memory_format_is_kept():
    view = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    mixed, _ = cutmix(view, view.flip(0), torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 2))
    assert mixed.is_contiguous(memory_format=torch.channels_last)
