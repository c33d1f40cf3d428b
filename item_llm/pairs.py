"""Next-item pairs."""


class ItemPairs:
    """Placeholder until the pairs are written."""


def next_item_pairs() -> None:
    """Placeholder until the pairs are written."""
