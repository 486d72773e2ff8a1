"""What `--loader` takes and why; decoded images are shared, counted before they are made, and let go."""

import gc
import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from pipelines import View, make_loader
from pipelines.executors import resident
from pipelines.executors.choose import EXECUTORS, choose
from pipelines.executors.damage import Damage
from pipelines.executors.executor import ExecutorSpec
from pipelines.formats.registry import FORMATS
from pipelines.plan.views import contrastive
from tests.support.datasets import photos

CPU = torch.device("cpu")
VIEWS = (contrastive(24),)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("executors"))


def free(monkeypatch, dataset, share):
    """Memory of which the decoded set takes this share."""
    monkeypatch.setattr(resident, "free_memory", lambda device: int(resident.decoded_bytes(dataset) / share))


def test_auto_keeps_a_set_that_takes_a_quarter_of_the_free_memory_and_says_so(dataset, monkeypatch):
    free(monkeypatch, dataset, 0.2)
    spec, note = choose("auto", dataset, CPU, shuffle=True)
    assert spec.name == "resident" and "24 images, 0.00 GiB decoded, 20.0% of the" in note
    free(monkeypatch, dataset, 0.3)
    spec, note = choose("auto", dataset, CPU, shuffle=True)
    assert spec.name == "ffcv" and "30.0% of the" in note and "more than 25%" in note


def test_a_pass_in_order_decodes_no_set_but_shares_one(dataset):
    with make_loader(dataset, VIEWS, 6, shuffle=False) as alone:
        assert "loader ffcv: a pass" in alone.note
    with make_loader(dataset, VIEWS, 6) as training:
        assert "loader resident: 24 images" in training.note
        with make_loader(dataset, VIEWS, 6, shuffle=False) as passing:
            assert "loader resident: shared" in passing.note
            assert passing._executor._images is training._executor._images
        assert len(list(training.epoch(0))) == 4  # the other one's end took nothing away
    gc.collect()
    assert not resident.is_decoded(dataset, CPU)


def test_a_set_that_does_not_fit_is_refused_in_one_line(dataset, monkeypatch):
    free(monkeypatch, dataset, 0.9)
    with pytest.raises(ValueError, match=r"does not fit into memory \(24 images.*90.0% of.*at most 80%.*--loader auto"):
        make_loader(dataset, VIEWS, 6, loader="resident")


