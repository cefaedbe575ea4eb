"""`drakegpt bench`: measure training and generation on this machine, beside textbook code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import LADDER, parse_model
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.bench.timing import Measurement, Times


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Any of {', '.join(LADDER)}; default: all.",
            callback=lambda names: [parse_model(name, LADDER) for name in names or []],
            autocompletion=lambda: list(LADDER),
            show_default=False,
        ),
    ] = None,
    scaled: Annotated[
        bool,
        typer.Option("--scaled", help="Large size, by default TransformerLM only; takes minutes."),
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, metavar="N", help="Measurement rounds; medians are reported."
        ),
    ] = 7,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure peak memory, each in a new process.")
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Benchmark against textbook code and the limit of the hardware."""
    from drakegpt.bench.hardware import describe_machine
    from drakegpt.bench.timing import describe_settings, measure
    from drakegpt.bench.workloads import bench_config
    from drakegpt.cli.progress import counting
    from drakegpt.compute.device import choose_device

    chosen_device = choose_device(device)
    names = models or (["TransformerLM"] if scaled else list(LADDER))
    size = "scaled" if scaled else "default"
    measured = []
    for number, name in enumerate(names, 1):
        title = f"{name} ({number} of {len(names)})"
        with counting(title, quiet=quiet) as progress:
            config = bench_config(name, size)
            measured.append(
                measure(config, rounds, chosen_device, memory=memory, progress=progress)
            )
    machine, settings = describe_machine(chosen_device), describe_settings(rounds)
    if json:
        models_json = [measurement.to_json() for measurement in measured]
        console.show_json({"machine": machine, "settings": settings, "models": models_json})
    else:
        _render(measured, machine, settings)


def _render(
    measured: "Sequence[Measurement]", machine: dict[str, Any], settings: dict[str, Any]
) -> None:
    size = measured[0].config.size
    show_table(f"Training at {size} size, ms per iteration", _TRAINING, measured)
    show_table(f"Generation at {size} size, characters/s", _GENERATION, measured)
    if measured[0].memory:
        if any(None in peaks.values() for m in measured for peaks in m.memory.values()):
            console.show("Peak memory: not available on this system.")
        else:
            show_table(f"Peak memory at {size} size, MiB", _MEMORY, measured)
    console.show(_explain(settings, sorted({m.matmul_rate / 1e9 for m in measured})))
    console.show(_describe_machine(machine))
    if busy := [m for m in measured if m.busy]:
        models = "All rows" if len(busy) == len(measured) else "Rows marked *"
        console.show(
            f"{models}: measured while other programs were busy, as work took up to "
            f"{max(m.wait_ratio for m in busy):.1f} times its processor time. Such times are "
            "unreliable."
        )


def _explain(settings: dict[str, Any], rates: list[float]) -> str:
    return (
        f"Medians of {pluralize(settings['rounds'], 'round')} in which all take turns, on "
        f"{settings['text']} with a vocabulary of {settings['vocab_size']}. Speedup: that of "
        "drakegpt over the textbook code, the median of the rounds' ratios; range: the lowest and "
        "the highest of them. An iteration is a whole step: windows, forward, backward, optimizer. "
        f"With evaluations: plus a {settings['evaluation_interval']}th of the time to estimate "
        f"both losses from {settings['evaluation_batches_of_each_split']} batches each. Without "
        "replay: drakegpt with each step run eagerly. Plain PyTorch: the same models with "
        "PyTorch's own kernels and fused AdamW. Textbook: reference code with one thread or with "
        f"all, whichever is faster. Generation: texts of {settings['generated_text_length']:,} "
        "characters at a full context; of a long context that is full drakegpt drops half, and "
        "the textbook code one character. Lower bound: the textbook code's matrix products at "
        f"this machine's {' and '.join(f'{rate:,.0f}' for rate in rates)} GFLOP/s."
    )


def _describe_machine(machine: dict[str, Any]) -> str:
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"Machine: {gpu}{machine['processor']}, {pluralize(machine['cores'], 'core')}, PyTorch "
        f"{machine['torch']} with up to {pluralize(machine['threads'], 'thread')}, "
        f"{machine['system']}."
    )


