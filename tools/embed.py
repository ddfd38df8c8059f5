"""Vectors of texts from a trained model, and the nearest of them.

python tools/embed.py --workdir=runs/bert_tiny --input=lines.jsonl --output=vectors.npz
python tools/embed.py --workdir=runs/bert_tiny --input=lines.jsonl --query="a storm at sea"

One vector for each line, the mean over its tokens, or what --pooling says. An .npz has `vectors`
and `ids`, of token vectors `offsets` and `token_ids`, too; a .parquet has the lines' own fields and
`vector`. Free fields of the run's config may be set, as for tools/score.py.
"""

import contextlib
import functools

import numpy as np
from absl import flags

from lmjax import cli
from lmjax.data import output, progress
from lmjax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_INPUT = flags.DEFINE_string(
    "input", None, "JSON lines (.jsonl, .gz, .zst): files, globs or URLs, comma-separated."
)
_OUTPUT = flags.DEFINE_string("output", None, "File or URL, .npz or .parquet, of the vectors.")
_POOLING = flags.DEFINE_enum(
    "pooling", "mean", ["mean", "cls", "max", "last", "tokens"], "What a line's vector is made of."
)
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Make every vector's length 1.")
_NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", None, "Find so many nearest lines of each line, or of --query.", lower_bound=1
)
_QUERY = flags.DEFINE_string("query", None, "Print the lines nearest to this text.")
_TEXT_KEY = flags.DEFINE_string("text_key", "text", "Field that holds the text.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in.")
_BATCH_TOKENS = flags.DEFINE_integer(
    "batch_tokens", 4096, "Tokens per batch, padding included: less for memory.", lower_bound=1
)
flags.mark_flags_as_required(["workdir", "input"])

_NEAREST_OF_QUERY, _SHOWN = 5, 3

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Embeds all lines; writes their vectors, prints what is near."""
    from lmjax.infer import embed, jsonl, vector_files
    from lmjax.train import trained

    files = jsonl.find(_INPUT.value)
    _check(files, vector_files)
    model = trained.load(_WORKDIR.value, step=_STEP.value, dtype=_DTYPE.value, overrides=overrides)
    log(f"{_WORKDIR.value}: {model.config.family} at step {model.step}")
    frame = embed.TextFraming(model.framing, _POOLING.value, _TEXT_KEY.value)
    embedder = embed.Embedder(
        model.model,
        model.params,
        model.batch_sharding,
        pooling=_POOLING.value,
        batch_tokens=_BATCH_TOKENS.value,
    )
    with progress.shown("embedding", log) as show, model.context():
        embedded = functools.partial(
            embed.embed_files, files, frame, embedder, normalize=_NORMALIZE.value, progress=show
        )
        query = None
        if _QUERY.value is not None:
            (query,) = embedder([frame({_TEXT_KEY.value: _QUERY.value})])
        tables = _written(embedded, model.config.model.hidden_size, query)
    for title, index, cosine in tables:
        _show(title, index, cosine, _records(jsonl.read(files), {title, *index.tolist()}))


def _written(embedded, width: int, query) -> list[tuple]:
    """Writes the vectors; returns what was asked for, numbers and cosines of lines nearby.

    The first of each is a line's number, or the query.
    """
    from lmjax.infer import neighbours, vector_files

    nearest = None
    if query is not None:
        nearest = neighbours.Nearest(query[None], _NEIGHBOURS.value or _NEAREST_OF_QUERY)
    file, num_lines = None, 0
    with contextlib.ExitStack() as stack:
        if _OUTPUT.value is not None:
            stream = stack.enter_context(output.file(_OUTPUT.value))
            tokens = _POOLING.value == "tokens"
            file = stack.enter_context(
                vector_files.writing(_OUTPUT.value, stream, width=width, tokens=tokens)
            )
        for lines, texts, vectors in embedded():
            if file is not None:
                file.add(lines, texts, vectors)
            if nearest is not None:
                nearest.add(np.stack(vectors), num_lines)
            num_lines += len(lines)
        tables = []
        if nearest is not None:
            tables = [(_QUERY.value, nearest.index[0], nearest.similarity[0])]
        elif _NEIGHBOURS.value is not None:
            index, cosine = neighbours.of_each(file.vectors, _NEIGHBOURS.value)
            file.put("neighbours", index)
            file.put("similarities", cosine)
            tables = list(zip(range(_SHOWN), index, cosine, strict=False))
    if file is not None:
        log(f"{_OUTPUT.value}: {num_lines:,} lines, vectors of {width} numbers")
    return tables


def _check(files: tuple[str, ...], vector_files) -> None:
    """Raises UserError for flags that do not go together."""
    if _OUTPUT.value is None and _QUERY.value is None:
        raise UserError("there is nothing to do; give --output=FILE.npz, or --query=TEXT")
    if _OUTPUT.value is not None:
        output.check_apart(_OUTPUT.value, files)
        vector_files.check_name(_OUTPUT.value)
    if _NEIGHBOURS.value is None and _QUERY.value is None:
        return
    if _POOLING.value == "tokens":
        raise UserError(
            "--pooling=tokens gives no vector of a line to look for neighbours with; "
            "take --pooling=mean"
        )
    if _QUERY.value is None and not _OUTPUT.value.lower().endswith(".npz"):
        raise UserError("neighbours of all lines are for .npz files; name the output .npz")


def _records(chunks, wanted: set) -> dict[int, dict]:
    """The objects of lines by their number."""
    found, number = {}, 0
    for lines, _ in chunks:
        found |= {number + i: line.record for i, line in enumerate(lines) if number + i in wanted}
        number += len(lines)
    return found


def _show(title: str | int, index: np.ndarray, cosine: np.ndarray, records: dict) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from lmjax.train.console import make_console

    title = _text(records[title]) if isinstance(title, int) else title
    table = Table("cosine", "line", Column(Text(_short(title))), box=None)
    for i, value in zip(index.tolist(), cosine.tolist(), strict=True):
        table.add_row(f"{value:.3f}", f"{i + 1}", Text(_short(_text(records[i]))))
    make_console().print(table)


def _text(record: dict) -> str:
    return str(record.get(_TEXT_KEY.value, record.get("token_ids")))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else f"{text[:89]}…"


if __name__ == "__main__":
    cli.run_with_overrides(main)
