"""`drakegpt bench`: how fast this machine trains and writes, beside a textbook's way."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.config import MODEL_NAMES, model_named

if TYPE_CHECKING:
    from rich.table import Table

    from drakegpt.evaluation.bench import Measurement, Times

PLAIN_SECONDS = 10  # between two lines of progress, off a terminal

# A column: its title, a model's value, and how soon a narrow terminal does without (0: never).
Column = tuple[str, Callable[["Measurement"], str], int]


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Any of {', '.join(MODEL_NAMES)}; all of them if none is named.",
            callback=lambda names: [model_named(name) for name in names or []],
            autocompletion=lambda: list(MODEL_NAMES),
            show_default=False,
        ),
    ] = None,
    scaled: Annotated[
        bool,
        typer.Option(
            "--scaled", help="The large size, TransformerLM alone if none is named; takes minutes."
        ),
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds in which all take turns; medians are shown.")
    ] = 7,
    memory: Annotated[
        bool, typer.Option("--memory", help="The peak of memory too, each in a new process.")
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine: training and generation beside a textbook's way, and the limit."""
    from drakegpt.evaluation.bench import describe_settings, measure
    from drakegpt.evaluation.contenders import bench_config
    from drakegpt.evaluation.machine import describe_machine
    from drakegpt.models.build import choose_device

    place = choose_device(device)
    names = models or (["TransformerLM"] if scaled else list(MODEL_NAMES))
    size = "scaled" if scaled else "default"
    measured = []
    for number, name in enumerate(names, 1):
        title = f"{name} ({number} of {len(names)})"
        with _progress(title, quiet=quiet) as progress:
            config = bench_config(name, size)
            measured.append(measure(config, rounds, place, memory=memory, progress=progress))
    machine, settings = describe_machine(place), describe_settings(rounds)
    if json:
        models_json = [measurement.to_json() for measurement in measured]
        console.show_json({"machine": machine, "settings": settings, "models": models_json})
    else:
        _render(measured, machine, settings)


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for one model, or off a terminal a line from time to time, on stderr."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    screen, shown = console.messages(), float("-inf")

    def line(what: str, done: int, total: int) -> None:
        nonlocal shown
        if not quiet and time.monotonic() - shown > PLAIN_SECONDS:
            console.note(f"{title}: {what} ({done / total:.0%})")
            shown = time.monotonic()

    if quiet or not screen.is_terminal:
        yield line
        return
    columns = (BarColumn(20), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda what, done, total: progress.update(
            task, description=f"{title}, {what}", completed=done, total=total
        )


def _render(
    measured: "Sequence[Measurement]", machine: dict[str, Any], settings: dict[str, Any]
) -> None:
    size = measured[0].config.size
    console.show(_fitting(f"Training at {size} size, ms per iteration", _TRAINING, measured))
    console.show(_fitting(f"Generation at {size} size, characters/s", _GENERATION, measured))
    if measured[0].memory:
        if any(None in peaks.values() for m in measured for peaks in m.memory.values()):
            console.show("Peak of memory: not available, this system does not tell it.")
        else:
            console.show(_fitting(f"Peak of memory at {size} size, MiB", _MEMORY, measured))
    console.show(_explanation(settings, sorted({m.matmul_rate / 1e9 for m in measured})))
    console.show(_sentence(machine))


def _explanation(settings: dict[str, Any], rates: list[float]) -> str:
    return (
        f"Medians of {settings['rounds']} rounds in which all take turns, on {settings['text']} "
        f"of {settings['vocab_size']} kinds; 'times' are medians of each round's ratio to "
        "drakegpt's time. An iteration is a whole step: windows, forward, backward, optimizer; "
        f"with evaluations: plus a {settings['evaluation_interval']}th of estimating both losses "
        f"from {settings['evaluation_batches_of_each_split']} batches each. Generation: texts of "
        f"{settings['generated_text_length']:,} characters at a full context, drakegpt's "
        "window moving as `generate` lets it by default: at long contexts by halves, where the "
        "textbook's moves by one. The textbook runs at one thread and at all; the better counts. "
        "Limit: the textbook's matrix products at this machine's "
        f"{' and '.join(f'{rate:,.0f}' for rate in rates)} GFLOP/s."
    )


def _sentence(machine: dict[str, Any]) -> str:
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"Machine: {gpu}{machine['processor']}, {machine['cores']} cores, PyTorch "
        f"{machine['torch']} with up to {machine['threads']} threads, {machine['system']}."
    )


