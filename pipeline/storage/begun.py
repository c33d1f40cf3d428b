"""What workers have left of an output in the making: checkpoints, and files that are finished.

One object lists it; putting that object anew is what counts, so a kill in the middle of an upload
leaves the list before it, whole.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import DamagedArtifactError, checksums
from pipeline.storage.bucket import Bucket
from pipeline.storage.copies import (
    Files,
    Tell,
    drop_others,
    get_files,
    keep_only,
    object_keys,
    put_files,
    silent,
)

log = logging.getLogger(__name__)

BEGUN = "begun.json"


@dataclass(frozen=True)
class Begun:
    """The working folder of one output, as far as it is in the store.

    Attributes:
        bucket: the store.
        prefix: the output's NAME-KEY16.
    """

    bucket: Bucket
    prefix: str

    def is_there(self) -> bool:
        """Whether an attempt has left something."""
        return self.bucket.read(self._key) is not None

    def keep(self, work: Path, tell: Tell = silent) -> None:
        """Put all files of a folder in the place of what was kept before."""
        before, files = object_keys(self._area, self._files()), checksums(work)
        put_files(self.bucket, self._area, work, files, tell)
        self.bucket.write(self._key, json.dumps({"files": files}, sort_keys=True).encode())
        kept = set(object_keys(self._area, files).values())
        self.bucket.delete(key for key in before.values() if key not in kept)

    def restore(self, work: Path, tell: Tell = silent) -> None:
        """Make a folder what was kept; what else stands in it is removed.

        If an object of it is damaged, that is said and the work begins anew.
        """
        files = self._files()
        try:
            get_files(self.bucket, self._area, work, files, tell)
        except DamagedArtifactError as error:
            log.warning("%s; what was begun of %s is begun anew", error, self.prefix)
            files = {}
        keep_only(work, files)

    def collect(self, work: Path, scratch: str, tell: Tell = silent) -> None:
        """Fetch what is finished, without the checkpoints below `scratch`.

        Raises:
            DamagedArtifactError: an object is absent or differs.
        """
        files = self._files()
        wanted = {n: facts for n, facts in files.items() if not n.startswith(f"{scratch}/")}
        get_files(self.bucket, self._area, work, wanted, tell)

    def forget(self) -> None:
        """Remove it: the output is finished, or was begun with a wrong input."""
        self.bucket.delete([self._key])
        drop_others(self.bucket, self._area, {})

    def _files(self) -> Files:
        found = self.bucket.read(self._key)
        if found is None:
            return {}
        try:
            files: Files = json.loads(found.data)["files"]
            object_keys(self._area, files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            place = f"{self.bucket.address}/{self._key}"
            log.warning("%s is damaged (%r); it is begun anew", place, error)
            return {}
        return files

    @property
    def _area(self) -> str:
        return f"{self.prefix}/begun"

    @property
    def _key(self) -> str:
        return f"{self.prefix}/{BEGUN}"
