"""A decoder-only transformer: Llama, Qwen3 and Qwen3-MoE.

The names of its state_dict are those of transformers.
Shapes: B rows, T tokens, D width, V vocabulary, F inner width, E experts, k experts of a token,
M = B T tokens of the batch.
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

Head = Callable[[Tensor, Tensor], Any]  # (hidden_BTD, weight_VD) → for example a loss


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate x) * up x). One product computes gate x and up x."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: [..., D], for example the normed residual stream.

        Returns:
            [..., D].
        """
        weights = torch.cat((self.gate_proj.weight, self.up_proj.weight))
        gate, up = linear(x, weights).chunk(2, -1)
        return self.down_proj(silu(gate) * up)


class Experts(nn.Module):
    """Mixture of experts as in Qwen3-MoE.

    A softmax router chooses k experts for each token. Their weights are scaled to sum to 1. Costs
    one gather per expert. Experts that get no token still take part, with zero rows.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.per_token = config.moe.experts_per_token
        self.gate = nn.Linear(config.width, config.moe.experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(config.width, config.moe.expert_width) for _ in range(config.moe.experts)
        )

    def forward(self, x_BTD: Tensor, real_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the chosen experts of each token.

        Args:
            x_BTD: The normed residual stream.
            real_BT: False for padding. Default: no token is padding.

        Returns:
            The mixture [B, T, D], and the load-balancing loss [B] of each row's real tokens.
        """
        x_MD = x_BTD.flatten(0, 1)
        probability_ME = self.gate(x_MD).softmax(-1, dtype=torch.float32)
        weight_Mk, chosen_Mk = probability_ME.topk(self.per_token, dim=-1)
        weight_Mk = weight_Mk / weight_Mk.sum(-1, keepdim=True)
        y_MD = torch.zeros_like(x_MD, dtype=torch.float32)
        for number, expert in enumerate(self.experts):
            row, slot = torch.where(chosen_Mk == number)
            weighted = expert(x_MD[row]) * weight_Mk[row, slot, None]
            y_MD = y_MD.index_add(0, row, weighted.float())
        B, T, _ = x_BTD.shape
        real_BT = x_BTD.new_ones(B, T) if real_BT is None else real_BT
        balance_B = load_balance(
            probability_ME.view(B, T, -1),
            chosen_Mk.view(B, T, -1),
            real_BT,
        )
        return y_MD.view_as(x_BTD), balance_B


def load_balance(probability_BTE: Tensor, chosen_BTk: Tensor, real_BT: Tensor) -> Tensor:
    """Return each row's load-balancing loss (Fedus et al. 2021, Switch Transformer, equation 4).

    It is 1 if all experts get the same share of the tokens. It is not linear in the tokens, so it
    is computed for each row: that of a whole micro-batch would depend on the micro-batch's size.

    Args:
        probability_BTE: Probability of each expert.
        chosen_BTk: The chosen experts.
        real_BT: False for padding.

    Returns:
        [B].
    """
    experts = probability_BTE.shape[-1]
    weight_BT1 = (real_BT / real_BT.sum(-1, keepdim=True))[..., None]
    chosen_BTE = one_hot(chosen_BTk, experts).sum(2)
    share_BE = (weight_BT1 * chosen_BTE).sum(1) / chosen_BTk.shape[-1]
    mean_BE = (weight_BT1 * probability_BTE).sum(1)
    return experts * (share_BE * mean_BE).sum(-1)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.input_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.mlp: nn.Module
        if config.family.has_experts:
            self.mlp = Experts(config)
        else:
            self.mlp = FeedForward(config.width, config.ffn_width)

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias_BTS: Tensor | None = None,
        real_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        positions_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x_BTD: The residual stream.
            cos: See `Attention.forward`, as for the next four.
            sin: As there.
            bias_BTS: As there.
            real_BT: False for padding; see `Experts.forward`.
            cache: As in `Attention.forward`.
            positions_BT: As there.

        Returns:
            The residual stream, and the load-balancing loss [B] of each row, 0 if dense.
        """
        normed = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.self_attn(normed, cos, sin, bias_BTS, self.layer, cache, positions_BT)
        normed = self.post_attention_layernorm(x_BTD)
        if isinstance(self.mlp, Experts):
            y_BTD, balance_B = self.mlp(normed, real_BT)
            return x_BTD + y_BTD, balance_B
        return x_BTD + self.mlp(normed), x_BTD.new_zeros(len(x_BTD))


class Decoder(nn.Module):
    """Embedding, blocks and final norm, named as in transformers."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)


class LanguageModel(nn.Module):
    """A decoder with an output layer, which predicts the next token.

    The weights are on the meta device until `initialize` or `load_state_dict(assign=True)`.

    Attributes:
        balance_B: Load-balancing loss of each row in the last forward pass, the mean over layers.
            0 for dense models.
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
        """The output table, [V, D]."""
        output = self.model.embed_tokens if self.config.tied_embeddings else self.lm_head
        return output.weight

    def forward(
        self,
        ids_BT: Tensor,
        head: Head | None = None,
        *,
        segments_BT: Tensor | None = None,
        real_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Any:
        """Run the model.

        Args:
            ids_BT: Token ids.
            head: Computes the result from the last hidden states and the output table. It runs
                inside the forward pass, while a sharded model has its table gathered.
            segments_BT: Tokens see only tokens of their own segment.
            real_BT: False for padding, which `balance_B` leaves out.
            cache: The ids continue the tokens of the cache.

        Returns:
            The result of `head`. Without one, logits [B, T, V].
        """
        T = ids_BT.shape[1]
        if cache is None:
            keys = T
            at_BT = torch.arange(T, device=ids_BT.device)[None]
        else:
            keys = int(cache.length_B.max()) + T
            at_BT = cache.length_B[:, None] + torch.arange(T)
            at_BT = at_BT.to(ids_BT.device, non_blocking=True)
        x_BTD = self.model.embed_tokens(ids_BT).float()
        # Bias and angles are cast here once. A layer would keep its own copy for the backward pass.
        dtype = product_dtype(x_BTD)
        window = self.config.sliding_window
        is_window_open = window is None or window >= T
        bias_BTS = None
        if cache is not None or segments_BT is not None or not is_window_open:
            bias_BTS = visibility_bias(at_BT, keys, window, segments_BT).to(dtype)
        cos = self.cos[at_BT][:, :, None].to(dtype)
        sin = self.sin[at_BT][:, :, None].to(dtype)
        positions_BT = None if cache is None else at_BT
        balance_B = x_BTD.new_zeros(len(x_BTD))
        for block in self.model.layers:
            x_BTD, block_balance_B = block(x_BTD, cos, sin, bias_BTS, real_BT, cache, positions_BT)
            balance_B = balance_B + block_balance_B
        self.balance_B = balance_B / self.config.layers
        if cache is not None:
            cache.length_B = cache.length_B + T
        hidden_BTD = self.model.norm(x_BTD)
        return (head or linear)(hidden_BTD, self.head_weight)

    def initialize(self, seed: int) -> None:
        """Draw the weights from a normal distribution with a standard deviation of 0.02.

        Matrices that write to the residual stream are divided by sqrt(2 L) (Radford et al. 2019).

        Args:
            seed: Seed of the weights.
        """
        generator = torch.Generator().manual_seed(seed)
        weights: dict[str, Tensor] = {}
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weights[name] = torch.ones(weight.shape)
                continue
            deviation = 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= math.sqrt(2 * self.config.layers)
            drawn = torch.empty(weight.shape)
            weights[name] = drawn.normal_(0.0, deviation, generator=generator)
        self.load_state_dict(weights, assign=True)
