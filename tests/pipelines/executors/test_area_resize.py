"""Area resize as matrix products against OpenCV's INTER_AREA: within a level for every pair of box and view."""

import numpy as np
import pytest
import torch

from pipelines.executors.area_resize import area_shares, padded, resize_crops

cv2 = pytest.importorskip("cv2", reason="OpenCV, which FFCV brings, is not installed")
SIZES = [1, 16, 24, 32, 48, 60, 96, 224]


def test_rows_of_a_matrix_are_shares_inside_the_box():
    length = torch.arange(1, 65)
    for bilinear in (True, False):
        shares = area_shares(length, 24, 64, torch.full((64,), bilinear))
        assert torch.allclose(shares.sum(2), torch.ones(64, 24)) and (shares >= 0).all()
        assert all((shares[row, :, side:] == 0).all() for row, side in enumerate(length.tolist()))
    assert torch.equal(area_shares(torch.tensor([24]), 24, 32, torch.tensor([False]))[0, :, :24], torch.eye(24))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_it_equals_opencv(size, device):
    rng = np.random.default_rng(size)
    pictures = [rng.integers(0, 256, (*sides, 3)).astype(np.uint8) for sides in [(32, 32), (60, 80), (97, 41)] * 20]
    boxes, flips, expected = [], [], []
    for picture in pictures:
        sides = np.array(picture.shape[:2])
        box = rng.integers(1, sides + 1)
        place = rng.integers(0, sides - box + 1)
        crop = picture[place[0] : place[0] + box[0], place[1] : place[1] + box[1]]
        view = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        flip = rng.random() < 0.5
        boxes.append([*place, *box])
        flips.append(flip)
        expected.append(view[:, ::-1] if flip else view)
    volumes = np.array([picture.shape[0] * picture.shape[1] for picture in pictures])
    found = resize_crops(
        torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures])).to(device),
        torch.from_numpy(volumes.cumsum() - volumes).to(device),
        torch.tensor([picture.shape[1] for picture in pictures]).to(device),
        torch.tensor(np.array(boxes)).to(device),
        torch.tensor(flips).to(device),
        size,
        padded(np.array(boxes)),
    )
    assert found.is_contiguous(memory_format=torch.channels_last) or size == 1
    gap = np.abs(found.permute(0, 2, 3, 1).cpu().numpy().astype(int) - np.stack(expected))
    assert gap.max() <= 1 and gap.mean() < 0.2


def test_every_side_of_a_box_meets_opencvs_rounding_where_the_other_side_is_enlarged():
    rng = np.random.default_rng(0)
    for size in (24, 96):
        for side in range(1, 250):
            row = rng.integers(0, 256, side).astype(np.uint8)
            picture = np.broadcast_to(row[None, :, None], (size // 2, side, 3)).copy()
            expected = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)[0, :, 0]
            shares = area_shares(torch.tensor([side]), size, side, torch.tensor([True]))[0]
            assert np.abs((shares @ torch.from_numpy(row).float()).numpy() - expected).max() <= 1.01
