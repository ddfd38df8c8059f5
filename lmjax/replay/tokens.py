"""The text of a batch as HTML: each token in the colour of what it cost."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmjax.batch import Batch, Ids
from lmjax.data.pipeline import TrainBatches
from lmjax.data.tokenizer import AnyTokenizer
from lmjax.pages.markup import Html, escape, join, tag
from lmjax.train.shown import Shown, Spelling, answer_of, header, name_of, sequences

MAX_ROWS, MAX_TOKENS = 64, 20_000  # on a page, which is to stay below 5 MB

_EDGES = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 11.0)  # nats, where the next colour begins
_SHARES = (0, 12, 24, 36, 48, 60, 72, 86, 100)  # of it in the colours

# Lightness alone tells the levels apart, so that they do not hang on seeing colours; and text keeps
# a contrast of 4.5 on the strongest of them.
STYLE = """
:root { --cost: #f0842c; }
@media (prefers-color-scheme: dark) { :root { --cost: #a34a06; } }
.tokens {
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; margin: 0.3rem 0 0.8rem;
}
.tokens span { border-radius: 2px; padding: 0.1em 0; }
.tokens span[title] { cursor: default; box-shadow: inset 0 -1px var(--line); }
.tokens .name {
  font-family: ui-monospace, monospace; font-size: 0.82em; border: 1px solid var(--line);
}
.tokens .on, .tokens span[title]:hover { outline: 2px solid var(--accent); }
.tokens:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
.side { color: var(--muted); font-size: 0.85rem; }
.legend {
  display: flex; flex-wrap: wrap; gap: 0.2rem; list-style: none; padding: 0; margin: 0.6rem 0;
  font-size: 0.85rem;
}
.legend li { padding: 0.1rem 0.6rem; border: 1px solid var(--line); border-radius: 3px; }
#token {
  position: sticky; bottom: 0; display: block; min-height: 1.9rem; padding: 0.2rem 0.6rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: 6px 6px 0 0;
  white-space: pre-wrap;
}
#token:empty { display: none; }
.excerpt { min-width: 15rem; overflow-wrap: anywhere; }
td code { white-space: nowrap; }
""" + "\n".join(
    f".q{level} {{ background: color-mix(in srgb, var(--cost) {share}%, var(--paper)); }}"
    for level, share in enumerate(_SHARES)
)

# Tells what a token cost where nothing hovers: on a phone, by keyboard, to a screen reader.
_SCRIPT = """
for (const box of document.querySelectorAll(".tokens")) {
  const all = [...box.querySelectorAll("span[title]")], out = document.getElementById("token");
  let at = -1;
  const go = (to) => {
    if (!all[to]) return;
    if (all[at]) all[at].classList.remove("on");
    all[at = to].classList.add("on");
    out.textContent = `${all[at].textContent.trim()}  ${all[at].title}`;
  };
  box.addEventListener("click", (event) => go(all.indexOf(event.target)));
  box.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) { event.preventDefault(); go(at + by); all[at]?.scrollIntoView({ block: "nearest" }); }
  });
}
"""


@dataclass(frozen=True)
class Texts:
    """Writes the rows of a batch; `names` are those of the sources of a mixture."""

    batches: TrainBatches
    tokenizer: AnyTokenizer
    ids: Ids
    names: Sequence[str]

    def worst(self, batch: Batch, nats_BP: np.ndarray) -> list[Html]:
        """What a section shows of a batch: its rows, the worst first, and what the colours mean."""
        weights_BP = batch["weights"]
        loss_B = (weights_BP * nats_BP).sum(axis=1, dtype=np.float64)
        loss_B /= np.maximum(weights_BP.sum(axis=1, dtype=np.float64), 1e-9)
        order = np.argsort(-np.where(np.isfinite(loss_B), loss_B, np.inf), kind="stable").tolist()
        spelling, shown, left = Spelling(self.tokenizer, self.ids), [], MAX_TOKENS
        for number in order[:MAX_ROWS]:
            if left <= 0:
                break
            row = {name: field[number] for name, field in batch.items()}
            text, used = self._row(row, nats_BP[number], float(loss_B[number]), spelling, left)
            shown.append(text)
            left -= used
        rest = len(order) - len(shown)
        said = f"{len(shown)} of {len(order)} rows" if rest else f"All {len(order)} rows"
        cut = f" The last is cut: a page shows {MAX_TOKENS:,} tokens." if left < 0 else ""
        about = (
            f"{said}, those with the highest loss first.{cut} Hover over a token, or click and use "
            "the arrow keys, for what it cost."
        )
        readout = tag("output", "", id="token", aria_live="polite")
        return [tag("p", about), legend(), *shown, readout, tag("script", Html(_SCRIPT))]

    def _row(
        self, row: Batch, nats_P: np.ndarray, loss: float, spelling: Spelling, limit: int
    ) -> tuple[Html, int]:
        """A row of at most so many tokens, and how many it has."""
        answer = answer_of(row, self.batches)
        sides = dict(sequences(row, self.ids, answered=answer is not None))
        if "targets" in sides:
            del sides["inputs"]  # the same a place further
        parts: list[Html] = []
        used = 0
        for name, tokens in sides.items():
            text = self._tokens(tokens[: max(limit - used, 0)], nats_P, spelling)
            used += len(tokens)
            if len(sides) > 1:
                parts.append(tag("div", name, class_="side"))
            parts.append(
                tag("div", text, class_="tokens", tabindex="0", role="group", aria_label=name)
            )
        if answer is not None:
            parts.append(tag("p", tag("span", "answer  ", class_="side"), answer))
        predictions = int((row["weights"] > 0).sum())
        title = tag("h3", f"{loss:.3f} nats per prediction, {predictions} predictions")
        where = tag("p", header(row, self.batches, self.names), class_="muted")
        return tag("article", title, where, *parts), used

    def _tokens(self, tokens: Sequence[Shown], nats_P: np.ndarray, spelling: Spelling) -> Html:
        """A sequence; what is predicted stands where it was hidden."""
        spelled = spelling(s.token if s.hides is None else s.hides for s in tokens)
        parts: list[Html] = []
        is_plain = lambda pair: pair[0].prediction is None and not self._name(pair[0])
        for plain, pairs in itertools.groupby(zip(tokens, spelled, strict=True), is_plain):
            if plain:
                parts.append(escape("".join(text for _, text in pairs)))
                continue
            for shown, text in pairs:
                cost = None if shown.prediction is None else float(nats_P[shown.prediction])
                parts.append(self._token(shown, text, cost))
        return join(parts)

    def _token(self, shown: Shown, text: str, nats: float | None) -> Html:
        named = "name" if self._name(shown) else ""
        if nats is None:
            return tag("span", text, class_=named)
        classes = f"q{level(nats)} {named}".strip()
        return tag("span", text.replace("\n", "↵\n"), class_=classes, title=self._said(shown, nats))

    def _said(self, shown: Shown, nats: float) -> str:
        cost = f"{nats:.3g} nats, p {math.exp(-nats):.2g}" if math.isfinite(nats) else f"{nats}"
        if shown.hides is None:
            return cost + ", given away" * (shown.kind == "given")
        stood = "itself" if shown.kind == "kept" else self._piece(shown.token)
        return f"{cost}, read: {stood}"

    def _piece(self, token: int) -> str:
        return getattr(self.tokenizer, "piece", str)(token)

    def _name(self, shown: Shown) -> str | None:
        token = shown.token if shown.hides is None else shown.hides
        return name_of(token, self.tokenizer, self.ids)


def level(nats: float) -> int:
    """Which of the colours a token that costs this has."""
    return bisect_right(_EDGES, nats) if math.isfinite(nats) else len(_EDGES)


def legend() -> Html:
    """The colours, and from how many nats on."""
    ends = [f"< {_EDGES[0]:g}", *(f"{a:g}–{b:g}" for a, b in itertools.pairwise(_EDGES))]
    items = [
        tag("li", text, class_=f"q{number}")
        for number, text in enumerate([*ends, f"≥ {_EDGES[-1]:g} nats"])
    ]
    return tag("ul", *items, class_="legend", aria_label="Colours of tokens by their loss in nats")
