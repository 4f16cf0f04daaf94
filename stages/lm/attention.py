"""Causal self-attention with rotary positions, grouped queries and a key-value cache.

QK-norm and a sliding window are optional.

Shapes: B rows, T query tokens, S key tokens, D width, H query heads, K key-value heads, G = H / K,
N width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from stages.lm.blocked_attention import causal_attention
from stages.lm.config import ModelConfig

MAX_FLASH_WIDTH = 256  # of a head, in flash attention
# Up to this length a CPU computes the scores faster than its flash kernel, and they fit in memory.
MAX_MANUAL_TOKENS = 1024


class KeyValueCache:
    """Keys and values of the tokens that each row has read so far.

    Costs 2 L K N values per row and token.

    Attributes:
        k_LBKSN: Keys of all layers.
        v_LBKSN: Values of all layers.
        length_B: Number of valid tokens of each row. It is on the CPU, so that positions and shapes
            are known without waiting for the device.

    Args:
        config: Sizes of the model.
        rows: B.
        tokens: S, the capacity.
        like: A tensor with the format and device of the cache.
    """

    def __init__(self, config: ModelConfig, rows: int, tokens: int, like: Tensor):
        shape = (config.layers, rows, config.kv_heads, tokens, config.head_size)
        self.k_LBKSN = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v_LBKSN = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.length_B = torch.zeros(rows, dtype=torch.long)

    def put(
        self, layer: int, k_BKTN: Tensor, v_BKTN: Tensor, positions_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values of a layer.

        Args:
            layer: Number of the layer.
            k_BKTN: New keys.
            v_BKTN: New values.
            positions_BT: Where in its row each of them belongs.

        Returns:
            All keys and values of the layer, old and new, up to the last that any row needs, both
            [B, K, S, N].
        """
        k_BKSN, v_BKSN = self.k_LBKSN[layer], self.v_LBKSN[layer]
        rows_B1 = torch.arange(k_BKTN.shape[0], device=k_BKTN.device)[:, None]
        k_BKSN[rows_B1, :, positions_BT] = k_BKTN.transpose(1, 2).to(k_BKSN.dtype)
        v_BKSN[rows_B1, :, positions_BT] = v_BKTN.transpose(1, 2).to(v_BKSN.dtype)
        end = int(self.length_B.max()) + positions_BT.shape[1]
        return k_BKSN[:, :, :end], v_BKSN[:, :, :end]

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these.

        Args:
            rows: Numbers of the rows to keep, in order.
        """
        self.k_LBKSN = self.k_LBKSN[:, rows]
        self.v_LBKSN = self.v_LBKSN[:, rows]
        self.length_B = self.length_B[rows]


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles of the rotary position embedding (Su et al. 2021).

    The two halves of a head are rotated against each other, as in transformers.

    Args:
        config: Sizes of the model.

    Returns:
        cos and sin, each [context, N / 2] in float32.
    """
    size = config.head_size
    exponent_n = torch.arange(0, size, 2, dtype=torch.float32) / size
    frequency_n = 1.0 / (config.rope_theta**exponent_n)
    position_T = torch.arange(config.context, dtype=torch.float32)
    angle_Tn = torch.outer(position_T, frequency_n)
    return angle_Tn.cos(), angle_Tn.sin()


def rotate(x_BTHN: Tensor, cos_BT1n: Tensor, sin_BT1n: Tensor) -> Tensor:
    """Apply the rotary position embedding.

    Args:
        x_BTHN: Queries or keys.
        cos_BT1n: cos of each angle, n = N / 2; broadcast over rows and heads.
        sin_BT1n: sin of each angle.

    Returns:
        [B, T, H, N].
    """
    a, b = x_BTHN.chunk(2, -1)
    rotated_a = a * cos_BT1n - b * sin_BT1n
    rotated_b = b * cos_BT1n + a * sin_BT1n
    return torch.cat((rotated_a, rotated_b), -1)


