"""Signs of collapse on features whose answer is known."""

import pytest
import torch

from models.evaluation.collapse import effective_rank, feature_spread


def test_spread_is_one_on_the_sphere_and_zero_at_a_point():
    generator = torch.Generator().manual_seed(0)
    assert feature_spread(torch.randn(4000, 64, generator=generator)) == pytest.approx(1, abs=0.01)
    assert feature_spread(torch.ones(100, 64)) == pytest.approx(0, abs=1e-12)


def test_dead_features_have_the_rank_of_one_point():
    assert effective_rank(torch.zeros(20, 8)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("rank", [1, 5, 32])
def test_rank_of_orthogonal_directions_of_equal_strength(rank):
    directions = torch.linalg.qr(torch.randn(64, rank, generator=torch.Generator().manual_seed(1)).double()).Q
    weights = torch.linalg.qr(torch.randn(500, rank, generator=torch.Generator().manual_seed(2)).double()).Q
    assert effective_rank(weights @ directions.T) == pytest.approx(rank, rel=1e-3)
