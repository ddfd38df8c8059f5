"""How Sphinx builds the site: `sphinx-build -W -n --keep-going docs docs/_build/html`."""

from __future__ import annotations

from functools import cached_property
from importlib import metadata

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lmjax import fields
from lmjax.config import Config

project = "lmjax"
author = "The lmjax developers"
copyright = f"2026, {author}"
release = metadata.version("lmjax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write code in single backticks
napoleon_use_rtype = False
autodoc_inherit_docstrings = False
# Of other projects, whose pages a build without a network cannot look up; ours have to be found.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(collections|concurrent|etils|flax|jax|jaxlib|numpy|optax|os|pathlib|pyarrow|rich|tokenizers)\b.*",
    )
]

html_theme = "sphinx_book_theme"
html_title = "lmjax"
html_static_path = ["_static"]
html_css_files = ["lmjax.css"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search is in the sidebar
}


class ConfigFields(SphinxDirective):
    """A table of all config fields of one section: name, default, whether free, meaning."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        section = getattr(Config(), name) if name != "config" else Config()
        prefix = "" if name == "config" else f"{name}."
        rows = [
            row for row in fields.leaves(section, prefix) if row[0].count(".") == prefix.count(".")
        ]
        docs = type(section).model_fields
        group = nodes.tgroup("", cols=4)
        group += [nodes.colspec(colwidth=width) for width in (28, 14, 8, 50)]
        group += nodes.thead("", _row("field", "default", "resume", "meaning"))
        body = nodes.tbody()
        for field, value, is_free in rows:
            meaning = docs[field.removeprefix(prefix)].description
            body += _row(
                nodes.literal(text=field),
                nodes.literal(text=str(value)),
                "free" if is_free else "fixed",
                meaning,
            )
        group += body
        return [nodes.table("", group, classes=["config-fields"])]


def _row(*cells: str | nodes.Node) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        inline = nodes.Text(cell) if isinstance(cell, str) else cell
        row += nodes.entry("", nodes.paragraph("", "", inline))
    return row


def as_rst(_app: Sphinx, what: str, *args: object) -> None:
    """Rewrites a docstring's tables and listings, which are Markdown's, for docutils."""
    lines: list[str] = args[-1]
    rst: list[str] = []
    for line in lines:
        begins = not rst or rst[-1] == ""
        if line.startswith("|") and set(line) <= set("|- "):
            continue
        if line.startswith("|"):
            if begins:
                rst += [".. list-table::", "   :header-rows: 1", ""]
            first, *others = line.strip("| ").split(" | ")
            rst += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
        elif what == "module" and begins and line.startswith("  "):
            rst += ["::", "", line]
        else:
            rst.append(line)
    lines[:] = rst


def skip_field(
    _app: Sphinx, _what: str, _name: str, member: object, skip: bool, _options: object
) -> bool | None:
    """Leaves out fields that a class's docstring has described, and what is another project's."""
    is_code = callable(member) or isinstance(member, (property, cached_property))
    ours = getattr(member, "__module__", "lmjax").startswith("lmjax")
    return None if is_code and ours else True


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_directive("config-fields", ConfigFields)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-skip-member", skip_field)
