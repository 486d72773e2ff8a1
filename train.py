"""Train an image encoder without labels.

    accelerate launch train.py --method clim --data data/photos.beton             one machine, all its GPUs
    torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   two processes on a CPU

Writes into the run's folder: config.json, metrics.jsonl (one object per logged step), checkpoints/, summary.json.
SIGTERM, SIGINT or SIGUSR1 ends it with a checkpoint and exit code 143; --resume continues it, bit for bit on a CPU.
"""

from __future__ import annotations

from tools.run.process_start import start

if __name__ == "__main__":
    start()  # before the heavy imports, which take seconds, so that signals and output are handled from here on

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import build, resolve
from models.distributed import mean_over_processes
from models.evaluation.features import extract_local
from models.method import Losses
from models.methods.recipes import Recipe, recipe_for, recipe_of_run
from models.training.precision import DTYPES
from pipelines import Batch, Dataset, open_dataset
from pipelines.memory import release_memory
from pipelines.plan.pairing import same_class_rates
from tools.command_line import Failure, exit_process, guarded_main
from tools.run import extension
from tools.run.accelerator import make_accelerator, recorder_for, use_compiler, use_threads
from tools.run.alarms import Alarms
from tools.run.banner import banner
from tools.run.checkpoint_writer import CheckpointWriter
from tools.run.config import run_config
from tools.run.data_path import open_data_path
from tools.run.epoch_audit import EpochCoverage
from tools.run.folder import RunFolder
from tools.run.initial_weights import start_from_weights
from tools.run.nonfinite_guard import StepGuard
from tools.run.optimizer import learning_rate, make_optimizer
from tools.run.options import RunOptions, parse
from tools.run.process_group import check_agreement, detect_lost_peers, run_facts
from tools.run.process_start import STOPPED
from tools.run.progress import Display
from tools.run.resume import resume, started_with
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
    """Train what the command line asks for; return the exit code."""
    options, given_values = parse()
    dataset = open_dataset(options.data, options.verify)
    if started := started_with(options):
        recipe = recipe_of_run(started, **given_values)
    else:
        name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
        recipe = resolve(options.method, name, **given_values)
    if recipe.training.mean:
        dataset = replace(dataset, mean=recipe.training.mean, std=recipe.training.std)
    state = RunState(options.method, options.seed, options.accumulate, dataset.checksum, recipe.values)
    with ExitStack() as resources, StopRequest() as signals, detect_lost_peers(state, options.peer_timeout):
        trainer = Trainer(options, recipe, dataset, state, signals, resources)
        return exit_process(trainer.run())


