"""Causal self-attention: rotary positions, grouped queries, optional QK-norm and sliding window, key-value cache.

Shapes: B rows, T query tokens, S key tokens, D width, H query heads, K key-value heads, G = H / K, N width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from stages.lm.blocked_attention import causal_attention
from stages.lm.config import ModelConfig

FLASH_UP_TO = 256  # width of a head that flash attention takes
MANUAL_UP_TO = (
    1024  # tokens; up to here a CPU has room for the scores, and making them beats the flash kernel
)


class KeyValueCache:
    """Keys and values of what each row has read so far. `length_B` is how much of it counts; rows may differ. It is on the CPU:
    what depends on it (places, shapes) is then known without waiting for the device.

    Costs 2 L K N values per row and token.
    """

    def __init__(self, config: ModelConfig, rows: int, tokens: int, like: Tensor):
        shape = (config.layers, rows, config.kv_heads, tokens, config.head_size)
        self.k_LBKSN = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v_LBKSN = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.length_B = torch.zeros(rows, dtype=torch.long)

    def put(
        self, layer: int, k_BKTN: Tensor, v_BKTN: Tensor, positions_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values at `positions_BT`; gives all of that layer, old and new, up to the last that any row needs."""
        rows = torch.arange(k_BKTN.shape[0], device=k_BKTN.device)[:, None]
        self.k_LBKSN[layer][rows, :, positions_BT] = k_BKTN.transpose(1, 2).to(self.k_LBKSN.dtype)
        self.v_LBKSN[layer][rows, :, positions_BT] = v_BKTN.transpose(1, 2).to(self.v_LBKSN.dtype)
        end = int(self.length_B.max()) + positions_BT.shape[1]
        return self.k_LBKSN[layer][:, :, :end], self.v_LBKSN[layer][:, :, :end]

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self.k_LBKSN, self.v_LBKSN, self.length_B = (
            self.k_LBKSN[:, rows],
            self.v_LBKSN[:, rows],
            self.length_B[rows],
        )


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin of shape [context, N / 2], float32 (Su et al. 2021; halves are rotated against each other, as in transformers)."""
    size = config.head_size
    frequency = 1.0 / (config.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    angle = torch.outer(torch.arange(config.context, dtype=torch.float32), frequency)
    return angle.cos(), angle.sin()


def rotate(x_BTHN: Tensor, cos_BT1n: Tensor, sin_BT1n: Tensor) -> Tensor:
    """Rotary position embedding; n = N / 2. cos and sin broadcast over rows and heads."""
    a, b = x_BTHN.chunk(2, -1)
    return torch.cat((a * cos_BT1n - b * sin_BT1n, b * cos_BT1n + a * sin_BT1n), -1)


def attend(q_BHTN: Tensor, k_BKSN: Tensor, v_BKSN: Tensor, bias_BTS: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(N) + bias) v, for each head. Gives [B, H, T, N].

    On CPU and for short sequences the scores are made outright, in the precision of q.

    Args:
        q_BHTN: Queries.
        k_BKSN: Keys.
        v_BKSN: Values.
        bias_BTS: What `visibility_bias` gives, in the format of q: never a key after the query.
            None: plain causal, T = S.
    """
    B, H, T, N = q_BHTN.shape
    K, S = k_BKSN.shape[1:3]
    if q_BHTN.device.type != "cpu" or max(T, S) > MANUAL_UP_TO:
        return _kernel(q_BHTN, k_BKSN, v_BKSN, bias_BTS)
    if T == S:
        return causal_attention(q_BHTN, k_BKSN, v_BKSN, bias_BTS)
    assert bias_BTS is not None
    q_BKGTN = (q_BHTN * N**-0.5).view(B, K, H // K, T, N)
    scores_BKGTS = (q_BKGTN.flatten(2, 3) @ k_BKSN.mT).view(B, K, H // K, T, S) + bias_BTS[
        :, None, None
    ]
    weights = scores_BKGTS.softmax(-1).to(v_BKSN.dtype)
    return (weights.flatten(2, 3) @ v_BKSN).view(B, H, T, N)


def _kernel(q_BHTN: Tensor, k_BKSN: Tensor, v_BKSN: Tensor, bias_BTS: Tensor | None) -> Tensor:
    """PyTorch's fused attention.

    Only flash attention groups queries by itself; it takes 16-bit formats, no bias, and no head wider
    than 256. The other kernels do not group: keys and values are repeated for them, as with
    `enable_gqa` all scores would be written out (8.6 GB a layer for a model of 1B and 2,048 tokens).
    """
    H, K, N = q_BHTN.shape[1], k_BKSN.shape[1], q_BHTN.shape[3]
    by_itself = bias_BTS is None and q_BHTN.dtype.itemsize == 2 and N <= FLASH_UP_TO
    if H != K and not by_itself:
        k_BKSN, v_BKSN = (one.repeat_interleave(H // K, 1) for one in (k_BKSN, v_BKSN))
    if bias_BTS is None:
        return scaled_dot_product_attention(
            q_BHTN, k_BKSN, v_BKSN, is_causal=True, enable_gqa=H != K and by_itself
        )
    return scaled_dot_product_attention(q_BHTN, k_BKSN, v_BKSN, attn_mask=bias_BTS[:, None])


def visibility_bias(
    positions_BT: Tensor, keys: int, window: int | None = None, segments_BT: Tensor | None = None
) -> Tensor:
    """[B, T, S] of 0 where the query at positions_BT may see key 0..keys-1, else -inf.

    window: only the last that many keys, its own included. segments_BT (training, T = S): only keys of the same segment.
    """
    key_S = torch.arange(keys, device=positions_BT.device)
    seen_BTS = key_S <= positions_BT[..., None]
    if window is not None:
        seen_BTS &= key_S > positions_BT[..., None] - window
    if segments_BT is not None:
        seen_BTS = seen_BTS & (segments_BT[:, :, None] == segments_BT[:, None, :])
    return torch.zeros(seen_BTS.shape, device=positions_BT.device).masked_fill(
        ~seen_BTS, float("-inf")
    )


class Attention(nn.Module):
    """Parameter names are transformers'. The three input matrices are multiplied as one."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, N = config.width, config.head_size
        self.heads, self.kv_heads, self.size = config.heads, config.kv_heads, N
        self.q_proj = nn.Linear(D, config.heads * N, bias=False)
        self.k_proj = nn.Linear(D, config.kv_heads * N, bias=False)
        self.v_proj = nn.Linear(D, config.kv_heads * N, bias=False)
        self.o_proj = nn.Linear(config.heads * N, D, bias=False)
        if config.architecture != "llama":
            self.q_norm = nn.RMSNorm(N, config.norm_eps)
            self.k_norm = nn.RMSNorm(N, config.norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias_BTS: Tensor | None,
        layer: int,
        cache: KeyValueCache | None,
        positions_BT: Tensor | None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        H, K, N = self.heads, self.kv_heads, self.size
        qkv = linear(x_BTD, torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)))
        q, k, v = (part.view(B, T, -1, N) for part in qkv.split((H * N, K * N, K * N), -1))
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        q, k, v = (
            rotate(q, cos, sin).transpose(1, 2),
            rotate(k, cos, sin).transpose(1, 2),
            v.transpose(1, 2),
        )
        if cache is not None and positions_BT is not None:
            k, v = cache.put(layer, k, v, positions_BT)
            k, v = k.to(q.dtype), v.to(q.dtype)
        y_BHTN = attend(q, k, v, bias_BTS)
        return self.o_proj(y_BHTN.transpose(1, 2).reshape(B, T, H * N))
