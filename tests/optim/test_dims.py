import pytest

from lmjax.optim.dims import Dims, dims_of


@pytest.mark.parametrize(
    ("names", "dims"),
    [
        (("vocab", "embed"), Dims((), (0,), (1,), table=True)),
        (("layers", "embed", "heads", "head_dim"), Dims((0,), (1,), (2, 3))),
        (("layers", "heads", "head_dim", "embed"), Dims((0,), (1, 2), (3,))),
        (("embed", "kv_heads", "head_dim"), Dims((), (0,), (1, 2))),
        (("layers", "heads", "head_dim"), Dims((0,), (), (1, 2))),
        (("layers", "norm"), Dims((0,), (), (1,))),
        (("norm",), Dims((), (), (0,))),
        (("relative_buckets", "heads"), Dims((), (0,), (1,), table=True)),
        (("embed", "embed_out"), Dims((), (0,), (1,))),
    ],
)
def test_dims_come_from_names(names, dims):
    assert dims_of(names) == dims


def test_three_groups_are_no_matrix():
    with pytest.raises(ValueError, match="neither vector nor matrix"):
        dims_of(("embed", "mlp", "vocab"))