class Trainer:
    """One run. The constructor sets it up, in the order in which errors should be found; `run` trains.

    Args:
        state: how far the run is; it changes with every step and is part of every checkpoint.
        signals, resources: the signals that this process gets, and the stack that closes what the run opens.
    """

    def __init__(
        self,
        options: RunOptions,
        recipe: Recipe,
        dataset: Dataset,
        state: RunState,
        signals: StopRequest,
        resources: ExitStack,
    ) -> None:
        self.options, self.state, self.dataset = options, state, dataset
        self.recipe, self.training = recipe, recipe.training
        self.accelerator = make_accelerator(options)
        self.is_main = self.accelerator.is_main_process
        check_agreement(run_facts(options, recipe, dataset))
        self.stop = AgreedStop(signals, options.peer_timeout)
        use_threads(options.threads)

        torch.manual_seed(options.seed)
        self.method = build(recipe.method, recipe).to(memory_format=torch.channels_last)
        init, notes_of_init = start_from_weights(options, self.training, dataset, self.method)
        use_compiler(options.compile, self.method, self.accelerator)

        data = open_data_path(
            options, self.training, dataset, self.method, self.accelerator, resources, on_batch=self.stop.check
        )
        self.loader, self.full_pass, self.monitors = data.loader, data.full_pass, data.monitors
        total_steps = data.steps_per_epoch * self.training.epochs
        held_out = self.monitors.held_out.dataset
        state.held_out_checksum = held_out.checksum if held_out else None
        check_agreement({"held-out images": str(state.held_out_checksum)})
        self.steps_per_epoch, self.last_step = data.steps_per_epoch, min(total_steps, options.max_steps or total_steps)
        self.schedule = Schedule.of(options, self.steps_per_epoch, self.last_step)

        learning_rate(self.training, self.steps_per_epoch, 0)  # refuses a warm-up as long as the run
        optimizer = make_optimizer(self.training, self.method)
        self.model, self.optimizer = self.accelerator.prepare(self.method, optimizer)

        self.folder = RunFolder(options.folder, options.resume, self.is_main, options.force)
        resources.callback(self.folder.close)
        started = {"init": init} if init else {}
        self.config = run_config(options, recipe, dataset, self.monitors.held_out, self.accelerator) | started
        self.writer = CheckpointWriter(self.folder.checkpoints, options.keep, self.is_main)
        resources.callback(self.writer.wait)
        notes = [*notes_of_init, self.loader.note, self.folder.note, *self.monitors.notes]
        if options.resume:
            scaler, steps = self.accelerator.scaler, self.steps_per_epoch
            notes += resume(self.folder, self.method, self.optimizer, scaler, state, steps, options.extend)
        if state.extensions:
            notes.append(extension.line(state.extensions, self.training, self.method.constant_lr))
            self.config["extended"] = extension.recorded(state.extensions, self.training.epochs)
        check_agreement({"checkpoint": f"step {state.step}"})
        self.notes = [*notes, *self.folder.write_config(self.config, state.step)]

        on_gpu, recorder = self.accelerator.device.type == "cuda", recorder_for(options, self.accelerator)
        late, gradients = on_gpu or recorder is not None, self.accelerator.scaler is None
        self.guard = StepGuard(self.method, optimizer, late, options.folder, self.config, state, gradients)
        self.step = TrainStep(
            self.accelerator,
            self.model,
            self.method,
            self.optimizer,
            self.training,
            self.guard,
            recorder,
            compiles=options.compile and on_gpu,
            parked=self.loader.parked,
        )
        self.alarms = Alarms(self.method, state)
        self.coverage = EpochCoverage(self.loader.plan, self.accelerator.device)
        self.method.begin(state.step, self.steps_per_epoch, self.training.epochs)
        self.tracker = Tracker(self.accelerator, options.log_with, self.folder.path, self.config, state.step)
        resources.enter_context(self.tracker)

    def run(self) -> int:
        """Train to the last step, or until a signal; return the exit code."""
        self.throughput = Throughput()
        self.started = time.perf_counter() - self.state.seconds
        with Display(self.last_step, self.state.step, self.is_main) as self.display:
            encoder = self.method.encoder()
            lines = banner(self.recipe, self.dataset, encoder, self.steps_per_epoch, self.accelerator, self.options)
            self.display.note("\n".join(filter(None, [*lines, *self.notes])))
            self.prepare()
            try:
                self.evaluate_if_due()  # the untrained network, with which every later number is compared
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
        """Compile and record all that the run will compile or record, before a thread of the loader starts."""
        line = "preparing the step took too long; training starts again without recording it (--no-record)"
        limit = PREPARE_SECONDS if self.step.recorded else None  # without a recording nothing would change
        began = time.perf_counter()
        epoch, step = divmod(self.state.step, self.steps_per_epoch)
        self.loader.warm_up(epoch, step * self.options.accumulate)
        with time_limit(limit, lambda: restart(f"train.py: {line}", ["--no-record"])):
            self.step.prepare(DTYPES[self.options.precision], self.state.step)
        took = time.perf_counter() - began
        if took > 1:
            self.display.note(f"prepared the data path and every kind of step in {took:.1f} s")

    def run_epoch(self, epoch: int) -> None:
        """Train the rest of an epoch, and save the checkpoint that may be due at its end before any evaluation."""
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
        if not (ended or stopping):
            raise Failure(f"the loader ended epoch {epoch} too early, at step {self.state.step}; report this as a bug")
        self.coverage.check(self.state.step)
        if stopping:
            raise Stopped
        if self.schedule.checkpoint_due(self.state.step):
            self.save()

    def train_on(self, batch: Batch) -> Losses:
        """Make the forward and backward passes of a micro-batch and, after the last one of a step, the update."""
        lr = self.learning_rate(self.state.step)
        losses = self.step(batch, self.state.step, lr)
        if self.accelerator.sync_gradients and self.accelerator.optimizer_step_was_skipped:  # fp16 overflowed
            self.state.skipped_steps += 1
            self.guard.skipped(self.accelerator.scaler.get_scale())
        self.throughput.add(len(batch.index) * self.accelerator.num_processes)
        return losses

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0."""
        return extension.rate_at(self.training, self.steps_per_epoch, step, self.state.extensions)

    def refresh_partners(self, epoch: int) -> None:
        """Let the method select partners over the complete data set, and log how many share a class, if labelled."""
        before = self.method.pairing
        self.method.before_epoch(epoch, lambda network: extract_local(network, self.full_pass))
        if self.method.pairing is None or self.method.pairing is before:
            return
        if self.dataset.classes:
            rates = same_class_rates(self.method.pairing, self.dataset.labels)
            self.log({f"partner_{name}": round(rate, 5) for name, rate in rates.items()})
        release_memory()

    def evaluate_if_due(self) -> None:
        """Run the evaluation and show the pictures that are due. If a signal ends this, a resumed run repeats it."""
        step = self.state.step
        eval_due = self.schedule.eval_due(step) and self.state.knn_step != step
        is_best = eval_due and self.measure()
        if self.schedule.images_due(step) and self.state.shown_step != step:
            show_pictures(self.tracker, self.dataset, self.method, self.monitors.quality, step, self.is_main)
            self.state.shown_step = step
        if is_best or (eval_due and self.schedule.checkpoint_due(step)):
            self.save()

    def measure(self) -> bool:
        """Measure and log feature quality and kNN; return whether kNN is the best of the training so far."""
        row = self.monitors.measure(self.method, self.training.batch_size)
        top1, state = row.get("knn_top1"), self.state
        state.knn_top1, state.knn_step = top1, state.step
        self.log(row)
        for line in self.alarms.check_features(row):
            self.display.warn(line)
        if top1 is not None:
            self.display.knn(top1)
            self.display.note(f"step {state.step:,}: kNN {top1:.2f} % ({row['knn_protocol']})")
        if state.step == 0 or top1 is None or top1 < (state.best_top1 or 0.0):
            return False
        state.best_top1 = top1
        return True

    def log_step(self, total: Tensor, terms: dict[str, Tensor]) -> None:
        """Log a row of metrics of this step. Only here does the loop wait for the device."""
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
        """Add the step to a row and send it to metrics.jsonl, with null for NaN, and to the tracker; return the row."""
        step = self.state.step
        row = {"step": step, "epoch": step // self.steps_per_epoch, "samples_seen": self.state.samples_seen, **row}
        self.folder.log(row | {name: None for name, v in row.items() if isinstance(v, float) and not np.isfinite(v)})
        self.tracker.log(row)
        return row

    def save(self) -> None:
        """Start to write a checkpoint of this step."""
        self.guard.settle()
        self.state.seconds, self.state.rows = time.perf_counter() - self.started, self.folder.rows
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        self.writer.save(self.method, self.optimizer, self.state.as_dict())

    def finish_writing(self) -> None:
        """Wait, on every process, until the last checkpoint is on the disk; no process may exit earlier."""
        self.stop.settle()
        self.tracker.finish()
        written = self.writer.wait()
        self.accelerator.wait_for_everyone()
        if not written:
            raise Failure(f"the last checkpoint is missing: {self.writer.warnings()[-1]}; go on with --resume")

    def write_summary(self) -> None:
        """Write summary.json, and say where the results are."""
        protocol = self.monitors.knn.protocol.id if self.monitors.knn else None
        self.folder.write_summary(self.state.summary(self.config, protocol))
        duration = f"{self.state.samples_seen:,} images in {self.state.seconds:.0f} s"
        self.display.note(f"done: {duration}; results in {self.folder.path}")


if __name__ == "__main__":
    sys.exit(main())
