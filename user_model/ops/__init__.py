"""The scan, the convolution, RoPE and the loss: a reference of each, and the faster forms."""

import os

# Read when numba is imported, which the lines below do. Where colorama is installed too, numba
# would have it write a control sequence to the terminal at the end of every program.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

from user_model.ops.backends import BackendUnavailableError
from user_model.ops.conv_scan import conv_scan
from user_model.ops.convolution import causal_conv
from user_model.ops.dropout import token_dropout
from user_model.ops.elementwise import gated_norm, rope_product, swiglu
from user_model.ops.grouped_linear import grouped_linear
from user_model.ops.infonce import sampled_infonce
from user_model.ops.linear import linear
from user_model.ops.packing import Plan, plan
from user_model.ops.rms_norm import rms_norm
from user_model.ops.rotary import rope
from user_model.ops.running_sum import running_sum
from user_model.ops.scan import hydra_scan

__all__ = [
    "BackendUnavailableError",
    "Plan",
    "causal_conv",
    "conv_scan",
    "gated_norm",
    "grouped_linear",
    "hydra_scan",
    "linear",
    "plan",
    "rms_norm",
    "rope",
    "rope_product",
    "running_sum",
    "sampled_infonce",
    "swiglu",
    "token_dropout",
]
