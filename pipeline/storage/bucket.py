"""Objects below one s3:// address: whole puts, conditional puts, and errors that say what to do.

Credentials come from where the AWS tools take them (AWS_* variables, a profile, the machine's
role), the endpoint from AWS_ENDPOINT_URL. No message holds what a server answered: an answer may
repeat what was sent to it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_NOT_MET = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_REFUSED = {
    *("403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "AuthFailure", "Forbidden"),
}
_DELETED_AT_ONCE = 1000  # what the protocol allows
_making_a_client = threading.Lock()

Moved = Callable[[int], None]  # told of each piece of a transfer: bytes


class StorageError(RuntimeError):
    """An object store cannot be used: not reached, no such bucket, refused. No output is lost."""


class Content(NamedTuple):
    """An object's bytes, and the tag that it has until it is overwritten."""

    data: bytes
    tag: str


class Listed(NamedTuple):
    """An object in a listing: its bytes, and the tag that it has until it is overwritten."""

    size: int
    tag: str


def is_remote(place: str | Path) -> bool:
    """Whether a place in a config is an address of an object store, not a folder."""
    return "://" in str(place)


class Bucket:
    """The objects whose keys start with one address; a key here is what follows the address.

    Args:
        address: s3://BUCKET/PREFIX.

    Raises:
        ValueError: the address is of another kind, or names no bucket.
    """

    def __init__(self, address: str) -> None:
        scheme, _, rest = address.partition("://")
        self._bucket, _, prefix = rest.rstrip("/").partition("/")
        if scheme != "s3" or not self._bucket:
            raise ValueError(
                f"{address}: expected a folder or s3://BUCKET/PREFIX; other object stores are "
                "reached by their S3 interface and AWS_ENDPOINT_URL"
            )
        self._prefix = f"{prefix}/" if prefix else ""
        self.address = f"s3://{self._bucket}/{prefix}".rstrip("/")

    def read(self, key: str) -> Content | None:
        """A small object, or None where there is none."""
        with self._clear_errors():
            try:
                answer = _client().get_object(**self._at(key))
                return Content(answer["Body"].read(), answer["ETag"])
            except _client().exceptions.NoSuchKey:
                return None

    def write(
        self, key: str, data: bytes, *, if_absent: bool = False, if_tag: str | None = None
    ) -> str | None:
        """Put a small object whole.

        Args:
            key: its name.
            data: its bytes.
            if_absent: only where there is none yet.
            if_tag: only over the object with this tag.

        Returns:
            The new object's tag; None where the condition was not met and nothing was written.
        """
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_tag} if if_tag else {}
        with self._clear_errors():
            from botocore.exceptions import ClientError

            try:
                tag: str = _client().put_object(**self._at(key), Body=data, **condition)["ETag"]
                return tag
            except ClientError as error:
                # Of an object that is gone, If-Match is answered by NoSuchKey.
                if condition and _code(error) in _NOT_MET | _ABSENT:
                    return None
                raise

    def upload(self, key: str, path: Path, moved: Moved, kind: str | None = None) -> None:
        """Put a file, in parts where it is large; it is there whole or not at all.

        Args:
            key: its name.
            path: the file.
            moved: told of each piece.
            kind: the content type that browsers are told.
        """
        more = {"ContentType": kind} if kind else {}
        with self._clear_errors():
            _client().upload_file(
                str(path),
                self._bucket,
                self._prefix + key,
                ExtraArgs=more,
                Callback=moved,
                Config=_parts(),
            )

    def download(self, key: str, path: Path, moved: Moved) -> bool:
        """Get an object into a file; False where there is none."""
        with self._clear_errors():
            from botocore.exceptions import ClientError

            try:
                _client().download_file(
                    self._bucket, self._prefix + key, str(path), Callback=moved, Config=_parts()
                )
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return False
                raise
            return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key and bytes of each object whose key starts so."""
        return {key: found.size for key, found in self.listed(prefix).items()}

    def listed(self, prefix: str) -> dict[str, Listed]:
        """Key, bytes and tag of each object whose key starts so."""
        with self._clear_errors():
            pages = _client().get_paginator("list_objects_v2")
            start, found = len(self._prefix), dict[str, Listed]()
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    found[entry["Key"][start:]] = Listed(int(entry["Size"]), entry["ETag"])
            return found

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the store."""
        with self._clear_errors():
            _client().copy(self._at(key), self._bucket, self._prefix + to)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        listed = [{"Key": self._prefix + key} for key in keys]
        with self._clear_errors():
            for start in range(0, len(listed), _DELETED_AT_ONCE):
                some = {"Objects": listed[start : start + _DELETED_AT_ONCE], "Quiet": True}
                _client().delete_objects(Bucket=self._bucket, Delete=some)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Say in one sentence what is wrong with the store.

        Raises:
            StorageError: instead of the client's own errors.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            # `from None`: the client's own message may hold the request.
            raise StorageError(f"{self.address}: {self._sentence(error)}") from None

    def _sentence(self, error: Exception) -> str:
        from botocore.exceptions import (
            ConnectionError,
            CredentialRetrievalError,
            HTTPClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        code = _code(error)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if code == "NoSuchBucket":
            return f"there is no bucket {self._bucket}; make it, or correct the address"
        if code in _REFUSED or isinstance(error, CredentialRetrievalError):
            return (
                f"the credentials were refused ({code or type(error).__name__}); see the AWS_* "
                "variables of this machine, and that they may list, read, write and delete there"
            )
        if isinstance(error, ConnectionError | HTTPClientError):
            where = _setting(_ENDPOINTS) or "the endpoint of AWS"
            return (
                f"{where} cannot be reached ({type(error).__name__}); see the network and "
                "AWS_ENDPOINT_URL, then give the same command again"
            )
        return f"the store failed ({code or type(error).__name__}); give the same command again"


def _code(error: Exception) -> str:
    """The store's own code of an error: of a transfer's, that of its cause."""
    answer = getattr(error, "response", None) or getattr(error.__context__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def _setting(names: Iterable[str]) -> str | None:
    return next((found for name in names if (found := os.environ.get(name))), None)


def _client() -> Any:
    with _making_a_client:  # clients may be shared by threads, but not made by two at once
        return _made_client(_setting(_ENDPOINTS), _setting(_REGIONS))


@functools.cache
def _made_client(endpoint: str | None, region: str | None) -> Any:
    # Here, since it takes 0.3 s to import, and only runs with such a store need it.
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=16,
        s3={"addressing_style": "path"} if endpoint else {},
    )
    session = boto3.session.Session()
    return session.client("s3", endpoint_url=endpoint, region_name=region, config=settings)


@functools.cache
def _parts() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_chunksize=16 << 20, max_concurrency=8)
