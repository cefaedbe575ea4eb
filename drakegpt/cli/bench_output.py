"""What `drakegpt bench` prints: tables of its measurements, and how they were made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.bench.timing import Measurement, Times
    from drakegpt.bench.to_loss import Attempt


def show_speeds(
    measured: "Sequence[Measurement]", machine: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Show training, generation and memory of some models of one shape."""
    size = _describe_size(measured[0])
    show_table(f"Training at {size}, ms per iteration", _TRAINING, measured)
    show_table(f"Generation at {size}, characters/s", _GENERATION, measured)
    if measured[0].memory:
        if any(None in peaks.values() for m in measured for peaks in m.memory.values()):
            console.show("Peak memory: not available on this system.")
        else:
            show_table(f"Peak memory at {size}, MiB", _MEMORY, measured)
    console.show(_explain(settings, sorted({m.matmul_rate / 1e9 for m in measured})))
    console.show(_explain_dtypes(measured[0]))
    console.show(_describe_machine(machine))
    if busy := [m for m in measured if m.busy]:
        models = "All rows" if len(busy) == len(measured) else "Rows marked *"
        console.show(
            f"{models}: measured while other programs were busy, as work took up to "
            f"{max(m.wait_ratio for m in busy):.1f} times its processor time. Such times are "
            "unreliable."
        )


def _describe_size(m: "Measurement") -> str:
    """Return the name of the size, or what `--set` made of it."""
    from drakegpt.bench.workloads import bench_config

    config = m.config
    if bench_config(config.model, config.size, {"dtype": config.dtype}) == config:
        return f"{config.size} size"
    return (
        f"{pluralize(config.batch_size, 'window')} of {config.context_length}, "
        f"width {config.embedding_dim}, "
        f"{pluralize(config.num_layers, 'layer')}"
    )


def _explain_dtypes(m: "Measurement") -> str:
    others = "the others in float32"
    if m.config.dtype == "bfloat16":
        others = "the usual loops with autocast to bfloat16, the textbook code in float32"
    return f"Matrix products in training: drakegpt in {m.dtype}, {others}."


def _explain(settings: dict[str, Any], rates: list[float]) -> str:
    return (
        f"Medians of {pluralize(settings['rounds'], 'round')} in which all take turns, on "
        f"{settings['text']} with a vocabulary of {settings['vocab_size']}. Speedup: that of "
        "drakegpt over the textbook code, the median of the rounds' ratios; range: the lowest and "
        "the highest of them. An iteration is a whole step: windows, forward, backward, optimizer. "
        f"With evaluations: plus a {settings['evaluation_interval']}th of the time to estimate "
        f"both losses from {settings['evaluation_batches_of_each_split']} batches each. Without "
        "replay: drakegpt with each step run eagerly. Plain PyTorch: the same models with "
        "PyTorch's own kernels and fused AdamW, run eagerly. Textbook: reference code with "
        "one thread or with all, whichever is faster. Generation: texts of "
        f"{settings['generated_text_length']:,} characters at a full context; of a long context "
        "that is full drakegpt drops half, and "
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


def show_time_to_loss(
    attempts: "Sequence[Attempt]", settings: dict[str, Any], machine: dict[str, Any]
) -> None:
    """Show the attempts of both programs, in the order in which they were made."""
    from drakegpt.bench.to_loss import compare_medians

    target = settings["target"]
    show_table(f"Training until a validation loss of {target:g}", _TO_LOSS, attempts)
    for attempt in attempts:
        if not attempt.reached:
            last = attempt.last
            console.show(
                f"{attempt.name} did not reach {target:g}: {last.loss:.4f} after "
                f"{pluralize(last.iteration, 'iteration')} and {last.training_seconds:.1f} s of "
                "training."
            )
    if ratio := compare_medians(attempts):
        console.show(f"drakegpt took {ratio:.2f} times less time to train, by the medians.")
    console.show(
        f"Both train on {settings['data']}, one after the other, and are scored on the whole "
        f"validation split every {settings['check_interval']} iterations by the same code; the "
        "time of scoring is apart. Plain PyTorch: nanoGPT's model and loop, with the settings "
        "that its README gives for a CPU, run eagerly in float32. drakegpt: "
        f"`{settings['command']}`. Its default number of iterations was chosen for the loss that "
        "nanoGPT's README states, by trials on tiny Shakespeare."
    )
    console.show(_describe_machine(machine))


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
    Column("plain,\ncompiled", lambda m: _ms(m.training, "plain PyTorch, compiled"), 2),
    Column("GPT-2 of\ntransformers", lambda m: _ms(m.training, "transformers GPT-2"), 2),
    Column("textbook", lambda m: _ms(m.training, m.training.textbook)),
    Column("speedup", lambda m: _speedup(m.training, m.training.textbook)),
    Column("range", lambda m: _range(m.training), 9),
    Column(
        "speedup with\nevaluations",
        lambda m: _speedup(m.with_evaluations, m.with_evaluations.textbook),
        6,
    ),
    Column("speedup\nvs plain", lambda m: _speedup(m.training, "plain PyTorch"), 1),
    Column("speedup vs\ncompiled", lambda m: _speedup(m.training, "plain PyTorch, compiled"), 1),
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
_TO_LOSS: "tuple[Column[Attempt], ...]" = (
    Column("program", lambda a: a.name),
    Column("seed", lambda a: str(a.seed), 5),
    Column("dtype", lambda a: a.dtype, 4),
    Column("threads", lambda a: str(a.threads), 6),
    Column("iterations", lambda a: f"{a.last.iteration:,}", 2),
    Column("loss", lambda a: f"{a.last.loss:.4f}"),
    Column("reached", lambda a: "yes" if a.reached else "no", 1),
    Column("training,\ns", lambda a: f"{a.last.training_seconds:.1f}"),
    Column("scoring,\ns", lambda a: f"{a.evaluation_seconds:.1f}", 3),
)
