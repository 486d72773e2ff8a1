"""Finding the encoder in the weights of a file, which may hold several networks and more besides.

Programs wrap their networks: `module.` (DistributedDataParallel), `state_dict`, `model`, `student` (nested
dictionaries, joined by dots), `encoder_q.`, `base_encoder.`, `backbone.`. So every name that ends like the first layer
of a known layout (`key_layouts.py`) begins a network, and what is before it is where that network is in the file.

Of several networks, the one that its authors evaluate is taken: the trained one and not the one that follows it, except
where a file has a `student` and a `teacher` at the top, as DINO's: there it is the teacher.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.storage.key_layouts import LAYOUTS, Layout, State, without_heads

#: Words in the names of networks that follow a trained one.
_FOLLOWERS = {"teacher", "momentum", "target", "ema", "k", "key", "averaged", "slow", "shadow"}
#: Names that tell nothing about a network.
_WRAPPERS = (
    "module",
    "student",
    "teacher",
    "state_dict",
    "classy_state_dict",
    "base_model",
    "model",
    "_orig_mod",
    "net",
    "network",
)
_MOST = 6  # names that are listed


class FoundNetwork(NamedTuple):
    """A network in a file.

    Attributes:
        place: the beginning of its names in the file, such as "module.encoder_q."; empty if it is the whole file.
        state: the weights of its trunk, under this project's names.
        facts: arguments of `build_backbone` that its authors' networks have and shapes do not show.
        left: what the file holds besides, by its outermost names.
        others: places of the other networks in the file.
    """

    place: str
    state: State
    facts: Mapping[str, Any] = MappingProxyType({})
    left: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What was taken from the file and what was left in it, for the user."""
        said = f"took {len(self.state)} tensors" + (f" at {_shown(self.place)}" if self.place else "")
        left = [f"{_shown(place)} (another network: --network {_shown(place)})" for place in self.others]
        left += [ascii(name[:40])[1:-1] for name in self.left]
        more = f" and {len(left) - _MOST} more" if len(left) > _MOST else ""
        return f"{said}; left {', '.join(left[:_MOST])}{more}" if left else f"{said}, which is all that it holds"


def find_network(weights: Mapping[str, Tensor], name: str | None = None) -> FoundNetwork:
    """Return the network that `name` tells, or the one that is evaluated; without weights if there is none.

    Args:
        name: a part of its place in the file, such as "teacher" or "module.encoder_k".

    Raises:
        ValueError: no network is at `name`, or several differ and nothing says which one to take.
    """
    places = dict(_places(weights))
    if not places:
        return FoundNetwork("", {}, left=tuple(weights))
    listed = ", ".join(_shown(place) or "the whole file" for place in places)
    chosen = [place for place in places if name is None or f".{name.strip('.')}." in f".{place}"]
    if not chosen:
        raise ValueError(f"no network is at --network {name}; the file has {listed}")
    ranks = {place: _rank(place, list(places)) for place in chosen}
    best = [place for place in chosen if ranks[place] == min(ranks.values())]
    first = [weights[place + places[place].first] for place in best]
    if any(other.shape != first[0].shape or not torch.equal(other, first[0]) for other in first[1:]):
        raise ValueError(f"it holds several networks: {listed}; say with --network which one to take")
    return _taken(weights, best[0], places)


def network_at(weights: Mapping[str, Tensor], *places: str) -> FoundNetwork:
    """Return the network at the first of these places that holds one, as in a checkpoint of this project."""
    known = dict(_places(weights))
    place = next((place for place in places if place in known), None)
    return FoundNetwork("", {}, left=tuple(weights)) if place is None else _taken(weights, place, known)


def _places(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Layout]]:
    """Yield the place of every network, with its layout."""
    for layout in LAYOUTS:
        for key, value in weights.items():
            place = key.removesuffix(layout.first)
            if place == key or (place and not place.endswith(".")) or value.ndim != 4 or value.shape[1] != 3:
                continue
            pattern = re.compile(re.escape(place) + layout.other)
            if any(pattern.fullmatch(other) for other in weights):
                yield place, layout


def _taken(weights: Mapping[str, Tensor], place: str, places: Mapping[str, Layout]) -> FoundNetwork:
    """Return the network at a place, translated, with the names of everything else.

    Raises:
        ValueError: its tensors do not fit each other.
    """
    others = tuple(other for other in places if other != place)
    inner = tuple(other for other in others if other.startswith(place))
    within = [key for key in weights if key.startswith(place) and not key.startswith(inner)]
    layout = places[place]
    try:
        translated = layout.translate({key.removeprefix(place): weights[key] for key in within})
    except (RuntimeError, IndexError) as error:  # tensors that are to be joined or multiplied do not fit each other
        raise ValueError(
            f"the shapes at {_shown(place)} do not fit each other ({str(error).splitlines()[0]})"
        ) from None
    trunk, heads = without_heads(translated)
    taken = set(within)
    rest = [key for key in weights if key not in taken and not key.startswith(others)]
    left = dict.fromkeys([*heads, *map(_outermost, rest)])
    return FoundNetwork(place, trunk, {**layout.facts, **_moco_v3(place, trunk)}, tuple(left), others)


def _moco_v3(place: str, trunk: State) -> dict[str, int]:
    """Return that MoCo v3's ViT-S has 12 heads of 32 channels (arXiv 2104.02057), which no shape shows."""
    positions = trunk.get("pos_embed")
    is_small = positions is not None and positions.shape[-1] == 384
    return {"heads": 12} if is_small and {"base_encoder", "momentum_encoder"} & set(place.split(".")) else {}


def _rank(place: str, places: list[str]) -> int:
    """Return how far a network is from being the one that its authors evaluate; 0 is that one."""
    students = [other for other in places if other.startswith("student.")]
    if place.startswith("teacher.") and not place.startswith("teacher.network.") and students:
        return 0
    words = set(re.split(r"[._]", place))
    return 2 if words & _FOLLOWERS else 1


def _outermost(key: str) -> str:
    """Return the first part of a name that tells something."""
    parts = key.split(".")
    return next((part for part in parts if part not in _WRAPPERS), parts[0])


def _shown(place: str) -> str:
    return ascii(place.rstrip(".")[:60])[1:-1]
