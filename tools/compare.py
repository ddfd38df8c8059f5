"""Compares fine-tuned models on the same held-out examples, with paired intervals and baselines.

python tools/compare.py --runs=pretrained=runs/a0,runs/a1,runs/a2 --runs=scratch=runs/b0,runs/b1

Every run's workdir holds the answers of its newest evaluation (predictions.jsonl). Runs of a group
differ in their seed; the first group is compared with all others, and with the plain baselines of
the task. Intervals are of 95 %, by a bootstrap over the examples.

python tools/compare.py --matched --data=text.jsonl --held_out=held_out.jsonl --labelled=FOLDER
    --workdir=DIR --output=FILE.md

pre-trains an encoder, a decoder and an encoder-decoder of one size on the same tokens, fine-tunes
them, and writes one table of all (FILE.md) with its numbers (FILE.json). The same command goes on
where it was stopped; without --workdir the table is made again from FILE.json.
"""

from absl import flags

from lmjax import cli

_RUNS = flags.DEFINE_multi_string("runs", None, "NAME=WORKDIR[,WORKDIR...]; several times.")
_BASELINES = flags.DEFINE_bool("baselines", True, "Whether the task's plain baselines are added.")
_MEASURES = flags.DEFINE_list("measures", None, "Measures to print; default: all there are.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "File or URL that gets all numbers as JSON; --matched: FILE.md."
)
_MATCHED = flags.DEFINE_bool("matched", False, "Run the matched comparison of three variants.")
_DATA = flags.DEFINE_string("data", None, "Matched: text to train on; files, globs or URLs.")
_HELD_OUT = flags.DEFINE_string("held_out", None, "Matched: text that nobody trains on.")
_LABELLED = flags.DEFINE_string(
    "labelled", None, "Matched: folder of TASK.train.jsonl and TASK.test.jsonl; none: no tasks."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Matched: folder for everything that is run.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Matched: of the main size.")
_MAIN = flags.DEFINE_enum("main", "mini", ["tiny", "mini", "small"], "Matched: the main size.")
_SIZES = flags.DEFINE_list("sizes", ["tiny", "mini", "small"], "Matched: sizes to pre-train.")
_STEPS = flags.DEFINE_integer("steps", 1500, "Matched: of each pre-training.", lower_bound=2)
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 4096, "Matched: of the tokenizer.")
_CHOICES = flags.DEFINE_integer("choices", 1000, "Matched: texts to go on with.", lower_bound=1)
_SHORTEN = flags.DEFINE_float(
    "shorten", 1.0, "Matched: fine-tune for this part of the recipes' steps.", 0.0, 1.0
)
_JOBS = flags.DEFINE_integer("jobs", 1, "Matched: jobs at a time.", lower_bound=1)
_CORES = flags.DEFINE_list("cores", [], "Matched: a core for each of them to keep to, as in 0,1.")


def main() -> int | None:
    """Prints the table of runs, or makes the page of a matched comparison."""
    from lmjax.errors import UserError

    if _MATCHED.value == bool(_RUNS.value):
        raise UserError("give either --runs=NAME=DIR,DIR or --matched")
    return _matched() if _MATCHED.value else _compare()


def _compare() -> None:
    import dataclasses
    import json

    from lmjax import paths
    from lmjax.bench import compare
    from lmjax.errors import UserError

    groups = {}
    for text in _RUNS.value:
        name, _, workdirs = text.partition("=")
        if not name or not workdirs:
            raise UserError(f"--runs={text}: not a name and workdirs; write NAME=DIR,DIR")
        if name in groups:
            raise UserError(f"--runs: two groups are called {name!r}; give each its own name")
        groups[name] = [compare.read(path.strip()) for path in workdirs.split(",")]
    if _BASELINES.value:
        groups |= compare.baselines(next(iter(groups.values()))[0])
    found = compare.lines(groups)
    known = list(dict.fromkeys(line.measure for line in found))
    wanted = known if _MEASURES.value is None else _MEASURES.value
    for name in wanted:
        if name not in known:
            raise UserError(f"--measures={name}: these runs have {', '.join(known)}")
    print(compare.markdown([line for line in found if line.measure in wanted]))
    if _OUTPUT.value:
        lines = [dataclasses.asdict(line) | {"mean": line.mean} for line in found]
        paths.write_bytes(_OUTPUT.value, (json.dumps(lines, indent=2) + "\n").encode())


def _matched() -> int | None:
    """Runs what is not done, then writes numbers, pictures and page."""
    import json
    from pathlib import Path

    from lmjax.errors import UserError

    if _OUTPUT.value is None or not _OUTPUT.value.endswith(".md"):
        raise UserError("--matched writes a page; give --output=FILE.md")
    page = Path(_OUTPUT.value)
    numbers, failed = page.with_suffix(".json"), {}
    if _WORKDIR.value is not None:
        failed = _run(numbers)
    elif not numbers.exists():
        raise UserError(f"{numbers} is not there; run the comparison first, with --workdir=DIR")
    # JAX is imported only now, behind the jobs.
    from lmjax.bench import matched_page, matched_pictures

    found = json.loads(numbers.read_text(encoding="utf-8"))
    images = page.parent / "images"
    drawn = matched_pictures.draw(found, images, page.stem)
    matched_page.write(found, page, [(f"images/{name}", about) for name, about in drawn])
    print(f"{page}: {len(found['rows'])} rows; numbers in {numbers}, pictures in {images}")
    for name, why in failed.items():
        print(f"not there: {name}: {why}")
    return 1 if failed else None


def _run(numbers) -> dict[str, str]:
    """Runs the jobs and writes what they came to; returns what failed."""
    import functools
    import signal
    import sys
    from pathlib import Path

    from lmjax.bench import jobs, matched
    from lmjax.errors import UserError

    if _DATA.value is None or _HELD_OUT.value is None:
        raise UserError("--matched --workdir wants text; give --data=TEXT and --held_out=TEXT")
    try:
        seeds, cores = [[int(x) for x in some] for some in (_SEEDS.value, _CORES.value)]
    except ValueError as error:
        raise UserError("--seeds and --cores are numbers; write --seeds=0,1,2") from error
    for size in _SIZES.value:
        if size not in matched.SIZES:
            raise UserError(f"--sizes has {size}; there are {', '.join(matched.SIZES)}")
    if cores and len(cores) < _JOBS.value:
        raise UserError(f"--cores names {len(cores)} for {_JOBS.value} jobs; name one for each")
    plan = matched.Plan(
        workdir=Path(_WORKDIR.value).absolute(),
        data=_DATA.value,
        held_out=_HELD_OUT.value,
        labelled=None if _LABELLED.value is None else Path(_LABELLED.value),
        seeds=seeds,
        main=_MAIN.value,
        sizes=_SIZES.value,
        steps=_STEPS.value,
        vocab_size=_VOCAB_SIZE.value,
        choices=_CHOICES.value,
        shorten=_SHORTEN.value,
    )
    counts = plan.prepare()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the jobs are ended, too
    tell = functools.partial(print, flush=True)
    runner = jobs.Runner(plan.workdir / "jobs", _JOBS.value, cores, tell)
    failed = runner.run(plan.jobs())
    from lmjax.bench import matched_results

    matched_results.write(matched_results.collect(plan, counts, runner), numbers)
    return failed


if __name__ == "__main__":
    cli.run(main)
