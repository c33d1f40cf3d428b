"""One thin file for each job that a user submits."""
