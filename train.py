"""Train an image encoder without labels.

    accelerate launch train.py --method clim --data data/photos.beton             one machine, all its GPUs
    torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   two processes on a CPU

Writes into the run's folder: config.json, metrics.jsonl (one object per logged step), checkpoints/, summary.json.
SIGTERM, SIGINT or SIGUSR1 ends the run with a checkpoint and exit code 143; `--resume` goes on, bit for bit on a CPU.
"""

from __future__ import annotations

from tools.command_line import guarded_main
from tools.run.process_start import start

if __name__ == "__main__":
    start()  # before the heavy imports: signals, streams and threads are right from here on

import sys
import time
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import build, resolve
from models.distributed import mean_over_processes
from models.evaluation.features import extract_part
from models.method import Losses
from models.methods.recipes import Recipe, recipe_for
from models.networks.norm import average_running_statistics
from models.training.optim import build_optimizer, cosine_schedule, set_learning_rate
from pipelines import Batch, Dataset, open_dataset
from pipelines.memory import give_back
from pipelines.plan.pairing import same_class_rates
from tools.command_line import Failure, exit_process
from tools.run.accelerator import check_parts, make_accelerator, use_compiler, use_threads
from tools.run.alarms import Alarms
from tools.run.banner import banner
from tools.run.checkpoint_writer import CheckpointWriter
from tools.run.data_path import open_data_path
from tools.run.epoch_audit import IndexCount
from tools.run.folder import RunFolder, run_config
from tools.run.nonfinite_guard import StepGuard
from tools.run.options import check_run, parse
from tools.run.process_group import check_agreement, run_facts, watching
from tools.run.process_start import STOPPED
from tools.run.progress import Display
from tools.run.schedule import Timetable
from tools.run.signals import AgreedStop, Stopped, StopRequest
from tools.run.state import fresh_state, go_on, summary
from tools.run.throughput import Timer
from tools.run.tracker import Tracker
from tools.run.tracker_pictures import show_pictures


def main() -> int:
    return guarded_main("train.py", train)


def train() -> int:
    """Trains what the command line asks for; returns the exit code."""
    options, overrides = parse()
    check_run(options)
    dataset = open_dataset(options.data, options.verify)
    name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
    recipe = resolve(options.method, name, **overrides)
    state: dict[str, Any] = {"step": 0}
    with ExitStack() as open_parts, StopRequest() as stop, watching(state, options.peer_timeout):
        trainer = Trainer(options, recipe, dataset, open_parts, state, stop)
        return exit_process(trainer.run())


