"""Tables of sweeps: the methods of one, several that differ in the seed, and sweeps before and after a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

_MEASURES = ("knn", "linear")


def sweep_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the cells of a sweep: one row a method, the best kNN accuracy first, then the two baselines."""
    rows = sorted(result["rows"], key=lambda row: -row["knn"])
    yield ["method", "kNN %", "linear %", "loss, first to last", "feature spread", "effective rank", "images seen"]
    yield ["---", *["---:"] * 6]
    for row in rows:
        yield [
            row["method"],
            f"**{row['knn']:.2f}**",
            f"{row['linear']:.2f}",
            f"{row['first_loss']:.3f} to {row['last_loss']:.3f}",
            f"{row['spread']:.2f}",
            f"{row['rank']:.1f}",
            f"{row['images_seen']:,}",
        ]
    for name, title in (("untrained", "*untrained*"), ("pixels", "*raw pixels*")):
        yield [title, *(f"{rows[0][f'{measure}_{name}']:.2f}" for measure in _MEASURES), *[""] * 4]


def seed_rows(results: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield mean and standard deviation over the seeds, for each method that every sweep has, the best kNN first.

    Raises:
        ValueError: the sweeps differ in more than the seed.
    """
    values = _of_seeds(results)
    yield ["method", "seeds", "kNN %", "linear %"]
    yield ["---", *["---:"] * 3]
    for method, columns in sorted(values.items(), key=lambda item: -mean(item[1]["knn"])):
        yield [method, str(len(results)), *(_with_deviation(columns[measure]) for measure in _MEASURES)]


def moved_rows(results: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield what sweeps measured before a change and after it, and by how much each seed moved.

    Args:
        results: those before the change, then as many after it; sweeps in the same places of both halves are compared.

    Raises:
        ValueError: the halves are not equally long, or sweeps of a half differ in more than the seed.
    """
    half = len(results) // 2
    if len(results) % 2:
        raise ValueError(f"{len(results)} sweeps do not make as many before a change as after it")
    before, after = _of_seeds(results[:half]), _of_seeds(results[half:])
    yield [
        "method",
        "seeds",
        *(f"{name} %, {when}" for name in ("kNN", "linear") for when in ("before", "after", "moved")),
    ]
    yield ["---", *["---:"] * 7]
    for method in sorted(set(before) & set(after), key=lambda method: -mean(after[method]["knn"])):
        cells = []
        for measure in _MEASURES:
            old, new = before[method][measure], after[method][measure]
            moved = [late - early for early, late in zip(old, new, strict=True)]
            cells += [_with_deviation(old), _with_deviation(new), f"**{_with_deviation(moved, '+')}**"]
        yield [method, str(half), *cells]


def without_seed(options: Sequence[str]) -> list[str]:
    """Return options of train.py without `--seed N`."""
    index = list(options).index("--seed") if "--seed" in options else len(options)
    return [*options[:index], *options[index + 2 :]]


def _of_seeds(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return the measures of every method that all sweeps have, one value for each sweep."""
    sweeps = [{row["method"]: row for row in result["rows"]} for result in results]
    shared = set.intersection(*(set(rows) for rows in sweeps))
    budgets = []
    for result in results:
        own = [option for option in result["own_options"] if option.partition(":")[0] in shared]
        budgets.append((result["data"], without_seed(result["options"]), own))
    if any(budget != budgets[0] for budget in budgets):
        raise ValueError("the sweeps differ in more than --seed")
    return {method: {name: [rows[method][name] for rows in sweeps] for name in _MEASURES} for method in shared}


def _with_deviation(values: Sequence[float], sign: str = "") -> str:
    """Return the mean of values and, of several, their standard deviation."""
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.2f}{deviation}"
