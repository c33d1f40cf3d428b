"""The item table: frozen text vectors through a trainable projection, plus an id embedding.

Shapes: V items, M items asked for, d width of the model.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from user_model.item_domains import ItemDomains
from user_model.ops.dropout import keep_mask, mix, mix_integers
from user_model.text_channel import TextChannel
from user_model.whitening import whitened, whitened_by_domain


class ItemTableConfig(BaseModel):
    """How an item becomes a vector."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {
        "domain_embedding": False,
        "domain_projections": False,
        "text_channel": False,
        "text_decay": 0.8,
        "text_ranking_decay": None,
        "text_weight": 2.0,
        "choose_text_weight": False,
        "text_correlations": False,
        "neighbours": False,
        "neighbour_weight": 0.25,
        "neighbour_columns": 384,
    }

    ids: bool | Literal["from_text", "from_histories"] = Field(
        True,
        description="Learn a vector of its own for each item seen in training, which starts at "
        "random; from_histories: it starts near those of items that stand near it in histories; "
        "from_text: as the leading principal components of its text, whitened (models of ids alone "
        "start at random then).",
    )
    text: bool = Field(True, description="Project the cached text vector, where there is one.")
    domain_embedding: bool = Field(False, description="Add a vector of its domain to each item's.")
    domain_projections: bool = Field(
        False,
        description="Beside the projection of texts that all domains share, each has its own.",
    )
    text_channel: bool = Field(
        False,
        description="Beside the learned vectors scores compare all of the text, whitened, with a "
        "decayed mean of the history's (docs/log.md); histories must be of one domain.",
    )
    text_decay: float = Field(
        0.8, gt=0.0, le=1.0,
        description="text_channel: how much an event counts, against the event after it.",
    )  # fmt: skip
    text_ranking_decay: float | None = Field(
        None, gt=0.0, le=1.0,
        description="text_channel and neighbours: the same in ranking; null = as in training.",
    )  # fmt: skip
    text_weight: float = Field(
        2.0, gt=0.0,
        description="text_channel: what its weight in the score begins as; the cosine has 1. "
        "Training moves it little.",
    )  # fmt: skip
    choose_text_weight: bool = Field(
        False,
        description="text_channel: after training, choose each domain's weight on validation, "
        "among multiples of what training left.",
    )
    text_correlations: bool = Field(
        False,
        description="text_channel: a direction of a domain's texts counts by how well it tells "
        "which items stand near each other in the training histories (canonical correlations); "
        "false = all count the same.",
    )
    neighbours: bool = Field(
        False,
        description="In ranking, scores also compare what stands near an item in the training "
        "histories with a decayed mean of the history's: item-kNN, in columns; histories must be "
        "of one domain.",
    )
    neighbour_weight: float = Field(
        0.25, gt=0.0,
        description="neighbours: their weight in the score; the cosine has 1. It is not learned.",
    )  # fmt: skip
    neighbour_columns: int = Field(
        384, ge=1,
        description="neighbours: columns; as many floats an item are kept with the weights.",
    )  # fmt: skip
    id_dropout: float = Field(
        0.0, ge=0.0, lt=1.0,
        description="Share of items whose id vector is left out of a step, so that text learns to "
        "carry new items; without text it must be 0.",
    )  # fmt: skip
    id_std: float | None = Field(
        0.02, gt=0.0,
        description="Standard deviation of fresh id vectors; null = Glorot-uniform over the table.",
    )  # fmt: skip

    @property
    def channel_weight(self) -> float:
        """What the channel's weight begins as: that of texts, or of neighbours without texts."""
        return self.text_weight if self.text_channel else self.neighbour_weight

    @property
    def neighbour_share(self) -> float:
        """What the products of neighbours count within the channel."""
        return self.neighbour_weight / self.channel_weight


