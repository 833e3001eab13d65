"""Attention over past events, and the loss of guessing the next one. Padded events have no weight and no part in it.

Shape legend: B rows, L past events (newest first unless said), e width of an event, M real events of the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recfm.models.layers import MLP, Activation


def masked_softmax(scores_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Softmax over the real entries; all zero in a row without any."""
    # A softmax over nothing is NaN, in the gradient too: such rows are filled before, and emptied after.
    empty_B1 = ~mask_BL.any(dim=1, keepdim=True)
    scores_BL = scores_BL.masked_fill(~mask_BL, float("-inf")).masked_fill(empty_B1, 0.0)
    return scores_BL.softmax(dim=1) * mask_BL


class EventScores(nn.Module):
    """DIN's scores: an MLP on [q; s; q - s; q * s] of each real event s; 0 where padded.

    The MLP sees real events only, so neither Dice's batch statistics nor its cost depend on padding. (FuxiCTR feeds
    it the padding too.)

    Shapes: query [B, e] or [B, L, e], events [B, L, e], mask [B, L] -> [B, L].
    """

    def __init__(
        self, width: int, hidden: Sequence[int], *, act: Activation = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mlp = MLP(4 * width, hidden, out=1, dropout=dropout, act=act)

    def forward(self, query: Tensor, events_BLe: Tensor, mask_BL: Tensor) -> Tensor:
        if query.dim() == 2:
            query = query.unsqueeze(1)
        q_Me, s_Me = query.expand_as(events_BLe)[mask_BL], events_BLe[mask_BL]
        inputs = torch.cat([q_Me, s_Me, q_Me - s_Me, q_Me * s_Me], dim=1)
        few = max(0, 2 - len(inputs))  # batch statistics need two rows
        scores_M = self.mlp(functional.pad(inputs, (0, 0, 0, few))).squeeze(1)[: len(inputs)]
        scores_BL = scores_M.new_zeros(mask_BL.shape)
        return scores_BL.masked_scatter(mask_BL, scores_M)


def weighted_sum(weights_BL: Tensor, events_BLe: Tensor) -> Tensor:
    """[B, e]."""
    return torch.einsum("bl,ble->be", weights_BL.to(events_BLe.dtype), events_BLe)


def at_each_place(target_Be: Tensor, places_Lp: Tensor) -> Tensor:
    """[t; p_l] for every row and place: [B, L, e + p]."""
    rows, length = len(target_Be), len(places_Lp)
    return torch.cat([target_Be.unsqueeze(1).expand(-1, length, -1), places_Lp.expand(rows, -1, -1)], dim=2)


class SelfAttention(nn.Module):
    """Multi-head self-attention: [B, L, e] and a bool mask [B, 1 or L, L] of who may see whom -> [B, L, e]."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inputs = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLe: Tensor, mask_BLL: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return self.out(attend(self.inputs(x_BLe), self.heads, mask_BLL, dropout).transpose(1, 2).flatten(2))


def attend(qkv: Tensor, heads: int, mask_BLL: Tensor, dropout: float) -> Tensor:
    """[B, L, 3 e] -> the heads' outputs [B, heads, L, e / heads]."""
    queries, keys, values = (
        part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=2)
    )
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask_BLL.unsqueeze(1), dropout_p=dropout
    )


def sees_itself_and_older(mask_BL: Tensor) -> Tensor:
    """bool [B, L, L] of newest-first events: each sees itself and the real ones before it in time.

    Padding sees itself, so that no softmax is over nothing.
    """
    length = mask_BL.shape[1]
    older_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).triu()
    itself_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
    return (older_LL & mask_BL.unsqueeze(1)) | itself_LL


def next_event_loss(score: nn.Module, states_BLe: Tensor, events_BLe: Tensor, mask_BL: Tensor) -> Tensor:
    """How badly the state at each event tells the user's next event from another user's (DIEN section 4.2).

    A mean over all pairs of events in a row of -log p(state, next) - log(1 - p(state, other)), p the sigmoid of
    `score` on both side by side. `other` is drawn without chance: the next events of the whole batch, in its order,
    moved on by half their number; so it can be the same user's or even the same item, which is rare in a large batch.
    """
    real = mask_BL[:, 1:]
    before_Me, after_Me = states_BLe[:, 1:][real], events_BLe[:, :-1][real]
    if len(before_Me) < 2:
        return states_BLe.sum() * 0.0
    other_Me = after_Me.roll(len(after_Me) // 2, 0)
    yes = score(torch.cat([before_Me, after_Me], dim=1))
    no = score(torch.cat([before_Me, other_Me], dim=1))
    return functional.softplus(-yes).mean() + functional.softplus(no).mean()
