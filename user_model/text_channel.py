"""Text beside the learned vectors: an item's own, whitened, and the decayed mean of a history's.

A projection of text vectors to the model's width keeps the coarse differences that sampled
negatives ask for, and loses the fine ones by which the first ten items are ranked (docs/log.md).
Here all columns of the text stand beside the learned vector in the score:

    score(user, item) = <user vector, item vector> + w <mean of texts so far, text>, both whitened

Only w, one number a domain, is learned. The mean is a state of one row a user, however long the
history. Our choice [D]; the paper has none.

The directions of a domain's text may count by how well each tells what stands near an item in the
training histories (`user_model.text_correlations`), instead of all the same.

Columns of neighbours in histories (`user_model.neighbours`) may stand beside those of the text, in
ranking alone: they hold the very pairs that training asks for, so that a model trained with them
would learn to rely on them (docs/log.md).

Shapes: V items, M items asked for, T packed tokens, D domains, t columns of the channel, h of them
of neighbours, B block.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCK = 64  # tokens whose sums are one product


class TextChannel(nn.Module):
    """Whitened text of length 1 for each item, and what a history's texts say of the next.

    Each domain is whitened by itself: within the books "novel" tells nothing. An item is compared
    with items of its own domain alone, so a history must be of one domain.

    Args:
        whitened_Vt: float [V, t], rows of any length; a row of zeros says nothing.
        starts: int64 [D + 1], the first item of each domain, and the number of items.
        decay: weight of an event, against that of the event after it, in ranking.
        training_decay: the same in training; None: as in ranking. What is learned beside a longer
            memory of texts ranks better beside a shorter one (docs/log.md).
        weight: what w begins as. Against sampled negatives the loss hardly moves it, and asks for
            less than the ranking does (docs/log.md), so it is a setting and not only a start.
        neighbours: columns h of neighbours in histories, which `set_neighbours` fills; saved with
            the weights.
        correlated: whether `turn_texts` is to be called; what it turned by is saved with the
            weights, and a channel into which they are loaded turns its own texts.
    """

    columns: Tensor
    directions: Tensor
    neighbours: Tensor
    starts: Tensor

    def __init__(
        self,
        whitened_Vt: Tensor,
        starts: Tensor,
        *,
        decay: float,
        training_decay: float | None = None,
        weight: float,
        neighbours: int = 0,
        correlated: bool = False,
    ) -> None:
        super().__init__()
        self.decay = decay
        self.training_decay = decay if training_decay is None else training_decay
        self.register_buffer("columns", functional.normalize(whitened_Vt, dim=1), persistent=False)
        empty_Vh = torch.zeros(len(whitened_Vt), neighbours)
        self.register_buffer("neighbours", empty_Vh, persistent=neighbours > 0)
        self.register_buffer("starts", starts.clone(), persistent=False)
        n_domains, width = len(starts) - 1, whitened_Vt.shape[1]
        still_Dtt = torch.eye(width).repeat(n_domains if correlated else 0, 1, 1)
        self.register_buffer("directions", still_Dtt, persistent=correlated)
        self._turned = False
        if correlated:
            self.register_load_state_dict_post_hook(_turn_loaded)
        self.weights = nn.Parameter(torch.full((len(starts) - 1,), weight))

    @property
    def width(self) -> int:
        """Columns t that stand beside the learned vectors."""
        return self.columns.shape[1] + self.neighbours.shape[1]

    def is_to_turn(self) -> bool:
        """Whether the texts are to be turned and have not been; those of a trained model stay."""
        return len(self.directions) > 0 and not self._turned

    @torch.no_grad()
    def turn_texts(self) -> None:
        """Turn the texts of each domain by its `directions`, and give them length 1 again; once."""
        assert not self._turned, "the texts are turned already; build a new channel"
        for (first, end), turn_tt in zip(
            pairwise(self.starts.tolist()), self.directions, strict=True
        ):
            turned_Vt = self.columns[first:end] @ turn_tt
            self.columns[first:end] = functional.normalize(turned_Vt, dim=1)
        self._turned = True

    def set_neighbours(self, vectors_Vh: Tensor, share: float) -> None:
        """Put the items' vectors [V, h] beside their texts.

        Args:
            vectors_Vh: float, from `neighbour_vectors`.
            share: what their products count in a score, where those of texts count 1.
        """
        self.neighbours.copy_(share**0.5 * vectors_Vh)

    @torch.no_grad()
    def multiply_texts(self, domain: int, multiple: float) -> None:
        """Let the texts of one domain count `multiple` times as much, and neighbours what they did.

        Args:
            domain: its number.
            multiple: above 0.
        """
        mine = slice(*self.starts[domain : domain + 2].tolist())
        self.weights[domain] *= multiple
        self.neighbours[mine] *= multiple**-0.5

    def items(self, items_M: Tensor) -> Tensor:
        """Rows [M, t] of items int64 [M], in training [M, t - h]; nothing in them is learned."""
        texts_Mt = self.columns.index_select(0, items_M)
        if self.training or not self.neighbours.shape[1]:
            return texts_Mt
        return torch.cat([texts_Mt, self.neighbours.index_select(0, items_M)], 1)

    def histories(self, items_T: Tensor, cu_seqlens: Tensor) -> Tensor:
        """What stands beside the user's vector after each item, [T, t], in training [T, t - h].

        Args:
            items_T: int64 [T], packed global item positions, oldest first, one domain a sequence.
            cu_seqlens: int64 [S + 1], seams.
        """
        decay = self.training_decay if self.training else self.decay
        means_Tt = decayed_means(self.items(items_T), cu_seqlens, decay)
        domains_T = torch.bucketize(items_T, self.starts[1:-1], right=True)
        return self.weights[domains_T, None] * means_Tt


def _turn_loaded(channel: TextChannel, _incompatible: object) -> None:
    """Weights of an earlier epoch of the same training have the directions that it began with."""
    if channel.is_to_turn():
        channel.turn_texts()


@torch.no_grad()
def decayed_means(rows_Tt: Tensor, cu_seqlens: Tensor, decay: float) -> Tensor:
    """Return, after each token, the mean of its sequence's rows so far, [T, t].

    A row counts decay times as much as the row after it. No gradient goes through.

    Args:
        rows_Tt: float [T, t].
        cu_seqlens: int64 [S + 1], seams.
        decay: in (0, 1].
    """
    segments_T = _segments(cu_seqlens)
    counts_T = torch.arange(1, len(rows_Tt) + 1, device=rows_Tt.device) - cu_seqlens[segments_T]
    sums_Tt = _decayed_sums(rows_Tt, segments_T, decay)
    return mean_of_sums(sums_Tt, counts_T, decay)


@torch.no_grad()
def last_sums(
    rows_Tt: Tensor, cu_seqlens: Tensor, decay: float, before_St: Tensor | None = None
) -> Tensor:
    """Return each sequence's decayed sum after its last row, [S, t]: what a state keeps of texts.

    Args:
        rows_Tt: float [T, t].
        cu_seqlens: int64 [S + 1], seams; a sequence may be empty.
        decay: in (0, 1].
        before_St: the sums of what came before, [S, t]; None: nothing did.
    """
    lengths_S = cu_seqlens.diff()
    last_St = rows_Tt.new_zeros(len(lengths_S), rows_Tt.shape[1])
    filled_S = lengths_S > 0
    sums_Tt = _decayed_sums(rows_Tt, _segments(cu_seqlens), decay)
    last_St[filled_S] = sums_Tt[cu_seqlens[1:][filled_S] - 1]
    if before_St is None:
        return last_St
    return last_St + before_St * decay ** lengths_S.to(rows_Tt.dtype)[:, None]


def mean_of_sums(sums_nt: Tensor, counts_n: Tensor, decay: float) -> Tensor:
    """Return the means [n, t] whose sums over counts_n rows, int64 [n], these are."""
    counts_n = counts_n.to(sums_nt.dtype)
    # Sum of the weights: 1 + decay + ... + decay^(count - 1).
    weights_n = counts_n if decay == 1.0 else (1.0 - decay**counts_n) / (1.0 - decay)
    return sums_nt / weights_n[:, None]


def _segments(cu_seqlens: Tensor) -> Tensor:
    """The sequence of each token, int64 [T]."""
    lengths_S = cu_seqlens.diff()
    return torch.repeat_interleave(
        torch.arange(len(lengths_S), device=cu_seqlens.device), lengths_S
    )


def _decayed_sums(rows_Tt: Tensor, segments_T: Tensor, decay: float) -> Tensor:
    """The sum of each sequence's rows so far, after each token, [T, t]."""
    n_tokens = len(rows_Tt)
    if not n_tokens:
        return rows_Tt
    spare = -n_tokens % _BLOCK
    rows = functional.pad(rows_Tt, (0, 0, 0, spare)).unflatten(0, (-1, _BLOCK))
    segments = functional.pad(segments_T, (0, spare), value=-1).unflatten(0, (-1, _BLOCK))
    at_B = torch.arange(_BLOCK, device=rows_Tt.device)
    steps_BB = (at_B[:, None] - at_B).clamp(min=0)
    falling_BB = torch.where(at_B[:, None] >= at_B, decay ** steps_BB.to(rows_Tt.dtype), 0.0)
    sums = torch.bmm((segments[:, :, None] == segments[:, None]) * falling_BB, rows)
    carried_B = decay ** (at_B + 1).to(rows_Tt.dtype)
    for before, block in pairwise(range(len(sums))):
        goes_on_B = (segments[block] == segments[before, -1]) * carried_B
        sums[block].addr_(goes_on_B, sums[before, -1])
    return sums.flatten(0, 1)[:n_tokens]
