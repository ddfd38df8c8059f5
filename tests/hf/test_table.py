"""The weight table: every pattern of every format against loops, and that nothing is left out."""

import itertools
import re

import numpy as np
import published
import pytest

from lmjax import families
from lmjax.families import roberta, weights
from lmjax.hf import table
from lmjax.hf.table import Row

SIZES = {"p": 3, "h": 2, "k": 5, "d": 4, "m": 7, "v": 6, "n": 8, "t": 2, "b": 9, "e": 4, "c": 3}
FORMATS = {name: fmt for name, (_, fmt) in families.FORMATS.items()}
PATTERNS = sorted(
    {
        (row.dims, 1 if isinstance(row.ours, str) else len(row.ours))
        for name, fmt in FORMATS.items()
        for row in fmt.rows(published.model_of(name), published.IDS)
    }
)


def entry_of(dims, number=1, skip=0):
    """One entry whose axes have the sizes above."""
    ours = dims.split(" -> ")[-1].split()
    part = tuple(SIZES[axis] for axis in ours if axis != "p")
    paths = tuple(f"ours{i}" for i in range(number))
    row = Row("theirs", paths if number > 1 else paths[0], dims, skip)
    (entry,) = table.expand([row], dict.fromkeys(paths, part), {})
    return entry


@pytest.mark.parametrize(("dims", "number"), PATTERNS)
def test_each_number_goes_where_the_pattern_says(dims, number):
    theirs, _, ours = dims.partition(" -> ")
    right = (ours or theirs).split()
    sizes = SIZES | {"p": number, "1": 1}
    groups = [(several or one).split() for several, one in re.findall(r"\((.*?)\)|(\S+)", theirs)]
    entry = entry_of(dims, number)
    assert entry.shape == tuple(np.prod([sizes[a] for a in group]) for group in groups)
    tensor = np.random.default_rng(0).normal(size=entry.shape).astype(np.float32)
    parts = np.asarray(entry.to_ours(tensor))
    assert parts.shape == (number, *(sizes[a] for a in right if a != "p"))
    parts = parts if right[0] == "p" else parts[0]
    for index in itertools.product(*(range(sizes[a]) for a in right)):
        at = dict(zip(right, index, strict=True)) | {"1": 0}
        place = []
        for group in groups:
            place.append(0)
            for axis in group:
                place[-1] = place[-1] * sizes[axis] + at[axis]
        assert tensor[tuple(place)] == parts[index]


@pytest.mark.parametrize(("dims", "number"), PATTERNS)
def test_there_and_back(dims, number):
    entry, rng = entry_of(dims, number), np.random.default_rng(0)
    tensor = rng.normal(size=entry.shape).astype(np.float32)
    back = entry.to_theirs(entry.to_ours(tensor))
    np.testing.assert_array_equal(back, tensor, strict=True)
    parts = [rng.normal(size=entry.part) for _ in range(number)]
    for mine, part in zip(entry.to_ours(entry.to_theirs(parts)), parts, strict=True):
        np.testing.assert_array_equal(mine, part, strict=True)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_leading_rows_that_theirs_has_not(skip):
    entry = entry_of("n d", skip=skip)
    assert entry.shape == (8 - skip, 4)
    ours = np.random.default_rng(0).normal(size=(8, 4))
    np.testing.assert_array_equal(entry.to_theirs([ours]), ours[skip:])
    (back,) = entry.to_ours(ours[skip:])
    np.testing.assert_array_equal(back[skip:], ours[skip:])
    assert not back[:skip].any()
    assert back.shape == (8, 4)


@pytest.mark.parametrize(("pad", "skip"), [(0, 1), (1, 0), (None, 0)])
def test_robertas_positions_begin_behind_the_padding_id(pad, skip):
    (fmt,) = roberta.FORMATS
    entries = weights.entries(fmt, published.model_of("roberta"), {"pad": pad})
    (entry,) = (e for e in entries if "position_embeddings" in e.name)
    assert (entry.row.skip, entry.shape) == (skip, (14 - skip, 16))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_come_back(name, tied):
    own = not tied and name == "bart"
    model = published.model_of(name, tie_embeddings=tied, encoder_embeddings=own)
    entries = weights.entries(FORMATS[name], model, published.IDS)
    rng = np.random.default_rng(0)
    leaves = {k: rng.normal(size=s).astype("f4") for k, s in weights.shapes(model).items()}
    tensors = {entry.name: weights.to_published(entry, leaves) for entry in entries}
    assert {k: v.shape for k, v in tensors.items()} == {e.name: e.shape for e in entries}
    assert sum(v.size for v in tensors.values()) == sum(v.size for v in leaves.values())
    back = weights.from_published(entries, tensors)
    assert back.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(back[path], leaf)


LEAVES = {"stack/unit/0/up/kernel": (3, 4, 5), "final/scale": (4,)}
LAYERS = {"stack": [("stack/unit/0", i) for i in range(3)]}
ROWS = [Row("h.{i}.up", "stack/{i}/up/kernel", "m d -> d m"), Row("norm", "final/scale", "d")]


def test_layers_are_slices_of_a_stack():
    entries = table.expand(ROWS, LEAVES, LAYERS)
    assert [(e.name, e.shape, e.places) for e in entries] == [
        *((f"h.{i}.up", (5, 4), (("stack/unit/0/up/kernel", i),)) for i in range(3)),
        ("norm", (4,), (("final/scale", None),)),
    ]
    unused = Row("bias", "final/bias", "d")
    assert table.expand([*ROWS, unused], LEAVES, LAYERS) == entries


@pytest.mark.parametrize(
    ("rows", "layers", "message"),
    [
        (ROWS[:1], LAYERS, "final/scale .* is not covered once"),
        (ROWS[1:], LAYERS, "up/kernel .* is not covered once"),
        ([*ROWS, Row("norm2", "final/scale", "d")], LAYERS, "final/scale .* is not covered once"),
        ([*ROWS, ROWS[0]], LAYERS, "up/kernel .* is not covered once"),
        (ROWS, {"stack": LAYERS["stack"][:2]}, "up/kernel .* is not covered once"),
        (ROWS, {"stack": [*LAYERS["stack"], LAYERS["stack"][0]]}, "is not covered once"),
        ([*ROWS, Row("x", ("final/scale", "final/no"), "(p d) -> p d")], LAYERS, "some of"),
        ([ROWS[0], Row("norm", "final/scale", "a b")], LAYERS, "'a b' does not fit"),
    ],
)
def test_a_wrong_table(rows, layers, message):
    with pytest.raises(ValueError, match=message):
        table.expand(rows, LEAVES, layers)
