"""Drawing purchases one by one, compiled. Exactly the law of `shop`, in less than O(I) a purchase.

Items with the same values of all attributes form a cluster, and within it only popularity counts.
So a cluster is drawn by its summed popularity times the person's wish for its values, then an item
in it by popularity; a draw of something bought before is thrown away, which leaves the law among
the others. Where that happens too often, one draw looks at every item.

Legend: B people, C clusters, I items (sorted by cluster, the cold ones of each last), V values,
F and K pairs of values: of the first two attributes, and of the last two; L lanes; N runs
of RUN clusters, C' = N * RUN: C and zeros that make whole runs.
"""

# The types of compiled functions are inferred by numba from what they are called with.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.sources.lane_kernels import LANES, RUN, add_run
from user_model.ops.kernel_cache import kernel

_TRIES = 64
_STEP = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


class Law(NamedTuple):
    """A shop as the kernels see it."""

    front_pairs: Any  # uint8 [F, 2]
    back_pairs: Any  # uint8 [K, 2]
    front: Any  # int64 [C'], which front pair a cluster has
    back: Any  # int64 [C']
    next: Any  # float64 [V, V]
    item_values: Any  # uint8 [I, 4], by item number
    items: Any  # int64 [I], item numbers in the kernels' order
    mass: Any  # float64 [2, I + 1], popularity on the first and last day, summed up to each place
    start: Any  # int64 [C], a cluster's first place
    warm_end: Any  # int64 [C], behind its last item that is not cold
    end: Any  # int64 [C], behind its last item
    cluster_mass: Any  # float64 [2, 2, C']: without and with cold items, on first and last day
    drift: float
    first_day: float
    last_day: float
    cold_from: float


