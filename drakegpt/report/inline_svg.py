"""A matplotlib figure as an SVG element of an HTML page.

Text stays text in the page's font, colours are CSS variables (the page has a dark
theme), the page sets the size, ids are unique on the page, and the same figure gives
the same bytes. The page's security policy allows no style attribute, so there is none.
The element is small: a tenth of a unit is precise enough for a screen.

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
_GEOMETRY = {"d", "x", "y", "width", "height", "viewBox", "transform"}
_PAINT = {"fill", "stroke", "stroke-width"}


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
    for element in root.iter():
        _adapt_to_page(element)
    _join_dots(root)
    _remove_unneeded(root)
    for element in root.iter():
        _round_geometry(element)
    _shorten_ids(root, name)
    _add_description(root, name, title, description)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt_to_page(element: ElementTree.Element) -> None:
    """Set the page's colours as attributes, and remove fonts, white space and namespaces."""
    element.tag = element.tag.removeprefix(_SVG)
    element.text = (element.text or "").strip() or None
    element.tail = None
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF))
    for rule in filter(None, element.attrib.pop("style", "").split("; ")):
        key, value = rule.split(": ", 1)
        if key != "font-family":
            element.set(key, re.sub(r"#01fe[0-9a-f]{2}", _to_variable, value))


def _to_variable(stand_in: re.Match[str]) -> str:
    return f"var(--{_STAND_INS[stand_in.group()]})"


def _join_dots(root: ElementTree.Element) -> None:
    """Draw the dots of each line as one path of lines without length that have round ends."""
    shapes = {element.get("id"): element for element in root.iter("path")}
    for group in root.iter("g"):
        names = {use.get("href", "#")[1:] for use in group}
        shape = shapes.get(names.pop()) if len(names) == 1 else None
        circle = re.match(r"M 0 ([\d.]+) +C", shape.get("d", "")) if shape is not None else None
        if shape is None or circle is None:
            continue
        width = 2 * float(circle[1]) + float(shape.get("stroke-width", 1))
        places = "".join(f"M {use.get('x')} {use.get('y')} h 0 " for use in group)
        group.attrib |= {"d": places, "stroke": group[0].get("fill", "")}
        group.attrib |= {"stroke-width": f"{width:g}", "stroke-linecap": "round"}
        group.tag, group[:] = "path", []


def _remove_unneeded(root: ElementTree.Element) -> None:
    """Remove unused ids, what is drawn in no colour, and what an element inherits or is anyway."""
    used = set(re.findall(r'#([\w.-]+)[")]', ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    shapes = {element.get("id"): element for element in root.iter("path")}
    for use in root.iter("use"):
        for attribute in _PAINT & shapes[use.get("href", "#")[1:]].attrib.keys():
            use.attrib.pop(attribute, None)
    _unwrap_groups(root)


def _unwrap_groups(parent: ElementTree.Element) -> None:
    """Replace groups that set nothing by what is in them; drop what draws nothing.

    Style rules are dropped too: they would apply to the whole page.
    """
    kept: list[ElementTree.Element] = []
    for child in parent:
        _unwrap_groups(child)
        invisible = child.tag == "path" and child.attrib.keys() | {"fill"} == {"d", "fill"}
        if child.tag == "g" and not child.attrib:
            kept += child
        elif child.tag in ("metadata", "style") or (child.tag == "defs" and not len(child)):
            continue
        elif not (invisible or (parent.tag == "defs" and "id" not in child.attrib)):
            kept.append(child)
    parent[:] = kept


def _round_geometry(element: ElementTree.Element) -> None:
    """Round coordinates to tenths of a unit, and write paths without needless letters."""
    for key in _GEOMETRY & element.attrib.keys():
        element.set(key, re.sub(r"-?\d+\.\d+", _round, element.attrib[key]))
    if path := element.get("d"):
        path = re.sub(r" *([A-Za-z]) *", r"\1", path)
        # Points after those of M are joined by lines.
        path = path if set(re.findall("[A-Za-z]", path)) - set("MLz") else path.replace("L", " ")
        element.set("d", path.replace(" -", "-").strip())


def _round(number: re.Match[str]) -> str:
    return f"{round(float(number.group()), 1) + 0.0:g}"


def _shorten_ids(root: ElementTree.Element, name: str) -> None:
    """Number the ids, with `name` before them, and the references to them."""
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    numbered = {f"#{own}": f"#{name}-{number}" for number, own in enumerate(ids, 1)}
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", numbered[f"#{element.attrib['id']}"][1:])
        for key in {"href", "clip-path"} & element.attrib.keys():
            reference = element.attrib[key]
            element.set(key, re.sub(r"#[\w.-]+", lambda found: numbered[found.group()], reference))


def _add_description(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    """Mark the element as one image with a title and an alternative text."""
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        child.text = text
        root.insert(place, child)
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
