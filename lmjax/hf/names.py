"""Names of a folder's tensors: which of them is which of a stock class, and what does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from lmjax.errors import UserError
from lmjax.hf.format import Format
from lmjax.hf.table import Entry
from lmjax.hf.tensors import Tensors
from lmjax.model_config import ModelConfig


class Names:
    """The names of a folder's tensors, brought to those of today's stock class."""

    def __init__(self, fmt: Format, tensors: Tensors, folder: str):
        self._fmt, self._tensors, self._folder = fmt, tensors, folder
        self._found: dict[str, list[str]] = {}
        for name in tensors.shapes:
            self._found.setdefault(self._renamed(name), []).append(name)

    def _renamed(self, name: str) -> str:
        for old, new in self._fmt.renamed:
            name = re.sub(old, new, name)
        return name

    def is_tied(self, said: bool) -> bool:
        """Whether the logits' matrix is the embedding's: as transformers finds out."""
        fmt, by_file = self._fmt, self._fmt.tied_by_file
        head = self._found.get(fmt.head)
        if head is None or not (said or by_file):
            return head is None and (said or by_file)
        embedding = self._found.get(fmt.embedding)
        embedding = embedding or self._found.get(fmt.embedding.removeprefix(fmt.prefix))
        return embedding is not None and self._tensors.equal(head[0], embedding[0])

    def check(self, entries: list[Entry], model: ModelConfig) -> dict[str, str]:
        """Today's names -> the folder's; every expected one once, with its shape."""
        fmt, shapes = self._fmt, {entry.name: entry.shape for entry in entries}
        same, unused = dict(fmt.same(model)), fmt.unused(model)
        if model.tie_embeddings:
            same[fmt.head] = fmt.embedding
        known = {*shapes, *same, *unused}
        files: dict[str, str] = {}
        unknown = []
        for name, stored in self._found.items():
            full = name if name in known else fmt.prefix + name
            if full in known:
                self._once(full, [*([files[full]] if full in files else []), *stored])
                files[full] = stored[0]
            elif not any(re.fullmatch(p, n) for p in fmt.ignored for n in (name, full)):
                unknown += stored
        for name, of in same.items():  # which of the two was kept is a matter of the writer
            if name in files:
                files.setdefault(of, files[name])
        self._complain(shapes, files, unknown)
        self._tensors.check_types(files.values())
        for name, of in same.items():
            if name in files and not self._tensors.equal(files[name], files[of]):
                raise UserError(
                    f"{self._folder}: {files[name]} and {files[of]} differ, but are one and the "
                    f"same matrix in {fmt.stock_class}; take one of "
                    "them away, or copy the folder again"
                )
        return files

    def _once(self, name: str, stored: list[str]) -> None:
        if len(stored) > 1:
            raise UserError(
                f"{self._folder}: {name} is there twice, as {' and '.join(stored)}; take one away"
            )

    def _complain(
        self, shapes: Mapping[str, tuple[int, ...]], files: Mapping[str, str], unknown: list[str]
    ) -> None:
        missing = [n for n in shapes if n not in files and n not in self._fmt.zeros]
        if missing:
            raise UserError(
                f"{self._folder}: {some(missing)} missing: the weights are not all of a "
                f"{self._fmt.stock_class} as config.json describes it{_near(missing[0], unknown)}; "
                "copy the folder again"
            )
        if unknown:
            raise UserError(
                f"{self._folder}: {some(unknown)} no tensor of a {self._fmt.stock_class} as "
                "config.json describes it; remove it, or mend config.json"
            )
        for name, shape in shapes.items():
            if name in files and self._tensors.shapes[files[name]] != shape:
                raise UserError(
                    f"{self._folder}: {files[name]} is {list(self._tensors.shapes[files[name]])}, "
                    f"by config.json it has to be {list(shape)}; copy the folder again, or mend it"
                )


def some(names: list[str]) -> str:
    """ "NAME is", or "NAME and N more are": the beginning of a complaint."""
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return names[0] + more


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1)
    return f" (there is {near[0]})" if near else ""
