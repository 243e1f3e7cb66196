"""What reading a document will take, told before it begins; and whether there is room for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from longfocus.errors import BookError
from longfocus.loading.cache import cache_dir
from longfocus.loading.load import LoadedModel
from longfocus.memory.int8 import STEP_BYTES
from longfocus.memory.layout import Reading
from longfocus.planning.ahead import Ahead, check_room, reading_ahead
from longfocus.planning.rates import RATES_FILE, rates_or_reference
from longfocus.planning.shapes import shape_of
from longfocus.planning.ways import way_of


def look_ahead(loaded: LoadedModel, reading: Reading, tokens: int) -> Ahead:
    """What it takes the model to read so many tokens in this way."""
    fields, kind = loaded.model.config.to_dict(), loaded.model.device.type
    shape = shape_of(fields)
    way = way_of(shape, fields, {"look_back": reading.look_back, "top_k": loaded.habits.top_k})
    way = replace(way, entry_item=reading.item_bytes, entry_step=STEP_BYTES if reading.packed else 0)
    device, note = rates_or_reference(cache_dir() / f"{kind}-{RATES_FILE}", kind)
    return reading_ahead(shape, way, tokens, device, str(loaded.model.dtype).removeprefix("torch."), note)


def check_disk(ahead: Ahead, folder: Path) -> None:
    """Refuse a Book for which the disk has no room; what an earlier run wrote is there already.

    Raises:
        BookError: There is too little room, or the disk cannot be asked.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        written = sum(file.stat().st_size for file in there.iterdir() if file.is_file()) if there == folder else 0
        check_room(ahead, shutil.disk_usage(there).free, folder, written)
    except OSError as error:
        raise BookError(f"cannot write to {folder}: {error.strerror or error}") from error
