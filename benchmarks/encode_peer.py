"""A process that encodes texts with sentence-transformers, in the peers' venv.

`python -m benchmarks.encode_peer THREADS FOLDER MAX_TOKENS` reads requests from standard input and
writes answers to standard output, as `benchmarks.peer_worker` does: {"texts": [...]} -> tensor
`vectors` float32 [n, d], {"seconds": s} of the encoding alone.
"""

import contextlib
import os
import sys
import time

import torch

from benchmarks.peer_worker import receive, send


def main() -> None:
    """Serve; what libraries print goes to standard error."""
    from sentence_transformers import SentenceTransformer

    threads, folder, max_tokens = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    model.max_seq_length = max_tokens
    with contextlib.suppress(EOFError):
        while True:
            request, _ = receive(sys.stdin.buffer)
            began = time.perf_counter()
            vectors = model.encode(
                request["texts"], convert_to_tensor=True, normalize_embeddings=True
            )
            seconds = time.perf_counter() - began
            send(answers, {"ok": True, "seconds": seconds}, {"vectors": vectors.float()})


if __name__ == "__main__":
    main()
