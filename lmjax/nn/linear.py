"""Linear maps and the initialisers they share.

A kernel keeps the shape its use has, e.g. [embed, heads, head_dim] for queries, so that heads can
be split over devices and an optimizer can tell inputs from outputs by their names.

Shape suffixes: I input dims, O output dims (each one or more).
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer

from lmjax.model_config import ModelConfig

PRODUCT = "product"  # what remat may keep is known to it by this name


def embedding_init(config: ModelConfig) -> Initializer:
    """Initialiser of a table whose rows are looked up: standard deviation `init_std`."""
    if config.init == "truncated_normal":
        return nn.initializers.truncated_normal(config.init_std)
    return nn.initializers.normal(config.init_std)


def kernel_init(config: ModelConfig, num_inputs: int, scale: float = 1.0) -> Initializer:
    """Initialiser of a matrix with `num_inputs` inputs.

    'fan_in' keeps the variance of unit inputs (Glorot and Bengio 2010; T5's rule), the others start
    at `init_std` whatever the width (GPT-2, BERT). `scale` multiplies the standard deviation.
    """
    if config.init == "fan_in":
        return nn.initializers.normal(scale / math.sqrt(num_inputs))
    if config.init == "truncated_normal":
        return nn.initializers.truncated_normal(config.init_std * scale)
    return nn.initializers.normal(config.init_std * scale)


def residual_init(config: ModelConfig, num_inputs: int) -> Initializer:
    """Initialiser of a projection that writes to the residual stream.

    GPT-2 (Radford et al. 2019, section 2.3) divides by the root of the number of such writes,
    2 per block, so that the stream's variance does not grow with depth.
    """
    scale = 1 / math.sqrt(2 * config.num_layers) if config.init_residual_scale else 1.0
    return kernel_init(config, num_inputs, scale)


class Linear(nn.Module):
    """y = x W (+ b), over the trailing dims of x.

    Attributes:
      features: sizes of the output dims O.
      axes: logical names of the kernel's dims, inputs first; those beyond `features` contract.
      kernel_init: initialiser of the kernel; the bias starts at 0.
      use_bias: whether there is a bias, of shape `features`.
      dtype: compute type; parameters are float32.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    kernel_init: Initializer
    use_bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., I] -> [..., O] in `dtype`."""
        num_in = len(self.axes) - len(self.features)
        kernel_IO = self.param(
            "kernel",
            nn.with_logical_partitioning(self.kernel_init, self.axes),
            (*x.shape[-num_in:], *self.features),
        )
        y = _product(x.astype(self.dtype), kernel_IO.astype(self.dtype), num_in)
        y = checkpoint_name(y, PRODUCT)
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[num_in:])
            bias_O = self.param("bias", zeros, self.features)
            y = y + bias_O.astype(self.dtype)
        return y


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel_IO: jax.Array, num_in: int) -> jax.Array:
    """x [..., I] times kernel [I, O], where I stands for `num_in` dims.

    On the way back of a kernel one side has to be turned around, and XLA for CPUs copies it for
    that: the narrower one here, where JAX would always take that of the outputs (1.5 times the time
    of the whole way back of an MLP).
    """
    inner = (tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in)))
    return jax.lax.dot_general(x, kernel_IO, (inner, ((), ())))


def _product_forward(x, kernel_IO, num_in):
    return _product(x, kernel_IO, num_in), (x, kernel_IO)


def _product_backward(num_in, kept, dy):
    x, kernel_IO = kept
    leading = tuple(range(x.ndim - num_in))
    outer = (tuple(range(len(leading), dy.ndim)), tuple(range(num_in, kernel_IO.ndim)))
    dx = jax.lax.dot_general(dy, kernel_IO, (outer, ((), ())))
    over_rows = ((leading, leading), ((), ()))
    if x.size <= dy.size:
        return dx, jax.lax.dot_general(x, dy, over_rows)
    num_out = kernel_IO.ndim - num_in
    order = (*range(num_out, kernel_IO.ndim), *range(num_out))
    return dx, jax.lax.dot_general(dy, x, over_rows).transpose(order)


_product.defvjp(_product_forward, _product_backward)
