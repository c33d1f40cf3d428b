"""The time channel: the gap between an event and the one before it, as Hydra's heads take it.

A gap of g seconds is log(1 + g): 0 for none, 4 for a minute, 11 for a day. Added to dt before
softplus with a weight w, it multiplies a small step by (1 + g)^w: at 1 the step is the time itself.
And each power of two of seconds has a vector that is added to the event's input, so that a gap can
say what a factor cannot, as that two events are of one moment [D]. Both begin as nothing.
Only gaps before events that have happened are used; how long ago the last one lies when the next
item is asked for is left out, since that is the time of the target [D]. The first kept event of a
history has no event before it, and the gap 0, as its position is 0.
Shapes: T packed tokens, S sequences, n users with one event each.
"""

import math

import torch
from torch import Tensor

# In the place of the time of an event that there was none of; smaller than any.
NO_EVENT = -(1 << 62)

# Powers of two of seconds, up to 68 years.
GAP_BUCKETS = 32


def log_gaps(seconds: Tensor) -> Tensor:
    """Return log(1 + seconds), float64, of whole seconds; below 0 counts as 0.

    >>> log_gaps(torch.tensor([0, 86400, -5])).round(decimals=2).tolist()
    [0.0, 11.37, 0.0]
    """
    return seconds.clamp_min(0).double().log1p_()


def gap_buckets(gaps: Tensor) -> Tensor:
    """Return the bucket of each log gap, int64 below GAP_BUCKETS: 0 for none, then powers of 2 s.

    >>> gap_buckets(log_gaps(torch.tensor([0, 1, 2, 3, 60, 86400]))).tolist()
    [0, 1, 1, 2, 5, 16]
    """
    # A hair above, so that 1 + g = 2^b falls on bucket b whatever the rounding.
    return (gaps / math.log(2.0) + 1e-6).long().clamp_max(GAP_BUCKETS - 1)


def packed_gaps(times_T: Tensor, cu_seqlens: Tensor, before_S: Tensor | None = None) -> Tensor:
    """Return the log of the gap before each event, float64 [T].

    Args:
        times_T: int64, unix seconds of the events, packed.
        cu_seqlens: int64 [S + 1], their seams.
        before_S: int64 [S], time of the event before each sequence, NO_EVENT where there was none;
            None: nowhere.
    """
    before_T = torch.cat((times_T[:1], times_T[:-1]))
    filled_S = cu_seqlens[1:] > cu_seqlens[:-1]
    first = cu_seqlens[:-1][filled_S]
    own = times_T[first]
    if before_S is not None:
        before = before_S[filled_S]
        own = torch.where(before == NO_EVENT, own, before)
    before_T[first] = own
    return log_gaps(times_T - before_T)


def last_times(times_T: Tensor, cu_seqlens: Tensor, before_S: Tensor | None = None) -> Tensor:
    """Return the time of each sequence's last event, int64 [S]; without one, that of before_S."""
    filled_S = cu_seqlens[1:] > cu_seqlens[:-1]
    times_S = times_T.new_full(filled_S.shape, NO_EVENT) if before_S is None else before_S.clone()
    times_S[filled_S] = times_T[cu_seqlens[1:][filled_S] - 1]
    return times_S


def check_times(times: Tensor | None, shape: torch.Size, *, wanted: bool) -> None:
    """Raise ValueError unless there are times int64 of this shape where they are wanted."""
    if not wanted:
        return
    if times is None or times.shape != shape or times.dtype != torch.int64:
        got = "none" if times is None else f"{times.dtype} {list(times.shape)}"
        raise ValueError(
            f"times: got {got}, expected int64 {list(shape)}, the unix seconds of each event, "
            "since the model has time_gaps; pass them, or set time_gaps to false"
        )
