"""Neighbours, k-means and the selection rules against naive references, and in any order of the samples."""

import numpy as np
import pytest
import torch

from models import neighbors as N
from models.methods.clim import Settings, select
from models.search import kmeans, nearest
from models.search.sharded_features import LocalFeatures


def mixture(number=600, width=16, groups=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(groups, width, generator=generator) * 2
    label = torch.randint(groups, (number,), generator=generator)
    return centre[label] + torch.randn(number, width, generator=generator), label


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(nearest, "ROWS", 64)
    monkeypatch.setattr(nearest, "CHUNK", 37)
    for module in (kmeans, N):
        monkeypatch.setattr(module, "ROWS", 64)


@pytest.mark.parametrize("k", [1, 7, 200])
def test_nearest_neighbors_equal_a_full_sort(small_chunks, k):
    features, _ = mixture(300)
    similarity, index = N.nearest_neighbors(features, k)
    unit = torch.nn.functional.normalize(features.double())
    every = (unit @ unit.T).fill_diagonal_(-2)
    expected = every.sort(1, descending=True)
    assert torch.allclose(similarity.double(), expected.values[:, :k], atol=1e-6)
    assert torch.allclose(every.gather(1, index), expected.values[:, :k], atol=1e-6)
    assert (index != torch.arange(300)[:, None]).all()


def test_identical_samples_are_neighbours_but_never_their_own():
    features = torch.ones(50, 8)
    _, index = N.nearest_neighbors(features, 5)
    assert (index != torch.arange(50)[:, None]).all()


@pytest.mark.parametrize("k", [0, 50])
def test_impossible_neighbours_are_refused(k):
    with pytest.raises(ValueError, match="neighbours are asked of 50 samples"):
        N.nearest_neighbors(torch.randn(50, 4), k)


def test_kmeans_is_a_fixed_point_of_lloyd(small_chunks):
    features, _ = mixture()
    centroids, assignment = N.kmeans(features, 10, iterations=100)
    distance = torch.cdist(features.double(), centroids.double())
    assert torch.equal(assignment, distance.argmin(1))
    for cluster in range(10):
        members = features[assignment == cluster]
        assert len(members) > 0
        assert torch.allclose(members.mean(0), centroids[cluster], atol=1e-4)


def test_kmeans_is_about_as_good_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    features, _ = mixture(2000, groups=20)
    centroids, assignment = N.kmeans(features, 20, iterations=30)
    ours = (features - centroids[assignment]).square().sum()
    theirs = cluster.KMeans(20, n_init=3, random_state=0).fit(features.numpy()).inertia_
    assert ours < 1.15 * theirs


def test_kmeans_fills_empty_clusters():
    features = torch.cat([torch.zeros(50, 3), torch.ones(50, 3) + torch.randn(50, 3) * 0.01])
    centroids, assignment = N.kmeans(features, 8, iterations=10)
    assert torch.isfinite(centroids).all()
    assert len(assignment.unique()) >= 3


def test_whitened_features_have_unit_covariance_before_scaling():
    features, _ = mixture(2000)
    features = features @ torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    white = N.whiten(features, 16)
    assert torch.allclose(white.norm(dim=1), torch.ones(2000), atol=1e-5)
    centred = features.double() - features.double().mean(0)
    inverse = torch.linalg.inv(centred.T @ centred / 2000)
    mahalanobis = centred @ inverse @ centred.T  # inner products of whitened rows, whatever their rotation
    scale = mahalanobis.diagonal().sqrt()
    assert torch.allclose((white.double() @ white.double().T), mahalanobis / scale[:, None] / scale, atol=1e-4)
    with pytest.raises(ValueError, match="17 whitened components"):
        N.whiten(features, 17)


def test_center_wise_equals_a_loop(small_chunks):
    features, _ = mixture(300)
    _, index = N.nearest_neighbors(features, 9)
    centroids, assignment = N.kmeans(features, 7)
    mask = N.center_wise(features, index, centroids, assignment)
    for i in range(300):
        centre = centroids[assignment[i]].double()
        own = (features[i].double() - centre).square().sum()
        for column in range(9):
            other = (features[index[i, column]].double() - centre).square().sum()
            assert bool(mask[i, column]) == bool(other <= own)


def test_closer_than_average_equals_a_loop():
    features, _ = mixture(300)
    centroids, assignment = N.kmeans(features, 7)
    eligible = N.closer_than_average(features, centroids, assignment)
    distance = (features - centroids[assignment]).double().square().sum(1)
    for i in range(300):
        assert bool(eligible[i]) == bool(distance[i] <= distance[assignment == assignment[i]].mean())


def sets(pairing):
    return [frozenset(pairing.pool[s : s + c].tolist()) for s, c in zip(pairing.start, pairing.count, strict=True)]


@pytest.mark.parametrize("rule", ["paper", "snapshot"])
@pytest.mark.parametrize("whiten", [0, 8])
def test_selection_does_not_depend_on_the_order_of_the_samples(rule, whiten):
    features, _ = mixture(400)
    settings = Settings(rule=rule, whiten=whiten, neighbors=8, clusters=12)
    order = np.random.default_rng(4).permutation(400)
    straight, shuffled = (
        sets(select(LocalFeatures.single_process(features), settings)),
        sets(select(LocalFeatures.single_process(features[order]), settings)),
    )
    assert any(straight)
    for place, original in enumerate(order):
        assert {int(order[j]) for j in shuffled[place]} == set(straight[original])


def test_the_papers_partners_are_neighbours_that_lie_closer_to_the_centre():
    features, _ = mixture(400)
    pairing = select(LocalFeatures.single_process(features), Settings(whiten=0, neighbors=8, clusters=12))
    assert pairing.count.min() >= 0 and pairing.count.max() <= 8 and (pairing.count == 0).any()
    for i, chosen in enumerate(sets(pairing)):
        assert chosen <= set(pairing.neighbors[i].tolist())
    # Most neighbours are outside of their anchor's centre: the samples nearest to a centre have no partner.
    assert 0 < pairing.count.mean() < 8


def test_the_snapshots_partners_are_the_central_members_of_the_cluster():
    features, _ = mixture(400)
    settings = Settings(rule="snapshot", whiten=0, neighbors=8, clusters=12)
    chosen = sets(select(LocalFeatures.single_process(features), settings))
    space = torch.nn.functional.normalize(features)
    centroids, assignment = N.kmeans(space, 12, settings.kmeans_iterations)
    eligible = N.closer_than_average(space, centroids, assignment)
    for i in range(400):
        assert chosen[i] == set(((assignment == assignment[i]) & eligible).nonzero()[:, 0].tolist())
