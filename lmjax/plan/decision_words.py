"""What a ladder and its fit mean, in words: the rows of the console's table and of the page."""

from __future__ import annotations

from typing import Any

from lmjax.plan.cost import TOKENS_PER_PARAMETER
from lmjax.train.console import count, duration, size

FAR = 10  # times what was measured; beyond that it is said what that means

Rows = list[tuple[str, str]]


def title(found: dict[str, Any]) -> str:
    """Of the whole."""
    budget = found["budget"]
    return f"{found['text']['path']}: {_hours(budget)} on {budget['topology']}"


def headline(name: str, one: dict[str, Any]) -> str:
    """The recommendation for a variant in a line."""
    choice, run = one["choice"], one["choice"]["run"]
    if not choice["train"]:
        published = choice["published"]["name"]
        return f"do not train this {name} from scratch: continue from {published}"
    return (
        f"train a {name} from scratch: {run['shape']}, {count(run['all_params'])} parameters, on "
        f"{count(run['tokens'])} tokens"
    ).replace("a encoder", "an encoder")


def rows(found: dict[str, Any], name: str) -> Rows:
    """All that there is to say of a variant, as (what, words)."""
    one = found["variants"][name]
    choice, task = one["choice"], found["task"]
    why = f"--task={task} asks for it" if task and name == found["variant"] else "as asked"
    if not task and name == found["variant"]:
        why = "no --task was given; a decoder learns from every token" * (name == "decoder")
    return [
        ("recommended", headline(name, one)),
        ("decided by", choice["why"]),
        ("variant", f"{name}, {one['loss']}" + f": {why}" * bool(why)),
        ("text", _text(found)),
        ("ladder", _ladder(one)),
        ("fit", _fit(one["fit"])),
        ("budget", _budget(found["budget"])),
        *_run_rows(found, one),
        ("how sure", _sure(found, one)),
        ("continue from", _published(found, one)),
    ]


def _text(found: dict[str, Any]) -> str:
    text = found["text"]
    return (
        f"{text['num_bytes'] / 1e6:.3g} MB to train on: {count(text['num_tokens'])} tokens of the "
        f"ladder's {found['vocab_size']:,} kinds, {text['bytes_per_token']:.2f} bytes each; "
        f"{count(text['held_out'])} more are held out"
    )


def _ladder(one: dict[str, Any]) -> str:
    runs = one["runs"]
    params, tokens = (sorted({run[key] for run in runs}) for key in ("params", "tokens"))
    seconds = f" ({duration(one['seconds'])} of this machine)" if one["seconds"] > 60 else ""
    return (
        f"{len(runs)} runs of {len(params)} sizes, {count(params[0])} to {count(params[-1])} "
        f"parameters in the blocks (embeddings and head not counted), on {count(tokens[0])} to "
        f"{count(tokens[-1])} tokens{seconds}; held-out content loss {runs[-1]['loss']:.3f} of the "
        f"largest, where word frequencies alone give {runs[-1]['unigram']:.3f}"
    )


def _fit(fit: dict[str, Any]) -> str:
    part = lambda name: "{1:.2f} ({0:.2f} to {2:.2f})".format(*fit[name])
    return (
        f"loss = E + a (N / {count(fit['params'])})^-alpha + b (D / {count(fit['tokens'])})^-beta; "
        f"E {part('E')}, a {part('a')}, b {part('b')}, alpha {part('alpha')}, beta {part('beta')}; "
        f"runs are off by {fit['residual']:.3f} nats; intervals here and below are of "
        f"{fit['level']:.0%}"
    )


def _budget(budget: dict[str, Any]) -> str:
    kind = f" ({budget['kind'].replace('cpu', 'this machine, measured just now')})"
    return (
        f"{_hours(budget)} of {budget['topology']}{kind} at {budget['mfu']:.0%} of its "
        f"peak: {budget['flops']:.2g} FLOPs"
    )


def _run_rows(found: dict[str, Any], one: dict[str, Any]) -> Rows:
    choice, plan = one["choice"], one["plan"]
    run, free = choice["run"], choice["free"]
    passes = run["tokens"] / found["text"]["num_tokens"]
    rows = [
        (
            "best with this text",
            f"{_model(run)} on {count(run['tokens'])} tokens, {_passes(passes)}; {_loss(run)}",
        ),
        ("it takes", _takes(plan)),
    ]
    if choice["text_share"] < 1:
        rows.append(
            (
                "with enough text",
                f"{_model(free)} on {count(free['tokens'])} tokens; {_loss(free)}",
            )
        )
    key = "free" if choice["text_share"] < 1 else "run"
    raw = " to ".join(dict.fromkeys(size(n) for n in one["raw_text_bytes"][key]))
    keep = [f"{100 * share:.2g}" for share in reversed(found["budget"]["keep_rate"])]
    clean = size(choice[key]["tokens"] * found["text"]["bytes_per_token"])
    words = f"{clean} of clean text, if it is read once: {raw} of raw text where curation keeps "
    return [*rows, ("raw text", f"{words}{' to '.join(keep)} %")]


