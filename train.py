"""Train an image encoder without labels.

    accelerate launch train.py --method clim --data data/photos.beton             one machine, all its GPUs
    torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   two processes on a CPU

Writes into the run's folder: config.json, metrics.jsonl (one object per logged step), checkpoints/, summary.json.
SIGTERM or SIGINT ends the run with a checkpoint and exit code 143; `--resume` goes on from there, bit for bit on a CPU.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve the loader's

import sys
import time
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import build, checkpoint, resolve
from models.distributed import mean_over_processes, sum_over_processes
from models.features import extract_part
from models.method import Losses
from models.monitors import Monitors
from models.norm import average_running_statistics
from models.optim import build_optimizer, cosine_schedule, set_learning_rate
from models.recipes import Recipe, recipe_for
from pipelines import Batch, Dataset, make_loader, open_dataset
from pipelines.damage import DecodeError
from pipelines.pairing import same_class_rates
from pipelines.views import evaluation
from tools.banner import banner
from tools.display import Display
from tools.launch import DTYPES, check_parts, make_accelerator, use_compiler, use_threads
from tools.options import Failure, check_run, parse
from tools.peers import LOST, LostContact, check_agreement, leave, run_facts, watching
from tools.run_folder import RunFolder, refuse_another_run, run_config
from tools.signals import STOPPED, StopRequest
from tools.timer import Timer
from tools.tracker import Tracker
from tools.tracker_pictures import show_pictures

FEATURE_BATCH = 512


def main() -> int:
    try:
        options, overrides = parse()
        check_run(options)
        dataset = open_dataset(options.data)
        name = options.recipe or recipe_for(options.method, dataset.name, float(np.median(dataset.widths)))
        recipe = resolve(options.method, name, **overrides)
        state: dict[str, Any] = {"step": 0}
        with ExitStack() as open_loaders, StopRequest() as stop, watching(state, options.peer_timeout):
            trainer = Trainer(options, recipe, dataset, open_loaders, state)
            return leave(trainer.run(stop))
    except (LostContact, Failure, ValueError, OSError, ModuleNotFoundError, DecodeError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return leave(LOST if isinstance(error, LostContact) else 2)


class Trainer:
    """A run: what it trains with, and how far it is. `run` reads like the algorithm."""

    def __init__(
        self, options: Namespace, recipe: Recipe, dataset: Dataset, open_loaders: ExitStack, state: dict[str, Any]
    ) -> None:
        training = recipe.training
        parts = options.accumulate
        check_parts(training, parts)
        self.options, self.recipe, self.training, self.dataset = options, recipe, training, dataset
        self.accelerator = make_accelerator(options)
        check_agreement(run_facts(options, recipe, dataset))
        threads = use_threads(options.threads)
        self.main = self.accelerator.is_main_process
        torch.manual_seed(options.seed)
        self.method = build(recipe.method, recipe).to(memory_format=torch.channels_last)
        use_compiler(options.compile, self.method, self.accelerator)
        loading: dict[str, Any] = {
            "loader": options.loader, "device": self.accelerator.device, "dtype": DTYPES[options.precision],
            "rank": self.accelerator.process_index, "world": self.accelerator.num_processes,
            "threads": threads, "seed": options.seed,
        }  # fmt: skip
        view = evaluation(training.image_size, training.image_keep)
        self.loader = open_loaders.enter_context(
            make_loader(dataset, self.method.views, training.batch_size // parts, compile=options.compile, **loading)
        )
        self.whole_set = open_loaders.enter_context(
            make_loader(dataset, [view], FEATURE_BATCH, shuffle=False, drop_last=False, **loading)
        )
        looking = (self.method, view, options.val_data, options.knn_bank)
        self.monitors = open_loaders.enter_context(Monitors(dataset, *looking, **loading))
        if (steps := self.loader.steps // parts) == 0:
            raise Failure(f"{dataset.number} images do not fill a batch of {training.batch_size}; lower --batch-size")
        self.steps_per_epoch, self.total_steps = steps, steps * training.epochs
        self.last_step = min(self.total_steps, options.max_steps or self.total_steps)
        self.learning_rate(0)  # a warm-up that does not fit is refused before anything is trained
        optimizer = build_optimizer(
            self.method.named_parameters(), training.optimizer, training.lr, training.momentum, training.weight_decay,
            exclude_norm_and_bias=not training.decay_vectors, constant=self.method.constant_lr,
        )  # fmt: skip
        self.model, self.optimizer = self.accelerator.prepare(self.method, optimizer)

        output = options.output or f"runs/{recipe.method}-{Path(options.data).stem}"
        self.folder = RunFolder(Path(output), options.resume, self.main)
        self.config = run_config(options, recipe, dataset, self.accelerator)
        self.state = state  # how far the run is; kept in checkpoints
        self.state |= {
            "step": 0, "samples_seen": 0, "seconds": 0.0, "loss": None, "knn_top1": None, "knn_step": None,
            "method": recipe.method, "seed": options.seed, "accumulate": parts,
            "data_checksum": dataset.checksum, "recipe": self.config["recipe"],
        }  # fmt: skip
        self.notes = [self.loader.note, *self.monitors.notes]
        self.notes += self.resume() if options.resume else []
        check_agreement({"checkpoint": f"step {self.state['step']}"})
        self.method.begin(self.state["step"], self.steps_per_epoch, training.epochs)
        if self.state["step"] == 0:
            self.folder.write_config(self.config)
        place = (self.folder.path, self.config, self.state["step"])
        self.tracker = open_loaders.enter_context(Tracker(self.accelerator, options.log_with, *place))

    def run(self, stop: StopRequest) -> int:
        """Trains to the last step, or until a signal; returns the exit code."""
        self.timer = Timer()
        self.started = time.perf_counter() - self.state["seconds"]
        with Display(self.last_step, self.state["step"], self.main) as self.display:
            place = (self.accelerator, self.options, self.folder.path)
            self.display.note(
                banner(self.recipe, self.dataset, self.method.encoder(), self.steps_per_epoch, *place, self.notes)
            )
            if self.state["step"] == 0:
                self.measure()  # the untrained network: what every later number is compared with
            while self.state["step"] < self.last_step:
                if not self.run_epoch(self.state["step"] // self.steps_per_epoch, stop):
                    self.display.note(f"stopped by a signal at step {self.state['step']}; go on with --resume")
                    return STOPPED
            if self.state["knn_step"] != self.state["step"]:
                self.measure()
                self.show()
            self.save()
            self.summarise()
        self.accelerator.end_training()
        return 0

    def run_epoch(self, epoch: int, stop: StopRequest) -> bool:
        """Trains the rest of an epoch; False where a signal ended it, with a checkpoint."""
        first = self.state["step"] % self.steps_per_epoch
        if first == 0:
            self.renew_pairing(epoch)
        self.timer.restart()
        batches = self.loader.epoch(epoch, first * self.options.accumulate, self.method.pairing)
        totals = []  # of the parts of a batch
        for batch in self.timer.waiting(batches):
            with self.accelerator.accumulate(self.model):
                losses = self.train_on(batch)
            totals.append(losses.total.detach())
            if not self.accelerator.sync_gradients:
                continue
            step = self.state["step"] = self.state["step"] + 1
            self.state["samples_seen"] += self.training.batch_size
            if step % self.options.log_every == 0 or step == self.last_step:
                self.log_step(torch.stack(totals).mean(), losses.parts)
            totals.clear()
            if step == self.last_step or step % self.steps_per_epoch == 0:
                break
            stopping = self.asked_to_stop(stop)
            if stopping or (self.options.checkpoint_every and step % self.options.checkpoint_every == 0):
                self.save()
            if stopping:
                return False
        step = self.state["step"]
        if step == self.last_step:
            return True
        if step != (epoch + 1) * self.steps_per_epoch:
            raise Failure(f"epoch {epoch} ended at step {step}, not {(epoch + 1) * self.steps_per_epoch}; report this")
        for every, look in ((self.options.knn_every, self.measure), (self.options.images_every, self.show)):
            if every and (epoch + 1) % every == 0:
                look()
        stopping = self.asked_to_stop(stop)
        if stopping or not self.options.checkpoint_every or step % self.options.checkpoint_every == 0:
            self.save()
        return not stopping

    def train_on(self, batch: Batch) -> Losses:
        """Forward, backward, and once the parts of a batch are complete, the step."""
        losses: Losses = self.model(batch)
        self.accelerator.backward(losses.total)
        if self.accelerator.sync_gradients:
            set_learning_rate(self.optimizer, self.learning_rate(self.state["step"]))
            if self.training.clip_norm:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
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
        average_running_statistics(self.method)
        before = self.method.pairing
        self.method.before_epoch(epoch, lambda network: extract_part(network, self.whole_set))
        if self.method.pairing is not None and self.method.pairing is not before and self.dataset.classes:
            rates = same_class_rates(self.method.pairing, self.dataset.labels)
            self.log({f"partner_{name}": round(rate, 5) for name, rate in rates.items()})

    def measure(self) -> None:
        """Quality of the student's features now and, with labels, its kNN accuracy on held-out images."""
        row = self.monitors.measure(self.method, self.training.batch_size)
        self.state |= {"knn_top1": row.get("knn_top1"), "knn_step": self.state["step"]}
        self.log(row)
        if "knn_top1" in row:
            self.display.knn(row["knn_top1"])
            self.display.note(f"step {self.state['step']:,}: kNN {row['knn_top1']:.2f} % ({row['knn_protocol']})")

    def show(self) -> None:
        """Pictures for the tracker, where there is one: views, and nearest neighbours by the features of now."""
        show_pictures(self.tracker, self.dataset, self.method, self.monitors.quality, self.state["step"], self.main)

    def log_step(self, total: Tensor, parts: dict[str, Tensor]) -> None:
        """A row of metrics; the only place where the loop waits for the device."""
        loss = self.state["loss"] = float(mean_over_processes(total))
        named = {name: float(mean_over_processes(value)) for name, value in parts.items()} | self.loader.counts
        row = self.log({"loss": loss, "lr": self.optimizer.param_groups[0]["lr"], **named, **self.timer.read()})
        self.display.update(self.state["step"], row)
        if not np.isfinite(loss):
            raise Failure(f"the loss is {loss} at step {self.state['step']}; lower --lr, or take --precision fp32")

    def log(self, row: dict[str, Any]) -> dict[str, Any]:
        """Appends a row to metrics.jsonl and the tracker, with the place in the run that it belongs to."""
        step = self.state["step"]
        row = {"step": step, "epoch": step // self.steps_per_epoch, "samples_seen": self.state["samples_seen"], **row}
        self.folder.log(row)
        self.tracker.log(row)
        return row

    def asked_to_stop(self, stop: StopRequest) -> bool:
        """Whether any process got a signal; with several, they agree every `--log-every` steps."""
        if self.accelerator.num_processes == 1:
            return stop.received
        if self.state["step"] % self.options.log_every:
            return False
        received = torch.tensor(float(stop.received), device=self.accelerator.device)
        return bool(sum_over_processes(received) > 0)

    def save(self) -> None:
        """Writes a checkpoint of this step."""
        average_running_statistics(self.method)
        self.state |= {"seconds": time.perf_counter() - self.started, "rows": self.folder.rows}
        if self.accelerator.scaler is not None:
            self.state["scaler"] = self.accelerator.scaler.state_dict()
        if self.main:
            checkpoint.save(self.folder.checkpoints, self.method, self.optimizer, self.state, self.options.keep)
        self.accelerator.wait_for_everyone()

    def resume(self) -> list[str]:
        """Restores the newest valid checkpoint; returns what to tell about it."""
        found, notes = checkpoint.newest(self.folder.checkpoints)
        if found is None:
            self.folder.rewind(0)
            return [*notes, f"{self.folder.checkpoints} holds no checkpoint; starting from the first step"]
        refuse_another_run(found.state, self.state)
        found.apply(self.method, self.optimizer)
        self.state |= {name: value for name, value in found.state.items() if name != "optimizer"}
        if self.accelerator.scaler is not None and "scaler" in self.state:
            self.accelerator.scaler.load_state_dict(self.state["scaler"])
        self.folder.rewind(self.state["rows"])
        return [*notes, f"resumed from {found.path}"]

    def summarise(self) -> None:
        """Writes summary.json."""
        self.folder.write_summary(
            {
                "method": self.recipe.method, "final_loss": self.state["loss"], "knn_top1": self.state["knn_top1"],
                "knn_protocol": self.monitors.knn.protocol.id if self.monitors.knn else None,
                "step": self.state["step"], "samples_seen": self.state["samples_seen"],
                "seconds": round(self.state["seconds"], 2),
                "versions": self.config["versions"], "machine": self.config["machine"],
            }
        )  # fmt: skip
        seen, seconds = self.state["samples_seen"], self.state["seconds"]
        self.display.note(f"done: {seen:,} images in {seconds:.0f} s; results in {self.folder.path}")


if __name__ == "__main__":
    sys.exit(main())
