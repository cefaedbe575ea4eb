"""Reports to look at, the hostile texts that one of them is full of, and made-up comparisons."""

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from drakegpt.experiments.agreement import select_others, select_runs
from drakegpt.experiments.claims import check_claims
from drakegpt.experiments.ladder import Comparison, add_gains, compare
from drakegpt.experiments.results import ResultRow, RunResult
from drakegpt.report.live import make_live
from drakegpt.report.page import render
from drakegpt.report.samples import Samples, generate_samples
from drakegpt.runs.run import Run

MARKUP = "<script>window.x = 1; alert(1)</script>"
CLOSING = '</pre></div></style></title><img src=x onerror="window.x = 2">'
TEMPLATE = "{{ 7*7 }} {% raw %} {# #} &amp; &#60; \"double\" 'single'"
RIGHT_TO_LEFT = "שלום עולם \u202eoverride\u202c العربية \u202eleft open \u2067isolated"
CONTROLS = "tab\there  two spaces \x00\x07\x1b[31m \x7f \x85 \ufffe"
SYMBOLS = "😀👩\u200d👧 e\u0301 日本語 -->]]> <!-- <svg onload=alert(1)>"
HOSTILE = (MARKUP, CLOSING, TEMPLATE, RIGHT_TO_LEFT, CONTROLS, SYMBOLS)
SHOWN = {"\0": "␀", "\x07": "␇", "\x1b": "␛", "\x7f": "␡", "\x85": "�", "\ufffe": "�"}
HOSTILE_NAME = 'a<b onclick=x>&amp;{{7}}"\u202eשלום'
HOSTILE_RUN = "<img src=x onerror=window.x=3>"

VOID = {"meta", "br", "hr", "img", "input", "link"}  # elements without an end

# A script that asks a worker, made of the engine's text, about the models; hard to quote.
STYLE = ".view { color: inherit }"
SCRIPT = """
document.addEventListener("DOMContentLoaded", () => {
  const read = id => document.getElementById(id).textContent;
  const worker = new Worker(URL.createObjectURL(new Blob([read("engine")])));
  worker.onmessage = ({data}) => { document.body.dataset.answer = data + '&amp;<b>' };
  worker.postMessage(JSON.parse(read("models")));
});
"""
ENGINE = "onmessage = ({data}) => postMessage(data.text + '&lt;</style>' + (1 < 2 && 2 > 1))"
MODELS = {"text": MARKUP + CLOSING + "<!--"}


@dataclass(frozen=True)
class Page:
    path: Path
    comparison: Comparison
    samples: Samples
    runs: tuple[Run, ...]  # the first of each row

    @property
    def text(self):
        return self.path.read_text(encoding="utf-8")


class Tree(HTMLParser):
    """The elements of a page, checked for balance, with their attributes and their text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        assert self.elements[self.open[-1]][0] == tag, self.getpos()
        self.open.pop()

    def handle_data(self, data):
        for place in self.open:
            self.elements[place][2].append(data)

    def all(self, tag, **attributes):
        """(attributes, text) of all such elements."""
        return [
            (given, "".join(text))
            for name, given, text in self.elements
            if name == tag and all(given.get(k.rstrip("_")) == v for k, v in attributes.items())
        ]

    def ids(self):
        return [given["id"] for _, given, _ in self.elements if "id" in given]


def as_shown(text):
    """A text as the page shows it: what HTML forbids as a picture."""
    return "".join(SHOWN.get(character, character) for character in text)


def page_of(data, path, prompt="", samples=None, claims=False, alive=False, **given):
    """The report of all runs on a dataset, written to `path`, with its models if it is `alive`.

    `given` is for `render`.
    """
    runs, others = select_runs(data), select_others(data)
    comparison = compare(data, runs, others=others)
    together = [*runs.values(), *others]
    samples = samples or generate_samples([first for first, *_ in together], prompt)
    tested = check_claims(comparison.rows) if claims else []
    if alive:
        given["live"] = make_live(data, comparison, together, samples)
    page = render(data, comparison, together, samples, claims=tested, **given)
    path.write_text(page, encoding="utf-8", newline="\n")
    return Page(path, comparison, samples, tuple(first for first, *_ in together))


def corpus_with_stanzas():
    words = "the quick brown fox jumps over the lazy dog and runs far away from home".split()
    lines = [" ".join(words[i % 5 : i % 5 + 3 + i % 7]) for i in range(400)]
    return "\n".join(line + "\n" * (i % 9 == 0) for i, line in enumerate(lines)) + "\n"


def ending_with(end):
    """A text whose validation split, its last tenth, is `end`."""
    filler = "".join(sorted(set(end))) + "so it begins\n" * len(end)
    length = next(n for n in range(9 * len(end) + 9) if int((n + len(end)) * 0.9) == n)
    return filler[:length] + end


# --- comparisons that are made up ---------------------------------------------------------------


def result(name, seed=1, losses=(3.0, 2.0), best=None):
    """A run whose estimates are its exact losses."""
    evaluations = tuple(
        {"iteration": 10 * n, "train_loss": 5.0 - n, "val_loss": loss, "seconds": float(n),
         "tokens_per_second": 1.0}
        for n, loss in enumerate(losses, 1)
    )  # fmt: skip
    return RunResult(
        run=name, seed=seed, train_loss=losses[-1] - 1, val_loss=losses[-1],
        best_val_loss=losses[-1] if best is None else best, bits_per_character=losses[-1],
        tokens_per_second=1.0, seconds=1.0, iterations=10 * len(losses), evaluations=evaluations,
    )  # fmt: skip


def row(model, *results, **given):
    return ResultRow(model=model, size="default", parameters=1, results=results, **given)


def comparison(*rows, others=(), baselines=()):
    return Comparison("d", add_gains(rows), (), others, baselines, (8,))
