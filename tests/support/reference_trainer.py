"""MoCo v2 and MSVQ once more, in plain torch and Pillow, with nothing of the project: what train.py must equal.

It is slow and simple on purpose. Images are cut and coloured one by one by Pillow in the order of torchvision's
transforms; each view has a forward pass of its own; the loss builds the whole matrix of similarities; everything is
float32. Random numbers are NumPy's and torch's own, so that only what is learned can be compared, not single steps.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import nn
from torch.nn import functional as F

BILINEAR = Image.Resampling.BILINEAR


@dataclass
class Budget:
    """Everything that decides a training; the names are those of train.py's options."""

    method: str
    size: int = 32
    width: int = 8
    batch_size: int = 128
    epochs: int = 2
    warmup_epochs: float = 0.2
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    queue_size: int = 1024
    dim: int = 128
    hidden: int = 2048
    bn_splits: int = 8
    temperature: float = 0.2  # MoCo
    student_temperature: float = 0.1  # MSVQ
    teacher_temperature: float = 0.04
    weak_flip: float = 0.9
    ema: float = 0.99
    second_ema: float = 0.95
    seed: int = 0
    neighbors: int = 200


def crop(image, size, rng, low):
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(low, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            return image.crop((left, top, left + w, top + h)).resize((size, size), BILINEAR)
    return image.resize((size, size), BILINEAR)


def shift_hue(image, turns):
    hue, saturation, value = image.convert("HSV").split()
    moved = (np.asarray(hue, dtype=np.int16) + round(turns * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(moved.astype(np.uint8)), saturation, value)).convert("RGB")


def jitter(image, rng):
    factors = rng.uniform(0.6, 1.4, 3)
    operations = [
        lambda x: ImageEnhance.Brightness(x).enhance(factors[0]),
        lambda x: ImageEnhance.Contrast(x).enhance(factors[1]),
        lambda x: ImageEnhance.Color(x).enhance(factors[2]),
        lambda x: shift_hue(x, rng.uniform(-0.1, 0.1)),
    ]
    for number in rng.permutation(4):
        image = operations[number](image)
    return image


def strong_view(image, size, rng):
    image = crop(image, size, rng, 0.2)
    if rng.random() < 0.8:
        image = jitter(image, rng)
    if rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def weak_view(image, size, rng, flip):
    image = crop(image, size, rng, 0.2)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < flip else image


def normalised(pixels, mean, std):
    """Return uint8 pixels [N, H, W, 3] as float32 [N, 3, H, W]."""
    x = torch.from_numpy(pixels).float() / 255
    return ((x - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2).contiguous()


class SplitNorm(nn.BatchNorm2d):
    splits = 1

    def forward(self, x):
        if not self.training or self.splits == 1:
            return super().forward(x)
        groups = [super(SplitNorm, self).forward(x[g :: self.splits]) for g in range(self.splits)]
        return torch.stack(groups, 1).flatten(0, 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_a, self.norm_b = SplitNorm(outputs), SplitNorm(outputs)
        self.side = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.side = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), SplitNorm(outputs))

    def forward(self, x):
        return F.relu(self.side(x) + self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))))


class Network(nn.Module):
    def __init__(self, budget):
        super().__init__()
        w = budget.width
        layers = [nn.Conv2d(3, w, 3, 1, 1, bias=False), SplitNorm(w), nn.ReLU()]
        for stage, inputs in enumerate((w, w, 2 * w, 4 * w)):
            outputs = w * 2**stage
            layers += [Block(inputs, outputs, 1 if stage == 0 else 2), Block(outputs, outputs, 1)]
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, SplitNorm):
                module.splits = budget.bn_splits
        self.backbone[0].reset_parameters()  # MSVQ's code puts its first convolution in after the others' start
        self.head = nn.Sequential(nn.Linear(8 * w, budget.hidden), nn.ReLU(), nn.Linear(budget.hidden, budget.dim))

    def forward(self, x):
        return F.normalize(self.head(self.backbone(x)))


@torch.no_grad()
def keys_of(teacher, views):
    order = torch.randperm(len(views))
    return teacher(views[order])[torch.argsort(order)]


def relations(student, teacher, queue, budget):
    target = F.softmax(teacher @ queue.T / budget.teacher_temperature, 1)
    return -(target * F.log_softmax(student @ queue.T / budget.student_temperature, 1)).sum(1).mean()


def train(images, budget, mean, std):
    """Train on uint8 images [N, H, W, 3]; return (the network, the loss of every step)."""
    torch.manual_seed(budget.seed)
    rng = np.random.default_rng(budget.seed)
    student = Network(budget)
    teachers = [copy.deepcopy(student).requires_grad_(False) for _ in range(1 if budget.method == "moco" else 2)]
    queues = [F.normalize(torch.randn(budget.queue_size, budget.dim)) for _ in teachers]
    rule = {"lr": budget.lr, "momentum": budget.momentum, "weight_decay": budget.weight_decay}
    optimizer = torch.optim.SGD(student.parameters(), **rule)
    pictures = [Image.fromarray(image) for image in images]
    steps = len(images) // budget.batch_size
    total, warm_up, losses = steps * budget.epochs, steps * budget.warmup_epochs, []

    def batch_of(numbers, view):
        return normalised(np.stack([np.asarray(view(pictures[number])) for number in numbers]), mean, std)

    for step in range(total):
        if step % steps == 0:
            order = rng.permutation(len(images))
        numbers = order[step % steps * budget.batch_size :][: budget.batch_size]
        share = step / warm_up if step < warm_up else (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up))) / 2
        optimizer.param_groups[0]["lr"] = budget.lr * share
        query = student(batch_of(numbers, lambda x: strong_view(x, budget.size, rng)))
        if budget.method == "moco":
            new = [keys_of(teachers[0], batch_of(numbers, lambda x: strong_view(x, budget.size, rng)))]
            logits = torch.cat([(query * new[0]).sum(1, keepdim=True), query @ queues[0].T], 1) / budget.temperature
            loss = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))
        else:
            weak = [batch_of(numbers, lambda x: weak_view(x, budget.size, rng, budget.weak_flip)) for _ in range(3)]
            second, third, fourth = (keys_of(teachers[t], view) for t, view in zip((0, 0, 1), weak, strict=True))
            pairs = ((second, queues[0]), (third, queues[0]), (fourth, queues[1]))
            loss = sum(relations(query, key, queue, budget) for key, queue in pairs) / 3
            new = [second, fourth]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queues = [torch.cat([queue, keys])[len(keys) :] for queue, keys in zip(queues, new, strict=True)]
        for teacher, ema in zip(teachers, (budget.ema, budget.second_ema), strict=False):
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.data.mul_(ema).add_(theirs.data, alpha=1 - ema)
        losses.append(loss.item())
    return student, losses
