"""The only package that imports ray: clusters, Train workers, Data actors, job submission."""

import os

# Ray reads this when it is imported. A thread that outlives its connection (after Ctrl-C) would
# otherwise start a new Ray with its next call.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
