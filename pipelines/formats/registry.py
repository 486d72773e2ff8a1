"""The on-disk formats, one line each; the first is the default of `--format`."""

from __future__ import annotations

from pathlib import Path

from pipelines.formats import beton_writer, shard_writer
from pipelines.formats.beton_format import BETON
from pipelines.formats.format import Format, OpenWriter
from pipelines.formats.shard_format import SHARDS

_REGISTERED: tuple[tuple[Format, OpenWriter], ...] = (
    (BETON, beton_writer.open_writer),
    (SHARDS, shard_writer.open_writer),
)
FORMATS: dict[str, Format] = {form.name: form for form, _ in _REGISTERED}
WRITERS: dict[str, OpenWriter] = {form.name: open_writer for form, open_writer in _REGISTERED}


def format_of(path: Path) -> Format | None:
    """Return the format of the data set at `path`, complete or not; None if it is none."""
    return next((form for form in FORMATS.values() if form.recognise(path)), None)
