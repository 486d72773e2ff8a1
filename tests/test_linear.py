"""The linear probe: its schedule by hand, determinism, and what it reaches beside scikit-learn."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from models.knn import topk_accuracy
from models.linear import linear_scores, train_linear
from models.protocols import KnnProtocol, LinearProtocol

SHORT = LinearProtocol(lr=0.1, epochs=3, batch_size=16)


def data(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (number,), generator=generator)
    centres = torch.randn(4, 12, generator=torch.Generator().manual_seed(9))
    return 0.7 * centres[labels] + torch.randn(number, 12, generator=generator), labels


def test_equals_the_protocol_written_out() -> None:
    features, labels = data(40, 0)  # 3 steps an epoch, the last of 8
    layer = train_linear(features, labels, 4, SHORT, seed=3)
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.empty(4, 12).normal_(0, 0.01, generator=generator), torch.zeros(4)
    speed = [torch.zeros(4, 12), torch.zeros(4)]
    step = 0
    for _ in range(3):
        order = torch.randperm(40, generator=generator)
        for first in (0, 16, 32):
            rows = order[first : first + 16]
            error = torch.softmax(features[rows] @ weight.T + bias, 1) - nn.functional.one_hot(labels[rows], 4)
            gradients = [error.T @ features[rows] / len(rows), error.mean(0)]
            lr = 0.1 * (1 + math.cos(math.pi * step / 9)) / 2
            for i, gradient in enumerate(gradients):
                speed[i] = 0.9 * speed[i] + gradient
            weight, bias = (w - lr * (g + 0.9 * v) for w, g, v in zip((weight, bias), gradients, speed, strict=True))
            step += 1
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias)


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    features, labels = data(40, 0)
    torch.manual_seed(1)
    one = train_linear(features, labels, 4, SHORT)
    torch.rand(5)
    two, other = train_linear(features, labels, 4, SHORT), train_linear(features, labels, 4, SHORT, seed=1)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)


def test_reaches_what_logistic_regression_reaches() -> None:
    (train, train_labels), (test, test_labels) = data(800, 0), data(800, 1)
    layer = train_linear(train, train_labels, 4, replace(LinearProtocol(), lr=0.02, epochs=30))
    mine = topk_accuracy(linear_scores(layer, test), test_labels, 1)
    reference = LogisticRegression(C=1e4, max_iter=500).fit(train.numpy(), train_labels.numpy())
    assert mine == pytest.approx(100 * reference.score(test.numpy(), test_labels.numpy()), abs=2)


def test_bad_data_is_one_line() -> None:
    features, labels = data(20, 0)
    with pytest.raises(ValueError, match="without labelled samples"):
        train_linear(features[:0], labels[:0], 4, SHORT)
    with pytest.raises(ValueError, match="labels 0 to 3 for 3 classes"):
        train_linear(features, labels, 3, SHORT)
    with pytest.raises(FloatingPointError, match="diverged"):
        train_linear(features * float("inf"), labels, 4, SHORT)


def test_every_number_has_a_protocol_id() -> None:
    assert KnnProtocol().id == "knn-k200-t0.1-cosine-student"
    assert KnnProtocol(k=20, temperature=0.07).id == "knn-k20-t0.07-cosine-student"
    assert LinearProtocol().id == "linear-cached-sgd-lr1-b256-e100-student"
    assert LinearProtocol().as_dict()["features"] == "raw pooled, no augmentation"
