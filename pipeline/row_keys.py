"""Keys of the corpus's rows: whose they are."""

from __future__ import annotations

import polars as pl


def user_key(platform: str, user: str, sequence_domain: str | None = None) -> str:
    """The key of a row: `platform:user`, or `platform:domain:user` for an `order: sequence` domain.

    `%` and `:` in a user id are written %25 and %3A, so that no two people share a key.
    """
    user = user.replace("%", "%25").replace(":", "%3A")
    return ":".join([platform, *([sequence_domain] if sequence_domain else []), user])


def user_keys(platform: str, users: pl.Series, sequence_domain: str | None = None) -> pl.Series:
    """`user_key` of each user, String [n]."""
    escaped = users.str.replace_all("%", "%25", literal=True)
    escaped = escaped.str.replace_all(":", "%3A", literal=True)
    return user_key(platform, "", sequence_domain) + escaped


def user_ids(platform: str, keys: pl.Series, sequence_domain: str | None = None) -> pl.Series:
    """The users behind keys that `user_keys` gave, String [n]."""
    escaped = keys.str.strip_prefix(user_key(platform, "", sequence_domain))
    users = escaped.str.replace_all("%3A", ":", literal=True)
    return users.str.replace_all("%25", "%", literal=True)


def person_key(key: str) -> str:
    """The person behind a row's key, `platform:user`, whichever domain the row is of."""
    platform, *_, user = key.split(":")
    return f"{platform}:{user}"
