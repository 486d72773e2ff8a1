"""Retrieval against loops and against scikit-learn's average precision."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.evaluation.protocols.retrieve import RetrieveProtocol
from models.evaluation.retrieval import answerable, rank


def data(number, seed, classes=5):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (number,), generator=generator)
    return centres[labels] + 1.5 * torch.randn(number, 8, generator=generator), labels


def naive(query, query_labels, bank, bank_labels, k, own=None):
    """Recall@k and average precision of each query, by a sorted list."""
    found, precision = [], []
    for i in range(len(query)):
        a = query[i].double().numpy()
        cosine = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in bank.double().numpy()]
        order = [j for j in np.argsort([-c for c in cosine], kind="stable") if own is None or j != int(own[i])]
        right = [int(bank_labels[j]) == int(query_labels[i]) for j in order]
        found.append([any(right[:n]) for n in k])
        places = [place for place, hit in enumerate(right, 1) if hit]
        precision.append(sum(seen / place for seen, place in enumerate(places, 1)) / len(places) if places else 0.0)
    return np.array(found), np.array(precision)


@pytest.mark.parametrize("pairs", [1, 100, 333, 10**6])
def test_equals_a_sorted_list_whatever_the_chunks(pairs):
    (query, query_labels), (bank, bank_labels) = data(23, 0), data(60, 1)
    found, precision = rank(query, query_labels, bank, bank_labels, (1, 5, 10), pairs=pairs)
    expected = naive(query, query_labels, bank, bank_labels, (1, 5, 10))
    assert np.array_equal(found.numpy(), expected[0]) and 0 < found[:, 0].float().mean() < 1
    np.testing.assert_allclose(precision.numpy(), expected[1], rtol=1e-6)


def test_leave_one_out():
    bank, labels = data(40, 1)
    own = torch.arange(40)
    found, precision = rank(bank, labels, bank, labels, (1, 3), own)
    expected = naive(bank, labels, bank, labels, (1, 3), own)
    assert np.array_equal(found.numpy(), expected[0])
    np.testing.assert_allclose(precision.numpy(), expected[1], rtol=1e-6)
    with_itself = rank(bank, labels, bank, labels, (1,))[0]
    assert with_itself.all() and not found[:, 0].all()


def test_average_precision_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    (query, query_labels), (bank, bank_labels) = data(30, 2), data(200, 3)
    precision = rank(query, query_labels, bank, bank_labels, (1,))[1]
    unit = torch.nn.functional.normalize
    cosine = (unit(query) @ unit(bank).T).numpy()
    expected = [
        metrics.average_precision_score((bank_labels == label).numpy(), cosine[i])
        for i, label in enumerate(query_labels)
    ]
    np.testing.assert_allclose(precision.numpy(), expected, rtol=1e-5)


def test_a_class_that_the_bank_lacks_counts_with_nothing_and_small_banks_with_all_they_have():
    bank, labels = data(4, 1, classes=2)
    found, precision = rank(bank[:2], torch.tensor([7, int(labels[1])]), bank, labels, (1, 100))
    assert not found[0].any() and precision[0] == 0
    assert found[1].all() and precision[1] > 0


def test_errors_are_one_line():
    bank, labels = data(4, 1)
    for arguments in ((bank[:0], labels[:0], (1,)), (bank[:, :3], labels, (1,)), (bank, labels, (0,))):
        with pytest.raises(ValueError, match="cannot rank"):
            rank(bank, labels, *arguments)
    with pytest.raises(ValueError, match="cannot rank"):
        rank(bank[:1], labels[:1], bank[:1], labels[:1], (1,), torch.tensor([0]))


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_queries_whose_class_has_no_other_image(leave_one_out):
    bank = torch.tensor([0, 0, 1, 3, 3, 3])
    query = bank if leave_one_out else torch.tensor([0, 1, 2, 3, 9])
    expected = []
    for i, label in enumerate(query.tolist()):
        others = [other for j, other in enumerate(bank.tolist()) if not (leave_one_out and j == i)]
        expected.append(label in others)
    assert answerable(query, bank, leave_one_out).tolist() == expected
    assert sum(expected) == (5 if leave_one_out else 3)


def test_the_protocol_leaves_out_and_counts_queries_that_nothing_can_answer():
    """Five classes of one image and two of five: the means are over the ten images that have another of their class."""
    labels = torch.tensor([0] * 5 + [1] * 5 + [2, 3, 4, 5, 6])
    features = torch.nn.functional.one_hot(labels, 7).float() + 0.01 * torch.randn(15, 7)
    number = torch.arange(15)
    task = SimpleNamespace(
        query_features=lambda network: SimpleNamespace(number_M=number, features_MD=features),
        images=None,
        bank_labels=lambda: labels,
        query_labels=lambda: labels,
        device=torch.device("cpu"),
    )
    protocol = RetrieveProtocol(bank="leave-one-out", k=(1, 4))
    result = protocol.measure(torch.nn.Identity(), task, (0,))[0]
    assert {name: float(value.mean()) for name, value in result.values.items()} == {
        "recall@1": 1.0, "recall@4": 1.0, "map": 1.0,
    }  # fmt: skip
    assert len(result.labels_N) == 10 and result.facts == {"bank_images": 15, "queries_left_out": 5}
    labels[:10] = torch.arange(7, 17)
    with pytest.raises(ValueError, match="no query's class has another image"):
        protocol.measure(torch.nn.Identity(), task, (0,))
