"""Random numbers without state: each one is a hash of a key and a counter.

A generator with state gives other numbers when it is asked in another order. Here number j of a key is a function of
(key, j) alone, so any process can compute the plan of any step, in any order.

The hash is the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014, doi 10.1145/2660193.2660195), that is,
Stafford's "Mix13". All arithmetic is on uint64 arrays, whose overflow wraps around, as the hash requires.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

MASK = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 / golden ratio: consecutive counters land far apart
FIRST = np.uint64(0xBF58_476D_1CE4_E5B9)
SECOND = np.uint64(0x94D0_49BB_1331_11EB)
ROUNDS = 8  # of the Feistel network; 4 are the least that mix both halves, and more cost little
# Up to this size a permutation is sorted out of random numbers: with few bits a Feistel network is visibly uneven.
SMALL = 1024


def _words(integers: int | np.integer | NDArray[np.integer]) -> Words:
    """Return the integers as a new uint64 array; negative ones wrap around."""
    if isinstance(integers, int):
        return np.array(integers & MASK, dtype=np.uint64)
    values = np.asarray(integers)
    if values.dtype.kind not in "iub":
        raise TypeError(f"a random key is made of integers; got an array of {values.dtype}")
    return np.array(values.astype(np.uint64))


def _mix(words: Words) -> Words:
    """Hash an array in place: each input bit flips each output bit with a probability of about one half."""
    words ^= words >> np.uint64(30)
    words *= FIRST
    words ^= words >> np.uint64(27)
    words *= SECOND
    words ^= words >> np.uint64(31)
    return words


def key(*integers: int | np.integer | NDArray[np.integer]) -> Words:
    """Return one 64-bit key for each combination of integers.

    Args:
        integers: integers or integer arrays, broadcast against each other. Their order matters.

    Returns:
        uint64, the broadcast shape; no dimensions where all arguments are plain integers.
    """
    state = np.array(len(integers), dtype=np.uint64)
    for integer in integers:
        word = _words(integer)
        word += GOLDEN
        state = _mix(np.array(np.bitwise_xor(state, _mix(word))))
    return state


def bits(key: Words, count: int, start: int = 0) -> Words:
    """Return the 64-bit numbers `start` to `start + count - 1` of every key: uint64, shape key.shape + (count,)."""
    counter = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    counter *= GOLDEN
    # The counter is hashed before it meets the key, so the streams of two keys are no shifted copies of each other.
    return _mix(np.bitwise_xor(np.asarray(key, dtype=np.uint64)[..., None], _mix(counter)))


def uniform(key: Words, count: int, start: int = 0) -> NDArray[np.float64]:
    """Return the same numbers in [0, 1), with 53 bits each: float64, shape key.shape + (count,)."""
    numbers = (bits(key, count, start) >> np.uint64(11)).astype(np.float64)
    numbers *= 2.0**-53
    return numbers


def permute(seed_key: int | np.integer | Words, positions: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """Return elements of a pseudo-random permutation of range(size) without computing the others.

    A Feistel network permutes all numbers with an even count of bits. It is applied again to results outside the range
    (cycle walking): on average less than twice, and four times at the worst size.

    Args:
        seed_key: selects the permutation.
        positions: int, any shape, each in 0 to size - 1.
        size: 1 to 2**62.

    Returns:
        int64, shape of positions.

    Raises:
        ValueError: the size is out of range.
        IndexError: a position is out of range.
    """
    index = np.asarray(positions)
    if size < 1 or size > 2**62:
        raise ValueError(f"a permutation has 1 to 2**62 elements, not {size}")
    if index.size and (index.min() < 0 or index.max() >= size):
        raise IndexError(f"position {index.min()} or {index.max()} is outside a permutation of {size}")
    if size <= SMALL:
        return np.argsort(bits(key(seed_key), size), kind="stable").astype(np.int64)[index]
    half = ((size - 1).bit_length() + 1) // 2
    round_keys = bits(key(seed_key), ROUNDS)
    result = _feistel(index.astype(np.uint64).ravel(), round_keys, half)
    outside = np.flatnonzero(result >= np.uint64(size))
    while outside.size:
        again = _feistel(result[outside], round_keys, half)
        result[outside] = again
        outside = outside[again >= np.uint64(size)]
    return result.astype(np.int64).reshape(index.shape)


def _feistel(words: Words, round_keys: Words, half: int) -> Words:
    """Permute the numbers of 2 * half bits: a bijection that the round keys select. Not in place."""
    shift, mask, top = np.uint64(half), np.uint64((1 << half) - 1), np.uint64(64 - half)
    left, right = words >> shift, words & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) >> top)
    return (left << shift) | right
