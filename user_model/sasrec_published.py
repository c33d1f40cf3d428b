"""SASRec as published (arXiv 1808.09781), to stand beside the one that our recipe strengthens.

[P] marks the paper's equations, [C] what the authors' code does where the paper is silent, [D] our
decision. Not kept: the code's dropout of attention weights, and its residual from the normalised
input in place of the input, which contradicts the paper's g(x) = x + Dropout(g(LayerNorm(x))).
Shapes: T packed tokens, S sequences, d model width.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from user_model.attention import AttentionPlan
from user_model.dropout import TokenDropout
from user_model.sasrec import SASRecBlock, SASRecConfig
from user_model.sequence import check_packed, positions, sequence_lengths
from user_model.training_config import TrainingConfig

_NORM_EPS = 1e-8  # [C]


class PublishedSASRecConfig(SASRecConfig):
    """SASRecConfig with the dropout that was published for sparse data."""

    dropout: float = Field(
        0.5, ge=0.0, lt=1.0,
        description="Dropout of inputs and of branches: 0.5 on sparse data, 0.2 on MovieLens.",
    )  # fmt: skip


class PublishedSASRecTraining(TrainingConfig):
    """TrainingConfig with the published settings: Adam at a constant rate, BCE, one negative.

    Batches of 1,024 targets hold about as many histories of Amazon's data as the published 128;
    the stopping is ours [D].
    """

    epochs: int = Field(200, ge=1, description="Largest number of passes over the histories.")
    batch_tokens: int = Field(
        1024, ge=1, description="Items of a global batch, over all workers, in whole histories."
    )
    temperature: float = Field(
        1.0, gt=0.0, description="What scores are divided by; 1 = as published."
    )
    lr: float = Field(1e-3, gt=0.0, description="Learning rate of Adam.")
    min_lr_share: float = Field(
        1.0, ge=0.0, le=1.0, description="Where the schedule ends, as a share of lr; 1 = constant."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0.0, description="Decay of matrices.")
    clip: float = Field(1e6, gt=0.0, description="Largest norm of the gradient; 1e6 = no limit.")
    loss: Literal["bce"] = Field("bce", description="Binary cross-entropy, one negative.")
    validate_every: int = Field(4, ge=1, description="Epochs between two validations.")
    patience: int = Field(
        5, ge=1, description="Validations without a better one after which training stops."
    )


class PublishedSASRec(nn.Module):
    """The user model of the published SASRec, called as Hydra is.

    Item vectors times sqrt(d) [C] plus learned positions [P], which are counted from the last item
    [P]; blocks of attention without an output map and a feed-forward with ReLU, each pre-norm with
    dropout and a residual [P]; a last layer norm [C]. Matrices and positions begin Glorot-uniform,
    biases at zero [C].
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.max_positions, config.dim))
        self.input_dropout = TokenDropout(config.dropout)
        self.blocks = nn.ModuleList(
            SASRecBlock(config, eps=_NORM_EPS, output=False) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.xavier_uniform_(self.positions)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("attention.input.weight"):
                # Queries, keys and values are matrices of their own, each d x d.
                for part_dd in parameter.data.chunk(3):
                    nn.init.xavier_uniform_(part_dd)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Return user vectors [T, d].

        Raises:
            ValueError: where the width or the seams do not fit, or a sequence is longer than
                max_positions.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = AttentionPlan.build(cu_seqlens, self.config.max_positions)
        places_T = self.config.max_positions - 1 - _items_after(cu_seqlens)
        h_Td = vectors_Td * self.config.dim**0.5 + self.positions[places_T]
        h_Td = self.input_dropout(h_Td)
        for block in self.blocks:
            h_Td = block(h_Td, plan)
        return self.norm(h_Td)


def _items_after(cu_seqlens: Tensor) -> Tensor:
    """How many items of its own sequence follow each token, int64 [T]."""
    lengths = sequence_lengths(cu_seqlens)
    own = torch.repeat_interleave(lengths, lengths, output_size=int(cu_seqlens[-1]))
    return own - 1 - positions(cu_seqlens)
