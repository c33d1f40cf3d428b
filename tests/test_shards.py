from pathlib import Path

import pytest

from tests.shards import files_of_shard, parsed_shard

FILES = [Path(f"tests/{folder}/test_{i}.py") for folder in ("jobs", "ops") for i in range(7)]


@pytest.mark.parametrize("count", [1, 3, 4, 20])
def test_every_file_is_in_one_shard(count):
    shards = [files_of_shard(FILES + FILES, number, count) for number in range(1, count + 1)]
    assert sorted(file for shard in shards for file in shard) == sorted(FILES)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_neighbours_are_dealt_out():
    jobs = [sum(f.parts[1] == "jobs" for f in files_of_shard(FILES, n, 4)) for n in range(1, 5)]
    assert max(jobs) - min(jobs) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2/", "a/b", "-1/4"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(pytest.UsageError, match="expected NUMBER/COUNT"):
        parsed_shard(text)
