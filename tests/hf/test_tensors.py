"""safetensors written one by one: the library reads them; readers see what is wrong."""

import json
import math
import weakref

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from lmjax.errors import UserError
from lmjax.hf import tensors as tensors_lib
from lmjax.hf.tensors import Tensor, Tensors

KINDS = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
SHAPES = {"b": (3, 5), "a": (7,), "scalar": (), "none": (0, 4), "x.y.weight": (2, 3, 4), "é": (1,)}


def arrays(shapes=SHAPES):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def streamed(contents):
    return [Tensor(name, x.shape, lambda x=x: x) for name, x in contents.items()]


def header_of(file):
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return size, json.loads(content[8 : 8 + size]), content[8 + size :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_what_the_library_would_write(kind, tmp_path):
    contents = arrays()
    assert tensors_lib.write(tmp_path, streamed(contents), dtype=kind) == ["model.safetensors"]
    wanted = {name: np.asarray(x, KINDS[kind]) for name, x in contents.items()}
    safetensors.numpy.save_file(wanted, tmp_path / "theirs", {"format": "pt"})
    ours, theirs = (
        safetensors.numpy.load_file(tmp_path / name) for name in ("model.safetensors", "theirs")
    )
    assert ours.keys() == theirs.keys() == contents.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True)
        np.testing.assert_array_equal(array, wanted[name], strict=True)
    size, header, data = header_of(tmp_path / "model.safetensors")
    assert size % 8 == 0
    assert header.pop("__metadata__") == header_of(tmp_path / "theirs")[1]["__metadata__"]
    ends = [0] + [entry["data_offsets"][1] for entry in header.values()]
    assert [entry["data_offsets"][0] for entry in header.values()] == ends[:-1]
    assert ends[-1] == len(data)
    assert list(header) == list(contents)


def test_what_is_strided_or_big_endian_is_written_in_order(tmp_path):
    x = np.arange(24, dtype=">f8").reshape(4, 6)
    tensors_lib.write_file(tmp_path / "f", streamed({"a": x.T, "b": x[::2, ::-3]}))
    read = safetensors.numpy.load_file(tmp_path / "f")
    np.testing.assert_array_equal(read["a"], x.T)
    np.testing.assert_array_equal(read["b"], x[::2, ::-3])


def test_no_tensors_at_all(tmp_path):
    tensors_lib.write_file(tmp_path / "model.safetensors", [])
    assert safetensors.numpy.load_file(tmp_path / "model.safetensors") == {}
    assert Tensors(tmp_path).shapes == {}


def test_shards(tmp_path):
    sizes = {"a": 10, "b": 10, "large": 50, "c": 5, "d": 20, "e": 1}
    contents, told = arrays({name: (size,) for name, size in sizes.items()}), []
    names = tensors_lib.write(
        tmp_path, streamed(contents), max_shard_bytes=100, on_tensor=told.append
    )
    shards = [f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    assert names == [*shards, "model.safetensors.index.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    kept = [list(safetensors.numpy.load_file(tmp_path / name)) for name in shards]
    assert [sorted(names) for names in kept] == [["a", "b"], ["large"], ["c", "d"], ["e"]]
    index = json.loads((tmp_path / names[-1]).read_bytes())
    assert index["weight_map"] == {
        tensor: shard for shard, inside in zip(shards, kept, strict=True) for tensor in inside
    }
    assert index["metadata"] == {"total_size": 4 * sum(sizes.values())}
    assert told == [4 * size for size in sizes.values()]
    read = Tensors(tmp_path)
    assert read.lost() == []
    for name, array in contents.items():
        np.testing.assert_array_equal(read(name), array)


@pytest.mark.parametrize(("limit", "number"), [(1, 6), (79, 6), (80, 3), (240, 1)])
def test_the_limit_is_reached_and_not_passed(limit, number, tmp_path):
    contents = arrays({str(i): (10,) for i in range(6)})
    files = tensors_lib.write(tmp_path, streamed(contents), max_shard_bytes=limit)
    assert len([name for name in files if name.endswith(".safetensors")]) == number


def test_no_more_than_one_tensor_is_held(tmp_path):
    made = []

    def make():
        assert not any(array() is not None for array in made)
        array = np.zeros((100, 100))
        made.append(weakref.ref(array))
        return array

    many = [Tensor(str(i), (100, 100), make) for i in range(20)]
    tensors_lib.write(tmp_path, many, dtype="bfloat16", max_shard_bytes=100_000)
    assert len(made) == 20


def test_a_tensor_of_another_shape_than_announced(tmp_path):
    with pytest.raises(ValueError, match=r"a is \(3,\), \(2,\) was announced"):
        tensors_lib.write_file(tmp_path / "f", [Tensor("a", (2,), lambda: np.zeros(3))])


def test_readers(tmp_path):
    contents = arrays()
    tensors_lib.write(tmp_path, streamed(contents), dtype="bfloat16")
    read = Tensors(tmp_path)
    assert read.shapes == SHAPES
    assert set(read.types.values()) == {"BF16"}
    assert read("b").dtype == ml_dtypes.bfloat16
    assert sum(math.prod(s) for s in read.shapes.values()) == sum(x.size for x in contents.values())
    (tmp_path / "model.safetensors").rename(tmp_path / "another.safetensors")
    assert Tensors(tmp_path).shapes == SHAPES
    tensors_lib.write_file(tmp_path / "second.safetensors", [])
    with pytest.raises(UserError, match="no weights"):
        Tensors(tmp_path)


def test_equal_means_bit_for_bit(tmp_path):
    x = np.array([0.0, np.nan, 1.0], np.float32)
    pairs = {"a": x, "same": x.copy(), "sign": x * [-1, 1, 1], "shape": x[None], "type": x[:0]}
    pairs = {name: np.asarray(array, np.float32) for name, array in pairs.items()}
    pairs["type"] = x.astype(np.float16)
    safetensors.numpy.save_file(pairs, tmp_path / "model.safetensors")
    read = Tensors(tmp_path)
    assert [name for name in pairs if read.equal("a", name)] == ["a", "same"]


def test_a_name_in_two_files(tmp_path):
    for name in ("one", "two"):
        tensors_lib.write_file(tmp_path / name, streamed(arrays({"a": (1,)})))
    index = {"weight_map": {"a": "one", "b": "two"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="a is in both one and two"):
        Tensors(tmp_path)
