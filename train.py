"""Train an image encoder without labels.

    accelerate launch train.py --method clim --data data/photos.beton             one machine, all its GPUs
    torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   two processes on a CPU

Writes into the run's folder: config.json, metrics.jsonl (one object per logged step), checkpoints/, summary.json.
SIGTERM, SIGINT or SIGUSR1 ends the run with a checkpoint and exit code 143; `--resume` continues it,
bit for bit on a CPU.
"""

from __future__ import annotations

from tools.run.process_start import start

if __name__ == "__main__":
    start()  # before the heavy imports: signals, streams and threads are right from here on

import sys
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import build, resolve
from models.distributed import mean_over_processes
from models.evaluation.features import extract_local
from models.method import Losses
from models.methods.recipes import Recipe, recipe_for
from models.training.optim import build_optimizer, cosine_schedule
from models.training.precision import DTYPES
from pipelines import Batch, Dataset, open_dataset
from pipelines.memory import release_memory
from pipelines.plan.pairing import same_class_rates
from tools.command_line import Failure, exit_process, guarded_main
from tools.run.accelerator import make_accelerator, recorder_for, use_compiler, use_threads
from tools.run.alarms import Alarms
from tools.run.banner import banner
from tools.run.checkpoint_writer import CheckpointWriter
from tools.run.config import run_config
from tools.run.data_path import open_data_path
from tools.run.epoch_audit import EpochCoverage
from tools.run.folder import RunFolder
from tools.run.nonfinite_guard import StepGuard
from tools.run.options import RunOptions, parse
from tools.run.process_group import check_agreement, detect_lost_peers, run_facts
from tools.run.process_start import STOPPED
from tools.run.progress import Display
from tools.run.resume import resume
from tools.run.schedule import Schedule
from tools.run.signals import AgreedStop, Stopped, StopRequest
from tools.run.state import RunState
from tools.run.throughput import Throughput
from tools.run.time_limit import restart, time_limit
from tools.run.tracker import Tracker
from tools.run.tracker_pictures import show_pictures
from tools.run.train_step import TrainStep

PREPARE_SECONDS = 600  # after which a recording that hangs is given up


def main() -> int:
    return guarded_main("train.py", train)


def train() -> int:
    """Trains what the command line asks for; returns the exit code."""
    options, overrides = parse()
    dataset = open_dataset(options.data, options.verify)
    name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
    recipe = resolve(options.method, name, **overrides)
    state = RunState(options.method, options.seed, options.accumulate, dataset.checksum, recipe.values)
    with ExitStack() as resources, StopRequest() as stop, detect_lost_peers(state, options.peer_timeout):
        trainer = Trainer(options, recipe, dataset, state, stop, resources)
        return exit_process(trainer.run())


