import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.event_order import event_order
from pipeline.sources.tables import EARLIEST, LATEST

times = st.integers(0, 2) | st.sampled_from([EARLIEST, LATEST])
events = st.lists(
    st.tuples(
        st.integers(0, 2) | st.just(2**29 - 1),
        times,
        st.integers(0, 1) | st.just(2**64 - 1),
        st.integers(0, 3),
    ),
    max_size=30,
)


@given(events)
def test_events_are_sorted_by_user_time_and_ties(given):
    users, timestamps, ties, items = (
        np.array([event[place] for event in given], dtype=kind)
        for place, kind in enumerate((np.int64, np.int64, np.uint64, np.int32))
    )
    order = event_order(users, timestamps, ties, items)
    assert sorted(order.tolist()) == list(range(len(given)))
    assert [given[place] for place in order] == sorted(given)
