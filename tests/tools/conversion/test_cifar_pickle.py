"""CIFAR's pickles: what Python writes is read, and nothing that a pickle asks for is done."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.conversion.cifar_pickle import PickleError, read

BATCH = {
    b"data": np.arange(60, dtype=np.uint8).reshape(2, 30),
    b"labels": [1, 0],
    b"filenames": [b"a.png", b"\xff.png"],
    "batch_label": "one of 5",
    b"none": None,
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_python_writes(protocol: int) -> None:
    found = read(pickle.dumps(BATCH, protocol))
    assert (found["data"] == BATCH[b"data"]).all() and found["data"].dtype == np.uint8
    assert found["labels"] == [1, 0] and found["none"] is None and found["batch_label"] == "one of 5"
    assert [name if isinstance(name, bytes) else name.encode("latin1") for name in found["filenames"]] == [
        b"a.png",
        b"\xff.png",
    ]


def test_the_pickles_of_python_2() -> None:
    # What Python 2 wrote: bytes as SHORT_BINSTRING and BINSTRING, the array by numpy.core.multiarray.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\x00\x85U\x01btRq\x03(K\x01K\x01K\x03\x86"
        b"cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T\x03\x00\x00\x00\x01\xfe\x03tb"
    )
    found = read(b"\x80\x02}q\x00(U\x04data" + array + b"U\x06labels]q\x06K\x07au.")
    assert found["data"].tolist() == [[1, 254, 3]] and found["labels"] == [7]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"data": Evil(tmp_path / "was-here")}, protocol)
    with pytest.raises(PickleError, match=r"asks for posix.system|has the instruction"):
        read(data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is damaged"),
        (b"\x80\x04]\x94.", "holds a list and no dictionary"),
        (b"\x80\x02}(U\x01ac__builtin__\neval\nU\x011\x85Rs.", "asks for __builtin__.eval"),
        (b"\x80\x02}(U\x01a(i__builtin__\neval\n.", "has the instruction INST"),
        (b"\x80\x02}U\x01aP1\ns.", "is damaged|has the instruction PERSID"),
        (b"\x80\x02}\x82\x01s.", "has the instruction EXT1"),
        (b"\x80\x02c__builtin__\nobject\n)\x81.", "has the instruction NEWOBJ"),
        (b"\x80\x02}cnumpy\nndarray\n}b.", "changes the inside of an object"),
        (b"\x80\x02}(U\x01acnumpy\nndarray\nJ\xff\xff\xff\x7f\x85Rs.", "asks for numpy.ndarray"),
        (b"\x80\x02}(]U\x01au.", "has a key that is no text"),
        (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"U\x01as.", "has a key that is no text"),
        (b"\x80\x02}U\x01aT\xff\xff\xff\x7fxs.", "is damaged"),
        (b"\x80\x04}\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.", "is damaged"),
        (b"\x80\x02" + b"I" + b"9" * 5000 + b"\n.", "is damaged"),
        (b"\x80\x0200000.", "is damaged|POP"),
        (b"\x80\x02}h\x07s.", "is damaged"),
        (b"\x80\x02}c_codecs\n\\nen\x1bode\n)Rs.", r"asks for _codecs\.\\nen\\x1bode"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(PickleError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_memory_slot_of_any_number_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(b"\x80\x02}r\xff\xff\xff\x7f.") == {}  # LONG_BINPUT: Python's own would allocate 32 GiB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_an_array_that_claims_more_than_it_brings() -> None:
    good = pickle.dumps(np.zeros((4, 5), dtype=np.uint8), 2)
    for bad in (good.replace(b"K\x04K\x05", b"K\x04K\x06"), good.replace(b"u1", b"O8"), good.replace(b"u1", b"f8")):
        assert bad != good
        with pytest.raises(PickleError, match=r"holds an array"):
            read(b"\x80\x02}(U\x01a" + bad[2:-1] + b"u.")


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_any_bytes(draw: st.DataObject) -> None:
    """A harmed pickle is read or refused; nothing else is raised."""
    data = bytearray(pickle.dumps(BATCH, draw.draw(st.integers(2, 5))))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    for text in (bytes(data), draw.draw(st.binary(max_size=60))):
        with contextlib.suppress(PickleError):
            assert isinstance(read(text), dict)
