"""A matplotlib figure as an SVG element of an HTML page.

Text stays text in the page's font, colours are CSS variables (the page has a dark
theme), the page sets the size, ids are unique on the page, and the same figure gives
the same bytes.

Not here: what is drawn (`plots`).
"""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNG_COLOURS = 6  # in a longer ladder the seventh model has the first one's again
# The CSS variables of the page's colours that figures use.
VARIABLES = ("ink", "muted", "grid", "other", *(f"rung-{n + 1}" for n in range(RUNG_COLOURS)))
# matplotlib knows no CSS variables: unused colours stand in for them.
_STAND_INS = {f"#01fe{number:02x}": name for number, name in enumerate(VARIABLES)}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def stand_in_for(variable: str) -> str:
    """Return the colour that stands in for a CSS variable while matplotlib draws."""
    return next(stand_in for stand_in, name in _STAND_INS.items() if name == variable)


def to_inline_svg(figure: "Figure", name: str, title: str, description: str) -> str:
    """Convert a figure to an `<svg>` element.

    `name`: the prefix of its ids, unique on the page, of letters and hyphens.
    `description`: the alternative text.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _remove_unneeded(root)
    for element in root.iter():
        _adapt_to_page(element, name)
    _add_description(root, name, title, description)
    return ElementTree.tostring(root, encoding="unicode")


def _remove_unneeded(root: ElementTree.Element) -> None:
    """Remove metadata, style rules (they would apply to the whole page) and unused ids."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    used = set(re.findall(r'#([\w.-]+)[")]', ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)


def _adapt_to_page(element: ElementTree.Element, name: str) -> None:
    """Set the page's colours and font, prefix the ids, and remove the tag's XML namespace."""
    element.tag = element.tag.removeprefix(_SVG)
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.get('id')}")
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF).replace("#", f"#{name}-"))
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{name}-"))
    if style := element.get("style"):
        style = re.sub(r"font-family: [^;]*(; |$)", "", style)
        element.set("style", re.sub(r"#01fe[0-9a-f]{2}", _to_variable, style))


def _to_variable(stand_in: re.Match[str]) -> str:
    return f"var(--{_STAND_INS[stand_in.group()]})"


def _add_description(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    """Mark the element as one image with a title and an alternative text."""
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        child.text = text
        root.insert(place, child)
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
