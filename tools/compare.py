"""Compares fine-tuned models on the same held-out examples, with paired intervals and baselines.

python tools/compare.py --runs=pretrained=runs/a0,runs/a1,runs/a2 --runs=scratch=runs/b0,runs/b1

Every run's workdir holds the answers of its newest evaluation (predictions.jsonl). Runs of a group
differ in their seed; the first group is compared with all others, and with the plain baselines of
the task. Intervals are of 95 %, by a bootstrap over the examples.
"""

from absl import flags

from lmjax import cli

_RUNS = flags.DEFINE_multi_string("runs", None, "NAME=WORKDIR[,WORKDIR...]; several times.")
_BASELINES = flags.DEFINE_bool("baselines", True, "Whether the task's plain baselines are added.")
_MEASURES = flags.DEFINE_list("measures", None, "Measures to print; default: all there are.")
_OUTPUT = flags.DEFINE_string("output", None, "File or URL that gets all numbers as JSON.")
flags.mark_flag_as_required("runs")


def main() -> None:
    """Prints the table."""
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


if __name__ == "__main__":
    cli.run(main)
