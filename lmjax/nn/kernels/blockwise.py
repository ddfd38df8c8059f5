"""Attention a tile at a time: scores of some rows, heads and queries, which fit into a cache.

All scores of a batch at once are written to memory, read again by every operation on them, and kept
for the way back; on a CPU that takes most of the time of attention. A tile is used up where it was
made, and made again on the way back (Rabe & Staats 2021, "Self-attention does not need O(n^2)
memory"). The gradient of the scores needs a number per query, sum(do * o), instead of a sum over
all keys (Dao et al. 2022, "FlashAttention", appendix B.2). Keys that no query of a tile can see,
being later or beyond a window, are left out.

Shape suffixes as in `lmjax.nn.attention`; loops over M parts of b rows and N parts of g key/value
heads; Q queries and s keys of a tile.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.nn.kernels.plain import MASKED, distance, visible
from lmjax.nn.kernels.spec import AttentionSpec, Dropout, KeyValues, Tokens
from lmjax.nn.position import alibi_slopes

_TILE = 2**18  # scores; of float32 1 MiB, which a core has for itself
_MOST_TILES = 8  # that queries are cut into: each is a part of the program


class _Rows(NamedTuple):
    """What each row has of its own; [B, ...]."""

    number: jax.Array
    queries: Tokens
    keys: Tokens


class _Heads(NamedTuple):
    """What each key/value head has of its own; [G, ...]."""

    number: jax.Array
    slopes_R: jax.Array | None
    bias_RTS: jax.Array | None


class _Tile(NamedTuple):
    """Queries lo ... hi - 1, and the keys that they may see."""

    lo: int
    hi: int
    keys: slice


def attend(
    spec: AttentionSpec,
    q_BTHK: jax.Array,
    kv: KeyValues,
    queries: Tokens,
    keys: Tokens,
    bias_1HTS: jax.Array | None,
    dropout: Dropout | None,
) -> jax.Array:
    """As `dispatch.attend`; queries and keys of one length stand for the same places of a row.

    A query that sees nothing has no gradient.
    """
    B, T, H, K = q_BTHK.shape
    G = kv.k_BSGK.shape[2]
    slopes = alibi_slopes(H).reshape(G, H // G) if spec.alibi else None
    bias = None
    if bias_1HTS is not None:
        bias = bias_1HTS.reshape(G, H // G, *bias_1HTS.shape[2:])
    rows = _Rows(jnp.arange(B), queries, keys)
    heads = _Heads(jnp.arange(G), slopes, bias)
    q_BTGRK = q_BTHK.reshape(B, T, G, H // G, K)
    whole = partial(_of_one_device, spec)
    if not jax.sharding.get_abstract_mesh().empty:
        axes = nn.logical_to_mesh_axes
        by_head = axes(("act_batch", None, "kv_heads"))
        specs = (by_head, by_head, axes(("act_batch",)), axes(("kv_heads",)), axes(()))
        whole = jax.shard_map(whole, in_specs=specs, out_specs=by_head, check_vma=False)
    return whole(q_BTGRK, kv, rows, heads, dropout).reshape(B, T, H, K)


def _of_one_device(
    spec: AttentionSpec,
    q_BTGRK: jax.Array,
    kv: KeyValues,
    rows: _Rows,
    heads: _Heads,
    dropout: Dropout | None,
) -> jax.Array:
    B, T, G, R, _ = q_BTGRK.shape
    S = kv.k_BSGK.shape[1]
    room = _TILE // (R * S * max(tile.hi - tile.lo for tile in _tiles(spec, T, S)))
    g = _divisor(G, room)
    b = _divisor(B, room // G)

    def split(x_BG: jax.Array) -> jax.Array:
        """[B, G, ...] -> [M, N, b, g, ...]."""
        return x_BG.reshape(B // b, b, G // g, g, *x_BG.shape[2:]).swapaxes(1, 2)

    o_MNbgRTK = _mixed(
        spec,
        split(q_BTGRK.transpose(0, 2, 3, 1, 4)),
        KeyValues(*(split(x_BSGK.swapaxes(1, 2)) for x_BSGK in kv)),
        jax.tree.map(lambda x: x.reshape(B // b, b, *x.shape[1:]), rows),
        jax.tree.map(lambda x: x.reshape(G // g, g, *x.shape[1:]), heads),
        dropout,
    )
    return o_MNbgRTK.transpose(0, 2, 5, 1, 3, 4, 6).reshape(q_BTGRK.shape)


def _divisor(number: int, most: int) -> int:
    """The largest that divides a number and is at most so large, but 1 at least."""
    return next(d for d in range(min(number, max(most, 1)), 0, -1) if number % d == 0)


def _tiles(spec: AttentionSpec, T: int, S: int) -> list[_Tile]:
    same_places = T == S
    skips = same_places and (spec.causal or spec.window is not None)
    size = (128 if T <= 512 else 256) if skips else 512
    size = max(size, -(-T // _MOST_TILES))
    tiles = []
    for lo in range(0, T, size):
        hi, first, behind = min(lo + size, T), 0, S
        if same_places and spec.window is not None:
            first, behind = max(0, lo - spec.window // 2), min(S, hi + spec.window // 2)
        if same_places and spec.causal:
            behind = hi
        tiles.append(_Tile(lo, hi, slice(first, behind)))
    return tiles


def _scores(
    spec: AttentionSpec,
    tile: _Tile,
    q_bgRQK: jax.Array,
    k_bgsK: jax.Array,
    rows: _Rows,
    heads: _Heads,
) -> tuple[jax.Array, jax.Array]:
    """(float32 scores, whether they are to be seen); [b, g, R, Q, s] and [b, 1, 1, Q, s]."""
    of_queries = jax.tree.map(lambda x_bT: x_bT[:, tile.lo : tile.hi], rows.queries)
    of_keys = jax.tree.map(lambda x_bS: x_bS[:, tile.keys], rows.keys)
    s_bgRQs = _by_keys(q_bgRQK, k_bgsK)
    if heads.bias_RTS is not None:
        s_bgRQs += heads.bias_RTS[:, :, tile.lo : tile.hi, tile.keys]
    if heads.slopes_R is not None:
        s_bgRQs -= heads.slopes_R[:, :, None, None] * distance(of_queries, of_keys)
    return s_bgRQs, visible(spec, of_queries, of_keys)[:, None, None]


def _dropped(
    p_bgRQs: jax.Array, dropout: Dropout | None, tile: _Tile, rows: _Rows, heads: _Heads
) -> jax.Array:
    """Probabilities with dropout: by row, head and queries, whoever computes them."""
    if dropout is None:
        return p_bgRQs
    fold = jax.random.fold_in
    of_tile = fold(dropout.key, tile.lo)
    by_row = lambda row: jax.vmap(partial(fold, fold(of_tile, row)))(heads.number)
    drop = lambda key, p_RQs: Dropout(dropout.rate, key).of(p_RQs)
    return jax.vmap(jax.vmap(drop))(jax.vmap(by_row)(rows.number), p_bgRQs)


def _by_keys(x_bgRQK: jax.Array, y_bgsK: jax.Array) -> jax.Array:
    """Products of queries and keys, float32 [b, g, R, Q, s]."""
    b, g, R, Q, K = x_bgRQK.shape
    x_bgtK = x_bgRQK.reshape(b, g, R * Q, K)
    p_bgts = jnp.einsum("bgtk,bgsk->bgts", x_bgtK, y_bgsK, preferred_element_type=jnp.float32)
    return p_bgts.reshape(b, g, R, Q, -1)


def _over_keys(p_bgRQs: jax.Array, y_bgsK: jax.Array) -> jax.Array:
    """Sums over keys, float32 [b, g, R, Q, K]."""
    b, g, R, Q, s = p_bgRQs.shape
    p_bgts = p_bgRQs.reshape(b, g, R * Q, s)
    o_bgtK = jnp.einsum("bgts,bgsk->bgtk", p_bgts, y_bgsK, preferred_element_type=jnp.float32)
    return o_bgtK.reshape(b, g, R, Q, -1)


def _over_queries(p_bgRQs: jax.Array, x_bgRQK: jax.Array) -> jax.Array:
    """Sums over queries of all heads that share keys, float32 [b, g, s, K]."""
    b, g, R, Q, _ = p_bgRQs.shape
    p_bgts, x_bgtK = (y.reshape(b, g, R * Q, -1) for y in (p_bgRQs, x_bgRQK))
    return jnp.einsum("bgts,bgtk->bgsk", p_bgts, x_bgtK, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed(spec, q_MNbgRTK, kv_MNbgSK, rows, heads, dropout):
    return _forward(spec, q_MNbgRTK, kv_MNbgSK, rows, heads, dropout)[0]


def _forward(spec, q_MNbgRTK, kv_MNbgSK, rows, heads, dropout):
    dtype, tiles = q_MNbgRTK.dtype, _tiles(spec, q_MNbgRTK.shape[5], kv_MNbgSK[0].shape[4])

    def of_rows(_, part):
        rows, *part = part

        def of_heads(_, part):
            heads, q_bgRTK, (k_bgSK, v_bgSK) = part
            found = []
            for tile in tiles:
                q_bgRQK, k_bgsK = q_bgRTK[..., tile.lo : tile.hi, :], k_bgSK[:, :, tile.keys]
                s_bgRQs, see = _scores(spec, tile, q_bgRQK, k_bgsK, rows, heads)
                s_bgRQs = jnp.where(see, s_bgRQs, MASKED)
                highest_bgRQ = jnp.max(s_bgRQs, axis=-1, keepdims=True)
                e_bgRQs = jnp.exp(s_bgRQs - highest_bgRQ)
                total_bgRQ = jnp.sum(e_bgRQs, axis=-1, keepdims=True)
                e_bgRQs = _dropped(e_bgRQs, dropout, tile, rows, heads).astype(dtype)
                o_bgRQK = _over_keys(e_bgRQs, v_bgSK[:, :, tile.keys])
                o_bgRQK = (o_bgRQK / total_bgRQ).astype(dtype)
                found.append((o_bgRQK, highest_bgRQ + jnp.log(total_bgRQ)))
            return None, _joined(found)

        return None, jax.lax.scan(of_heads, None, (heads, *part))[1]

    parts = (rows, q_MNbgRTK, kv_MNbgSK)
    _, (o_MNbgRTK, log_z_MNbgRT) = jax.lax.scan(of_rows, None, parts)
    return o_MNbgRTK, (parts, heads, dropout, o_MNbgRTK, log_z_MNbgRT)


def _backward(spec, kept, do_MNbgRTK):
    parts, heads, dropout, o_MNbgRTK, log_z_MNbgRT = kept
    _, q_MNbgRTK, kv_MNbgSK = parts
    dtype, tiles = q_MNbgRTK.dtype, _tiles(spec, q_MNbgRTK.shape[5], kv_MNbgSK[0].shape[4])

    def of_rows(dbias_NgRTS, part):
        rows, *part = part

        def of_heads(_, part):
            heads, dbias_gRTS, q_bgRTK, (k_bgSK, v_bgSK), o_bgRTK, log_z_bgRT, do_bgRTK = part
            delta_bgRT = jnp.sum((do_bgRTK * o_bgRTK).astype(jnp.float32), -1, keepdims=True)
            dk_bgSK, dv_bgSK = (jnp.zeros(x.shape, jnp.float32) for x in (k_bgSK, v_bgSK))
            found = []
            for tile in tiles:
                own, seen = (
                    (..., slice(tile.lo, tile.hi), slice(None)),
                    (..., tile.keys, slice(None)),
                )
                q_bgRQK, do_bgRQK, k_bgsK = q_bgRTK[own], do_bgRTK[own], k_bgSK[seen]
                s_bgRQs, see = _scores(spec, tile, q_bgRQK, k_bgsK, rows, heads)
                p_bgRQs = jnp.where(see, jnp.exp(s_bgRQs - log_z_bgRT[own]), 0)
                dp_bgRQs = _by_keys(do_bgRQK, v_bgSK[seen])
                dp_bgRQs = _dropped(dp_bgRQs, dropout, tile, rows, heads)
                ds_bgRQs = p_bgRQs * (dp_bgRQs - delta_bgRT[own])
                if dbias_gRTS is not None:
                    here = (..., slice(tile.lo, tile.hi), tile.keys)
                    dbias_gRTS = dbias_gRTS.at[here].add(ds_bgRQs.sum(0))
                ds_bgRQs = ds_bgRQs.astype(dtype)
                p_bgRQs = _dropped(p_bgRQs, dropout, tile, rows, heads).astype(dtype)
                found.append((_over_keys(ds_bgRQs, k_bgsK).astype(dtype),))
                dk_bgsK = _over_queries(ds_bgRQs, q_bgRQK)
                dv_bgsK = _over_queries(p_bgRQs, do_bgRQK)
                dk_bgSK, dv_bgSK = dk_bgSK.at[seen].add(dk_bgsK), dv_bgSK.at[seen].add(dv_bgsK)
            (dq_bgRTK,) = _joined(found)
            return None, (dbias_gRTS, dq_bgRTK, dk_bgSK.astype(dtype), dv_bgSK.astype(dtype))

        _, (dbias_NgRTS, *slopes) = jax.lax.scan(of_heads, None, (heads, dbias_NgRTS, *part))
        return dbias_NgRTS, tuple(slopes)

    nothing = None if heads.bias_RTS is None else jnp.zeros_like(heads.bias_RTS)
    dbias_NgRTS, (dq, dk, dv) = jax.lax.scan(
        of_rows, nothing, (*parts, o_MNbgRTK, log_z_MNbgRT, do_MNbgRTK)
    )
    return dq, KeyValues(dk, dv), None, _Heads(None, None, dbias_NgRTS), None


_mixed.defvjp(_forward, _backward)


def _joined(tiles: list[tuple[jax.Array, ...]]) -> tuple[jax.Array, ...]:
    """[..., Q, K] of each tile -> [..., T, K]."""
    return tuple(jnp.concatenate(each, axis=-2) for each in zip(*tiles, strict=True))
