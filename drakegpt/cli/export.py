"""`drakegpt export`: a trained run in another form."""

from typing import Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.wording import format_command

app = typer.Typer(help="Export a trained run in another form.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `packed` a command of its own while it is the only one."""


@app.command(cls=options.Command)
def packed(
    target: options.Target = None,
    bits: Annotated[
        Literal["1.58", "1", "8"] | None,
        typer.Option(help="Bits of a weight; those it was trained with, or else 8."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    json: options.Json = False,
) -> None:
    """Quantize a run to 8, 1.58 or 1 bits a weight; the result is a run of its own."""
    import torch

    from drakegpt.models.packed_linear import sizes
    from drakegpt.runs.checkpoint import load_weights
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.packing import pack_run

    run = find_run(target, scaled=scaled, data=data)
    trained = run.config.bits
    chosen = bits or ("8" if trained == "full" else trained)
    made = pack_run(run, chosen, name)
    after = sizes(made.load_model(torch.device("cpu")))
    weights, _ = load_weights(run.last_checkpoint().weights)
    resident = sum(tensor.nbytes for tensor in weights.values())
    stored = {r.name: r.last_checkpoint().weights.stat().st_size for r in (run, made)}
    if json:
        console.show_json(
            {
                "run": str(made.folder),
                "from": str(run.folder),
                "bits": chosen,
                "trained_with_these_bits": trained == chosen,
                "file_bytes": {"before": stored[run.name], "after": stored[made.name]},
                "packed_bytes": after.packed,
                "remainder_bytes": after.remainder,
                "resident_bytes": {"before": resident, "after": after.resident},
            }
        )
        return
    how = "exactly as trained" if trained == chosen else "rounded after training"
    console.show(
        f"Packed {run.name} in {chosen} bits a weight, {how}, as {made.name}: a file of "
        f"{stored[made.name]:,} bytes instead of {stored[run.name]:,} ({after.packed:,} packed, "
        f"{after.remainder:,} in full precision); {after.resident:,} bytes of weights in memory "
        f"instead of {resident:,}."
    )
    console.next_commands(
        [format_command("eval", made.name), format_command("generate", made.name)]
    )
