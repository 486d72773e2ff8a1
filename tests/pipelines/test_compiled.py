"""The switch of the hot path, the caches of ranks, and life without a compiler."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines import compiled as switch
from pipelines.compiled import compile_hot_path, compiled, hot


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "unused")
    yield
    compile_hot_path(False)


def plus_one(x: Tensor) -> Tensor:
    return x + 1


def test_hot_functions_run_as_the_switch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake(function, fullgraph, dynamic):
        assert fullgraph and dynamic
        return lambda x: calls.append("compiled") or function(x)

    monkeypatch.setattr(torch, "compile", fake)
    function = hot(plus_one)
    assert function(torch.ones(1)) == 2 and calls == []
    compile_hot_path(True)
    assert function(torch.ones(1)) == 2 and calls == ["compiled"]
    compile_hot_path(False)
    assert function(torch.ones(1)) == 2 and calls == ["compiled"]


@pytest.mark.parametrize("given", [True, False])
def test_each_rank_has_a_cache_of_its_own(given: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if given:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    else:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    for _ in range(2):  # a second call goes no deeper
        compile_hot_path(True, rank=3)
        found = Path(switch.os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert found == tmp_path / ("mine" if given else "likeness") / "rank-3"


def test_switched_off_it_leaves_the_cache_alone() -> None:
    compile_hot_path(False, rank=3)
    assert switch.os.environ["TORCHINDUCTOR_CACHE_DIR"] == "unused"


@pytest.mark.parametrize("failure", switch._FAILURES)
def test_without_a_compiler_one_line_and_the_same_numbers(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Tensor:
        raise failure("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    run = compiled(plus_one, "the sum")
    assert run(torch.ones(1)) == run(torch.ones(1)) == 2
    message = capsys.readouterr().err
    assert message == "the sum runs uncompiled, more slowly: No working C++ compiler found\n"
