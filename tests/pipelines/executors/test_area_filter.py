"""The weights of the area filter: shares of a box, with OpenCV's rounding of positions."""

import numpy as np
import pytest
import torch

from pipelines.executors.area_filter import area_shares

cv2 = pytest.importorskip("cv2", reason="OpenCV, which FFCV brings, is not installed")


def test_rows_of_a_matrix_are_shares_inside_the_box():
    length = torch.arange(1, 65)
    for bilinear in (True, False):
        shares = area_shares(length, 24, 64, torch.full((64,), bilinear))
        assert torch.allclose(shares.sum(2), torch.ones(64, 24)) and (shares >= 0).all()
        assert all((shares[row, :, side:] == 0).all() for row, side in enumerate(length.tolist()))
    assert torch.equal(area_shares(torch.tensor([24]), 24, 32, torch.tensor([False]))[0, :, :24], torch.eye(24))


def test_every_side_of_a_box_meets_opencvs_rounding_where_the_other_side_is_enlarged():
    rng = np.random.default_rng(0)
    for size in (24, 96):
        for side in range(1, 250):
            row = rng.integers(0, 256, side).astype(np.uint8)
            picture = np.broadcast_to(row[None, :, None], (size // 2, side, 3)).copy()
            expected = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)[0, :, 0]
            shares = area_shares(torch.tensor([side]), size, side, torch.tensor([True]))[0]
            assert np.abs((shares @ torch.from_numpy(row).float()).numpy() - expected).max() <= 1.01