def test_processes_of_one_host_share_its_memory(monkeypatch):
    from pipelines.memory import free_memory

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = free_memory(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 2**20 < free_memory(CPU) < alone / 2


def test_a_missing_library_is_one_line_and_auto_takes_the_other(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ModuleNotFoundError, match=r"nvidia-dali is not installed.*tools/setup.sh dali"):
        make_loader(dataset, VIEWS, 6, loader="dali")
    assert EXECUTORS["ffcv"].installed() and not EXECUTORS["dali"].installed()
    monkeypatch.setattr(ExecutorSpec, "installed", lambda spec: spec.name == "dali")
    free(monkeypatch, dataset, 0.3)
    assert choose("auto", dataset, CPU, shuffle=True)[0].name == "dali"


def test_without_ffcv_the_resident_executor_decodes_with_pillow(dataset, monkeypatch):
    from pipelines.executors import decode

    with make_loader(dataset, VIEWS, 6, loader="resident") as loader:
        expected = list(loader.epoch(0))
    monkeypatch.setattr(ExecutorSpec, "installed", lambda spec: False)
    monkeypatch.setattr(resident, "decoder", lambda: decode.with_pillow)
    gc.collect()
    with make_loader(dataset, VIEWS, 6, loader="resident") as loader:
        for batch, other in zip(loader.epoch(0), expected, strict=True):
            assert torch.equal(batch.index, other.index)
            assert (batch.views[0] - other.views[0]).abs().mean() < 0.05


def test_explicit_names_are_taken(dataset):
    for name in ("ffcv", "resident"):
        with make_loader(dataset, (View(16),), 6, loader=name) as loader:
            assert loader.note.startswith(f"loader {name}, as asked")


def test_on_a_gpu_auto_takes_the_executor_that_prefers_the_format(dataset, monkeypatch):
    monkeypatch.setattr(resident, "forecast", lambda dataset, device: (0.9, "large"))
    monkeypatch.setattr(ExecutorSpec, "installed", lambda spec: True)
    taken = {
        (form, kind): choose("auto", replace(dataset, format=form), torch.device(kind), shuffle=True)[0].name
        for form in FORMATS
        for kind in ("cpu", "cuda")
    }
    assert taken.pop(("shards", "cuda")) == "dali" and set(taken.values()) == {"ffcv"}
    assert all(form in FORMATS for spec in EXECUTORS.values() for form in spec.gpu_formats)


class Grey:
    """An executor whose views are grey."""

    def __init__(self, dataset, plan):
        self.damage, self.views = Damage(dataset), plan.views

    def start(self, plan):
        views = [
            torch.full((len(plan.source_S), 3, view.size, view.size), 128, dtype=torch.uint8) for view in self.views
        ]
        return lambda: views

    def close(self):
        pass


def test_a_new_executor_is_one_line_of_the_registry(dataset, monkeypatch):
    spec = ExecutorSpec(name="grey", filters=("area",), make=lambda dataset, plan, device, threads: Grey(dataset, plan))
    monkeypatch.setitem(EXECUTORS, "grey", spec)
    with make_loader(dataset, (View(16),), 6, loader="grey") as loader:
        assert loader.note.startswith("loader grey, as asked")
        assert all(len(batch.views[0].unique()) == 3 for batch in loader.epoch(0))  # one normalised value a channel
    with pytest.raises(ValueError, match="loader grey does not resize by 'bicubic'; take --resize area"):
        make_loader(dataset, (View(16, resize="bicubic"),), 6, loader="grey")
    with pytest.raises(ValueError, match="unknown loader 'gray'; take one of auto, ffcv, dali, resident, grey"):
        make_loader(dataset, (View(16),), 6, loader="gray")


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["ffcv", "dali", "resident"])
def test_two_identical_models_see_identical_batches(dataset, name):
    """The race test: a batch that is overwritten, or read too early, differs between two readers that are far apart."""
    if name == "dali":
        pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    options = {"loader": name, "device": "cuda", "threads": 4}
    weights = torch.randn(3 * 96 * 96, 256, generator=torch.Generator().manual_seed(0)).cuda()
    models = [torch.nn.Linear(3 * 96 * 96, 256, bias=False).cuda() for _ in range(2)]
    for model in models:
        model.weight.data.copy_(weights.T)
    expected = {}
    with make_loader(dataset, (View(96), View(96)), 8, **options) as loader:
        for epoch in range(40):
            for step, batch in enumerate(loader.epoch(epoch % 2)):
                first = [models[0](view.flatten(1)) for view in batch.views]
                torch.cuda._sleep(2_000_000)  # the second reader comes a millisecond later, batches are made meanwhile
                second = [models[1](view.flatten(1)) for view in batch.views]
                assert all(map(torch.equal, first, second))
                known = expected.setdefault((epoch % 2, step), [view.clone() for view in batch.views])
                assert all(map(torch.equal, known, batch.views))


@pytest.mark.cuda
def test_resident_views_on_a_gpu_are_within_a_level_of_the_cpus(dataset):
    found = []
    for device in ("cpu", "cuda"):
        with make_loader(dataset, (View(48), View(24, (0.05, 0.3))), 8, loader="resident", device=device) as loader:
            found.append(list(loader.epoch(0)))
    level = 1 / (255 * min(dataset.std))
    for one, other in zip(*found, strict=True):
        for view, same in zip(one.views, other.views, strict=True):
            assert (view - same.cpu()).abs().max() <= 1.01 * level
