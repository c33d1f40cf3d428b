"""Where this machine mirrors an object store."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

CACHE_VARIABLE = "HYDRAREC_CACHE"


def mirror_of(address: str) -> Path:
    """The folder of this machine in which an address is mirrored: HYDRAREC_CACHE, or ~/.cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    cache = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "hydrarec"
    plain = address.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", plain.partition("://")[2])[:60]
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return (cache / "stores" / f"{readable}-{digest}").absolute()
