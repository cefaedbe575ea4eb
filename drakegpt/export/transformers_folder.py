"""A run as a folder that Hugging Face's `transformers` loads, without code from the folder.

    config.json, generation_config.json         the architecture, and where texts begin and end
    model.safetensors                           the weights, float32
    tokenizer.json, tokenizer_config.json
    README.md                                   the model's card

Nothing of `transformers` is needed to write it.

Not here: the weights in its terms (`architectures`), the words of the card (`model_card`).
"""

import json
from pathlib import Path
from typing import Any

import torch

from drakegpt.errors import RunError, UsageError
from drakegpt.export.architectures import ACTIVATIONS, Translation, translate
from drakegpt.export.model_card import collect_facts, write_card
from drakegpt.export.targets import check_folder, explain_write_errors
from drakegpt.export.tokenizer_files import describe_tokenizer, describe_tokenizer_config
from drakegpt.files import parse_json, write_atomically, write_folder_atomically, write_text
from drakegpt.runs.run import Run
from drakegpt.version import __version__
from drakegpt.wording import format_command

FILES = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
MARK = "drakegpt"  # the entry of config.json by which a folder is known to be an export

_HEADER = ("library_name: transformers", "pipeline_tag: text-generation")
_USE = """\
Its architecture is that of {architecture}: `transformers` computes the same logits as drakegpt, \
up to rounding.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForCausalLM.from_pretrained("DIR")
start = tokenizer({start}, return_tensors="pt")["input_ids"]
text = model.generate(start, do_sample=True, max_length={length})
print(tokenizer.decode(text[0]))
```

{limits}"""
_LIMITS = {
    "char": "It knows the characters that it learned from; the tokenizer fails at others. Texts "
    "may have up to {length:,} characters, the prompt with them.",
    "bpe": "`</s>` ends a song, or a document; in drakegpt it is a line feed. Texts may have up to "
    "{length:,} tokens, the prompt with them.",
}


def check_run(run: Run) -> None:
    """Raise `UsageError` if `transformers` has no architecture that computes what a run does."""
    config = run.model_config
    exporting = format_command("export onnx", run.name, f"{run.name}.onnx")
    if config.model not in ACTIVATIONS or not config.final_norm:
        raise UsageError(
            f"{run.name} is a {config.model} without a layer norm before its head: no architecture "
            "of transformers computes that.",
            f"ONNX takes every model: `{exporting}`.",
        )
    packed = run.info.get("packed")
    if config.bits != "full" or packed:
        fix = f"ONNX takes few bits as they are: `{exporting}`."
        if packed and not packed["trained"]:
            fix += f" Or export the run that it was packed from, {packed['from']}."
        raise UsageError(
            f"{run.name} rounds its activations to 8 bits, as its weights to few: transformers "
            "does not, and its logits would differ.",
            fix,
        )


def export_transformers(
    run: Run, folder: Path, *, best: bool = False, licence: str = "", replace: bool = False
) -> dict[str, int]:
    """Write a finished run as `folder`; returns the bytes of each file.

    `best`: the weights of its best evaluation, not the last. `licence`: of the text and the
    weights; `replace`: an earlier export. Raises `UsageError` for a model that has no such form or
    a folder that is taken, `RunError` for an unfinished run or damaged weights, and
    `DrakeGPTError` if the folder cannot be written, of which nothing is left then.
    """
    check_run(run)
    run.check_finished()
    check_folder(folder, FILES, is_export, replace=replace)
    translation = translate(load_finite(run, best=best))
    texts = _describe(run, translation, licence, best=best)

    def keep() -> bool:
        """Look again at a folder that has appeared meanwhile."""
        check_folder(folder, FILES, is_export, replace=replace)
        return False

    with explain_write_errors(folder), write_folder_atomically(folder, keep=keep) as temporary:
        for name, text in texts.items():
            write_text(temporary / name, text)
        with write_atomically(temporary / "model.safetensors") as file:
            file.write(_pack(translation))
    return {name: (folder / name).stat().st_size for name in FILES}


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `export_transformers`."""
    try:
        return MARK in parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def load_finite(run: Run, *, best: bool = False) -> Any:
    """Load a run's model on the CPU; raises `RunError` if its weights are not finite."""
    model = run.load_model(torch.device("cpu"), best=best).requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if not tensor.float().isfinite().all():
            problem = f"The weights of {run.name} are not finite, in {name}."
            raise RunError(problem, "Train again with a lower --max-lr.")
    return model


def _describe(run: Run, translation: Translation, licence: str, *, best: bool) -> dict[str, str]:
    """Return the files of text by name."""
    end = run.tokenizer.end
    # Texts without a prompt begin as in drakegpt: with the first token, or the end of a document.
    marks = {"bos_token_id": end or 0, "eos_token_id": end}
    if run.tokenizer.kind == "bpe":
        marks["pad_token_id"] = describe_tokenizer(run.tokenizer)["model"]["vocab"]["<pad>"]
    about = {"version": __version__, "run": run.name, "dataset": run.config.data}
    config = {**translation.config, **marks, "dtype": "float32", MARK: about}
    length = run.model_config.context_length
    contents = {
        "config.json": config,
        "generation_config.json": {**marks, "max_length": length},
        "tokenizer.json": describe_tokenizer(run.tokenizer),
        "tokenizer_config.json": describe_tokenizer_config(run.tokenizer, length),
    }
    texts = {name: json.dumps(each, indent=2) + "\n" for name, each in contents.items()}
    return texts | {"README.md": _write_readme(run, config, licence, best=best)}


def _write_readme(run: Run, config: dict[str, Any], licence: str, *, best: bool) -> str:
    tokenizer, length = run.tokenizer, run.model_config.context_length
    start = tokenizer.decode([end]) if (end := tokenizer.end) else tokenizer.decode([0])
    use = _USE.format(
        architecture="GPT-2" if config["model_type"] == "gpt2" else "GPT-NeoX",
        start=json.dumps(start, ensure_ascii=True),
        length=length,
        limits=_LIMITS[tokenizer.kind].format(length=length),
    )
    return write_card(collect_facts(run, best=best), licence, _HEADER, [use])


def _pack(translation: Translation) -> bytes:
    """Return the weights as the bytes of a safetensors file, the same for the same weights."""
    from safetensors.torch import save

    weights = {name: each.detach().contiguous() for name, each in translation.weights.items()}
    return save(weights, {"format": "pt"})