def attend(q_BHTN: Tensor, k_BKSN: Tensor, v_BKSN: Tensor, bias_BTS: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(N) + bias) v, for each head.

    On a CPU and for short sequences the scores are computed explicitly, in the format of q.

    Args:
        q_BHTN: Queries.
        k_BKSN: Keys.
        v_BKSN: Values.
        bias_BTS: Result of `visibility_bias`, in the format of q. It hides all keys after the
            query. None: plain causal attention, T = S.

    Returns:
        [B, H, T, N].
    """
    B, H, T, N = q_BHTN.shape
    K, S = k_BKSN.shape[1:3]
    if q_BHTN.device.type != "cpu" or max(T, S) > MAX_MANUAL_TOKENS:
        return _kernel(q_BHTN, k_BKSN, v_BKSN, bias_BTS)
    if T == S:
        return causal_attention(q_BHTN, k_BKSN, v_BKSN, bias_BTS)
    assert bias_BTS is not None
    q_BKGTN = (q_BHTN * N**-0.5).view(B, K, H // K, T, N)
    scores_BKGTS = (q_BKGTN.flatten(2, 3) @ k_BKSN.mT).view(B, K, H // K, T, S)
    scores_BKGTS = scores_BKGTS + bias_BTS[:, None, None]
    weights = scores_BKGTS.softmax(-1).to(v_BKSN.dtype)
    return (weights.flatten(2, 3) @ v_BKSN).view(B, H, T, N)


def _kernel(q_BHTN: Tensor, k_BKSN: Tensor, v_BKSN: Tensor, bias_BTS: Tensor | None) -> Tensor:
    """Run PyTorch's fused attention.

    Only the flash kernel supports grouped queries. It takes 16-bit formats, no bias, and heads of
    width up to 256. For the other kernels, keys and values are repeated: with `enable_gqa`, PyTorch
    would write out all scores (8.6 GB a layer for a 1B model and 2,048 tokens).
    """
    H, K, N = q_BHTN.shape[1], k_BKSN.shape[1], q_BHTN.shape[3]
    is_flash = bias_BTS is None and q_BHTN.dtype.itemsize == 2 and N <= MAX_FLASH_WIDTH
    if H != K and not is_flash:
        k_BKSN = k_BKSN.repeat_interleave(H // K, 1)
        v_BKSN = v_BKSN.repeat_interleave(H // K, 1)
    if bias_BTS is None:
        return scaled_dot_product_attention(
            q_BHTN, k_BKSN, v_BKSN, is_causal=True, enable_gqa=H != K and is_flash
        )
    return scaled_dot_product_attention(q_BHTN, k_BKSN, v_BKSN, attn_mask=bias_BTS[:, None])


def visibility_bias(
    positions_BT: Tensor, keys: int, window: int | None = None, segments_BT: Tensor | None = None
) -> Tensor:
    """Return what is added to the scores so that a query does not see some keys.

    Args:
        positions_BT: Position of each query.
        keys: S, the number of keys.
        window: Let a query see only this many keys, up to its own.
        segments_BT: Let a query see only keys of its own segment (in training, T = S).

    Returns:
        [B, T, S] in float32: 0 where a query may see a key, -inf elsewhere.
    """
    key_S = torch.arange(keys, device=positions_BT.device)
    seen_BTS = key_S <= positions_BT[..., None]
    if window is not None:
        seen_BTS &= key_S > positions_BT[..., None] - window
    if segments_BT is not None:
        seen_BTS = seen_BTS & (segments_BT[:, :, None] == segments_BT[:, None, :])
    zeros_BTS = torch.zeros(seen_BTS.shape, device=positions_BT.device)
    return zeros_BTS.masked_fill(~seen_BTS, float("-inf"))


class Attention(nn.Module):
    """Self-attention of one block. Parameters have the names of transformers.

    One product computes queries, keys and values.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, N = config.width, config.head_size
        self.heads, self.kv_heads, self.size = config.heads, config.kv_heads, N
        self.q_proj = nn.Linear(D, config.heads * N, bias=False)
        self.k_proj = nn.Linear(D, config.kv_heads * N, bias=False)
        self.v_proj = nn.Linear(D, config.kv_heads * N, bias=False)
        self.o_proj = nn.Linear(config.heads * N, D, bias=False)
        if config.family.has_qk_norm:
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
        """Attend.

        Args:
            x_BTD: The normed residual stream.
            cos: cos of the angle of each token, [1 or B, T, 1, N / 2].
            sin: sin of the angle of each token.
            bias_BTS: See `attend`.
            layer: Number of the layer in the cache.
            cache: Keys and values of earlier tokens.
            positions_BT: Where the tokens belong in the cache.

        Returns:
            What to add to the residual stream, [B, T, D].
        """
        B, T, _ = x_BTD.shape
        H, K, N = self.heads, self.kv_heads, self.size
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        qkv = linear(x_BTD, torch.cat(weights))
        q, k, v = (part.view(B, T, -1, N) for part in qkv.split((H * N, K * N, K * N), -1))
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        q = rotate(q, cos, sin).transpose(1, 2)
        k = rotate(k, cos, sin).transpose(1, 2)
        v = v.transpose(1, 2)
        if cache is not None and positions_BT is not None:
            k, v = cache.put(layer, k, v, positions_BT)
            k, v = k.to(q.dtype), v.to(q.dtype)
        y_BHTN = attend(q, k, v, bias_BTS)
        return self.o_proj(y_BHTN.transpose(1, 2).reshape(B, T, H * N))
