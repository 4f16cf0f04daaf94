"""A decoder-only transformer: Llama, Qwen3 and Qwen3-MoE. Its state_dict carries the names that transformers gives them.

Shapes: B rows, T tokens, D width, V vocabulary, F inner width, E experts, k experts of a token, M = B T tokens in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, silu

from stages.lm.attention import Attention, KeyValueCache, rotary_tables, visibility_bias
from stages.lm.config import ModelConfig
from stages.lm.precision import product_dtype

Head = Callable[
    [Tensor, Tensor], Any
]  # (hidden_BTD, weight_VD) → what the caller wants, e.g. a loss


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate x) * up x). The two input matrices are multiplied as one."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, -1)
        return self.down_proj(silu(gate) * up)


class Experts(nn.Module):
    """Mixture of experts as in Qwen3-MoE: softmax router, the best k experts weighted to sum 1.

    Costs one gather per expert; experts that get no token still take part, with zero rows.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.per_token = config.experts_per_token
        self.gate = nn.Linear(config.width, config.experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(config.width, config.expert_width) for _ in range(config.experts)
        )

    def forward(self, x_BTD: Tensor, real_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mixture, and the load-balancing loss of each row's real tokens."""
        x_MD = x_BTD.flatten(0, 1)
        probability_ME = self.gate(x_MD).softmax(-1, dtype=torch.float32)
        weight_Mk, chosen_Mk = probability_ME.topk(self.per_token, dim=-1)
        weight_Mk = weight_Mk / weight_Mk.sum(-1, keepdim=True)
        y_MD = torch.zeros_like(x_MD, dtype=torch.float32)
        for number, expert in enumerate(self.experts):
            row, slot = torch.where(chosen_Mk == number)
            y_MD = y_MD.index_add(0, row, (expert(x_MD[row]) * weight_Mk[row, slot, None]).float())
        B, T, _ = x_BTD.shape
        real_BT = x_BTD.new_ones(B, T) if real_BT is None else real_BT
        balance_B = load_balance(probability_ME.view(B, T, -1), chosen_Mk.view(B, T, -1), real_BT)
        return y_MD.view_as(x_BTD), balance_B


def load_balance(probability_BTE: Tensor, chosen_BTk: Tensor, real_BT: Tensor) -> Tensor:
    """[B] load-balancing loss (Fedus et al. 2021, Switch Transformer, eq. 4): 1 where all experts get the same share.

    It is not linear in the tokens, so each row has its own: over a whole micro-batch it would depend on where batches are cut.
    """
    experts = probability_BTE.shape[-1]
    weight_BT1 = (real_BT / real_BT.sum(-1, keepdim=True))[..., None]
    share_BE = (weight_BT1 * one_hot(chosen_BTk, experts).sum(2)).sum(1) / chosen_BTk.shape[-1]
    return experts * (share_BE * (weight_BT1 * probability_BTE).sum(1)).sum(-1)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)). Gives the stream and each row's load-balancing loss (0 if dense)."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.input_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.mlp = (
            Experts(config)
            if config.architecture == "qwen3_moe"
            else FeedForward(config.width, config.ffn_width)
        )

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, bias_BTS: Tensor | None = None, real_BT: Tensor | None = None,
        cache: KeyValueCache | None = None, positions_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x_BTD = x_BTD + self.self_attn(
            self.input_layernorm(x_BTD), cos, sin, bias_BTS, self.layer, cache, positions_BT
        )
        normed = self.post_attention_layernorm(x_BTD)
        if isinstance(self.mlp, Experts):
            y_BTD, balance_B = self.mlp(normed, real_BT)
            return x_BTD + y_BTD, balance_B
        return x_BTD + self.mlp(normed), x_BTD.new_zeros(len(x_BTD))


class Decoder(nn.Module):
    """Embedding, blocks and final norm; named as in transformers."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)


class LanguageModel(nn.Module):
    """Next-token model. Its weights are made by `initialize` or load_state_dict(assign=True); until then they are on the meta device.

    `balance_B` is each row's load-balancing loss in the last forward pass, mean over layers (0 for dense models).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.model = Decoder(config)
            if not config.tied_embeddings:
                self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.balance_B = torch.zeros(0)

    @property
    def head_weight(self) -> Tensor:
        """[V, D]: the output table."""
        return (
            self.model.embed_tokens.weight if self.config.tied_embeddings else self.lm_head.weight
        )

    def forward(
        self, ids_BT: Tensor, head: Head | None = None, *, segments_BT: Tensor | None = None, real_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Any:  # fmt: skip
        """What `head` makes of the last hidden states and the output table; without it, logits [B, T, V].

        The head runs inside the forward pass so that a sharded model has its table gathered when it is needed.
        segments_BT: tokens see only tokens of their own segment. real_BT: false for padding, which `balance_B` leaves out.
        cache: the ids continue what the cache holds.
        """
        T = ids_BT.shape[1]
        window = self.config.sliding_window
        positions_BT = None
        if cache is not None:
            positions_BT = (cache.length_B[:, None] + torch.arange(T)).to(
                ids_BT.device, non_blocking=True
            )
            at, keys = positions_BT, int(cache.length_B.max()) + T
        else:
            at, keys = torch.arange(T, device=ids_BT.device)[None], T
        x_BTD = self.model.embed_tokens(ids_BT).float()
        dtype = product_dtype(
            x_BTD
        )  # cast here once, not in each layer, which would keep its copy for the backward pass
        plain = cache is None and segments_BT is None and (window is None or window >= T)
        bias_BTS = None if plain else visibility_bias(at, keys, window, segments_BT).to(dtype)
        cos, sin = (table[at][:, :, None].to(dtype) for table in (self.cos, self.sin))
        balance_B = x_BTD.new_zeros(len(x_BTD))
        for block in self.model.layers:
            x_BTD, one_B = block(x_BTD, cos, sin, bias_BTS, real_BT, cache, positions_BT)
            balance_B = balance_B + one_B
        self.balance_B = balance_B / self.config.layers
        if cache is not None:
            cache.length_B = cache.length_B + T
        hidden_BTD = self.model.norm(x_BTD)
        return head(hidden_BTD, self.head_weight) if head else linear(hidden_BTD, self.head_weight)

    def initialize(self, seed: int) -> None:
        """Normal weights of deviation 0.02, those that write to the residual stream divided by sqrt(2 L) (Radford et al. 2019)."""
        generator = torch.Generator().manual_seed(seed)
        made: dict[str, Tensor] = {}
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                made[name] = torch.ones(weight.shape)
                continue
            deviation = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= math.sqrt(2 * self.config.layers)
            made[name] = torch.empty(weight.shape).normal_(0.0, deviation, generator=generator)
        self.load_state_dict(made, assign=True)
