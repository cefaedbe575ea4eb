"""The forms in which a run leaves drakegpt: what each is for, which models it takes, what it needs.

The help of `drakegpt export` and the pages of documentation show this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A form, by the name of its command."""

    name: str
    purpose: str
    models: str
    needs: str  # to write it; nothing beyond drakegpt: ""


FORMATS = (
    Format(
        "page",
        "run in any browser, without a network: one file to pass on",
        "all models, one or several",
        "",
    ),
    Format(
        "transformers",
        "load with Hugging Face's transformers, as GPT-2 or GPT-NeoX: a folder",
        "TransformerLM and GPT1LM in full precision",
        "",
    ),
    Format(
        "onnx",
        "run in other languages and on other devices, with ONNX Runtime: one file",
        "all models, few bits too",
        'pip install "drakegpt[onnx]"',
    ),
    Format(
        "packed",
        "stay in drakegpt with 8, 1.58 or 1 bit per weight: a new run",
        "all models but BigramLM",
        "",
    ),
)


def make_help() -> str:
    """Make the help of the group, in rich's markup: a paragraph for each format."""
    paragraphs = ["Export a trained run in another form.", *map(_describe, FORMATS)]
    return "\n\n".join(paragraphs).replace("[", r"\[")


def make_markdown_table() -> str:
    """Make the table of the documentation."""
    lines = ["| `drakegpt export` | to | models | needs |", "| --- | --- | --- | --- |"]
    for each in FORMATS:
        needs = f"`{each.needs}`" if each.needs else "nothing more"
        lines.append(f"| `{each.name}` | {each.purpose} | {each.models} | {needs} |")
    return "\n".join(lines)


def _describe(form: Format) -> str:
    needs = f" Needs `{form.needs}`." if form.needs else ""
    return f"{form.name}: to {form.purpose}. Takes {form.models}.{needs}"
