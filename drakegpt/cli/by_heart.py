"""`drakegpt eval --by-heart`: which songs a run knows because it read them."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.config.schema import Device
    from drakegpt.runs.by_heart import ByHeart, SongMemory
    from drakegpt.runs.run import Run

MODELS = 12  # by default
SHOWN = 10  # songs


def judge_run(
    run: "Run", models: int | None, minutes: float | None, device: "Device", *, json: bool
) -> None:
    """Train pairs of models on halves of a run's songs, and show which songs they remember."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.progress import counting
    from drakegpt.runs.by_heart import check_songs, count_half_iterations, measure_by_heart

    check_songs(run)
    wanted = 2 * -(-(models or MODELS) // 2)
    iterations = pluralize(count_half_iterations(run), "iteration")
    console.note(
        f"{wanted} models like {run.name}, each trained on half of its songs for {iterations}, if "
        "that was not done before."
    )
    deadline = time.monotonic() + (minutes * 60 if minutes else float("inf"))
    with Interrupts() as interrupts, counting("By heart", quiet=False) as progress:
        known = measure_by_heart(
            run,
            wanted,
            device,
            stop=lambda: interrupts.requested or time.monotonic() > deadline,
            progress=progress,
        )
    if known is None or known.models < wanted:
        trained = known.models if known else 0
        console.note(
            f"{trained} of {pluralize(wanted, 'model')} are trained in pairs"
            + ("" if known else ", and two pairs are needed")
            + ". The same command goes on from there.",
            style="",
        )
    if interrupts.requested or known is None:
        raise typer.Exit(console.INTERRUPTED if interrupts.requested else 1)
    if json:
        console.show_json({"run": str(run.folder), "data": run.config.data, **asdict(known)})
    else:
        _show(run, known)


def _show(run: "Run", known: "ByHeart") -> None:
    from drakegpt.runs.by_heart import RELIABLE

    title = f"What models like {run.name} know because they read it"
    show_table(title, _COLUMNS, known.songs[:SHOWN])
    rest = len(known.songs) - SHOWN
    console.show(
        "Read, unread: loss of the models that read the song, and of the others, in nats per "
        "character. Memory: the difference, with its standard error. "
        f"Mean of all songs: {known.mean:.3f}. The highest figures are partly luck. "
        + (f"{pluralize(rest, 'other song')} have less: --json lists all." if rest > 0 else "")
    )
    if known.agreement is None or known.reliability is None:
        console.show("How reliable the order is can be said from 8 models on.")
        return
    more = ""
    if known.models_needed is None:
        more = "; so the order says nothing yet"
    elif known.models_needed > known.models:
        more = f"; for {RELIABLE:.1f}, about {known.models_needed} models are needed (--models)"
    console.show(
        f"Memories by one half of the models beside those by the other: correlation "
        f"{known.agreement:.2f}; reliability by all of them {known.reliability:.2f}{more}."
    )


_COLUMNS: "tuple[Column[SongMemory], ...]" = (
    Column("song", lambda song: song.title, wraps=True),
    Column("characters", lambda song: f"{song.characters:,}", 2),
    Column("read", lambda song: f"{song.with_it:.3f}", 1),
    Column("unread", lambda song: f"{song.without_it:.3f}", 1),
    Column("memory", lambda song: f"{song.memory:.3f} ± {song.error:.3f}"),
)
