"""A training step of every method never waits for the device, keeps no graph of a teacher, and compiles whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from models import build, resolve
from models.method import Method
from models.methods.registry import REGISTRY
from models.networks.backbone import Backbone
from models.networks.norm import forward_views
from models.training.optim import build_optimizer
from pipelines.batch import Batch
from tests.support.small_methods import batch_for, sizes_of, small, with_partners
from tools.run import compiled_backbones
from tools.run.compiled_backbones import compile_backbones
from tools.run.recordings import CudaGraphs, Recorder
from tools.run.standalone_step import StandaloneStep
from tools.run.tape import Tape
from tools.run.train_step import noise_batch

#: Operations whose result the host must see, or whose size depends on values: on a GPU each one waits for it.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")


class Spy(TorchDispatchMode):
    """Collects the names of operations that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or masked:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def tiny(name: str) -> Method:
    """With the groups of batch norm that the recipe has."""
    method = small(name, batch_size=16, bn_splits=resolve(name, "cifar10").training.bn_splits)
    method.begin(0, 3, 2)
    return method


def step(method: Method, optimizer: torch.optim.Optimizer, batch: Batch, device: str = "cpu") -> None:
    with torch.autocast(device, torch.bfloat16):
        losses = method(batch)
    losses.total.backward()
    assert not any(part.requires_grad for part in losses.terms.values())
    optimizer.step()
    optimizer.zero_grad()
    method.after_step(0)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_operation_of_a_step_waits_for_the_device(name: str) -> None:
    method = tiny(name)
    batch = batch_for(method, 16)
    if name == "clim":
        batch = with_partners(method, batch)
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01)
    with Spy() as spy:
        step(method, optimizer, batch)
    assert spy.found == []


def recorded_step(name: str, device: str, recorder: Recorder) -> tuple[StandaloneStep, Batch]:
    """A step that has been prepared and made once, as a run makes it."""
    recipe = resolve(
        name, "cifar10", **sizes_of(name, batch_size=16, bn_splits=resolve(name, "cifar10").training.bn_splits)
    )
    torch.manual_seed(0)
    made = StandaloneStep(build(name, recipe), recipe, torch.device(device), recorder=recorder)
    made.prepare()
    batch = noise_batch(made.method.views, 16, torch.device(device), torch.bfloat16, mixed=made.method.mixes)
    made(batch)
    assert made.recorded
    return made, batch


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_recorded_step_waits_for_nothing_but_the_test_of_the_one_before(name: str) -> None:
    """From the loader's batch to the moved teacher; whether the step before was finite has long been copied."""
    made, batch = recorded_step(name, "cpu", Tape())
    with Spy() as spy:
        made(batch)
    assert spy.found == ["_local_scalar_dense"]


def test_the_spy_sees_what_waits() -> None:
    with Spy() as spy:
        x = torch.ones(3)
        float(x[0])
        bool(x[0] > 0)
        x[x > 0]
    assert spy.found == ["_local_scalar_dense", "_local_scalar_dense", "index"]


@pytest.mark.parametrize("name", ["msvq", "clim", "byol", "iccl"])
def test_teachers_leave_no_graph(name: str) -> None:
    method = tiny(name)
    teacher = method.get_submodule("teacher.network")
    seen: list[bool] = []
    for module in teacher.modules():
        module.register_forward_hook(
            lambda _m, _i, output: seen.append(torch.is_grad_enabled() or getattr(output, "requires_grad", False))
        )
    method(batch_for(method, 16))
    assert seen and not any(seen)


def test_a_compiled_backbone_is_whole_and_shared_by_student_and_teachers() -> None:
    torch._dynamo.reset()
    method = small("msvq", bn_splits=2)
    plain = copy.deepcopy(method)
    graphs = CompileCounterWithBackend("aot_eager")
    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile(backend=graphs, fullgraph=True, dynamic=False)
    assert method.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(8, 3, 16, 16)
    for _ in range(2):
        for name in ("student", "teacher", "second_teacher"):
            ours, theirs = (one.get_submodule(name)(images) for one in (method, plain))
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    together = forward_views(method.get_submodule("teacher"), [images, -images])
    torch.testing.assert_close(
        together, forward_views(plain.get_submodule("teacher"), [images, -images]), atol=1e-4, rtol=1e-4
    )
    features, expected = method.encoder()(images), plain.encoder()(images)
    torch.testing.assert_close(features.maps["layer3"], expected.maps["layer3"], atol=1e-4, rtol=1e-4)
    assert graphs.frame_count == 3  # with and without gradient, and two views at once


def test_every_kind_of_pass_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training passes of any number of sizes, student's and teacher's, are compiled; evaluation passes never are."""
    torch._dynamo.reset()
    method = small("moco")
    counter, compile = CompileCounterWithBackend("eager"), torch.compile
    monkeypatch.setattr(compiled_backbones.torch, "compile", lambda f, **how: compile(f, backend=counter, **how))
    with torch._dynamo.config.patch(recompile_limit=2):  # fewer than the sizes below
        compile_backbones(method)
        method.encoder().eval()
        for count in range(2, 6):
            method.encoder()(torch.randn(count, 3, 8, 8))
        assert counter.frame_count == 0
        method.encoder().train()
        for count in range(2, 6):
            method.encoder()(torch.randn(count, 3, 8, 8)).pooled.sum().backward()
    assert counter.frame_count == 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_synchronisation_on_cuda(name: str) -> None:
    method = tiny(name).to("cuda")
    batch = batch_for(method, 16)
    batch = Batch(tuple(v.cuda() for v in batch.views), batch.index.cuda(), batch.label.cuda(), batch.seed)
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01)
    step(method, optimizer, batch, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(method, optimizer, batch, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_synchronisation_in_a_recorded_step_on_cuda(name: str) -> None:
    made, batch = recorded_step(name, "cuda", CudaGraphs())
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):  # more than the host's copies of a step's numbers
            made(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
