"""Telling files that this user wrote from others that look the same.

Faiss believes the files it reads: one that was made to deceive can make it write where it should not. So no index is
handed to it but one that was built here. Its record is sealed with a key that never leaves this user's own folder
(HMAC-SHA-256); an index that came with a Book from elsewhere is not opened but built anew.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import platformdirs

from longfocus.errors import BookError

_KEY_BYTES = 32


def key_path() -> Path:
    """Where the user's key lies."""
    return Path(platformdirs.user_data_dir("longfocus"), "index.key")


def seal_of(record: dict[str, Any]) -> str:
    """The seal of a record of plain values, as hexadecimal digits.

    Raises:
        BookError: The key can neither be read nor made.
    """
    told = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(_key(), told, sha256).hexdigest()


def is_sealed(record: dict[str, Any], seal: object) -> bool:
    """Whether this user sealed the record; one who has no key yet sealed nothing.

    Raises:
        BookError: The key is there and cannot be read, or is damaged.
    """
    if not os.path.lexists(key_path()):
        return False
    return isinstance(seal, str) and hmac.compare_digest(seal_of(record).encode(), seal.encode("utf-8", "replace"))


def _key() -> bytes:
    path = key_path()
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise BookError(f"cannot use {path}, which seals indexes: {error.strerror}") from None
    if len(key) != _KEY_BYTES:
        raise BookError(f"{path} is damaged; remove it and build indexes anew with `longfocus index`")
    return key


def _make(path: Path) -> None:
    """Put a new key there, whole or not at all; one that another process was quicker to make stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)  # readable for this user only
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        os.link(name, path)
    except FileExistsError:
        return
    finally:
        os.unlink(name)
