from pathlib import Path

import pytest

from tests.shards import SECONDS, Load, dealing_order, parsed_shard, seconds_of, shards

HERE = Path(__file__).parent
FILES = [*HERE.rglob("test_*.py")]


@pytest.mark.parametrize("count", [1, 3, 6, 20])
def test_every_file_is_in_one_shard(count):
    parts, loads = shards(FILES + FILES, count)
    assert sorted(file for part in parts for file in part) == sorted(FILES)
    assert [load.work for load in loads] == [sum(map(seconds_of, part)) for part in parts]


def test_shards_take_alike():
    durations = [load.duration for load in shards(FILES, 6)[1]]
    assert max(durations) <= 33 * 60
    assert max(durations) - min(durations) <= 10 * 60


def test_two_processes_share_what_needs_no_ray_and_is_not_timed():
    assert Load(ray=60, others=40, longest=30).duration == 60
    assert Load(ray=20, others=80, longest=30).duration == 50
    assert Load(ray=20, others=80, longest=70, timed=5).duration == 75


def test_what_takes_longest_is_dealt_out_first_and_a_group_as_one():
    names = ["test_shards.py", "jobs/test_nodes.py", "pipeline/faults/test_soak.py",
             "test_processes.py", "jobs/test_interrupt.py"]  # fmt: skip
    order = dealing_order({HERE / name for name in names})
    assert sorted(names, key=lambda name: order[HERE / name]) == [
        *("pipeline/faults/test_soak.py", "jobs/test_nodes.py", "jobs/test_interrupt.py"),
        *("test_processes.py", "test_shards.py"),
    ]
    assert order[HERE / "jobs/test_nodes.py"] == (-1300, "ray")


def test_the_long_files_are_there():
    assert [name for name in SECONDS if not (HERE / name).is_file()] == []
    assert {seconds_of(HERE / name) for name in SECONDS} == set(SECONDS.values())


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2/", "a/b", "-1/4"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(pytest.UsageError, match="expected NUMBER/COUNT"):
        parsed_shard(text)