@kernel
def _uniform(state):
    """The next number of one person's stream (splitmix64), 0 <= x < 1."""
    state[0] += _STEP
    x = state[0]
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return float((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@kernel
def _draw_times(times, begin, end, law, state):
    """Distinct increasing seconds between two shares of the whole time."""
    places = np.empty(len(times))
    for k in range(len(times)):
        places[k] = _uniform(state)
    places.sort()
    for k in range(len(times)):
        share = begin + places[k] * (end - begin)
        times[k] = np.int64(law.first_day + share * (law.last_day - law.first_day))
        if k and times[k] <= times[k - 1]:
            times[k] = times[k - 1] + 1


@kernel
def _place_of(sums, target, low, high):
    """The first place in low .. high - 1 whose sum up to and with it is above the target."""
    last = high - 1
    while low < last:
        middle = (low + last) // 2
        if sums[middle] > target:
            last = middle
        else:
            low = middle + 1
    return low


@kernel
def _weigh_pairs(taste, previous, law, wish, front, back):
    """Odds that the person gives to each pair of values, to front [F] and back [K]."""
    for v in range(len(wish)):
        log_odds = taste[v]
        if previous >= 0:
            for value in law.item_values[previous]:
                log_odds += law.next[value, v]
        wish[v] = np.exp(log_odds)
    for pair in range(len(front)):
        front[pair] = wish[law.front_pairs[pair, 0]] * wish[law.front_pairs[pair, 1]]
    for pair in range(len(back)):
        back[pair] = wish[law.back_pairs[pair, 0]] * wish[law.back_pairs[pair, 1]]


@kernel
def _sum_clusters(sums, front, back, moved, mass, law):
    """Write the summed weights of all clusters up to the end of each run to sums [1 + N, L].

    The sums within a run are not kept: they would leave the cache nearest to the processor. mass
    is float64 [2, C'].
    """
    rest, at = 1 - moved, sums.ctypes.data
    shares, odds = (rest.ctypes.data, moved.ctypes.data), (front.ctypes.data, back.ctypes.data)
    sums[0] = 0
    for n in range(len(sums) - 1):
        there = 8 * RUN * n
        masses = (mass[0].ctypes.data + there, mass[1].ctypes.data + there)
        places = (law.front.ctypes.data + there, law.back.ctypes.data + there)
        row = at + 8 * LANES * n
        add_run(row, row + 8 * LANES, masses, shares, odds, places)


@kernel
def _cluster_of(target, sums, front, back, moved, mass, law):
    """The first cluster whose running sum is above the target, by the sums of runs [1 + N]."""
    n = _place_of(sums[1:], target, 0, len(sums) - 1)
    total, last = sums[n], min((n + 1) * RUN, len(law.start)) - 1
    for c in range(n * RUN, last):
        popularity = (1 - moved) * mass[0, c] + moved * mass[1, c]
        total += popularity * front[law.front[c]] * back[law.back[c]]
        if total > target:
            return c
    return last


@kernel
def _draw_in_cluster(c, moved, ends, mass, law, state):
    first = (1 - moved) * mass[0, c]
    day = 0 if _uniform(state) * (first + moved * mass[1, c]) < first else 1
    low, high, sums = law.start[c], ends[c], law.mass[day]
    target = sums[low] + _uniform(state) * (sums[high] - sums[low])
    return law.items[_place_of(sums[1:], target, low, high)]


@kernel
def _draw_among_all(bought, front, back, moved, ends, law, state):
    """One draw that looks at every item: the plain way."""
    sums, total = np.empty(len(law.items)), 0.0
    for c in range(len(law.start)):
        factor = front[law.front[c]] * back[law.back[c]]
        for place in range(law.start[c], law.end[c]):
            if place < ends[c] and not bought[law.items[place]]:
                first = law.mass[0, place + 1] - law.mass[0, place]
                last = law.mass[1, place + 1] - law.mass[1, place]
                total += factor * ((1 - moved) * first + moved * last)
            sums[place] = total
    return law.items[_place_of(sums, _uniform(state) * total, 0, len(sums))]


@kernel
def _draw(bought, front, back, moved, is_warm, law, state, sums):
    """One draw of one lane; sums of runs [1 + N]."""
    ends = law.warm_end if is_warm else law.end
    mass = law.cluster_mass[0 if is_warm else 1]
    for _ in range(_TRIES):
        target = _uniform(state) * sums[-1]
        c = _cluster_of(target, sums, front, back, moved, mass, law)
        item = _draw_in_cluster(c, moved, ends, mass, law, state)
        if not bought[item]:
            return item
    return _draw_among_all(bought, front, back, moved, ends, law, state)


@kernel
def draw_purchases(taste, begin, end, seeds, offsets, law, items, times):
    """Fill items and times, int64 [E]: person b's stand at offsets[b] .. offsets[b + 1] - 1.

    L people buy side by side, each in a lane and by a stream of their own, so who is beside whom
    changes nothing; who is done makes room for the next. Everybody buys something.

    Args:
        taste: float64 [B, V]; begin, end: float64 [B]; seeds: uint64 [B]; offsets: int64 [B + 1].
    """
    bought = np.zeros((LANES, len(law.items)), dtype=np.bool_)
    sums = np.empty((2, 1 + len(law.front) // RUN, LANES))
    wish = np.empty(taste.shape[1])
    front = np.zeros((len(law.front_pairs), LANES))
    back = np.zeros((len(law.back_pairs), LANES))
    state = np.zeros((LANES, 1), dtype=np.uint64)
    moved, cold = np.zeros(LANES), np.zeros(LANES, dtype=np.int64)
    person, at = np.full(LANES, -1), np.zeros(LANES, dtype=np.int64)
    following = buying = 0
    while following < len(seeds) or buying:
        for lane in range(LANES):
            if person[lane] < 0 and following < len(seeds):
                person[lane], at[lane] = following, offsets[following]
                state[lane, 0] = seeds[following]
                own = times[offsets[following] : offsets[following + 1]]
                _draw_times(own, begin[following], end[following], law, state[lane])
                following, buying = following + 1, buying + 1
            if person[lane] >= 0:
                time = times[at[lane]]
                moved[lane] = law.drift * (time - law.first_day) / (law.last_day - law.first_day)
                cold[lane] = 0 if time < law.cold_from else 1
                is_later = at[lane] > offsets[person[lane]]
                previous = items[at[lane] - 1] if is_later else np.int64(-1)
                wishes = taste[person[lane]]
                _weigh_pairs(wishes, previous, law, wish, front[:, lane], back[:, lane])
        for kind in range(2):
            if ((cold == kind) & (person >= 0)).any():
                mass = law.cluster_mass[kind]
                _sum_clusters(sums[kind], front, back, moved, mass, law)
        for lane in range(LANES):
            if person[lane] >= 0:
                item = _draw(
                    bought[lane], front[:, lane], back[:, lane], moved[lane], cold[lane] == 0, law,
                    state[lane], sums[cold[lane], :, lane],
                )  # fmt: skip
                items[at[lane]] = item
                bought[lane, item] = True
                at[lane] += 1
                if at[lane] == offsets[person[lane] + 1]:
                    for place in range(offsets[person[lane]], at[lane]):
                        bought[lane, items[place]] = False
                    person[lane], buying = -1, buying - 1
