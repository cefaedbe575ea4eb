"""`drakegpt export`: write a trained run in another form."""

from typing import Annotated, Literal

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import prepare_if_file
from drakegpt.wording import format_command, pluralize


def packed(
    target: options.Target = None,
    bits: Annotated[
        Literal["8", "1.58", "1"] | None,
        typer.Option(help="Bits per weight; default: those of training, or 8."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the new run; default: from RUN and --bits."),
    ] = None,
    scaled: options.Scaled = False,
    data: options.Data = None,
    json: options.Json = False,
) -> None:
    """Quantize a run to 8, 1.58 or 1 bit per weight; the result is a new run."""
    import torch

    from drakegpt.models.packed_linear import count_bytes
    from drakegpt.runs.checkpoint import load_weights
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.packing import pack_run

    data = data and prepare_if_file(data)
    run = find_run(target, scaled=scaled, data=data)
    trained = run.config.bits
    chosen = bits or ("8" if trained == "full" else trained)
    made = pack_run(run, chosen, name)
    after = count_bytes(made.load_model(torch.device("cpu")))
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
        f"Packed {run.name} to {pluralize(float(chosen), 'bit')} per weight, {how}, as "
        f"{made.name}: a file of {stored[made.name]:,} bytes instead of {stored[run.name]:,} "
        f"({after.packed:,} packed, {after.remainder:,} in full precision), and "
        f"{after.resident:,} bytes of weights in memory instead of {resident:,}."
    )
    console.next_commands(
        [format_command("eval", made.name), format_command("generate", made.name)]
    )