class Trainer:
    """A run: what it trains with, and how far it is. `run` reads like the algorithm.

    Args:
        state: how far the run is; changed from step to step, and kept in checkpoints.
        stop: the signals that this process gets.
        resources: closes what the run opens.
    """

    def __init__(
        self,
        options: RunOptions,
        recipe: Recipe,
        dataset: Dataset,
        state: RunState,
        stop: StopRequest,
        resources: ExitStack,
    ) -> None:
        self.options, self.recipe, self.training, self.dataset = options, recipe, recipe.training, dataset
        self.state = state
        self.accelerator = make_accelerator(options)
        self.is_main = self.accelerator.is_main_process
        check_agreement(run_facts(options, recipe, dataset))
        self.stop = AgreedStop(stop, options.peer_timeout)
        threads = use_threads(options.threads)

        torch.manual_seed(options.seed)
        self.method = build(recipe.method, recipe).to(memory_format=torch.channels_last)
        use_compiler(options.compile, self.method, self.accelerator)

        data = open_data_path(
            options,
            self.training,
            dataset,
            self.method,
            self.accelerator,
            threads=threads,
            resources=resources,
            on_batch=self.stop.check,
        )
        self.loader, self.whole_set, self.monitors = data.loader, data.whole_set, data.monitors
        self.steps_per_epoch, self.total_steps = data.steps_per_epoch, data.steps_per_epoch * self.training.epochs
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.schedule = Schedule.of(options, self.steps_per_epoch, self.last_step)

        self.learning_rate(0)  # a warm-up that does not fit is refused before anything is trained
        optimizer = build_optimizer(
            self.method.named_parameters(),
            self.training.optimizer,
            self.training.lr,
            self.training.momentum,
            self.training.weight_decay,
            exclude_norm_and_bias=not self.training.decay_norm_and_bias,
            constant=self.method.constant_lr,
        )
        self.model, self.optimizer = self.accelerator.prepare(self.method, optimizer)

        self.folder = RunFolder(options.folder, options.resume, self.is_main, options.force)
        resources.callback(self.folder.close)
        self.config = run_config(options, recipe, dataset, self.accelerator)
        self.writer = CheckpointWriter(self.folder.checkpoints, options.keep, self.is_main)
        resources.callback(self.writer.wait)
        self.notes = [self.loader.note, self.folder.note, *self.monitors.notes]
        if options.resume:
            self.notes += resume(self.folder, self.method, self.optimizer, self.accelerator.scaler, state)
        check_agreement({"checkpoint": f"step {state.step}"})
        self.notes += self.folder.write_config(self.config, state.step)

        recorder = recorder_for(options, self.accelerator)
        late, scaled = (
            recorder is not None or self.accelerator.device.type == "cuda",
            self.accelerator.scaler is not None,
        )
        self.guard = StepGuard(self.method, optimizer, late, options.folder, self.config, state, gradients=not scaled)
        self.step = TrainStep(
            self.accelerator,
            self.model,
            self.method,
            self.optimizer,
            self.training,
            self.guard,
            recorder,
            compiles=options.compile and self.accelerator.device.type == "cuda",
            parked=self.loader.parked,
        )
        self.alarms = Alarms(self.method, state)
        self.coverage = EpochCoverage(self.loader.plan, self.accelerator.device)
        self.method.begin(state.step, self.steps_per_epoch, self.training.epochs)
        self.tracker = Tracker(self.accelerator, options.log_with, self.folder.path, self.config, state.step)
        resources.enter_context(self.tracker)

    def run(self) -> int:
        """Trains to the last step, or until a signal; returns the exit code."""
        self.throughput = Throughput()
        self.started = time.perf_counter() - self.state.seconds
        with Display(self.last_step, self.state.step, self.is_main) as self.display:
            self.display.note(
                banner(
                    self.recipe,
                    self.dataset,
                    self.method.encoder(),
                    self.steps_per_epoch,
                    self.accelerator,
                    self.options,
                    self.notes,
                )
            )
            self.prepare()
            try:
                self.evaluate_if_due()  # the untrained network: every later number is compared with it
                while self.state.step < self.last_step:
                    self.run_epoch(self.state.step // self.steps_per_epoch)
                    self.evaluate_if_due()
            except Stopped:
                self.save()
                self.finish_writing()
                self.display.note(f"stopped by a signal at step {self.state.step}; go on with --resume")
                return STOPPED
            self.finish_writing()
            self.write_summary()
        self.accelerator.end_training()
        return 0

    def prepare(self) -> None:
        """Compiles and records whatever the steps of this run need, before a thread of the loader starts."""
        line = "preparing the step took too long; training starts again without recording it (--no-record)"
        with time_limit(PREPARE_SECONDS, lambda: restart(f"train.py: {line}", ["--no-record"])):
            began = time.perf_counter()
            self.step.prepare(DTYPES[self.options.precision], self.state.step)
            seconds = time.perf_counter() - began
        if seconds > 1:
            self.display.note(f"prepared every kind of step in {seconds:.1f} s")

    def run_epoch(self, epoch: int) -> None:
        """Trains the rest of an epoch. A checkpoint that is due at its end is saved before anything is evaluated."""
        micro_batches, first_step = self.options.accumulate, self.state.step % self.steps_per_epoch
        if first_step == 0:
            self.refresh_partners(epoch)
        self.throughput.restart()
        self.coverage.start(epoch, first_step * micro_batches)
        batches = self.loader.epoch(epoch, first_step * micro_batches, self.method.pairing)
        losses_of_step: list[Tensor] = []
        ended = stopping = False
        for batch in self.throughput.waiting(batches):
            self.coverage.add(batch.index)
            with self.accelerator.accumulate(self.model):
                losses = self.train_on(batch)
            losses_of_step.append(losses.total.clone())  # the next micro-batch may write into its memory
            if not self.accelerator.sync_gradients:
                continue
            self.state.step += 1
            self.state.samples_seen += self.training.batch_size
            if self.state.step % self.options.log_every == 0 or self.state.step == self.last_step:
                self.log_step(torch.stack(losses_of_step).mean(), losses.terms)
            losses_of_step.clear()
            stopping, ended = self.stop.asked(), self.schedule.ends_epoch(self.state.step)
            if ended or stopping:
                break
            if self.schedule.checkpoint_due(self.state.step):
                self.save()
        self.check_epoch_coverage(epoch, ended or stopping)
        if stopping:
            raise Stopped
        if self.schedule.checkpoint_due(self.state.step):
            self.save()

    def train_on(self, batch: Batch) -> Losses:
        """Forward and backward; after the last micro-batch of a step, its update."""
        losses = self.step(batch, self.state.step, self.learning_rate(self.state.step))
        if self.accelerator.sync_gradients and self.accelerator.optimizer_step_was_skipped:  # fp16 overflowed
            self.state.skipped_steps += 1
            self.guard.skipped(self.accelerator.scaler.get_scale())
        self.throughput.add(len(batch.index) * self.accelerator.num_processes)
        return losses

    def learning_rate(self, step: int) -> float:
        """The learning rate of an optimizer step; `step` counts from 0."""
        return self.training.lr * cosine_schedule(
            step, self.steps_per_epoch, self.training.epochs, self.training.warmup_epochs, self.training.lr_per_epoch
        )

    def refresh_partners(self, epoch: int) -> None:
        """Lets the method look at the whole data set, and logs how many partners share a class, where labels exist."""
        before = self.method.pairing
        self.method.before_epoch(epoch, lambda network: extract_local(network, self.whole_set))
        if self.method.pairing is None or self.method.pairing is before:
            return
        if self.dataset.classes:
            rates = same_class_rates(self.method.pairing, self.dataset.labels)
            self.log({f"partner_{name}": round(rate, 5) for name, rate in rates.items()})
        release_memory()

    def evaluate_if_due(self) -> None:
        """Measures and shows what is due at this step. A signal ends it; the resumed run repeats it."""
        step = self.state.step
        eval_due = self.schedule.eval_due(step) and self.state.knn_step != step
        best_so_far = eval_due and self.measure()
        if self.schedule.images_due(step) and self.state.shown_step != step:
            show_pictures(self.tracker, self.dataset, self.method, self.monitors.quality, step, self.is_main)
            self.state.shown_step = step
        if best_so_far or (eval_due and self.schedule.checkpoint_due(step)):
            self.save()

    def measure(self) -> bool:
        """Measures the student's features and kNN accuracy; returns whether a trained network was never better."""
        row = self.monitors.measure(self.method, self.training.batch_size)
        top1, state = row.get("knn_top1"), self.state
        state.knn_top1, state.knn_step = top1, state.step
        self.log(row)
        if top1 is not None:
            self.display.knn(top1)
            self.display.note(f"step {state.step:,}: kNN {top1:.2f} % ({row['knn_protocol']})")
        if state.step == 0 or top1 is None or top1 < (state.best_top1 or 0.0):
            return False
        state.best_top1 = top1
        return True

    def log_step(self, total: Tensor, terms: dict[str, Tensor]) -> None:
        """Logs a row of metrics. Nowhere else does the loop wait for the device."""
        loss = self.state.loss = float(mean_over_processes(total))
        row: dict[str, Any] = {"loss": loss, "lr": self.learning_rate(self.state.step - 1)}
        row |= {name: float(mean_over_processes(value)) for name, value in terms.items()}
        if self.accelerator.scaler is not None:
            row["skipped_steps"] = self.state.skipped_steps
        alarms, warnings = self.alarms.check(loss)
        row |= {**self.loader.counts, **self.writer.counts, **self.tracker.counts, **alarms, **self.throughput.read()}
        self.display.update(self.state.step, self.log(row))
        for line in (*warnings, *self.writer.warnings(), *self.tracker.warnings(), *self.folder.warnings):
            self.display.warn(line)
        if not np.isfinite(loss):
            raise Failure(f"the loss is {loss} at step {self.state.step}; lower --lr, or take --precision fp32")

    def log(self, row: dict[str, Any]) -> dict[str, Any]:
        """Appends a row to metrics.jsonl, which holds no NaN, and to the tracker; adds how far the run is."""
        step = self.state.step
        row = {"step": step, "epoch": step // self.steps_per_epoch, "samples_seen": self.state.samples_seen, **row}
        self.folder.log(row | {name: None for name, v in row.items() if isinstance(v, float) and not np.isfinite(v)})
        self.tracker.log(row)
        return row

    def check_epoch_coverage(self, epoch: int, complete: bool) -> None:
        """Proves that the steps of this epoch, since its start or the resume, had exactly the images of the plan."""
        step = self.state.step
        if not complete:
            raise Failure(f"epoch {epoch} ended at step {step}, not {(epoch + 1) * self.steps_per_epoch}; report this")
        if not self.coverage.right():
            raise Failure(f"up to step {step}, epoch {epoch} had not every image of its plan just once; report this")

    def save(self) -> None:
        """Starts to write a checkpoint of this step."""
        self.guard.settle()
        self.state.seconds, self.state.rows = time.perf_counter() - self.started, self.folder.rows
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        self.writer.save(self.method, self.optimizer, self.state.as_dict())

    def finish_writing(self) -> None:
        """Waits until the last checkpoint is complete, on every process: none may exit before it is."""
        self.stop.settle()
        self.tracker.finish()
        written = self.writer.wait()
        self.accelerator.wait_for_everyone()
        if not written:
            raise Failure(f"the last checkpoint is missing: {self.writer.warnings()[-1]}; go on with --resume")

    def write_summary(self) -> None:
        """Writes summary.json."""
        protocol = self.monitors.knn.protocol.id if self.monitors.knn else None
        self.folder.write_summary(self.state.summary(self.config, protocol))
        seen, seconds = self.state.samples_seen, self.state.seconds
        self.display.note(f"done: {seen:,} images in {seconds:.0f} s; results in {self.folder.path}")


if __name__ == "__main__":
    sys.exit(main())
