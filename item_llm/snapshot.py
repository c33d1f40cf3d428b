"""Dense snapshots of item vectors."""


class Snapshot:
    """Placeholder until the snapshot is written."""
