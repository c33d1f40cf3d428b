"""Where relative paths lead to.

A job's working directory is a copy that Ray makes and removes, so what a run writes must not be
relative to it. Relative paths are read against the project's own folder instead: HYDRAREC_HOME if
it is set, else the folder of the editable install.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from pipeline.storage.bucket import is_remote

HOME_VARIABLE = "HYDRAREC_HOME"
DATA_VARIABLE = "HYDRAREC_DATA"


def project_root() -> Path:
    """The folder that relative run folders are read against; absolute.

    Raises:
        ValueError: the project is not installed in place and HYDRAREC_HOME is not set.
    """
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser().absolute()
    if root := _editable_install():
        return root
    raise ValueError(
        f"a relative path cannot be resolved: hydrarec is not installed in place here; set "
        f"{HOME_VARIABLE} to a folder that all nodes share, or give absolute paths"
    )


def data_root() -> Path:
    """The folder that the sources' relative paths are read against; absolute.

    HYDRAREC_DATA, or ../shared/data beside the project.
    """
    if data := os.environ.get(DATA_VARIABLE):
        return Path(data).expanduser().absolute()
    return project_root().parent / "shared" / "data"


def resolve(path: str | Path, against: Path) -> Path:
    """`path` itself if it is absolute, else below `against`; `~` is the user's home."""
    return (against / Path(path).expanduser()).absolute()


def resolve_place(place: str, against: Path) -> str | Path:
    """An address of an object store as it is; a path as `resolve` gives it."""
    return place if is_remote(place) else resolve(place, against)


def _editable_install() -> Path | None:
    # All of them: run from the project's folder, its egg-info is found before the real record.
    for installed in importlib.metadata.distributions(name="hydrarec"):
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return Path(unquote(urlparse(origin["url"]).path))
    return None
