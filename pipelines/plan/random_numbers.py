"""Random numbers without state: each one is a hash of a key and a counter.

A generator that keeps state gives other numbers when the order of the questions changes. Here number j of a key is a
function of (key, j) alone, so the plan of an epoch can be asked at any step, by any process, in any order.

The hash is the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014, doi 10.1145/2660193.2660195), that is,
Stafford's "Mix13". All arithmetic is on uint64 arrays, which wrap around as the hash wants.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

MASK = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 / golden ratio: consecutive counters land far apart
FIRST = np.uint64(0xBF58_476D_1CE4_E5B9)
SECOND = np.uint64(0x94D0_49BB_1331_11EB)
ROUNDS = 8  # of the Feistel network; 4 are the least that mixes both halves, more cost little
SMALL = (
    1024  # up to here a permutation is sorted out of random numbers: few bits leave a Feistel network visibly uneven
)


def _words(part: int | np.integer | NDArray[np.integer]) -> Words:
    """A fresh uint64 array of the integers; negative ones wrap around."""
    if isinstance(part, int):
        return np.array(part & MASK, dtype=np.uint64)
    values = np.asarray(part)
    if values.dtype.kind not in "iub":
        raise TypeError(f"a random key is made of integers; got an array of {values.dtype}")
    return np.array(values.astype(np.uint64))


def _mix(words: Words) -> Words:
    """Every input bit flips every output bit about half of the time. Works in place on an array the caller owns."""
    words ^= words >> np.uint64(30)
    words *= FIRST
    words ^= words >> np.uint64(27)
    words *= SECOND
    words ^= words >> np.uint64(31)
    return words


def key(*parts: int | np.integer | NDArray[np.integer]) -> Words:
    """One 64-bit key for each combination of integers.

    Args:
        parts: integers or integer arrays, broadcast against each other. Their order matters.

    Returns:
        uint64, shape of the broadcast parts; no dimensions where all parts are plain integers.
    """
    state = np.array(len(parts), dtype=np.uint64)
    for part in parts:
        word = _words(part)
        word += GOLDEN
        state = _mix(np.array(np.bitwise_xor(state, _mix(word))))
    return state


def bits(key: Words, count: int, start: int = 0) -> Words:
    """The 64-bit numbers `start` to `start + count - 1` of every key: uint64, shape key.shape + (count,)."""
    counter = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    counter *= GOLDEN
    # The counter is mixed before it meets the key: streams of two keys can then not be shifted copies of each other.
    return _mix(np.bitwise_xor(np.asarray(key, dtype=np.uint64)[..., None], _mix(counter)))


def uniform(key: Words, count: int, start: int = 0) -> NDArray[np.float64]:
    """The same numbers in [0, 1), 53 bits each: float64, shape key.shape + (count,)."""
    numbers = (bits(key, count, start) >> np.uint64(11)).astype(np.float64)
    numbers *= 2.0**-53
    return numbers


def permute(seed_key: int | np.integer | Words, positions: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """Elements of a pseudo-random permutation of range(size), at any positions, without the other elements.

    A Feistel network permutes the numbers of an even count of bits, and is applied again to whatever it puts outside
    the range (cycle walking), under twice on average and four times at the worst size.

    Args:
        seed_key: names the permutation.
        positions: int, any shape, each in 0 to size - 1.
        size: at most 2**62.

    Returns:
        int64, shape of positions.
    """
    place = np.asarray(positions)
    if size < 1 or size > 2**62:
        raise ValueError(f"a permutation has 1 to 2**62 elements, not {size}")
    if place.size and (place.min() < 0 or place.max() >= size):
        raise IndexError(f"position {place.min()} or {place.max()} is outside a permutation of {size}")
    if size <= SMALL:
        return np.argsort(bits(key(seed_key), size), kind="stable").astype(np.int64)[place]
    half = ((size - 1).bit_length() + 1) // 2
    round_keys = bits(key(seed_key), ROUNDS)
    result = _feistel(place.astype(np.uint64).ravel(), round_keys, half)
    outside = np.flatnonzero(result >= np.uint64(size))
    while outside.size:
        again = _feistel(result[outside], round_keys, half)
        result[outside] = again
        outside = outside[again >= np.uint64(size)]
    return result.astype(np.int64).reshape(place.shape)


def _feistel(words: Words, round_keys: Words, half: int) -> Words:
    """A bijection of the numbers of 2 * half bits."""
    shift, mask, top = np.uint64(half), np.uint64((1 << half) - 1), np.uint64(64 - half)
    left, right = words >> shift, words & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) >> top)
    return (left << shift) | right
