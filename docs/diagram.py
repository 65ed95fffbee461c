"""The directive ``diagram``: a picture in box characters, which HTML shows as SVG.

Other builders show the text, and so does the source.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from drawing import draw
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class diagram(nodes.literal_block):
    """A picture in box characters."""


class Diagram(SphinxDirective):
    """``.. diagram:: what it shows``, and the picture as its content."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture."""
        text = "\n".join(self.content)
        return [diagram(text, text, alt=self.arguments[0])]


def _visit(translator: Any, node: diagram) -> None:
    translator.body.append(draw(node.astext(), node["alt"]))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_node(diagram, html=(_visit, None))
    app.add_directive("diagram", Diagram)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
