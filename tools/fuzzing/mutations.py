"""Harm to files, drawn from a seeded generator: what bad disks, cut copies and hostile hands do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Harm = Callable[[np.random.Generator, bytes, bytes], bytes]  # the file, another of its kind -> the harmed file

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    1e308,
    -1e308,
    10**30,
    10**400,
    "",
    "0" * 32,
    "../../x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"bytes": -1},
    float("nan"),
    float("inf"),
    "a" * 10_000,
)


def _at(rng: np.random.Generator, data: bytes) -> int:
    """A place, half of the time among the first 64 bytes or the last, where headers and tables are."""
    length = max(1, len(data))
    near = min(length, 64)
    draw = rng.random()
    if draw < 0.25:
        return int(rng.integers(near))
    return int(length - 1 - rng.integers(near) if draw < 0.5 else rng.integers(length))


def flip(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One to eight bits turned."""
    harmed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if harmed:
            harmed[_at(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(harmed)


def cut(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """The end is missing."""
    return data[: _at(rng, data)]


def drop(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Some bytes are missing in the middle."""
    start = _at(rng, data)
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def zero(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A block that was never written."""
    start, length = _at(rng, data), int(rng.choice([4, 64, 512, 4096]))
    block = data[start : start + length]
    return data[:start] + bytes(len(block)) + data[start + length :]


def noise(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A block of random bytes."""
    start, length = _at(rng, data), int(rng.choice([4, 64, 512]))
    return data[:start] + rng.bytes(len(data[start : start + length])) + data[start + length :]


def number(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A number of 1 to 8 bytes, in either order of bytes, that programs stumble over."""
    start, size = _at(rng, data), int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice(np.array(_NUMBERS, dtype=np.uint64))) & ((1 << 8 * size) - 1)
    return data[:start] + value.to_bytes(size, "little" if rng.random() < 0.5 else "big") + data[start + size :]


def splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: _at(rng, data)] + other[_at(rng, other) :]


def repeat(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A piece that stands there twice or many times."""
    start = _at(rng, data)
    stop = start + int(rng.integers(1, 257))
    return data[:stop] + data[start:stop] * int(rng.choice([1, 2, 50])) + data[stop:]


def grow(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Something follows behind the end."""
    return data + (rng.bytes(int(rng.integers(1, 600))) if rng.random() < 0.5 else other)


def swap(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Another file of the same kind under this one's name."""
    return other


BYTES: tuple[Harm, ...] = (flip, flip, cut, drop, zero, noise, number, number, splice, repeat, grow, swap)


def jpeg_sides(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Other sides in the header of a JPEG."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at >= 0:
            sides = rng.choice([0, 1, 8, 40, 64, 200, 2000, 65535], 2)
            high, wide = (int(side).to_bytes(2, "big") for side in sides)
            return data[: at + 5] + high + wide + data[at + 9 :]
    return flip(rng, data, other)


def scans(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """The scans of a JPEG again and again."""
    at = data.find(b"\xff\xda")
    if at < 0:
        return repeat(rng, data, other)
    return data[:-2] + data[at:-2] * int(rng.choice([1, 20, 600])) + data[-2:]


IMAGES: tuple[Harm, ...] = (*BYTES, jpeg_sides, scans)


def edit_json(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One value of a JSON object, at any depth, becomes another one, or goes."""
    try:
        value = json.loads(data)
    except ValueError:  # harmed before
        return flip(rng, data, other)
    inside: Any = value
    while True:
        if not isinstance(inside, dict | list) or not inside:
            return flip(rng, data, other)
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(inside[key], dict | list) and inside[key] and rng.random() < 0.7:
            inside = inside[key]
            continue
        if rng.random() < 0.2:
            del inside[key]
        elif isinstance(inside[key], str) and rng.random() < 0.3:
            inside[key] = inside[key][::-1]
        elif isinstance(inside[key], int | float) and rng.random() < 0.4:
            inside[key] = inside[key] + rng.choice([-1, 1, 1e-6]).item()
        else:
            inside[key] = _VALUES[int(rng.integers(len(_VALUES)))]
        return json.dumps(value).encode()


def harmed(rng: np.random.Generator, data: bytes, other: bytes, ways: tuple[Harm, ...]) -> bytes:
    """One to three harms, one after the other."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        data = ways[int(rng.integers(len(ways)))](rng, data, other)
    return data
