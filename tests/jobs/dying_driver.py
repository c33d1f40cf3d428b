"""jobs/multidomain.py, killed at a touch of a stage's files: its number, or `commit`.

python -m tests.jobs.dying_driver STORE RUN_DIR STAGE TOUCH OPTION ...
"""

import sys
from pathlib import Path

from jobs import multidomain
from tests.pipeline.faults.fatal_touch import COMMIT, Touches

if __name__ == "__main__":
    store, run_dir, stage, at, *options = sys.argv[1:]
    Touches(Path(store), Path(run_dir), (stage, at if at == COMMIT else int(at)))
    sys.exit(multidomain.main(options))
