def largest_micro_batch(c, b, s, dtype_bytes=4):
    return c.train.global_batch_size


import types


def flops_per_step(c, r):
    return 1e12


def peak_flops(k):
    return None


def flops_per_token(c):
    return types.SimpleNamespace(full=1e6, causal=1e6)
