"""Compile the shipped Triton kernels for GPUs that are not here, and hold them to a gate.

    python -m benchmarks.aot             # the usual variants, and the sources of all
    python -m benchmarks.aot --all       # every variant
    python -m benchmarks.aot --update    # what is not in the golden as it is now, and write that

A variant is what `aot_signatures()` of an op's module gives: kernel, argument types, constants,
warps, stages and, where not both, the architectures. Registers, spills, stack, shared memory and
instructions are what ptxas and the PTX say; no device is needed and none is looked for. The gate:
no spill, no stack, at most 48 KB of shared memory, no wgmma, no tf32, no atomics, and the same
figures as tests/aot/golden.json. The golden also keeps a hash of each variant's source and
arguments: as long as these and the pinned Triton are the same, so is what is compiled. So one
variant a kernel and type is compiled each time, and all after a change. Exit status 1 where the
gate fails, 2 under TRITON_INTERPRET, where there is nothing to compile. Our design, after KERNELS.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.harness import Check, finish

MODULES = (
    "user_model.ops.convolution_triton",
    "user_model.ops.infonce_triton",
    "user_model.ops.scan_triton",
)
ARCHITECTURES = (80, 90)
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "aot" / "golden.json"
SHARED_LIMIT = 48 * 1024
# Kernels that may use Hopper's wgmma: none, until a device has shown that it is right and faster.
WGMMA_ALLOWED: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """A kernel as it is launched.

    Attributes:
        kernel: the jit function.
        types: Triton's type of every argument that is not a constant; ":16" after it says that 16
            divides the integer; pointers always are.
        constants: the constexpr arguments.
        warps: num_warps.
        stages: num_stages.
        architectures: for which it is shipped.
    """

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int
    architectures: tuple[int, ...] = ARCHITECTURES

    @property
    def name(self) -> str:
        """What tells it from the others: kernel, type of the first argument, constants, warps."""
        first = next(iter(self.types.values())).lstrip("*")
        constants = (f"{name}={_plain(value)}" for name, value in self.constants.items())
        launch = f"warps={self.warps} stages={self.stages}"
        return " ".join((self.kernel.__name__, first, *constants, launch))

    @property
    def fingerprint(self) -> str:
        """A hash of what is compiled: the sources without comments, and what they are given."""
        constants = {name: _plain(value) for name, value in self.constants.items()}
        given = [*sources(self.kernel), self.types, constants, self.warps, self.stages]
        return hashlib.sha256(repr(given).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Compiled:
    """What became of a variant on one architecture; sizes in bytes, counts of PTX instructions."""

    fingerprint: str
    registers: int
    spills: int
    stack: int
    shared: int
    mma: int
    wgmma: int
    tf32: int
    atomics: int


def variants(modules: Iterable[str] = MODULES) -> list[Variant]:
    """Return every shipped variant; raise ValueError where two bear the same name."""
    found = [
        Variant(*signature)
        for module in modules
        for signature in importlib.import_module(module).aot_signatures()
    ]
    names = [variant.name for variant in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"aot_signatures: expected one variant a name, got several of {twice}")
    return found


def usual(found: Sequence[Variant]) -> list[Variant]:
    """Keep the first variant of each kernel and type."""
    first: dict[tuple[str, ...], Variant] = {}
    for variant in found:
        first.setdefault(tuple(variant.name.split()[:2]), variant)
    return list(first.values())


def sources(kernel: Any) -> list[str]:
    """Return the syntax trees of a kernel and, in turn, of the jit functions that it calls."""
    names = kernel.fn.__code__.co_names
    called = (kernel.fn.__globals__.get(name) for name in names)
    inner = [text for fn in called if hasattr(fn, "arg_names") for text in sources(fn)]
    return [ast.dump(ast.parse(kernel.src)), *inner]


def compile_variant(variant: Variant, architecture: int) -> Compiled:
    """Compile for sm_ARCHITECTURE and read the result."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    types = {n: t.removesuffix(":16") for n, t in variant.types.items()}
    # What the launcher finds out at run time: which pointers and integers are multiples of 16.
    divisible = {
        (names.index(n),): [["tt.divisibility", 16]]
        for n, t in variant.types.items()
        if t.startswith("*") or t.endswith(":16")
    }
    source = ASTSource(
        fn=variant.kernel,
        signature={n: types.get(n, "constexpr") for n in names},
        constexprs=variant.constants,
        attrs=divisible,
    )
    options = {
        "num_warps": variant.warps,
        "num_stages": variant.stages,
        "enable_fp_fusion": True,
    }
    log = io.StringIO()
    # The log is only there where ptxas runs: no cache of earlier results.
    with (
        tempfile.TemporaryDirectory() as cache,
        triton.knobs.cache.scope(),
        triton.knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        triton.knobs.cache.dir = cache
        triton.knobs.nvidia.dump_ptxas_log = True
        target = GPUTarget("cuda", architecture, 32)
        compiled = triton.compile(source, target=target, options=options)
    return _read(variant, compiled.asm["ptx"], compiled.metadata.shared, log.getvalue())


def _read(variant: Variant, ptx: str, shared: int, log: str) -> Compiled:
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", log)
    registers = re.findall(r"Used (\d+) registers", log)
    assert len(frames) == len(registers) == 1, f"ptxas said something else: {log}"
    stack, stores, loads = map(int, frames[0])
    return Compiled(
        fingerprint=variant.fingerprint,
        registers=int(registers[0]),
        spills=stores + loads,
        stack=stack,
        shared=shared,
        mma=len(re.findall(r"\bmma\.sync", ptx)),
        wgmma=len(re.findall(r"\bwgmma\.mma_async", ptx)),
        tf32=len(re.findall(r"\btf32\b", ptx.replace(".", " "))),
        atomics=len(re.findall(r"^\s*(?:@\S+\s+)?(?:atom|red)\.", ptx, re.MULTILINE)),
    )


def compile_all(found: Sequence[Variant], processes: int) -> dict[str, Compiled]:
    """Compile every variant for every architecture; the key ends in the architecture."""
    jobs = [(variant.name, cc) for variant in found for cc in variant.architectures]
    keys = [f"{name} sm_{cc}" for name, cc in jobs]
    if processes == 1:
        by_name = {variant.name: variant for variant in found}
        return dict(
            zip(keys, [compile_variant(by_name[name], cc) for name, cc in jobs], strict=True)
        )
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return dict(zip(keys, pool.map(_compile_named, jobs), strict=True))


def _compile_named(job: tuple[str, int]) -> Compiled:
    """Find a variant again in a process of its own: jit functions do not travel."""
    name, architecture = job
    return compile_variant(_variants_by_name()[name], architecture)


def _variants_by_name() -> dict[str, Variant]:
    return {variant.name: variant for variant in variants()}


def checks(
    found: Sequence[Variant], compiled: dict[str, Compiled], golden: dict[str, Compiled]
) -> list[Check]:
    """Hold what is shipped to the gate.

    Args:
        found: every variant.
        compiled: those that were compiled now.
        golden: what is kept of all; it stands for the variants that were not compiled.
    """
    stale = stale_keys(found, golden)
    changed = {key for key, row in compiled.items() if golden.get(key) != row}
    for key in sorted(stale | changed):
        print(f"not as in the golden: {key}: got {compiled.get(key)}, kept {golden.get(key)}")
    known = golden | compiled
    rows = known.values()
    largest = max((row.shared for row in rows), default=0)
    unlisted = sum(row.wgmma for key, row in known.items() if key.split()[0] not in WGMMA_ALLOWED)
    return [
        Check("variants known", len(known), 1, "least"),
        Check("bytes spilled", sum(row.spills for row in rows), 0, "most"),
        Check("bytes of stack", sum(row.stack for row in rows), 0, "most"),
        Check("largest shared memory, bytes", largest, SHARED_LIMIT, "most"),
        Check("wgmma instructions", unlisted, 0, "most"),
        Check("tf32 instructions", sum(row.tf32 for row in rows), 0, "most"),
        Check("atomic instructions", sum(row.atomics for row in rows), 0, "most"),
        Check("variants compiled to something else than the golden's", len(changed), 0, "most"),
        Check("variants whose source is not the golden's", len(stale), 0, "most"),
    ]


def stale_keys(found: Sequence[Variant], golden: dict[str, Compiled]) -> set[str]:
    """Return what is shipped but not kept as it is now, and what is kept but not shipped."""
    now = {f"{v.name} sm_{cc}": v.fingerprint for v in found for cc in v.architectures}
    kept = {key: row.fingerprint for key, row in golden.items()}
    return {key for key in now | kept if now.get(key) != kept.get(key)}


def read_golden(path: Path = GOLDEN) -> dict[str, Compiled]:
    """Return what was kept; empty where there is no file, or another Triton compiled it."""
    import triton

    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["triton"] != triton.__version__:
        print(f"the golden is of Triton {kept['triton']}, this is {triton.__version__}")
        return {}
    return {key: Compiled(**row) for key, row in kept["variants"].items()}


def write_golden(compiled: dict[str, Compiled], path: Path = GOLDEN) -> None:
    """Keep what was compiled, a variant a line, with the Triton that compiled it."""
    import triton

    lines = (f"    {json.dumps(k)}: {json.dumps(asdict(r))}" for k, r in sorted(compiled.items()))
    head = f'{{\n  "triton": "{triton.__version__}",\n  "variants": {{\n'
    path.write_text(head + ",\n".join(lines) + "\n  }\n}\n", encoding="utf-8")


def print_table(compiled: dict[str, Compiled]) -> None:
    """Print a variant a line."""
    fields = [name for name in Compiled.__dataclass_fields__ if name != "fingerprint"]
    width = max(map(len, compiled), default=0)
    print(" " * width, *(f"{name:>9}" for name in fields))
    for key, row in compiled.items():
        print(f"{key:{width}}", *(f"{getattr(row, name):9d}" for name in fields))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print the table, check it, and with --update keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description=__doc__)
    parser.add_argument("--all", action="store_true", help="compile every variant")
    parser.add_argument("--update", action="store_true", help="write the golden")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        print("benchmarks.aot: TRITON_INTERPRET is set, so kernels are not compiled; unset it")
        return 2
    found = variants()
    golden = read_golden()
    wanted = found if chosen.all else usual(found)
    if chosen.update and not chosen.all:
        stale = stale_keys(found, golden)
        wanted = [v for v in found if any(f"{v.name} sm_{cc}" in stale for cc in v.architectures)]
    compiled = compile_all(wanted, chosen.processes)
    print_table(compiled)
    if chosen.update:
        shipped = {f"{v.name} sm_{cc}" for v in found for cc in v.architectures}
        golden = {key: row for key, row in (golden | compiled).items() if key in shipped}
        write_golden(golden)
    rows = [{"variant": key} | asdict(row) for key, row in compiled.items()]
    return finish("aot", checks(found, compiled, golden), rows)


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
