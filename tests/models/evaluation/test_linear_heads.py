"""Linear probes: each published optimizer by torch's own, and a sweep that equals its rates one by one."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from models.evaluation.knn import topk_accuracy
from models.evaluation.linear_heads import train_on_cached
from models.evaluation.protocols.linear import LINEAR, LinearProtocol
from models.training.lars import LARS

SHORT = LinearProtocol(lr=(0.1,), epochs=3, batch_size=16)


def data(number, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (number,), generator=generator)
    centres = torch.randn(4, 12, generator=torch.Generator().manual_seed(9))
    return 0.7 * centres[labels] + torch.randn(number, 12, generator=generator), labels


def share(protocol, step, steps):
    """What is left of the rate, written out."""
    epoch = step // steps
    if protocol.schedule == "drops":
        return 0.1 ** sum(epoch >= drop * protocol.epochs for drop in protocol.drops)
    done = epoch / protocol.epochs if protocol.schedule == "cosine per epoch" else step / (steps * protocol.epochs)
    return (1 + math.cos(math.pi * done)) / 2


def reference(features, labels, protocol, seed=0, hidden=None):
    """One classifier, by autograd and an optimizer of its own; hidden samples take no part in the loss."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(12, 4)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=generator)
        layer.bias.zero_()
    if protocol.optimizer == "lars":
        groups = [{"params": [layer.weight]}, {"params": [layer.bias], "excluded": True}]
        optimizer = LARS(groups, protocol.lr[0], protocol.momentum, protocol.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            layer.parameters(), protocol.lr[0], protocol.momentum, 0, protocol.weight_decay, protocol.nesterov
        )
    step, steps = 0, math.ceil(len(labels) / protocol.batch_size)
    for _ in range(protocol.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(protocol.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = protocol.lr[0] * share(protocol, step, steps)
            if hidden is not None:
                rows = rows[~hidden[rows]]
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
            step += 1
    return layer


@pytest.mark.parametrize("name", LINEAR)
def test_every_published_row_equals_autograd_and_an_optimizer(name):
    protocol = replace(LINEAR[name], epochs=5, batch_size=16)
    features, labels = data(40, 0)  # 3 steps an epoch, the last of 8
    heads, layer = train_on_cached(features, labels, 4, protocol, seed=3), reference(features, labels, protocol, 3)
    torch.testing.assert_close(heads.weight_HCD[0], layer.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(heads.bias_HC[0], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def test_weight_decay_of_sgd_and_of_lars():
    features, labels = data(40, 0)
    for protocol in (replace(SHORT, weight_decay=0.05), replace(SHORT, weight_decay=0.05, optimizer="lars", lr=(2.0,))):
        heads, layer = train_on_cached(features, labels, 4, protocol), reference(features, labels, protocol)
        torch.testing.assert_close(heads.weight_HCD[0], layer.weight.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_sweep_equals_training_its_rates_one_by_one(optimizer):
    features, labels = data(100, 0)
    rates = (0.001, 0.03, 0.3, 1.0)
    protocol = replace(SHORT, lr=rates, optimizer=optimizer)
    together = train_on_cached(features, labels, 4, protocol, seed=5)
    for place, rate in enumerate(rates):
        alone = train_on_cached(features, labels, 4, replace(protocol, lr=(rate,)), seed=5)
        torch.testing.assert_close(together.weight_HCD[place], alone.weight_HCD[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.scores(features, place), alone.scores(features, 0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together.weight_HCD[1], together.weight_HCD[2])


def test_the_second_half_of_the_classifiers_does_not_see_hidden_samples():
    features, labels = data(60, 0)
    hidden = torch.arange(60) % 5 == 0
    protocol = replace(SHORT, lr=(0.1, 0.5))
    heads = train_on_cached(features, labels, 4, protocol, 2, hidden)
    for place, rate in enumerate(protocol.lr):
        one = replace(protocol, lr=(rate,))
        seeing, blind = reference(features, labels, one, 2), reference(features, labels, one, 2, hidden)
        torch.testing.assert_close(heads.weight_HCD[place], seeing.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.weight_HCD[2 + place], blind.weight.detach(), rtol=1e-4, atol=1e-5)
    other = labels.clone()
    other[hidden] = (other[hidden] + 1) % 4  # what they are not told cannot matter
    again = train_on_cached(features, other, 4, protocol, 2, hidden)
    assert torch.equal(again.weight_HCD[2:], heads.weight_HCD[2:])
    assert not torch.equal(again.weight_HCD[:2], heads.weight_HCD[:2])


def test_one_diverging_rate_leaves_the_others_alone():
    features, labels = data(40, 0)
    far = 1e12 * features  # the logits overflow, and what follows is not a number
    heads = train_on_cached(far, labels, 4, replace(SHORT, lr=(1e-26, 1e30)))
    assert heads.finite(0) and not heads.finite(1)


def test_same_seed_same_weights_and_global_generator_untouched():
    features, labels = data(40, 0)
    torch.manual_seed(1)
    one = train_on_cached(features, labels, 4, SHORT)
    torch.rand(5)
    two, other = train_on_cached(features, labels, 4, SHORT), train_on_cached(features, labels, 4, SHORT, seed=1)
    assert torch.equal(one.weight_HCD, two.weight_HCD)
    assert not torch.equal(one.weight_HCD, other.weight_HCD)


def test_reaches_what_logistic_regression_reaches():
    (train, train_labels), (test, test_labels) = data(800, 0), data(800, 1)
    heads = train_on_cached(train, train_labels, 4, LinearProtocol(lr=(0.02,), epochs=30))
    mine = topk_accuracy(heads.scores(test, 0), test_labels, 1)
    best = LogisticRegression(C=1e4, max_iter=500).fit(train.numpy(), train_labels.numpy())
    assert mine == pytest.approx(100 * best.score(test.numpy(), test_labels.numpy()), abs=2)


def test_bad_data_is_one_line():
    features, labels = data(20, 0)
    with pytest.raises(ValueError, match="without labelled samples"):
        train_on_cached(features[:0], labels[:0], 4, SHORT)
    with pytest.raises(ValueError, match="labels 0 to 3 for 3 classes"):
        train_on_cached(features, labels, 3, SHORT)
