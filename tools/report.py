"""Writes what a run is and how it went as one HTML page, which needs no network.

python tools/report.py --workdir=runs/bert_tiny --output=report.html
python tools/report.py --workdir=runs/a,runs/b --output=compared.html
"""

from absl import flags

from lmjax import cli

_WORKDIR = flags.DEFINE_list("workdir", None, "Workdirs of runs, local or URLs; one or several.")
_OUTPUT = flags.DEFINE_string("output", None, "HTML file or URL to write.")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
    """Writes the page."""
    from lmjax import paths
    from lmjax.report import report

    content = report.make(_WORKDIR.value)
    paths.write_bytes(_OUTPUT.value, content)
    print(f"wrote {_OUTPUT.value}, {len(content) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    cli.run(main)
