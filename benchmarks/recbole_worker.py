"""Loads atomic files with RecBole, in the environment that has it: what it takes and what it holds.

    .venv-recbole/bin/python -m benchmarks.recbole_worker FOLDER NAME K_CORE

FOLDER/NAME/NAME.inter and NAME.item are loaded once for each line of standard input, as RecBole's
`create_dataset` does: read, filtered to the k-core, ids numbered. Each answer is a JSON line:
seconds of the call alone, by the wall and of the CPU, and how many interactions, users and items.
"""

import json
import sys
import time


def main(folder: str, name: str, k_core: str) -> None:
    """Import and configure first, neither of which is timed; then load as often as asked."""
    from recbole.config import Config
    from recbole.data import create_dataset

    enough = f"[{k_core},inf)"
    settings = {
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]},
        "user_inter_num_interval": enough,
        "item_inter_num_interval": enough,
        "use_gpu": False,
        "state": "CRITICAL",
    }
    sys.argv = sys.argv[:1]  # RecBole reads settings from there
    # Any model will do: loading does not depend on it.
    config = Config(model="BPR", dataset=name, config_dict=settings)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began, began_cpu = time.perf_counter(), time.process_time()
        dataset = create_dataset(config)
        answer = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - began_cpu,
            "interactions": dataset.inter_num,
            "users": dataset.user_num - 1,  # RecBole counts its padding
            "items": dataset.item_num - 1,
        }
        print(json.dumps(answer), flush=True)
        del dataset


if __name__ == "__main__":
    main(*sys.argv[1:])
