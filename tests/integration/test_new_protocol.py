"""A protocol is one class and one entry of the registry: its command, table, files and readers follow from them."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from models.evaluation.protocol import Protocol
from models.evaluation.protocols.registry import PROTOCOLS
from models.options import option
from models.search.sharded_features import all_gather_rows
from tests.support.encoder_runs import write_run
from tests.support.fake_images import FakeLoader, call, dataset
from tools.run.evaluations import latest, results_of, titles


@dataclass(frozen=True, kw_only=True)
class NearestClassMean(Protocol):
    """A query's class is that of the nearest mean feature, by cosine."""

    name: ClassVar[str] = "ncm"
    summary: ClassVar[str] = "the class with the nearest mean feature"
    metric_titles: ClassVar[dict[str, str]] = {"top1": "right %", "top5": "among five %"}
    seeded: ClassVar[bool] = False

    shrink: float = option(0.0, "share of the mean of all images in each class's mean", at_least=0)
    means: str = option("raw", "features that are averaged", choices=("raw", "unit"))

    @property
    def id(self):
        return f"ncm-{self.means}-shrink{self.shrink:g}-{self._suffix()}"

    def measure(self, network, task, seeds):
        bank, queries = task.bank_features(network), task.query_features(network)
        number_N, features_ND = all_gather_rows(bank.number_M, bank.features_MD)
        if self.means == "unit":
            features_ND = normalize(features_ND)
        results = []
        for seed in seeds:
            used_N = torch.from_numpy(np.isin(number_N.cpu().numpy(), task.images.labelled[seed]))
            label_N, used_ND = task.bank_labels()[number_N.cpu()][used_N], features_ND[used_N]
            mean_CD = torch.stack([used_ND[label_N == label].mean(0) for label in range(task.classes)])
            mean_CD = torch.lerp(mean_CD, used_ND.mean(0), self.shrink)
            scores_MC = normalize(queries.features_MD) @ normalize(mean_CD).T
            results.append(task.classification(queries.number_M, scores_MC, {"labelled_images": int(used_N.sum())}))
        return results


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "ncm", NearestClassMean)
    sets = {"train": dataset("train"), "val": dataset("val", 40, 1)}
    monkeypatch.setattr("tools.evaluation.data.open_dataset", lambda path, check: sets[path])
    monkeypatch.setattr("models.evaluation.feature_extractor.make_loader", FakeLoader)
    return write_run(tmp_path / "run")


def sets_of(run):
    return ("--run", run, "--data", "train", "--val-data", "val", "--device", "cpu")


def test_a_registered_protocol_prints_a_table_and_writes_its_files(run, monkeypatch, capsys):
    words = ("ncm", *sets_of(run), "--means", "unit", "--shrink", 0.25, "--baselines", "--per-class")
    assert call(monkeypatch, *words) == 0
    written = json.loads((run / "eval-ncm.json").read_text())
    assert written["protocol"]["id"] == "ncm-unit-shrink0.25-student"
    assert (written["protocol"]["means"], written["protocol"]["shrink"]) == ("unit", 0.25)
    assert written["baselines"]["raw pixels"]["top1"] > 80 and written["labelled_images"] == 90
    assert [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()] == [written]
    printed = capsys.readouterr().out
    for text in ("ncm-unit-shrink0.25-student, 40 images of 3 classes", "among five %", "right % within", "by class"):
        assert text in printed
    assert f"{written['top1']:.2f}" in printed


def test_readers_of_results_know_its_metrics_and_what_its_seed_does(run, monkeypatch):
    for words in (("--seed", 0), ("--seed", 1), ("--labels", "50%", "--seeds", "0,1")):
        assert call(monkeypatch, "ncm", *sets_of(run), *words) == 0
    results = latest(results_of(run))
    assert sorted(titles(results).values()) == ["ncm-raw-shrink0-student", "ncm-raw-shrink0-student-labels-50%"]
    assert all(set(result.values) == set(result.intervals) == {"top1", "top5"} for result in results)
    drawn = json.loads((run / "eval-ncm.json").read_text())
    assert [row["seed"] for row in drawn["seeds"]] == [0, 1] and "std" in drawn


def test_its_options_are_explained_and_checked(run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, "ncm", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "features that are averaged: raw, unit (default: raw)" in shown
    assert "share of the mean of all images in each class's mean (default: 0)" in shown
    for words, message in (
        (("--shrink", -1), "--shrink is -1.0; give 0 or more"),
        (("--means", "median"), "--means is 'median'; take one of raw, unit"),
    ):
        assert call(monkeypatch, "ncm", *sets_of(run), *words) == 2
        assert capsys.readouterr().err == f"eval.py: {message}\n"


def test_without_a_registry_entry_there_is_no_command(monkeypatch, capsys):
    assert call(monkeypatch, "ncm", "--run", "r", "--data", "a", "--val-data", "b") == 2
    assert "invalid choice: 'ncm' (choose from" in capsys.readouterr().err
