from pathlib import Path

import pytest

from tests.shards import SECONDS, files_of_shard, parsed_shard, seconds_of

HERE = Path(__file__).parent
FILES = [*HERE.rglob("test_*.py")]


@pytest.mark.parametrize("count", [1, 3, 6, 20])
def test_every_file_is_in_one_shard(count):
    shards = [files_of_shard(FILES + FILES, number, count) for number in range(1, count + 1)]
    assert sorted(file for shard in shards for file in shard) == sorted(FILES)


def test_shards_take_alike():
    shards = [sum(map(seconds_of, files_of_shard(FILES, n, 6))) for n in range(1, 7)]
    assert sum(shards) == sum(map(seconds_of, FILES))
    assert max(shards) - min(shards) <= 60
    assert max(shards) <= 40 * 60


def test_the_long_files_are_there():
    assert [name for name in SECONDS if not (HERE / name).is_file()] == []
    assert {seconds_of(HERE / name) for name in SECONDS} == set(SECONDS.values())


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2/", "a/b", "-1/4"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(pytest.UsageError, match="expected NUMBER/COUNT"):
        parsed_shard(text)
