"""Kills a training run over and over, and compares it with one that nothing disturbs.

python tools/fault_campaign.py --kills=100 --terms=30 --flips=200 --output=campaign.json
python tools/fault_campaign.py --kills=6 --variant=encoder --workdir=runs/campaign

A hundred kills are 60 after as many committed steps and 40 while a save is written, over three
variants. A start takes some 8 s. With --flips bits of the last checkpoint are flipped, too, and
each of its files is cut and deleted.
"""

import json
import tempfile
from pathlib import Path

from absl import flags

from lmjax import cli

_VARIANTS = {"decoder": "gpt2_tiny", "encoder": "bert_tiny", "encoder_decoder": "t5_tiny"}

_KILLS = flags.DEFINE_integer("kills", 12, "SIGKILLs, 3 in training to 2 in saves.", lower_bound=0)
_TERMS = flags.DEFINE_integer("terms", 0, "SIGTERMs at four kinds of moments.", lower_bound=0)
_FLIPS = flags.DEFINE_integer("flips", 0, "Bits flipped in checkpoints.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the bits.")
_VARIANT = flags.DEFINE_multi_enum("variant", None, list(_VARIANTS), "Which; all by default.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs live; by default they are deleted.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write what came of it to this JSON file.")


def main() -> int:
    from lmjax import paths
    from lmjax.bench import campaign, flips, report
    from lmjax.errors import UserError
    from lmjax.train.console import make_console

    variants, console = _VARIANT.value or list(_VARIANTS), make_console()
    if not _KILLS.value + _TERMS.value:
        raise UserError("nothing to do; give --kills=N or --terms=N above 0")
    in_saves = round(_KILLS.value * 0.4)
    asked = campaign.kills(_KILLS.value - in_saves, in_saves, _SEED.value)
    asked += campaign.terms(_TERMS.value)
    share = -(-_FLIPS.value // len(variants))
    outcomes, damaged = [], {}
    with tempfile.TemporaryDirectory(prefix="campaign_") as temporary:
        for number, variant in enumerate(variants):
            seed, folder = _SEED.value + number, Path(_WORKDIR.value or temporary) / variant
            folder.mkdir(parents=True)
            config = Path(__file__).parents[1] / "configs" / f"{_VARIANTS[variant]}.py"
            run = campaign.Campaign(
                config, folder, asked[number :: len(variants)], seed, console.print
            )
            outcomes.append(run())
            if share:
                damaged[variant] = flips.campaign(str(run.whole), folder / "damaged", share, seed)
    console.print(report.campaign_table(outcomes))
    if damaged:
        console.print(report.damage_table(damaged))
    if _OUTPUT.value:
        content = {
            "seed": _SEED.value,
            "outcomes": [outcome.as_dict() for outcome in outcomes],
            "damaged": damaged,
        }
        paths.write_bytes(_OUTPUT.value, (json.dumps(content, indent=2) + "\n").encode())
    if not all(outcome.exact for outcome in outcomes):
        return cli.fail("a disturbed run differs from the undisturbed one; see the table")
    if any(flips.is_bad(came) for came in damaged.values()):
        return cli.fail("a damaged checkpoint was taken for a sound one; see the table")
    return 0


if __name__ == "__main__":
    cli.run(main)