def _digits(figure: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _ms(times: "Times", who: str) -> str:
    """Nothing for who did not take part."""
    return _digits(times.median(who) * 1000) if who in times.seconds else ""


def _per_second(times: "Times", who: str) -> str:
    return _digits(1 / times.median(who))


def _ratio(times: "Times", who: str) -> str:
    return f"{times.ratio(who):.2f}" if who in times.seconds else ""


def _threads(m: "Measurement", times: "Times") -> str:
    return f"{m.threads['drakegpt']} : {m.threads[times.reference]}"


def _mebibytes(m: "Measurement", kind: str, who: str) -> str:
    peak = m.memory[kind].get(who)
    return "" if peak is None else f"{peak / 2**20:,.0f}"


_TRAINING: tuple[Column, ...] = (
    ("model", lambda m: m.config.model, 0),
    ("threads", lambda m: _threads(m, m.training), 6),
    ("drakegpt", lambda m: _ms(m.training, "drakegpt"), 0),
    ("textbook", lambda m: _ms(m.training, m.training.reference), 0),
    ("times", lambda m: _ratio(m.training, m.training.reference), 0),
    (
        "times with\nevaluations",
        lambda m: _ratio(m.with_evaluations, m.with_evaluations.reference),
        4,
    ),
    ("plain", lambda m: _ms(m.training, "plain"), 2),
    ("times\nplain", lambda m: _ratio(m.training, "plain"), 1),
    ("limit", lambda m: _digits(m.limit * 1000) if m.flops else "", 5),
    ("times\nlimit", lambda m: f"{m.times_limit:.2f}" if m.times_limit else "", 3),
)
_GENERATION: tuple[Column, ...] = (
    ("model", lambda m: m.config.model, 0),
    ("threads", lambda m: _threads(m, m.generation), 1),
    ("drakegpt", lambda m: _per_second(m.generation, "drakegpt"), 0),
    ("textbook", lambda m: _per_second(m.generation, m.generation.reference), 0),
    ("times", lambda m: _ratio(m.generation, m.generation.reference), 0),
    (
        "drakegpt,\nwindow exact",
        lambda m: _per_second(m.generation, "exact") if "exact" in m.generation.seconds else "",
        2,
    ),
    (
        "times\nexact",
        lambda m: (
            f"{m.generation.times_faster('exact'):.2f}" if "exact" in m.generation.seconds else ""
        ),
        2,
    ),
)
_MEMORY: tuple[Column, ...] = (
    ("model", lambda m: m.config.model, 0),
    ("training:\ndrakegpt", lambda m: _mebibytes(m, "training", "drakegpt"), 0),
    ("\ntextbook", lambda m: _mebibytes(m, "training", "textbook"), 0),
    ("\nplain", lambda m: _mebibytes(m, "training", "plain"), 1),
    ("generation:\ndrakegpt", lambda m: _mebibytes(m, "generation", "drakegpt"), 3),
    ("\ntextbook", lambda m: _mebibytes(m, "generation", "textbook"), 2),
)


def _fitting(title: str, columns: Sequence[Column], measured: "Sequence[Measurement]") -> "Table":
    """The columns that say something, as many as the screen is wide enough for."""
    kept = [column for column in columns if any(column[1](m) for m in measured)]
    left_out: list[str] = []
    screen = console.results()
    unbounded = screen.options.update(max_width=10_000)
    while True:
        table = _table(title, kept, left_out, measured)
        expendable = max(kept, key=lambda column: column[2])
        if not expendable[2] or table.__rich_measure__(screen, unbounded).maximum <= screen.width:
            return table
        kept.remove(expendable)
        left_out.append(expendable[0].replace("\n", " ").strip())


def _table(
    title: str,
    columns: Sequence[Column],
    left_out: Sequence[str],
    measured: "Sequence[Measurement]",
) -> "Table":
    from rich.table import Table

    hidden = f"Left out: {', '.join(left_out)}. Widen the window or use --json."
    table = Table(
        title=title,
        title_justify="left",
        caption=hidden if left_out else None,
        caption_justify="left",
    )
    for name, _, _ in columns:
        left = name == "model"
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for m in measured:
        table.add_row(*(value(m) for _, value, _ in columns))
    return table
