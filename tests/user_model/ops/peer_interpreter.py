"""Run backend mamba_ssm in Triton's interpreter, in .venv-peers: a program of test_peers.py.

    python peer_interpreter.py FOLDER

For each CASE.safetensors of the folder (arguments by name, cotangents "cotangent_y" and, where the
final states are asked for, "cotangent_final") it writes CASE.results: y, final, and the gradients
where there are cotangents to pull. mamba-ssm's launchers ask for a GPU at three places; what stands
in for it is set here, and changes no kernel.
"""

import contextlib
import sys
import types
from pathlib import Path

import torch
import triton
from safetensors.torch import load_file, save_file

from user_model.ops import plan, scan_mamba_ssm

CHUNK = 32  # several chunks in few tokens
ARGUMENTS = ("x", "dt", "A", "B", "C", "D", "z")


def run_first_config(tuner, *arguments, **options):
    """Launch an autotuned kernel by its first configuration: timing them needs a device."""
    tuner.nargs = dict(zip(tuner.arg_names, arguments, strict=False))
    config = tuner.best_config = tuner.configs[0]
    everything = tuner.nargs | options | config.all_kwargs()
    if config.pre_hook:
        config.pre_hook(everything)
    if getattr(tuner, "reset_to_zero", None):
        tuner.pre_hook(everything, reset_only=True)
    return tuner.fn.run(*arguments, **options, **config.all_kwargs())


def stand_in_for_a_gpu():
    triton.runtime.autotuner.Autotuner.run = run_first_config
    torch.cuda.device = lambda *_: contextlib.nullcontext()
    torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(multi_processor_count=1)


def results(given):
    cotangents = {k: given.pop(f"cotangent_{k}", None) for k in ("y", "final")}
    batch, offset = plan(given.pop("cu_seqlens")), given.pop("position_offset", None)
    wants_final = bool(given.pop("wants_final"))
    wanted = {k: v for k, v in cotangents.items() if v is not None}
    leaves = {k: v.requires_grad_(bool(wanted)) for k, v in given.items()}
    y, final = scan_mamba_ssm.scan_mamba_ssm(
        *(leaves.get(name) for name in ARGUMENTS), batch,
        dt_bias_H=leaves.get("dt_bias"), initial_SHNP=leaves.get("initial_state"),
        position_offset_S=offset, return_final_state=wants_final,
    )  # fmt: skip
    outputs = {"y": y} | ({"final": final} if wants_final else {})
    found = {name: value.detach().contiguous() for name, value in outputs.items()}
    if wanted:
        gradients = torch.autograd.grad(
            [outputs[name] for name in wanted], list(leaves.values()), list(wanted.values())
        )
        found |= {f"d{name}": g.contiguous() for name, g in zip(leaves, gradients, strict=True)}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    stand_in_for_a_gpu()
    scan_mamba_ssm.CHUNK = CHUNK
    for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        save_file(results(load_file(path)), path.with_suffix(".results"))
