"""Self-contained HTML pages: text, tables and curves in one file that asks no network.

Curves are drawn by plotly.js out of the `plotly` package (extra [report]).
"""

from lmjax.pages.page import Page, Section

__all__ = ["Page", "Section"]
