"""Objects below an address: conditional puts, and what a user reads where a store fails."""

import socket
import urllib.request

import pytest

from pipeline.storage.bucket import Bucket, StorageError


def test_a_conditional_put_leaves_what_is_there(bucket):
    store = Bucket(bucket)
    first = store.write("a/b", b"one", if_absent=True)
    assert first
    assert store.write("a/b", b"two", if_absent=True) is None
    assert store.read("a/b") == (b"one", first)
    second = store.write("a/b", b"two", if_tag=first)
    assert second
    assert store.write("a/b", b"three", if_tag=first) is None
    assert store.read("a/b").data == b"two"


def test_an_object_that_is_gone_is_not_put_again_under_its_tag(bucket):
    store = Bucket(bucket)
    tag = store.write("a", b"one")
    store.delete(["a"])
    assert store.write("a", b"two", if_tag=tag) is None
    assert store.read("a") is None


def test_files_go_up_and_down_and_each_byte_is_told(bucket, tmp_path):
    store = Bucket(bucket)
    data = bytes(range(256)) * 80_000  # 20 MB: in two parts
    (tmp_path / "up").write_bytes(data)
    up, down = [], []
    store.upload("x/big", tmp_path / "up", up.append)
    assert store.sizes("x/") == {"x/big": len(data)}
    assert store.download("x/big", tmp_path / "down", down.append)
    assert (tmp_path / "down").read_bytes() == data
    assert sum(up) == sum(down) == len(data)
    assert not store.download("x/absent", tmp_path / "absent", down.append)
    store.copy("x/big", "y/big")
    assert store.sizes("") == {"x/big": len(data), "y/big": len(data)}


def test_two_prefixes_of_a_bucket_do_not_see_each_other(bucket):
    one, other = Bucket(f"{bucket}/one"), Bucket(f"{bucket}/one-more")
    one.write("k", b"1")
    other.write("k", b"2")
    assert one.sizes("") == {"k": 1}
    assert one.read("k").data == b"1"


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://", "s3:///prefix", "https://host/x"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(ValueError, match=r"expected a folder or s3://BUCKET/PREFIX"):
        Bucket(address)


def test_a_missing_bucket_is_named(bucket):
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/p: there is no bucket no-such"):
        Bucket("s3://no-such-bucket/p").read("k")


def test_an_endpoint_that_nobody_listens_on_is_named(bucket, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=rf"{endpoint} cannot be reached"):
        Bucket(bucket).read("k")


def test_absent_credentials_are_said(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    # Another region: the client of the other tests has found credentials already.
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        Bucket(bucket).read("k")


def test_refused_credentials_are_said_and_not_repeated(bucket, s3_server):
    look_at_signatures(s3_server, after="0")  # what is sent is of no user that it knows
    try:
        with pytest.raises(StorageError, match="the credentials were refused") as told:
            Bucket(bucket).read("k")
    finally:
        look_at_signatures(s3_server, after="inf")
    assert "very-secret" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


def look_at_signatures(server, *, after):
    """Have the server refuse requests, after so many that it lets through."""
    request = urllib.request.Request(
        f"{server}/moto-api/reset-auth", after.encode(), {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).close()
