"""Every evaluation protocol by its name. A new protocol is a file beside this one and a line here."""

from __future__ import annotations

from models.evaluation.protocol import Protocol
from models.evaluation.protocols import finetune, knn, linear, retrieve

PROTOCOLS: dict[str, type[Protocol]] = {
    cls.name: cls
    for cls in (
        knn.KnnProtocol,
        linear.LinearProtocol,
        finetune.FinetuneProtocol,
        retrieve.RetrieveProtocol,
    )
}


def protocol_of(id: str) -> type[Protocol]:
    """Return the class whose protocols have ids such as this one; `Protocol` itself for an unknown id."""
    return PROTOCOLS.get(id.partition("-")[0], Protocol)
