"""Preparing a step leaves the training as it was, parks the loader, and falls back where nothing can be recorded."""

import contextlib
import copy
import threading
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from models import build, resolve
from pipelines.prefetch import Prefetch
from tests.support.states import run_state
from tools.run.nonfinite_guard import StepGuard, changing_tensors
from tools.run.optimizer import make_optimizer
from tools.run.tape import Tape
from tools.run.train_step import TrainStep, noise_batch

CPU = torch.device("cpu")


class NoRecorder:
    """A recorder on a machine that cannot record."""

    def record(self, function):
        function()
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def made(tmp_path, recorder, name="moco", accumulate=1, optimizer="sgd", **more):
    torch.manual_seed(0)
    sizes = {"width": 2, "batch_size": 8, "bn_splits": 2, "hidden": 8, "dim": 8, "queue_size": 16, "crop_size": 8}
    recipe = resolve(name, "cifar10", optimizer=optimizer, **sizes)
    method = build(name, recipe).to(memory_format=torch.channels_last)
    method.begin(0, 5, 2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model, prepared = accelerator.prepare(method, make_optimizer(recipe.training, method))
    state = run_state()
    guard = StepGuard(method, prepared, recorder is not None, tmp_path, {}, state)
    step = TrainStep(accelerator, model, method, prepared, recipe.training, guard, recorder, **more)
    return step, method, prepared, accelerator, state


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_preparing_leaves_the_training_as_it_was(tmp_path, optimizer):
    step, method, prepared, *_ = made(tmp_path, Tape(), optimizer=optimizer)
    before = {name: tensor.clone() for name, tensor in changing_tensors(method, prepared).items()}
    assert len(before) > len(method.state_dict())  # the optimizer's too
    step.prepare(torch.float32, 0)
    after = changing_tensors(method, prepared)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert method.step == 0


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_recorded_equals_plain(tmp_path, optimizer, accumulate):
    found = []
    for recorder in (None, Tape()):
        step, method, prepared, accelerator, state = made(tmp_path, recorder, "moco", accumulate, optimizer)
        step.prepare(torch.float32, 0)
        losses = []
        for number in range(6):
            for micro in range(accumulate):
                batch = noise_batch(method.views, 8 // accumulate, CPU, torch.float32)
                views = tuple((number - micro + 1) * view.roll(number, 0) for view in batch.views)
                with accelerator.accumulate(method):
                    batch = type(batch)(views, batch.index, batch.label, number * 10 + micro)
                    losses.append(float(step(batch, number, 0.1 / (number + 1)).total))
            state.step += 1
        found.append((losses, copy.deepcopy(changing_tensors(method, prepared))))
        AcceleratorState._reset_state(reset_partial_state=True)
    (plain_losses, plain), (losses, recorded) = found
    assert losses == plain_losses and len(set(losses)) > 5
    assert all(torch.equal(recorded[name], tensor) for name, tensor in plain.items())


def test_what_cannot_be_recorded_runs_plain_with_one_line(tmp_path, capsys):
    step, method, *_ = made(tmp_path, NoRecorder())
    step.prepare(torch.float32, 0)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "CUDA error: operation not permitted when stream is capturing" in told
    losses = step(noise_batch(method.views, 8, CPU, torch.float32), 0, 0.1)
    assert torch.isfinite(losses.total) and capsys.readouterr().err == ""


@pytest.mark.parametrize("after_backward", [False, True])
def test_too_little_memory_for_a_recording_costs_one_line_and_changes_nothing(tmp_path, capsys, after_backward):
    """Also where it runs out between the backward pass and the update, when gradients are there already."""

    class TooLittle:
        def record(self, function):
            if after_backward:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(guard, "examine", out_of_memory)
                    function()
            out_of_memory()

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee the documentation")

    found = []
    for recorder in (None, TooLittle()):
        step, method, prepared, *_ = made(tmp_path, recorder)
        guard = step._guard
        step.prepare(torch.float32, 0)
        line = capsys.readouterr().err
        step(noise_batch(method.views, 8, CPU, torch.float32), 0, 0.1)
        found.append(copy.deepcopy(changing_tensors(method, prepared)))
        AcceleratorState._reset_state(reset_partial_state=True)
    assert line.count("\n") == 1 and "the step cannot be recorded" in line and "CUDA out of memory" in line
    plain, fallen_back = found
    assert all(torch.equal(fallen_back[name], tensor) for name, tensor in plain.items())


def test_a_kind_that_comes_unprepared_parks_the_loader(tmp_path):
    """While one thread compiles or records, the thread that makes batches does nothing."""
    tracing, working, wrong = threading.Event(), [], []

    class Slow(Tape):
        def record(self, function):
            tracing.set()
            time.sleep(0.1)
            result = super().record(function)
            tracing.clear()
            return result

    def produce(number):
        working.append(number)
        for _ in range(5):
            time.sleep(0.001)
            if tracing.is_set():
                wrong.append(number)
        return batch

    recorder = Slow()
    parked = []

    @contextlib.contextmanager
    def park():
        parked.append(1)
        with running.parked():
            yield

    step, method, *_ = made(tmp_path, recorder, parked=park)
    batch = noise_batch(method.views, 8, CPU, torch.float32)
    running = Prefetch(produce, 60, 2, CPU, lambda item: iter(item.views))
    try:
        for number, item in enumerate(running):
            if number == 10:  # the loader is busy: it has room for the next batches
                step(item, 0, 0.1)
            if number == 30:
                break
    finally:
        running.close()
    assert parked == [1] and wrong == [] and len(working) > 30


def test_without_parking_the_thread_would_have_worked(tmp_path):
    """The control of the test above: its flag is seen by a thread that is not parked."""
    seen, tracing = [], threading.Event()

    def produce(number):
        time.sleep(0.005)
        seen.append(tracing.is_set())
        return number

    running = Prefetch(produce, 100, 2, CPU, lambda item: iter(()))
    try:
        for number in running:
            if number == 3:
                tracing.set()
                time.sleep(0.05)
            if number == 6:
                break
    finally:
        running.close()
    assert any(seen)
