"""A recipe's training step: recorded, compiled and plain; with its data and without; its kernels; its first seconds.

The first step is everything before the second one: compiling and recording every kind of step, and one step. "Nothing
cached" is with an empty folder for compiled code; "cached" is in the same process after torch has forgotten what it
compiled, to which a new run adds the time of its imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from models import build
from pipelines import Batch
from tools.benchmarks.measure import Case, take_turns
from tools.benchmarks.training import endless, open_loader, random_partners
from tools.command_line import Failure
from tools.gpu_stages.context import Context
from tools.gpu_stages.recipes import images_of, recipe_of
from tools.gpu_stages.timed_step import TimedStep


def rows(context: Context, name: str) -> Iterator[dict[str, Any]]:
    """Measure the step of a recipe.

    Raises:
        Failure: the step could not be recorded; the rows say how fast it is without that.
    """
    recipe, dataset, repeats = recipe_of(name, context), images_of(name, context), context.settings.repeats
    recorded = TimedStep(recipe, context)
    yield _first(f"{name}: first step, nothing cached", "recorded", recorded)
    views, batch_size = build(recipe.method, recipe).views, recipe.training.batch_size
    with open_loader(dataset, views, batch_size, context.settings) as loader:
        batches = endless(loader, random_partners(dataset.number) if recorded.method.mixes else None)
        ready = next(batches)
        values = _with_data(recorded, batches, ready, repeats)
        yield Case(f"{name}: with data", "samples/s", values, facts={"batch": batch_size, "loader": loader.note}).row()
        forms = {"recorded": recorded}
        for form in ("compiled", "plain"):
            with loader.parked():
                forms[form] = TimedStep(recipe, context, compiled=form == "compiled", recorded=False)
            yield _first(f"{name}: first step, cached", form, forms[form])
        yield _beside(name, forms, ready, context)
    was_recorded = recorded.recorded
    del recorded, forms  # their memory is needed
    torch.compiler.reset()
    yield _first(f"{name}: first step, cached", "recorded", TimedStep(recipe, context))
    if not was_recorded:
        raise Failure(f"the step of {name} was not recorded; a line above says why")


def _first(title: str, form: str, step: TimedStep) -> dict[str, Any]:
    return Case(title, "seconds", {form: [step.first_seconds]}).row()


def _with_data(step: TimedStep, batches: Iterator[Batch], ready: Batch, repeats: int) -> dict[str, list[float]]:
    """Measure a step with a loader and without, and the loader alone, in turns."""
    contenders = {
        "data included": lambda: step.speed_from(batches),
        "batch already there": lambda: step.speed_on(ready),
        "loader alone": lambda: step.speed_of_loader(batches),
    }
    return take_turns(contenders, repeats)


def _beside(name: str, forms: dict[str, TimedStep], ready: Batch, context: Context) -> dict[str, Any]:
    """Measure the forms of a step in turns, and the work of each."""
    contenders = {form: partial(step.speed_on, ready) for form, step in forms.items()}
    values = take_turns(contenders, context.settings.repeats)
    profiled = context.size(list(forms), ["recorded"])  # a CPU profiles for seconds
    work = {form: forms[form].work_on(ready) for form in profiled}
    facts: dict[str, Any] = {
        "kernels a step": {form: round(found.kernels) for form, found in work.items()},
        "device ms a step": {form: round(found.milliseconds, 3) for form, found in work.items()},
        "recorded": forms["recorded"].recorded,
    }
    if torch.cuda.is_available():
        facts["peak GiB of all forms"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return Case(f"{name}: {', '.join(forms)}", "samples/s", values, facts=facts).row()
