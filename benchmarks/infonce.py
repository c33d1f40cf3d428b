"""InfoNCE with negatives shared by a tile against the same negatives gathered for each position.

    python -m benchmarks.infonce [--threads 1] [--repetitions 7]

Both sides compute the same loss of the same 2,048 x 512 logits, and its gradients: ours through
`ops.sampled_infonce`, the rival in plain PyTorch with the rows of negatives expanded to [T, K],
gathered to [T, K, d] by F.embedding (on a CPU the faster of the two ways to gather with a gradient;
indexing, table[expanded], is the other), and one cross-entropy. Equality is asked first.

Memory: one forward and backward in a fresh process, the peak of its resident memory above the level
just before. Either side must return the table's gradient, a dense [V, d]; the ratio held to the bar
counts it on both sides, the rows give the peaks less its size too.

Shapes: T positions, V items, d width, K negatives, G tiles.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Check, Timing, alternate, finish, median_ratio, rms_ratio
from pipeline import resident_memory
from user_model.ops import sampled_infonce

POSITIONS, NEGATIVES, WIDTH, ITEMS, TILE = 2048, 512, 128, 50_000, 128
TEMPERATURE = 0.07
FORMS = ("tiled", "gathered")
MIB = 1 << 20
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Problem:
    """One batch.

    Attributes:
        query: [T, d], a leaf.
        table: [V, d], a leaf.
        positive: int64 [T].
        negative: int64 [G, K], a row for each tile.
    """

    query: Tensor
    table: Tensor
    positive: Tensor
    negative: Tensor

    @classmethod
    def make(cls, positions: int = POSITIONS, items: int = ITEMS) -> "Problem":
        """Draw unit vectors and uniform ids; some negatives are their position's positive."""
        generator = torch.Generator().manual_seed(0)

        def unit(rows: int) -> Tensor:
            drawn = torch.randn(rows, WIDTH, generator=generator)
            return F.normalize(drawn, dim=-1).requires_grad_()

        query_Td, table_Vd = unit(positions), unit(items)
        positive_T = torch.randint(items, (positions,), generator=generator)
        tiles = -(-positions // TILE)
        negative_GK = torch.randint(items, (tiles, NEGATIVES), generator=generator)
        return cls(query_Td, table_Vd, positive_T, negative_GK)

    def tiled(self) -> Tensor:
        """Return the loss [T] by tile-shared negatives: ours."""
        return sampled_infonce(
            self.query, self.table, self.positive, self.negative,
            temperature=TEMPERATURE, tile=TILE, backend="torch",
        )  # fmt: skip

    def gathered(self) -> Tensor:
        """Return the loss [T] with a gathered row of its own for each position and negative."""
        query_Td, positive_T = self.query, self.positive
        expanded_TK = self.negative.repeat_interleave(TILE, 0)[: len(positive_T)]
        others_TK = torch.einsum("td,tkd->tk", query_Td, F.embedding(expanded_TK, self.table))
        others_TK = others_TK.masked_fill(expanded_TK == positive_T[:, None], -torch.inf)
        target_T = (query_Td * F.embedding(positive_T, self.table)).sum(-1)
        logits = torch.cat((target_T[:, None], others_TK), 1) / TEMPERATURE
        return F.cross_entropy(logits, torch.zeros_like(positive_T), reduction="none")

    def forward_backward(self, form: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss [T] of "tiled" or "gathered", and its mean's gradients of both leaves."""
        loss_T = self.tiled() if form == "tiled" else self.gathered()
        dquery, dtable = torch.autograd.grad(loss_T.mean(), (self.query, self.table))
        return loss_T.detach(), dquery, dtable


def differences(problem: Problem) -> dict[str, float]:
    """Return the RMS ratios between the two forms, of the loss and of each gradient."""
    pairs = zip(
        problem.forward_backward("tiled"), problem.forward_backward("gathered"), strict=True
    )
    names = ("loss", "query gradient", "table gradient")
    return {name: rms_ratio(*pair) for name, pair in zip(names, pairs, strict=True)}


def peak_extra_bytes(form: str) -> int:
    """Measure, in this process, by how much one forward and backward raises resident memory."""
    problem = Problem.make()
    # What is allocated once (threads, the matrix library's buffers) is not the call's own.
    Problem.make(2 * TILE, 1000).forward_backward(form)
    return resident_memory.peak_extra_bytes(partial(problem.forward_backward, form))[0]


def peak_of(form: str, threads: int) -> int:
    """Run `peak_extra_bytes` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.infonce", "--peak", form]
    done = subprocess.run(
        [*command, "--threads", str(threads)], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


def main() -> int:
    """Check equality, measure times and memory, print; return the exit status."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(peak_extra_bytes(arguments.peak))
        return 0
    problem = Problem.make()
    checks = [
        Check(f"{what}: RMS ratio", ratio, TOLERANCE, "most")
        for what, ratio in differences(problem).items()
    ]
    if not all(check.ok for check in checks):
        return finish("infonce", checks, [])  # the time of another result means nothing
    rivals = {form: partial(problem.forward_backward, form) for form in FORMS}
    seconds = alternate(rivals, arguments.repetitions)
    peaks = {form: peak_of(form, arguments.threads) for form in FORMS}
    ratio = median_ratio(seconds["gathered"], seconds["tiled"])
    smaller = peaks["gathered"] / peaks["tiled"]
    checks += [
        Check("time: gathered / tiled", ratio, 9.0, "least"),
        Check("peak extra memory: gathered / tiled", smaller, 20.0, "least"),
    ]
    return finish("infonce", checks, [_row(form, seconds[form], peaks[form]) for form in FORMS])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="tile-shared InfoNCE against gathered negatives")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--peak", choices=FORMS, help="print this form's peak in bytes, no more")
    return parser.parse_args()


def _row(form: str, seconds: list[float], peak: int) -> dict[str, str | float]:
    timing, without_table = Timing.of(seconds), peak - 4 * ITEMS * WIDTH
    print(
        f"{form:9} {timing}, peak {peak / MIB:.0f} MiB extra, "
        f"{without_table / MIB:.0f} less the table's gradient"
    )
    return {
        "form": form,
        "median_ms": 1e3 * timing.median,
        "min_ms": 1e3 * timing.low,
        "max_ms": 1e3 * timing.high,
        "peak_extra_mib": peak / MIB,
        "peak_extra_less_table_gradient_mib": without_table / MIB,
    }


if __name__ == "__main__":
    sys.exit(main())
