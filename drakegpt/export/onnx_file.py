"""A run as one ONNX file, with what it needs to be used: its tokenizer and its card.

The file's metadata has texts: `model`, its settings as JSON; `tokenizer`, in the form of Hugging
Face's tokenizer.json; `dataset`, `dataset_version`, `validation_loss` in nats per token and
`validation_bits_per_character`, where known; `licence`; `card`, the model's card as Markdown.

Not here: the graph (`onnx_graph`), the words of the card (`model_card`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from drakegpt.errors import DrakeGPTError, UsageError
from drakegpt.export.model_card import NO_LICENCE, collect_facts, make_readable, write_card
from drakegpt.export.onnx_graph import IR_VERSION, OPSET, make_graph
from drakegpt.export.targets import check_file, explain_write_errors
from drakegpt.export.tokenizer_files import describe_tokenizer
from drakegpt.export.transformers_folder import load_finite
from drakegpt.files import write_atomically
from drakegpt.models.registry import is_built_in
from drakegpt.runs.run import Run
from drakegpt.version import __version__

PRODUCER = "drakegpt"
HEAD = 64  # bytes of a file that begin with its format and its producer
LARGEST = 2**31 - 2**24  # bytes of weights: a file of protobuf has up to 2 GiB

_USE = """\
This is an ONNX file. Its input `tokens`, int64 (batch, length), has texts of equal length, of 1 \
to {length:,} tokens; its output `logits`, float32 (batch, {size:,}), scores the token after the \
last. Its metadata has the tokenizer.

```python
import numpy, onnxruntime, tokenizers

session = onnxruntime.InferenceSession("FILE.onnx")
metadata = session.get_modelmeta().custom_metadata_map
tokenizer = tokenizers.Tokenizer.from_str(metadata["tokenizer"])
tokenizer.encode_special_tokens = True  # a special token in a text is ordinary characters
tokens = numpy.array([tokenizer.encode({start}).ids])
(logits,) = session.run(None, {{"tokens": tokens}})
```"""
_FEW_BITS = (
    "Its weights have few bits, and its activations are rounded to 8, as in drakegpt. Where one is "
    "in the middle between two codes, the last bit of a float decides, and that differs between "
    "libraries and processors: logits may differ in the second or third decimal, the loss hardly. "
    "In drakegpt, too, they do between two lengths of a text."
)


def export_onnx(
    run: Run, path: Path, *, best: bool = False, licence: str = "", replace: bool = False
) -> int:
    """Write a finished run as an ONNX file; returns its bytes.

    `best`: the weights of its best evaluation, not the last. `licence`: of the text and the
    weights; `replace`: an earlier export. Raises `UsageError` for a file that is taken, and a
    model of one's own or larger than such a file; `RunError` for an unfinished run or damaged
    weights; `DrakeGPTError` if `onnx` is missing, or the file cannot be written, of which nothing
    is left then.
    """
    _check_library()
    _check_model(run)
    run.check_finished()
    check_file(path, is_export, replace=replace)
    content = _make_file(run, licence, best=best)
    with explain_write_errors(path), write_atomically(path) as file:
        file.write(content)
    return len(content)


def is_export(path: Path) -> bool:
    """Whether a file was written by `export_onnx`: its head names drakegpt as its producer."""
    try:
        with path.open("rb") as file:
            return PRODUCER.encode() in file.read(HEAD)
    except OSError:
        return False


def _check_library() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise DrakeGPTError(
            f"The package onnx, which writes ONNX files, cannot be imported: {error}.",
            'Add it: `pip install "drakegpt[onnx]"`.',
        ) from error


def _check_model(run: Run) -> None:
    if not is_built_in(run.config.model):
        raise UsageError(
            f"{run.name} is a {run.config.model}, a model of your own: its graph is not known.",
            "Export it with torch.onnx.export.",
        )


def _make_file(run: Run, licence: str, *, best: bool) -> bytes:
    from onnx import helper

    model = load_finite(run, best=best)
    if sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) > LARGEST:
        raise UsageError(
            f"{run.name} has more than 2 GiB of weights, which an ONNX file cannot hold.",
            "Pack it in fewer bits first: `drakegpt export packed`.",
        )
    file = helper.make_model(
        make_graph(model),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
        producer_version=__version__,
    )
    helper.set_model_props(file, dict(_describe(run, licence, best=best)))
    content: bytes = file.SerializeToString(deterministic=True)
    return content


def _describe(run: Run, licence: str, *, best: bool) -> Mapping[str, str]:
    """Return the file's metadata."""
    facts, config = collect_facts(run, best=best), run.model_config
    start = run.tokenizer.decode([run.tokenizer.end or 0])
    parts = [
        _USE.format(length=config.context_length, size=config.vocab_size, start=json.dumps(start))
    ]
    if config.bits != "full" or "packed" in run.info:
        parts.append(_FEW_BITS)
    described = {
        "run": make_readable(run.name),
        "model": json.dumps(asdict(config)),
        "tokenizer": json.dumps(describe_tokenizer(run.tokenizer)),
        "dataset": make_readable(run.config.data),
        "dataset_version": str(run.info["dataset_version"]),
        "licence": make_readable(" ".join(licence.split())) or NO_LICENCE,
        "card": write_card(facts, licence, (), parts),
    }
    if facts.loss:
        described["validation_loss"] = f"{facts.loss.nats_per_token:.6f}"
        if facts.loss.bits_per_character is not None:
            described["validation_bits_per_character"] = f"{facts.loss.bits_per_character:.6f}"
    return described