def _digits(figure: float) -> str:
    """Format with three significant digits, or all digits before the point."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _ms(times: "Times", name: str) -> str:
    """Format milliseconds; empty for an implementation that was not measured."""
    return _digits(times.median(name) * 1000) if name in times.seconds else ""


def _per_second(times: "Times", name: str) -> str:
    return _digits(1 / times.median(name))


def _speedup(times: "Times", over: str) -> str:
    """Format drakegpt's speedup over an implementation; empty if that was not measured."""
    return f"{times.speedup('drakegpt', over):.2f}" if over in times.seconds else ""


def _range(times: "Times") -> str:
    """Format the range of the speedups over the textbook; empty for a single round."""
    if len(times.seconds["drakegpt"]) < 2:
        return ""
    low, high = times.speedup_range("drakegpt", over=times.textbook)
    return f"{low:.2f}-{high:.2f}"


def _model(m: "Measurement") -> str:
    """Return the model's name, marked if the machine was busy with other programs."""
    return f"{m.config.model} *" if m.busy else m.config.model


def _exact_per_second(times: "Times") -> str:
    return _per_second(times, "exact window") if "exact window" in times.seconds else ""


def _exact_speedup(times: "Times") -> str:
    """Format the speedup over the textbook with the same kind of window."""
    if "exact window" not in times.seconds:
        return ""
    return f"{times.speedup('exact window', over=times.textbook):.2f}"


def _threads(m: "Measurement", times: "Times") -> str:
    return f"{m.threads['drakegpt']} : {m.threads[times.textbook]}"


def _mebibytes(m: "Measurement", kind: str, name: str) -> str:
    peak = m.memory[kind].get(name)
    return "" if peak is None else f"{peak / 2**20:,.0f}"


_TRAINING: "tuple[Column[Measurement], ...]" = (
    Column("model", _model),
    Column("threads", lambda m: _threads(m, m.training), 8),
    Column("drakegpt", lambda m: _ms(m.training, "drakegpt")),
    Column("without\nreplay", lambda m: _ms(m.training, "without replay"), 3),
    Column("plain\nPyTorch", lambda m: _ms(m.training, "plain PyTorch"), 2),
    Column("textbook", lambda m: _ms(m.training, m.training.textbook)),
    Column("speedup", lambda m: _speedup(m.training, m.training.textbook)),
    Column("range", lambda m: _range(m.training), 9),
    Column(
        "speedup with\nevaluations",
        lambda m: _speedup(m.with_evaluations, m.with_evaluations.textbook),
        6,
    ),
    Column("speedup\nvs plain", lambda m: _speedup(m.training, "plain PyTorch"), 1),
    Column("lower\nbound", lambda m: _digits(m.lower_bound * 1000) if m.flops else "", 7),
    Column(
        "times\nbound", lambda m: f"{m.times_lower_bound:.2f}" if m.times_lower_bound else "", 5
    ),
)
_GENERATION: "tuple[Column[Measurement], ...]" = (
    Column("model", _model),
    Column("threads", lambda m: _threads(m, m.generation), 1),
    Column("drakegpt", lambda m: _per_second(m.generation, "drakegpt")),
    Column("textbook", lambda m: _per_second(m.generation, m.generation.textbook)),
    Column("speedup", lambda m: _speedup(m.generation, m.generation.textbook)),
    Column("range", lambda m: _range(m.generation), 3),
    Column("drakegpt,\nexact window", lambda m: _exact_per_second(m.generation), 2),
    Column("speedup,\nexact", lambda m: _exact_speedup(m.generation), 2),
)
_MEMORY: "tuple[Column[Measurement], ...]" = (
    Column("model", lambda m: m.config.model),
    Column("training:\ndrakegpt", lambda m: _mebibytes(m, "training", "drakegpt")),
    Column("\ntextbook", lambda m: _mebibytes(m, "training", "textbook")),
    Column("\nplain PyTorch", lambda m: _mebibytes(m, "training", "plain PyTorch"), 1),
    Column("generation:\ndrakegpt", lambda m: _mebibytes(m, "generation", "drakegpt"), 3),
    Column("\ntextbook", lambda m: _mebibytes(m, "generation", "textbook"), 2),
)
