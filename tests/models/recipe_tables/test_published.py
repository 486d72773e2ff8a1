"""Every value that is marked as published equals what its source says, transcribed into published.json."""

import json

import pytest

from models.methods.registry import REGISTRY
from models.recipe_tables.published import FILE, PUBLISHED_SOURCES, read_published
from models.recipe_tables.sources import code
from tools.reporting import recipe_table

NAMES = {method: list(entry.rows) for method, entry in REGISTRY.items()}
EVERY = [(method, name) for method, names in NAMES.items() for name in names]


@pytest.fixture(scope="module")
def published():
    return read_published(NAMES)


def marked(method, name):
    return {field: item for field, item in REGISTRY[method].rows[name].items() if item.source in PUBLISHED_SOURCES}


@pytest.mark.parametrize(("method", "name"), EVERY, ids=[f"{method}-{name}" for method, name in EVERY])
def test_values(published, method, name):
    source = published[method, name]
    for field, item in marked(method, name).items():
        assert field in source, f"{field} is marked '{item.source}', and published.json says nothing of it"
        assert item.value == source[field].value, f"{field}: {source[field].document}"
        assert type(item.value) is type(source[field].value), field


def test_nothing_is_transcribed_for_nobody(published):
    """Each value of an entry counts for at least one recipe that has it from there."""
    used = {
        (published[method, name][field].document, field) for method, name in EVERY for field in marked(method, name)
    }
    stated = {(entry["document"], field) for entry in json.loads(FILE.read_text()) for field in entry["values"]}
    assert stated == used


def test_a_recipe_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "published.json"
    path.write_text('[{"document": "a paper", "rows": "clim/cifar11", "values": {"lr": 1.0}}]')
    with pytest.raises(ValueError, match=r"published\.json speaks of clim/cifar11, which is no recipe"):
        read_published(NAMES, path)
    path.write_text('[{"document": "a paper", "rows": "clem/*", "values": {"lr": 1.0}}]')
    with pytest.raises(ValueError, match=r"published\.json speaks of clem, which is no method"):
        read_published(NAMES, path)


def test_the_table_has_every_value_and_refuses_one_without_a_source(tmp_path, monkeypatch):
    cells = list(recipe_table.recipe_rows(FILE))[2:]
    assert sum(len(row[5].split(", ")) for row in cells) == sum(len(marked(*row)) for row in EVERY)
    assert all(row[2] == row[3] for row in cells)
    (second,) = [row for row in cells if row[:2] == ["`msvq`", "`second_ema`"] and row[5] == "cifar100"]
    assert second[2:5] == ["0.93", "0.93", "code"] and second[7] == "`test_values[msvq-cifar100]`"
    documents = dict(list(recipe_table.document_rows(FILE))[2:])
    assert documents[second[6]] == "MSVQ's code, README" and {row[6] for row in cells} == documents.keys()
    monkeypatch.setitem(REGISTRY["msvq"].rows, "cifar10", {**REGISTRY["msvq"].rows["cifar10"], "clip_norm": code(1.0)})
    with pytest.raises(ValueError, match="nothing about clip_norm of msvq/cifar10, which is marked 'code'"):
        list(recipe_table.recipe_rows(FILE))