def _model(run: dict[str, Any]) -> str:
    return (
        f"{run['shape']}, {count(run['params'])} parameters in the blocks, "
        f"{count(run['all_params'])} with those of {run['vocab_size']:,} ids,"
    )


def _passes(passes: float) -> str:
    if passes < 0.995:
        return f"{passes:.2g} of the text"
    return "the text once" if passes < 1.05 else f"the text {passes:.2g} times"


def _loss(run: dict[str, Any]) -> str:
    low, middle, high = run["loss"]
    return f"predicted loss {middle:.2f} ({low:.2f} to {high:.2f})"


def _takes(plan: dict[str, Any]) -> str:
    memory = plan["memory"]
    share = f"{size(memory['total'])} of {size(memory['capacity'])} of each device"
    fits = f"fits, {share}" if plan["fits"] else f"does not fit as it is, {share}"
    way = " ".join(f"{key}={value}" for key, value in plan.get("way", {}).items())
    way = f"; it does with {way}, set in its file" if way else ""
    return (
        f"{duration(3600 * plan['hours'])} at {plan['time']['mfu']:.0%} of the peak, "
        f"{plan['steps']:,} steps of {plan['rows']} rows; {fits}{way}"
    )


def _sure(found: dict[str, Any], one: dict[str, Any]) -> str:
    choice = one["choice"]
    key, which = ("run", "") if choice["text_share"] >= 1 else ("free", " with enough text")
    params, tokens = one["extrapolated"][key]
    low, high = choice["sizes"]
    words = (
        f"the best run{which} has {_times(params)} times the parameters and {_times(tokens)} times "
        f"the tokens of the ladder's largest runs; by single draws its blocks have {count(low)} to "
        f"{count(high)} parameters"
    )
    by_rule = (found["budget"]["flops"] / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    words += f" (the rule of {TOKENS_PER_PARAMETER} tokens a parameter: {count(by_rule)})"
    if max(params, tokens) > FAR:
        words += (
            f". The form was checked at 2.3 times the parameters; beyond {FAR} times its "
            "interval is only as good as the form"
        )
        words += ", so train a run a tenth as long first" * choice["train"]
    return words


def _hours(budget: dict[str, Any]) -> str:
    return f"{budget['hours']:g} hour{'s' * (budget['hours'] != 1)}"


def _times(number: float) -> str:
    """To two digits: 0.12, 2.6, 1,300."""
    return f"{number:.2g}" if number < 100 else f"{float(f'{number:.2g}'):,.0f}"


def _published(found: dict[str, Any], one: dict[str, Any]) -> str:
    published = one["choice"]["published"]
    passes = published["passes"]
    can = f"{_times(passes)} times" if passes >= 1 else f"{passes:.1%} of once"
    words = (
        f"{published['name']} ({count(published['params'])} parameters, {published['about']}) can "
        f"read this text {can} in the budget"
    )
    if one["choice"]["train"]:
        tail = "; the ladder says nothing of its loss. For text like what it has read it is the "
        return words + tail + "better start; for another language, vocabulary or licence it is not"
    return words + "; for another language look for one that has read it"


def commands(found: dict[str, Any], name: str) -> list[str]:
    """What to type next: training from scratch, or going on from a published model."""
    one = found["variants"][name]
    path, model = found["text"]["path"], one["choice"]["published"]["name"]
    short = model.split("/")[-1].lower()
    if one["choice"]["train"]:
        run = f"runs/{name}"
        return [f"python -m lmjax.main --config={one['config']['file']} --workdir={run}"]
    return [
        f"hf download {model} --local-dir=downloaded/{short}",
        f"python tools/import_hf.py --input=downloaded/{short} --output=runs/{short} "
        "--config.optimizer.learning_rate=5e-5",
        f"python -m lmjax.main --workdir=runs/{short} --config.data.path={path}",
    ]


def caveats(found: dict[str, Any]) -> list[str]:
    """What the figures do not say."""
    several = len(found["variants"]) > 1
    return [
        "Losses are nats per predicted token of the ladder's vocabulary, in rows of 128, and "
        "tokens are counted by it. A larger vocabulary or longer rows have other losses, and by "
        "32,768 ids the same text has about a fifth fewer tokens; the fit is about what size and "
        "text change, not about those.",
        "The recipe is the ladder's, its learning rate set by a rule: a tuned one is better.",
        *(
            ["Losses of different variants predict different things, and do not compare."]
            if several
            else []
        ),
    ]
