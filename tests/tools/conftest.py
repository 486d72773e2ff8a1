"""One trained run and its report, which the tests of the report and of its page in a browser share."""

import pytest


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Training and held-out images of three classes with hostile names."""
    from tests.support.reported_runs import pictures
    from tests.support.runs import Data

    folder = tmp_path_factory.mktemp("labelled")
    return Data(pictures(folder / "train", 16), pictures(folder / "held_out", 5))


@pytest.fixture(scope="session")
def clim(labelled, tmp_path_factory):
    """The folder of a run; tests take a copy before they change it."""
    from tests.support.reported_runs import trained

    return trained(tmp_path_factory.mktemp("clim") / "run", labelled.train, val_data=labelled.held_out)


@pytest.fixture(scope="session")
def reported(clim, tmp_path_factory):
    """The folder of the run's report; tests take a copy before they change it."""
    from tools import report

    out = tmp_path_factory.mktemp("out") / "new" / "report"
    assert report.main([str(clim), "--out", str(out), "--queries", "4"]) == 0
    return out
