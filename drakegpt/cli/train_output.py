"""What `drakegpt train` prints when a run is finished: losses, a verdict, a sample."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.experiments.formatting import format_with_spread
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.evaluation.verdict import Verdict
    from drakegpt.experiments.results import ResultRow, RunResult
    from drakegpt.runs.run import Run
    from drakegpt.runs.stored_scores import Scores

SAMPLE_LENGTH = 200


def show_run(run: "Run", scores: "Scores", *, json: bool) -> None:
    """Show the losses of a run that has just been trained, a verdict and a sample."""
    from drakegpt.runs.verdicts import judge_run

    verdict = judge_run(run, run.config.device)
    if json:
        console.show_json(_to_json(run, scores, verdict))
        return
    _render(run, scores, verdict)
    console.next_commands(
        [format_command("generate", run.name), format_command("compare", data=run.config.data)]
    )


def show_finished(run: "Run", *, json: bool) -> None:
    """Say that a run needs no resuming, and what can be done with it."""
    from drakegpt.cli.progress import score_with_progress
    from drakegpt.runs.verdicts import judge_run

    if json:
        scores = score_with_progress(run, run.config.device)
        console.show_json(_to_json(run, scores, judge_run(run, run.config.device)))
        return
    last = run.evaluations[-1]["iteration"]
    early = ", stopped early" if run.ending["reason"] == "patience" else ""
    console.note(f"{run.name} is finished after {pluralize(last, 'iteration')}{early}.", style="")
    console.note(f"More {'patience' if early else 'iterations'} would train it further.")
    more: dict[str, int] = {"patience": 2 * run.config.patience} if early else {"iters": 2 * last}
    longer = format_command("train", resume=run.name, **more)
    console.next_commands(
        [longer, format_command("generate", run.name), format_command("eval", run.name)]
    )


def _to_json(run: "Run", scores: "Scores", verdict: "Verdict") -> dict[str, Any]:
    last = run.evaluations[-1]
    return {
        "run": str(run.folder),
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "iterations": last["iteration"],
        "parts": [asdict(part) for part in run.parts],
        "train_loss": scores.train.loss,
        "val_loss": scores.val.loss,
        "best_val_loss": scores.best_val.loss,
        "tail_loss": scores.tail and scores.tail.loss,
        "select_on": run.config.select_on,
        "bits_per_character": scores.val.bits_per_character,
        "seconds": last["seconds"],
        "tokens_per_second": last["tokens_per_second"],
        "seed": run.config.seed,
        "evaluations": run.evaluations,
        "verdict": verdict.to_json(),
    }


def _render(run: "Run", scores: "Scores", verdict: "Verdict") -> None:
    from drakegpt.cli.short_forms import format_duration, sparkline
    from drakegpt.report.samples import sample

    evaluations = run.evaluations
    last = evaluations[-1]
    size = " (scaled)" if run.config.size == "scaled" else ""
    unit = run.tokenizer.unit
    tail = f"tail loss {scores.tail.loss:.4f}, " if scores.tail else ""
    console.show(
        f"{run.config.model}{size}: train loss {scores.train.loss:.4f}, {tail}"
        f"validation loss {scores.val.loss:.4f} nats per {unit} over the whole "
        f"{'of each part' if scores.tail else 'splits'} "
        f"({scores.val.bits_per_character:.3f} bits per character)"
    )
    console.show(
        f"{pluralize(last['iteration'], 'iteration')} in {format_duration(last['seconds'])}, "
        f"evaluations included; {last['tokens_per_second']:,.0f} tokens/s in training steps; "
        f"{'tail' if scores.tail else 'validation'} "
        f"{sparkline([evaluation['val_loss'] for evaluation in evaluations])}"
    )
    for sentence in _describe_best_weights(run, scores):
        console.show(sentence)
    if run.history:
        console.show(f"It was {run.history}.")
    for line in verdict.lines:
        console.show(line)
    console.show(f"Run: {run.folder}\n")
    console.show_text(sample(run, SAMPLE_LENGTH, run.config.device).rstrip())


def _describe_best_weights(run: "Run", scores: "Scores") -> Iterator[str]:
    """Describe the best weights: how they were chosen, and whether they beat the last ones."""
    from drakegpt.evaluation.noise import compare_within_runs

    best = min(run.evaluations, key=lambda e: float(e["val_loss"]))
    what = "tail" if scores.tail else "validation"
    split = (
        "the tail of the training split; validation chose nothing"
        if scores.tail
        else "the validation split, the same that is scored above"
    )
    yield f"Best weights: iteration {best['iteration']:,}, chosen by estimates on {split}."
    generate_best = format_command("generate", run.name, best=True)
    gain = compare_within_runs([scores.val.loss - scores.best_val.loss])
    if run.ending.get("reason") == "patience":
        waited = pluralize(run.config.patience, "evaluation")
        yield (
            f"Stopped early: {what} loss did not fall for {waited}; its lowest estimate was "
            f"{best['val_loss']:.4f}, at iteration {best['iteration']:,}."
        )
    if gain.lower:
        yield (
            f"The best weights are {gain.amount} nats lower on the whole validation split than "
            f"the last: `{generate_best}`."
        )


def show_seeds(runs: "Sequence[Run]", *, json: bool) -> None:
    """Show runs that differ in their seed: the losses of each, their mean and its spread."""
    from drakegpt.experiments.results import aggregate_runs

    row = aggregate_runs(runs)
    if json:
        console.show_json(row.to_json())
        return
    _render_seeds(row)
    console.next_commands([format_command("compare", data=runs[0].config.data)])


def _render_seeds(row: "ResultRow") -> None:
    from drakegpt.cli.tables import Column, show_table

    columns: tuple[Column[RunResult], ...] = (
        Column("seed", lambda result: str(result.seed)),
        Column("train", lambda result: f"{result.train_loss:.4f}", 1),
        Column("validation", lambda result: f"{result.val_loss:.4f}"),
        Column("bits/char", lambda result: f"{result.bits_per_character:.3f}", 2),
        Column("seconds", lambda result: f"{result.seconds:.1f}", 3),
        Column("run", lambda result: result.run, 4),
    )
    best = min(result.val_loss for result in row.results)
    title = f"{row.label}, {pluralize(len(row.results), 'seed')}"
    show_table(title, columns, row.results, lambda result: result.val_loss == best)
    loss = format_with_spread(row.val_loss, row.val_spread)
    seeds = f"mean of {len(row.seeds)} seeds, ±: their sample standard deviation"
    console.show(
        f"Validation loss {loss} nats per {row.unit}, over the whole split"
        + ("" if row.val_spread is None else f"; {seeds}")
    )
