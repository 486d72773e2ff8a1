"""kNN against scikit-learn on the same features; chunks that change nothing."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from models.evaluation.knn import knn_predict, nearest, topk_accuracy


def data(number: int, seed: int, classes: int = 7, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (number,), generator=generator)
    return 3 * (centres[labels] + torch.randn(number, dim, generator=generator)), labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.07), (200, 0.1)])
def test_equals_scikit_learn(k: int, temperature: float) -> None:
    bank, labels = data(600, 0)
    query, _ = data(150, 1)
    scores = knn_predict(query, bank, labels, k, temperature, 7, chunk=128)
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    reference.fit(bank.double().numpy(), labels.numpy())
    expected = reference.predict_proba(query.double().numpy())
    np.testing.assert_allclose(scores.numpy(), expected, atol=2e-6)
    assert np.array_equal(scores.argmax(1).numpy(), reference.predict(query.double().numpy()))


@pytest.mark.parametrize(("chunk", "query_chunk"), [(1, 50), (3, 7), (64, 1), (1000, 1000)])
def test_chunks_change_nothing(chunk: int, query_chunk: int) -> None:
    bank, query = data(100, 0)[0], data(50, 1)[0]
    similarity, row = nearest(query, bank, 10, chunk, query_chunk)
    cosine = torch.nn.functional.normalize(query, dim=1) @ torch.nn.functional.normalize(bank, dim=1).T
    expected = cosine.topk(10, 1)
    torch.testing.assert_close(similarity, expected.values)
    assert torch.equal(row, expected.indices)


def test_small_banks_missing_classes_and_cold_temperatures() -> None:
    bank, labels = data(5, 0)
    scores = knn_predict(data(3, 1)[0], bank, labels, 200, 0.001, 9)
    assert scores.shape == (3, 9)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores.sum(1), torch.ones(3))


def test_errors_are_one_line() -> None:
    bank, labels = data(5, 0)
    with pytest.raises(ValueError, match="temperature is 0"):
        knn_predict(bank, bank, labels, 1, 0.0, 7)
    with pytest.raises(ValueError, match="cannot search 0 neighbours"):
        nearest(bank, bank, 0)
    with pytest.raises(ValueError, match="cannot search 1 neighbours"):
        nearest(bank, bank[:0], 1)
    with pytest.raises(ValueError, match="cannot search 1 neighbours"):
        nearest(bank, bank[:, :3], 1)


def test_topk_accuracy() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    labels = torch.tensor([2, 0])
    assert topk_accuracy(scores, labels, 1) == 50
    assert topk_accuracy(scores, labels, 2) == 100
    assert topk_accuracy(scores, torch.tensor([0, 1]), 5) == 100  # three classes: all of them
    with pytest.raises(ValueError, match="no samples"):
        topk_accuracy(scores[:0], labels[:0], 1)
