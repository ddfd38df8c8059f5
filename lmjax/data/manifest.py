"""What the manifest of a token store may say: anyone's file, checked before anything is made of it.

Sizes are those of real files: those on disk are compared with the manifest when a split is opened,
and the number of blocks follows here from the bytes of the shards. So no claim of the manifest is
larger than what is on the disk.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from lmjax import confine

FORMAT = 1
MAX_BYTES = 256 << 20  # a million input files and as many shards
_MAX_BLOCK = 1 << 20
_CHECKSUM = "checksum"
_Count = Annotated[int, pydantic.Field(ge=0, lt=2**62)]
_Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, frozen=True)


class _File(_Section):
    file: str
    bytes: _Count
    sha256: _Sha256


class _Shard(_File):
    num_blocks: _Count
    ends_crc32: _Count | None = None


class _Split(_Section):
    num_tokens: _Count
    num_documents: _Count
    num_bytes: _Count
    shards: list[_Shard]
    starts: _File
    origin: _File

    @property
    def files(self) -> list[_File]:
        return [*self.shards, self.starts, self.origin]


class _Input(_Section):
    name: str


class _Tokenizer(_Section):
    sha256: _Sha256
    vocab_size: Annotated[int, pydantic.Field(gt=0, le=2**32)]


class _Manifest(_Section):
    format: Literal[1]
    dtype: Literal["uint16", "uint32"]
    block_size: Annotated[int, pydantic.Field(gt=0, le=_MAX_BLOCK)]
    settings: dict[str, Any]
    tokenizer: _Tokenizer
    inputs: list[_Input]
    counts: dict[str, _Count]
    splits: dict[str, _Split]


class OutsideError(ValueError):
    """The manifest names a file that is not in the store's folder."""


def check(manifest: Any) -> None:
    """Raises ValueError, with one line, unless a store can be what `manifest` says.

    Raises:
      OutsideError: as it says.
    """
    if manifest.get(_CHECKSUM, wanted := _checksum(manifest)) != wanted:
        raise ValueError("its checksum is that of other content")
    try:
        read = _Manifest.model_validate(manifest)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ValueError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    files = [entry.file for split in read.splits.values() for entry in split.files]
    if outside := [name for name in files if not confine.is_plain(name)]:
        raise OutsideError(repr(outside[0][:200]))
    if len(set(files)) < len(files):
        twice = next(a for a, b in itertools.pairwise(sorted(files)) if a == b)
        raise ValueError(f"{twice!r} is named twice")
    block_bytes = read.block_size * (2 if read.dtype == "uint16" else 4)
    for name, split in read.splits.items():
        _check_amounts(name, split, read.block_size, block_bytes)


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum: a number with a flipped bit is as credible as any other."""
    return {**manifest, _CHECKSUM: _checksum(manifest)}


def _checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != _CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_amounts(name: str, split: _Split, block_size: int, block_bytes: int) -> None:
    for shard in split.shards:
        if shard.num_blocks * block_bytes > shard.bytes:
            raise ValueError(f"{shard.file} has no room for {shard.num_blocks} blocks")
    if sum(shard.num_blocks for shard in split.shards) != -(-split.num_tokens // block_size):
        raise ValueError(f"{name} has not the shards of its tokens")
    if not 0 < split.num_documents <= split.num_tokens:  # each ends with a token
        raise ValueError(f"{name} has {split.num_documents} documents in {split.num_tokens} tokens")
