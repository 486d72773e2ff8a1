"""MNCL's quarters and pairs, by their places."""

import torch
from torch import nn

from models.losses.patches import PAIRS, pair_means, quarters, running_statistics_kept


def test_quarters_go_down_the_left_column_then_down_the_right():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    cut = quarters(images)
    assert cut.shape == (8, 3, 2, 2)
    corners = [(slice(0, 2), slice(0, 2)), (slice(2, 4), slice(0, 2)), (slice(0, 2), slice(2, 4)), (slice(2, 4),) * 2]
    for number, (rows, columns) in enumerate(corners):
        assert torch.equal(cut[2 * number : 2 * number + 2], images[:, :, rows, columns])


def test_pairs_are_six_blocks_of_the_batch():
    features = torch.randn(4, 3, 5)  # quarter, sample, feature
    means = pair_means(features.flatten(0, 1)).view(6, 3, 5)
    assert PAIRS == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    for block, (first, second) in enumerate(PAIRS):
        for sample in range(3):
            torch.testing.assert_close(means[block, sample], (features[first, sample] + features[second, sample]) / 2)


def test_statistics_kept():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with running_statistics_kept(network):
        network(torch.randn(2, 3, 4, 4) + 5)
    assert torch.equal(network[1].running_mean, torch.zeros(4))
    assert int(network[1].num_batches_tracked) == 0
    network(torch.randn(2, 3, 4, 4))
    assert int(network[1].num_batches_tracked) == 1