class Trainer:
    """A run: what it trains with, and how far it is. `run` reads like the algorithm."""

    def __init__(
        self, options: Namespace, recipe: Recipe, dataset: Dataset, open_parts: ExitStack, state: dict[str, Any],
        stop: StopRequest,
    ) -> None:  # fmt: skip
        training = recipe.training
        check_parts(training, options.accumulate)
        self.options, self.recipe, self.training, self.dataset = options, recipe, training, dataset
        self.accelerator = make_accelerator(options)
        check_agreement(run_facts(options, recipe, dataset))
        self.main, device = self.accelerator.is_main_process, self.accelerator.device
        torch.manual_seed(options.seed)
        self.method = build(recipe.method, recipe).to(memory_format=torch.channels_last)
        use_compiler(options.compile, self.method, self.accelerator, options.accumulate)
        self.stop = AgreedStop(stop, options.peer_timeout)
        place = (self.accelerator, use_threads(options.threads), open_parts, self.stop.check)
        data = open_data_path(options, training, dataset, self.method, *place)
        self.loader, self.whole_set, self.monitors = data.loader, data.whole_set, data.monitors
        self.steps_per_epoch, self.total_steps = data.steps_per_epoch, data.steps_per_epoch * training.epochs
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.times = Timetable.of(options, self.steps_per_epoch, self.last_step)
        self.learning_rate(0)  # a warm-up that does not fit is refused before anything is trained
        optimizer = build_optimizer(
            self.method.named_parameters(), training.optimizer, training.lr, training.momentum, training.weight_decay,
            exclude_norm_and_bias=not training.decay_vectors, constant=self.method.constant_lr,
        )  # fmt: skip
        self.model, self.optimizer = self.accelerator.prepare(self.method, optimizer)

        output = Path(options.output or f"runs/{recipe.method}-{Path(options.data).stem}")
        self.folder = RunFolder(output, options.resume, self.main, options.force)
        open_parts.callback(self.folder.close)
        self.config = run_config(options, recipe, dataset, self.accelerator)
        self.state = state  # how far the run is; kept in checkpoints
        self.state |= fresh_state(options, self.config)
        self.writer = CheckpointWriter(self.folder.checkpoints, options.keep, self.main)
        open_parts.callback(self.writer.wait)
        self.notes = [self.loader.note, self.folder.note, *self.monitors.notes]
        if options.resume:
            self.notes += go_on(self.folder, self.method, self.optimizer, self.accelerator.scaler, self.state)
        check_agreement({"checkpoint": f"step {self.state['step']}"})
        self.guard = StepGuard(self.method, optimizer, device.type == "cuda", output, self.config, self.state)
        self.alarms, self.count = Alarms(self.method, self.state), IndexCount(self.loader.plan, device)
        self.method.begin(self.state["step"], self.steps_per_epoch, training.epochs)
        self.notes += self.folder.write_config(self.config, self.state["step"])
        place = (options.log_with, self.folder.path, self.config, self.state["step"])
        self.tracker = open_parts.enter_context(Tracker(self.accelerator, *place))

    def run(self) -> int:
        """Trains to the last step, or until a signal; returns the exit code."""
        self.timer = Timer()
        self.started = time.perf_counter() - self.state["seconds"]
        with Display(self.last_step, self.state["step"], self.main) as self.display:
            run = (self.recipe, self.dataset, self.method.encoder(), self.steps_per_epoch)
            self.display.note(banner(*run, self.accelerator, self.options, self.folder.path, self.notes))
            try:
                self.look()  # at the untrained network: what every later number is compared with
                while self.state["step"] < self.last_step:
                    self.run_epoch(self.state["step"] // self.steps_per_epoch)
                    self.look()
            except Stopped:
                self.save()
                self.finish_writing()
                self.display.note(f"stopped by a signal at step {self.state['step']}; go on with --resume")
                return STOPPED
            self.finish_writing()
            self.summarise()
        self.accelerator.end_training()
        return 0

    def run_epoch(self, epoch: int) -> None:
        """Trains the rest of an epoch, and keeps its last step where it is due: whatever looks at it may be killed."""
        parts, first = self.options.accumulate, self.state["step"] % self.steps_per_epoch
        if first == 0:
            self.renew_pairing(epoch)
        self.timer.restart()
        self.count.start(epoch, first * parts)
        totals, ended, stopping = [], False, False
        for batch in self.timer.waiting(self.loader.epoch(epoch, first * parts, self.method.pairing)):
            self.count.add(batch.index)
            with self.accelerator.accumulate(self.model):
                losses = self.train_on(batch)
            totals.append(losses.total.detach())  # of the parts of a batch
            if not self.accelerator.sync_gradients:
                continue
            step = self.state["step"] = self.state["step"] + 1
            self.state["samples_seen"] += self.training.batch_size
            if step % self.options.log_every == 0 or step == self.last_step:
                self.log_step(torch.stack(totals).mean(), losses.parts)
            totals.clear()
            stopping, ended = self.stop.asked(), self.times.ends_epoch(step)
            if ended or stopping:
                break
            if self.times.keeps(step):
                self.save()
        self.check_books(epoch, ended or stopping)
        if stopping:
            raise Stopped
        if self.times.keeps(self.state["step"]):
            self.save()

    def look(self) -> None:
        """Measures and shows what is due at this step and not yet done. A signal ends it; the resumed run does it."""
        step = self.state["step"]
        measuring = self.times.measures(step) and self.state["knn_step"] != step
        best_yet = measuring and self.measure()
        if self.times.shows(step) and self.state["shown_step"] != step:
            show_pictures(self.tracker, self.dataset, self.method, self.monitors.quality, step, self.main)
            self.state["shown_step"] = step
        if best_yet or (measuring and self.times.keeps(step)):
            self.save()

    def train_on(self, batch: Batch) -> Losses:
        """Forward, backward, and once the parts of a batch are complete, the step."""
        self.guard.watch(batch)
        losses: Losses = self.model(batch)
        self.accelerator.backward(losses.total)
        if self.accelerator.sync_gradients:
            self.guard.check(losses.total, gradients=self.accelerator.scaler is None)
            set_learning_rate(self.optimizer, self.learning_rate(self.state["step"]))
            if self.training.clip_norm:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            if self.accelerator.optimizer_step_was_skipped:  # fp16 overflowed
                self.state["skipped_steps"] += 1
                self.guard.skipped(self.accelerator.scaler.get_scale())
            average_running_statistics(self.method)
            self.method.after_step(self.state["step"])
        self.timer.add(len(batch.index) * self.accelerator.num_processes)
        return losses

    def learning_rate(self, step: int) -> float:
        """Of optimizer step `step`, counted from 0."""
        return self.training.lr * cosine_schedule(
            step, self.steps_per_epoch, self.training.epochs, self.training.warmup_epochs, self.training.lr_per_epoch
        )

    def renew_pairing(self, epoch: int) -> None:
        """Lets the method look at the whole data set; logs how pure its new partners are, where labels exist."""
        before = self.method.pairing
        self.method.before_epoch(epoch, lambda network: extract_part(network, self.whole_set))
        if self.method.pairing is None or self.method.pairing is before:
            return
        if self.dataset.classes:
            rates = same_class_rates(self.method.pairing, self.dataset.labels)
            self.log({f"partner_{name}": round(rate, 5) for name, rate in rates.items()})
        give_back()

    def measure(self) -> bool:
        """Quality of the student's features now and its kNN accuracy; whether a trained network was never better."""
        row = self.monitors.measure(self.method, self.training.batch_size)
        top1, step = row.get("knn_top1"), self.state["step"]
        self.state |= {"knn_top1": top1, "knn_step": step}
        self.log(row)
        if top1 is not None:
            self.display.knn(top1)
            self.display.note(f"step {step:,}: kNN {top1:.2f} % ({row['knn_protocol']})")
        if step == 0 or top1 is None or top1 < (self.state["best_top1"] or 0.0):
            return False
        self.state["best_top1"] = top1
        return True

    def log_step(self, total: Tensor, parts: dict[str, Tensor]) -> None:
        """A row of metrics; the only place where the loop waits for the device."""
        loss = self.state["loss"] = float(mean_over_processes(total))
        named = {name: float(mean_over_processes(value)) for name, value in parts.items()}
        counts = {"skipped_steps": self.state["skipped_steps"]} if self.accelerator.scaler is not None else {}
        alarms, lines = self.alarms.look(loss)
        fields = {**named, **counts, **self.loader.counts, **self.writer.counts, **self.tracker.counts, **alarms}
        row = self.log({"loss": loss, "lr": self.optimizer.param_groups[0]["lr"], **fields, **self.timer.read()})
        self.display.update(self.state["step"], row)
        for line in (*lines, *self.writer.warnings(), *self.tracker.warnings(), *self.folder.warnings):
            self.display.warn(line)
        if not np.isfinite(loss):
            raise Failure(f"the loss is {loss} at step {self.state['step']}; lower --lr, or take --precision fp32")

    def check_books(self, epoch: int, ended: bool) -> None:
        """Proves that the steps of this epoch, since it began or the run resumed, had the images of the plan."""
        step = self.state["step"]
        if not ended:
            raise Failure(f"epoch {epoch} ended at step {step}, not {(epoch + 1) * self.steps_per_epoch}; report this")
        if not self.count.right():
            raise Failure(f"up to step {step}, epoch {epoch} had not every image of its plan just once; report this")

    def log(self, row: dict[str, Any]) -> dict[str, Any]:
        """Appends a row to metrics.jsonl, which has no NaN, and the tracker, with the place in the run."""
        step = self.state["step"]
        row = {"step": step, "epoch": step // self.steps_per_epoch, "samples_seen": self.state["samples_seen"], **row}
        self.folder.log(row | {name: None for name, v in row.items() if isinstance(v, float) and not np.isfinite(v)})
        self.tracker.log(row)
        return row

    def save(self) -> None:
        """Starts to write a checkpoint of this step."""
        self.guard.settle()
        scaler = self.accelerator.scaler
        self.state |= {"seconds": time.perf_counter() - self.started, "rows": self.folder.rows}
        self.state |= {"scaler": scaler.state_dict()} if scaler is not None else {}
        self.writer.save(self.method, self.optimizer, self.state)

    def finish_writing(self) -> None:
        """Waits until the last checkpoint is whole, on every process: none may end before it is."""
        self.stop.settle()
        self.tracker.finish()
        written = self.writer.wait()
        self.accelerator.wait_for_everyone()
        if not written:
            raise Failure(f"the last checkpoint is missing: {self.writer.warnings()[-1]}; go on with --resume")

    def summarise(self) -> None:
        """Writes summary.json."""
        protocol = self.monitors.knn.protocol.id if self.monitors.knn else None
        self.folder.write_summary(summary(self.state, self.config, protocol))
        seen, seconds = self.state["samples_seen"], self.state["seconds"]
        self.display.note(f"done: {seen:,} images in {seconds:.0f} s; results in {self.folder.path}")


if __name__ == "__main__":
    sys.exit(main())
