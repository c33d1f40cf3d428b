"""Actors that a driver shares with its workers, on the driver's own node.

They need no CPU, so Ray would put them anywhere; on a node that dies they would take the run with
them, which the death of workers does not. Without the driver's node there is no run.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_drivers_node(kind: type, **options: Any) -> Any:
    """An actor of this class, made without arguments; to be called by the driver.

    Args:
        kind: the class.
        options: of Ray, for the actor.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here, **options)(kind).remote()