class ItemTable(nn.Module):
    """Vectors of the items of one corpus: H0 = W standardise(text) + id [D].

    Text is standardised by the mean and the deviation of each of its columns over the corpus:
    sentence vectors share a large common part that tells nothing of the item. The text vectors are
    a frozen buffer and are not saved with the weights; their mean and scale are.

    With text, an item that training has never seen keeps no id vector (`mark_seen`), so that a
    cold item is what its text says and not the noise of its initialisation.

    Args:
        n_items: items V of the corpus.
        dim: width d of the vectors.
        text_vectors: float [V, d_text] by global item position, or None.
        ids: whether items have an id embedding.
        id_dropout: share of items whose id is left out of a training step; needs text.
        id_std: deviation of fresh id vectors; None: Glorot-uniform, deviation sqrt(2 / (V + d)).
        first_ids: float [V, k <= d], of deviation 1: what the first columns of the id vectors
            start as, times id_std; None: at random.
        ids_from_histories: whether training starts the id vectors from the histories (`start_ids`).
        domains: what domains add to their items' vectors; None: nothing.
        channel: the text beside the learned vectors, in scores; None: there is none.
        neighbour_share: what neighbours count in the channel, whose training fills their columns.

    Raises:
        ValueError: neither text nor ids; text vectors of another number of items, or not finite;
            id_dropout without text.
    """

    text_vectors: Tensor | None
    text_mean: Tensor
    text_scale: Tensor
    seen: Tensor

    def __init__(
        self,
        n_items: int,
        dim: int,
        text_vectors: Tensor | None = None,
        ids: bool = True,
        *,
        id_dropout: float = 0.0,
        id_std: float | None = 0.02,
        first_ids: Tensor | None = None,
        ids_from_histories: bool = False,
        domains: ItemDomains | None = None,
        channel: TextChannel | None = None,
        neighbour_share: float = 0.0,
    ) -> None:
        super().__init__()
        _check(n_items, text_vectors, ids, id_dropout)
        self.n_items, self.dim, self.id_dropout = n_items, dim, id_dropout
        self.ids_from_histories = ids_from_histories
        self.domains, self.channel = domains, channel
        self.neighbour_share = neighbour_share
        self.id_std = (2.0 / (n_items + dim)) ** 0.5 if id_std is None else id_std
        self.ids: nn.Parameter | None = None
        if ids:
            self.ids = nn.Parameter(torch.empty(n_items, dim))
            _draw(self.ids, id_std)
            if first_ids is not None:
                self.start_ids(first_ids, torch.ones(n_items, dtype=torch.bool))
        self.register_buffer("text_vectors", text_vectors, persistent=False)
        self.text_projection: nn.Linear | None = None
        if text_vectors is not None:
            mean = text_vectors.mean(0)
            deviation = (text_vectors - mean).square().mean(0).sqrt()
            self.register_buffer("text_mean", mean)
            self.register_buffer("text_scale", 1.0 / deviation.clamp_min(1e-6))
            self.register_buffer("seen", torch.ones(n_items, dtype=torch.bool))
            self.text_projection = nn.Linear(text_vectors.shape[1], dim)
            share = text_vectors.shape[1] ** -0.5
            _draw(self.text_projection.weight, None if id_std is None else id_std * share)
            nn.init.zeros_(self.text_projection.bias)

    @classmethod
    def build(
        cls,
        config: ItemTableConfig,
        n_items: int,
        dim: int,
        text_vectors: Tensor | None,
        domain_starts: Tensor | None = None,
    ) -> "ItemTable":
        """Make the table that `config` describes, as wide as the model.

        Args:
            config: how items become vectors.
            n_items: items V of the corpus.
            dim: width d of the vectors.
            text_vectors: float [V, d_text], or None.
            domain_starts: int64 [D + 1], for what domains add; None: one domain.

        Raises:
            ValueError: text is asked for and absent, or as the constructor raises.
        """
        starts = config.ids == "from_text"
        channel = config.text_channel
        wanted = {"text": config.text, "ids: from_text": starts, "text_channel": channel}
        for name, asked in wanted.items():
            if asked and text_vectors is None:
                raise ValueError(
                    f"{name}: the item table is to use text vectors and got none; pass the "
                    "snapshot of the embedding cache, or set text to false and ids to true"
                )
        if domain_starts is None:
            domain_starts = torch.tensor([0, n_items])
        first = None
        if starts and text_vectors is not None:
            _check_text(n_items, text_vectors)
            first = whitened(text_vectors, dim)
        return cls(
            n_items, dim, text_vectors if config.text else None, bool(config.ids),
            id_dropout=config.id_dropout, id_std=config.id_std, first_ids=first,
            ids_from_histories=config.ids == "from_histories",
            domains=_domains(config, dim, text_vectors, domain_starts),
            channel=_channel(config, n_items, text_vectors, domain_starts),
            neighbour_share=config.neighbour_share,
        )  # fmt: skip

    @torch.no_grad()
    def start_ids(self, first_Vk: Tensor, told_V: Tensor) -> None:
        """Set the first k columns of some items' id vectors, before training.

        Args:
            first_Vk: float [V, k <= d] of deviation 1; the columns become id_std times that.
            told_V: bool [V], which items; the others stay as they were drawn.
        """
        assert self.ids is not None
        columns = self.ids[:, : first_Vk.shape[1]]
        first_Vk, told_V = first_Vk.to(columns), told_V.to(columns.device)
        columns.copy_(torch.where(told_V[:, None], self.id_std * first_Vk, columns))

    def mark_seen(self, items: Tensor) -> None:
        """With text: keep id vectors for these items, int64 [any], alone. Without: do nothing."""
        if self.text_projection is not None and self.ids is not None:
            self.seen.zero_()
            self.seen[items] = True

    def forward(self, items_M: Tensor) -> Tensor:
        """Return the vectors [M, d] of items int64 [M]; not normalised."""
        rows = None if self.ids is None else functional.embedding(items_M, self.ids)
        return self.compose(items_M, rows)

    def compose(self, items_M: Tensor, ids_Md: Tensor | None, key: int = 0) -> Tensor:
        """Return the vectors [M, d] given the items' id rows (training passes a leaf of its own).

        Args:
            items_M: int64 [M], global item positions.
            ids_Md: the rows of `ids` of these items, [M, d], or None without ids.
            key: 64-bit key of the step, which decides whose ids are dropped in training.
        """
        if self.text_projection is None:
            assert ids_Md is not None
            return ids_Md if self.domains is None else ids_Md + self.domains(items_M, None)
        text_Mt = self._standardised(items_M)
        projected = self.text_projection(text_Mt)
        if self.domains is not None:
            projected = projected + self.domains(items_M, text_Mt)
        if ids_Md is None:
            return projected
        kept = self.seen[items_M]
        if self.training and self.id_dropout > 0.0:
            keys = mix(items_M + mix_integers(key))
            kept = kept & keep_mask(keys, 1, self.id_dropout).squeeze(1)
        return torch.where(kept[:, None], projected + ids_Md, projected)

    def _standardised(self, items_M: Tensor) -> Tensor:
        assert self.text_vectors is not None
        text = self.text_vectors.index_select(0, items_M)
        return (text - self.text_mean) * self.text_scale


