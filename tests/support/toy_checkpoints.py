"""Checkpoints of a toy method: student, teacher and queues of a few numbers."""

from __future__ import annotations

import torch
from torch import nn

from models.method import Method
from models.networks.teacher import Teacher
from models.queue import KeyQueue
from models.storage import checkpoint
from models.training.optim import build_optimizer


class Toy(Method):
    """Student, teacher and queues, as every method has them."""

    def __init__(self, seed=0, width=6):
        super().__init__()
        torch.manual_seed(seed)
        self.student = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, 4))
        self.teacher = Teacher(self.student)
        self.queue = KeyQueue(8, 4, count=2)

    def train_step(self, optimizer, seed):
        images = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
        embedding = self.student(images)
        (embedding - self.queue.keys(0)[:3]).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        self.teacher.update(self.student, 0.9)
        self.queue.push(embedding, -embedding)


def made(name="sgd", seed=0, steps=3):
    method = Toy(seed)
    optimizer = build_optimizer(method.named_parameters(), name, 0.1, 0.9, 0.01, exclude_norm_and_bias=True)
    for step in range(steps):
        method.train_step(optimizer, step)
    return method, optimizer


def save(folder, step, seed=0, keep=2, **state):
    method, optimizer = made(seed=seed, steps=1)
    return checkpoint.save(folder, method, optimizer, {"step": step, **state}, keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
