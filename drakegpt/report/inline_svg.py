"""A matplotlib figure as SVG that is part of an HTML page.

Its text stays text, in the page's font; its colours are the page's, which has
others in the dark; its size is the page's affair; nothing in it has an id that
occurs elsewhere, and the same figure gives the same bytes.

Not here: what is drawn (`report_figures`).
"""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The page's colours that figures use, by the names of its CSS variables.
VARIABLES = ("ink", "muted", "grid", "other", *(f"rung-{number}" for number in range(1, 7)))
# What stands for them in matplotlib, which knows no variables: colours that nothing else has.
_STAND_INS = {f"#01fe{number:02x}": name for number, name in enumerate(VARIABLES)}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def stand_in_for(variable: str) -> str:
    """What matplotlib is to draw with where the page's colour of that name is meant."""
    return next(stand_in for stand_in, name in _STAND_INS.items() if name == variable)


def to_inline_svg(figure: "Figure", name: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element; `name` is unique on the page, in letters and hyphens.

    `title` names it; `description` tells those who do not see it what it shows.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    for element in root.iter():
        _adapt(element, name)
    _tell(root, name, title, description)
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Leave out who made it, rules of style that would apply to the whole page, and ids."""
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


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Give an element the page's colours and font, ids of its own, and a name without prefix."""
    element.tag = element.tag.removeprefix(_SVG)
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.get('id')}")
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF).replace("#", f"#{name}-"))
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{name}-"))
    if style := element.get("style"):
        style = re.sub(r"font-family: [^;]*(; |$)", "", style)
        element.set("style", re.sub(r"#01fe[0-9a-f]{2}", _variable, style))


def _variable(stand_in: re.Match[str]) -> str:
    return f"var(--{_STAND_INS[stand_in.group()]})"


def _tell(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    """Name and describe the whole as one picture."""
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        told = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        told.text = text
        root.insert(place, told)
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