def _domains(
    config: ItemTableConfig, dim: int, text: Tensor | None, starts: Tensor
) -> ItemDomains | None:
    if not config.domain_embedding and not config.domain_projections:
        return None
    if config.domain_projections and (text is None or not config.text):
        raise ValueError(
            "domain_projections: projects text vectors and the table has none; set text to true "
            "and pass the snapshot of the embedding cache, or set domain_projections to false"
        )
    d_text = text.shape[1] if text is not None and config.domain_projections else 0
    return ItemDomains(starts, dim, d_text=d_text, embedding=config.domain_embedding)


def _channel(
    config: ItemTableConfig, n_items: int, text: Tensor | None, starts: Tensor
) -> TextChannel | None:
    if not config.text_channel and not config.neighbours:
        return None
    if config.text_channel:
        assert text is not None
        _check_text(n_items, text)
        white_Vt = whitened_by_domain(text, starts)
    else:
        white_Vt = torch.zeros(n_items, 0)
    return TextChannel(
        white_Vt, starts,
        decay=config.text_ranking_decay or config.text_decay, training_decay=config.text_decay,
        weight=config.channel_weight,
        neighbours=config.neighbour_columns if config.neighbours else 0,
        correlated=config.text_channel and config.text_correlations,
    )  # fmt: skip


def _draw(weight: Tensor, std: float | None) -> None:
    if std is None:
        nn.init.xavier_uniform_(weight)
    else:
        nn.init.normal_(weight, std=std)


def _check(n_items: int, text_vectors: Tensor | None, ids: bool, id_dropout: float) -> None:
    if text_vectors is None and not ids:
        raise ValueError("ids: got false and no text vectors; an item needs an id, a text, or both")
    if text_vectors is None and id_dropout > 0.0:
        raise ValueError(
            f"id_dropout: got {id_dropout} without text vectors, expected 0; "
            "an item with its id dropped would be nothing"
        )
    if text_vectors is not None:
        _check_text(n_items, text_vectors)


def _check_text(n_items: int, text_vectors: Tensor) -> None:
    if text_vectors.ndim != 2 or len(text_vectors) != n_items:
        raise ValueError(
            f"text_vectors: got shape {tuple(text_vectors.shape)}, expected [{n_items}, d_text]: "
            "a row for each item of the corpus, in its order"
        )
    if not bool(torch.isfinite(text_vectors).all()):
        raise ValueError("text_vectors: got values that are not finite; encode these items again")
