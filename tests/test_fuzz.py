"""Whatever the files hold, opening them works or says what is wrong: never another exception."""

import json
import math
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import pytest
import tomli_w
import torch
from fuzzing import (
    HUGE,
    contents,
    damaged,
    damages,
    examples,
    json_texts,
    json_values,
    paths_inside,
    replaced_inside,
)
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from drakegpt import home, wording
from drakegpt.cli import train as train_command
from drakegpt.cli.inputs import load_dataset, require_model
from drakegpt.config import MODEL_NAMES, TrainConfig, resolve
from drakegpt.config.files import from_file
from drakegpt.data import dataset, sources
from drakegpt.data.dataset import Dataset
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import DrakeGPTError, UsageError
from drakegpt.runs.checkpoint import METADATA_KEY, list_checkpoints, load_weights
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import get_val_loss
from drakegpt.runs.run import open_run
from drakegpt.runs.scores import score_run
from drakegpt.runs.session import TrainingSession
from drakegpt.runs.stored_scores import Scores
from drakegpt.runs.upstream import read_state_dict

pytestmark = pytest.mark.slow

CHECKPOINT_EXAMPLES = 150
WEIGHTS_EXAMPLES = 150
RUN_FILE_EXAMPLES = 150
CONFIG_EXAMPLES = 150
IMPORT_EXAMPLES = 150
FETCH_EXAMPLES = 100
DATASET_EXAMPLES = 100
NAME_EXAMPLES = 60

CPU = torch.device("cpu")
NAMES = [field.name for field in fields(TrainConfig)]


# --- Settings as a file may hold them ----------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=10)
toml_values = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from([*MODEL_NAMES, "default", "scaled", "cosine", "off", "cpu", 1, 8, 0.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
toml_documents = st.dictionaries(st.sampled_from(NAMES) | texts, toml_values, max_size=8)
# Half of them with what every other check waits for.
toml_documents |= toml_documents.map(lambda values: {"model": "TransformerLM"} | values)


# --- One trained run, and copies of it --------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The home of a run that was trained and scored, and the run's name."""
    folder = tmp_path_factory.mktemp("fuzz") / "drakegpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "DRAKEGPT_HOME", str(folder))
        text = "the quick brown fox jumps over the lazy dog\n" * 12
        data = prepare_dataset(
            text, name="small", source="test", provenance="test", source_sha256="0" * 64
        )
        given = {"iters": 4, "eval_interval": 2, "eval_iters": 1, "save_interval": 2}
        config = resolve("BigramLM", "default", "small", given | {"device": "cpu"})
        run = create_run(config, data, "whole")
        with TrainingSession(run) as recorder:
            for _ in recorder.reports():
                pass
        score_run(run, "cpu")
        assert len(list_checkpoints(run.folder / "checkpoints")) == 2
    return folder, run.folder


@pytest.fixture
def copied(trained, home, monkeypatch):
    """Makes a fresh copy of the trained run, in the home that has its dataset."""
    folder, whole = trained
    monkeypatch.setenv("DRAKEGPT_HOME", str(folder))

    class Copy:
        def __enter__(self):
            self.parent = Path(tempfile.mkdtemp(dir=whole.parent))
            return shutil.copytree(whole, self.parent / "copy")

        def __exit__(self, *_):
            shutil.rmtree(self.parent)

    return Copy


def check_explained(error):
    assert error.problem
    assert error.fix


def attempt(folder, action):
    """What `action` gives, or None where it raised an error of ours and changed nothing."""
    before = contents(folder)
    try:
        return action(folder)
    except DrakeGPTError as error:
        check_explained(error)
    assert contents(folder) == before
    return None


def load(folder):
    return open_run(folder).load_model(CPU)


def scored(folder):
    return score_run(open_run(folder), "cpu")


def resumed(folder):
    with TrainingSession(open_run(folder), resume=True) as recorder:
        return recorder.trainer.iteration


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- (1) checkpoints --------------------------------------------------------------------------


def harmless(name, before, after):
    """Whether nobody need notice: a manifest may be spelt differently."""
    if name == "manifest.json":
        try:
            return json.loads(after.decode()) == json.loads(before)
        except (ValueError, RecursionError):
            return False
    return after == before


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "manifest.json"])
@examples(CHECKPOINT_EXAMPLES)
@given(damage=damages, with_scores=st.booleans())
def test_damaged_checkpoints_are_refused_and_left_alone(copied, name, damage, with_scores):
    with copied() as folder:
        unharmed = True
        for checkpoint in list_checkpoints(folder / "checkpoints"):
            before = (checkpoint.folder / name).read_bytes()
            after = damaged(before, damage)
            (checkpoint.folder / name).write_bytes(after)
            unharmed = harmless(name, before, after)  # the newest one's verdict stands
        if not with_scores:
            (folder / "scores.json").unlink()
        if unharmed:
            assert attempt(folder, load) is not None
            assert attempt(folder, scored) is not None
            assert attempt(folder, resumed) == 4
            return
        for action in (load, scored, resumed):
            result = attempt(folder, action)
            # A cut beyond the older one's end may spare that one; then it is gone back to.
            older = list_checkpoints(folder / "checkpoints")[0]
            if result is not None:
                older.verify()
                assert set(json.loads((older.folder / "manifest.json").read_text())) == {
                    "weights.safetensors",
                    "state.pt",
                }


@examples(CHECKPOINT_EXAMPLES)
@given(
    content=json_texts.map(lambda text: text.encode("utf-8", "replace"))
    | st.tuples(paths_inside, json_values)
)
@example(content=b"{}")
@example(content=b"[]")
@example(content=b'{"weights.safetensors": null}')
def test_manifests_of_any_json_are_refused(copied, content):
    with copied() as folder:
        unharmed = True
        for checkpoint in list_checkpoints(folder / "checkpoints"):
            path = checkpoint.folder / "manifest.json"
            before = path.read_bytes()
            if isinstance(content, bytes):
                after = content
            else:
                after = json.dumps(replaced_inside(json.loads(before), *content)).encode()
            path.write_bytes(after)
            unharmed = harmless(path.name, before, after)
        for action in (load, scored, resumed):
            assert (attempt(folder, action) is not None) == unharmed


@examples(CHECKPOINT_EXAMPLES)
@given(damage=damages)
def test_damaged_best_weights_hurt_nothing_else(copied, damage):
    with copied() as folder:
        best = folder / "best.safetensors"
        best.write_bytes(damaged(best.read_bytes(), damage))
        after = best.read_bytes()
        for action in (load, scored, resumed):
            assert attempt(folder, action) is not None
        assert best.read_bytes() == after
        attempt(folder, lambda folder: load_weights(folder / "best.safetensors"))


@examples(WEIGHTS_EXAMPLES)
@given(described=json_texts, header=st.booleans())
@example(described="[]", header=True)
def test_weights_that_describe_themselves_oddly_are_refused(
    tmp_path_factory, trained, described, header
):
    path = tmp_path_factory.getbasetemp() / "odd.safetensors"
    key = METADATA_KEY if header else "other"
    described = described.encode("utf-8", "replace").decode()
    path.write_bytes(save({"a": torch.zeros(2)}, {key: described}))
    with pytest.raises(DrakeGPTError):
        load_weights(path)


@pytest.mark.parametrize("huge", HUGE)
def test_weights_that_describe_themselves_at_length_are_refused(tmp_path, huge):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(save({"a": torch.zeros(2)}, {METADATA_KEY: HUGE[huge]}))
    with pytest.raises(DrakeGPTError):
        load_weights(path)


# --- (2) the other files of a run -------------------------------------------------------------


def look_at_everything(folder):
    """Each look at a run gives something sane, or an error of ours."""
    run = attempt(folder, open_run)
    if run is None:
        return
    for look in (lambda: run.metrics, lambda: run.evaluations):
        lines = attempt(folder, lambda _, look=look: look())
        assert lines is None or all(isinstance(line, dict) for line in lines)
    assert isinstance(attempt(folder, lambda _: run.ending), dict | None)
    loss = attempt(folder, lambda _: get_val_loss(run))
    assert loss is None or is_number(loss)
    result = attempt(folder, scored)
    assert isinstance(result, Scores | None)
    if result:
        for part in (result.train, result.val):
            assert is_number(part.loss)
            assert is_number(part.tokens)
            assert all(is_number(value) for value in part.to_json().values())


RUN_FILES = ["run.json", "config.toml", "tokenizer.json", "scores.json", "metrics.jsonl"]


@pytest.mark.parametrize("name", RUN_FILES)
@examples(RUN_FILE_EXAMPLES)
@given(damage=damages)
def test_damaged_files_of_a_run(copied, name, damage):
    with copied() as folder:
        path = folder / name
        path.write_bytes(damaged(path.read_bytes(), damage))
        look_at_everything(folder)


@pytest.mark.parametrize("name", RUN_FILES)
@examples(RUN_FILE_EXAMPLES)
@given(text=json_texts | json_texts.map(lambda text: text + "\n"))
@example(text="{}\n")
@example(text='{"event": "evaluation"}\n')
def test_files_of_a_run_with_any_text(copied, name, text):
    with copied() as folder:
        (folder / name).write_bytes(text.encode("utf-8", "replace"))
        look_at_everything(folder)


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("name", [*RUN_FILES, "manifest.json"])
def test_files_of_a_run_beyond_what_python_reads(copied, name, huge):
    with copied() as folder:
        if name == "manifest.json":
            for checkpoint in list_checkpoints(folder / "checkpoints"):
                (checkpoint.folder / name).write_text(HUGE[huge])
        else:
            (folder / name).write_text(HUGE[huge] + "\n")
        look_at_everything(folder)
        attempt(folder, load)


@pytest.mark.parametrize("name", ["run.json", "tokenizer.json", "scores.json", "metrics.jsonl"])
@examples(RUN_FILE_EXAMPLES)
@given(line=st.integers(0, 5), path=paths_inside, new=json_values)
def test_files_of_a_run_with_a_value_replaced(copied, name, line, path, new):
    """Still JSON of nearly the right form, which random bytes never are."""
    with copied() as folder:
        lines = (folder / name).read_text(encoding="utf-8").strip()
        lines = lines.split("\n") if name == "metrics.jsonl" else [lines]
        line %= len(lines)
        lines[line] = json.dumps(replaced_inside(json.loads(lines[line]), path, new))
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        look_at_everything(folder)


@examples(RUN_FILE_EXAMPLES)
@given(characters=json_values)
@example(characters=["a", "b"])
@example(characters={"a": 1})
@example(characters=["ab"])
def test_tokenizers_of_any_characters(copied, characters):
    with copied() as folder:
        text = json.dumps({"kind": "char", "characters": characters})
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        look_at_everything(folder)


@examples(RUN_FILE_EXAMPLES)
@given(version=json_values, final_norm=json_values, created_at=json_values)
@example(version=5, final_norm=True, created_at="")
@example(version="", final_norm=True, created_at="")
@example(version="\0", final_norm=True, created_at="")
@example(version="..", final_norm=True, created_at="")
def test_runs_of_any_information(copied, version, final_norm, created_at):
    with copied() as folder:
        info = {"dataset_version": version, "final_norm": final_norm, "created_at": created_at}
        (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
        look_at_everything(folder)


# --- (3) configuration files ------------------------------------------------------------------


def resolved_as_by_train(path):
    """What `drakegpt train --config FILE --print-config` would print; None if it is refused."""
    try:
        given = from_file(path)
        model = require_model(given, train_command.EXAMPLE)
        data = given.get("data", dataset.get_default_name() or "sample")
        config = resolve(model, given.get("size", "default"), data, given)
    except UsageError as error:
        check_explained(error)
        return None
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture
def file(trained, home, monkeypatch):
    monkeypatch.setenv("DRAKEGPT_HOME", str(trained[0]))
    home.parent.mkdir(exist_ok=True)
    return home.parent / "settings.toml"


@examples(CONFIG_EXAMPLES)
@given(content=st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
@example(content=b"[" + b"a." * 5_000 + b"a]")
def test_configuration_files_of_any_text(file, content):
    file.write_bytes(content)
    resolved_as_by_train(file)


@pytest.mark.parametrize("huge", HUGE)
def test_configuration_files_beyond_what_python_reads(file, huge):
    file.write_text(HUGE[huge])
    resolved_as_by_train(file)


@examples(CONFIG_EXAMPLES)
@given(content=st.binary(max_size=200))
def test_configuration_files_of_any_bytes(file, content):
    file.write_bytes(content)
    resolved_as_by_train(file)


@examples(CONFIG_EXAMPLES)
@given(damage=damages)
def test_damaged_configuration_files(file, trained, damage):
    file.write_bytes(damaged((trained[1] / "config.toml").read_bytes(), damage))
    resolved_as_by_train(file)


@examples(2 * CONFIG_EXAMPLES)
@given(values=toml_documents)
def test_configuration_files_of_any_toml(file, values):
    file.write_bytes(tomli_w.dumps(values).encode())
    resolved_as_by_train(file)


@examples(CONFIG_EXAMPLES)
@given(name=st.sampled_from(NAMES), value=toml_values)
def test_configuration_files_with_one_value_of_any_kind(file, trained, name, value):
    whole = from_file(trained[1] / "config.toml")
    file.write_bytes(tomli_w.dumps(whole | {name: value}).encode())
    config = resolved_as_by_train(file)
    if config and name != "data":
        found = getattr(config, name)
        assert found == value or (math.isnan(found) and math.isnan(value))


@examples(CONFIG_EXAMPLES)
@given(data=toml_values)
@example(data="small")
@example(data="..")
@example(data="\0")
@example(data=1)
def test_datasets_of_any_name_in_a_configuration_file(file, data):
    file.write_bytes(tomli_w.dumps({"data": data}).encode())
    try:
        found = load_dataset(from_file(file)["data"])
    except DrakeGPTError:
        return
    assert isinstance(found, Dataset)


# --- (4) files to import ----------------------------------------------------------------------


def torch_file(content, **options):
    file = BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3)}
WHOLE = {
    "zip.pt": torch_file(TENSORS),
    "legacy.pt": torch_file(TENSORS, _use_new_zipfile_serialization=False),
    "list.pt": torch_file([1, "two", {3: torch.zeros(1)}]),
    "whole.safetensors": save(TENSORS),
}


def read(folder, name, content):
    file = folder / name
    file.write_bytes(content)
    try:
        tensors = read_state_dict(file)
    except UsageError as error:
        check_explained(error)
        return None
    assert isinstance(tensors, Mapping)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    return tensors


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@examples(IMPORT_EXAMPLES)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_nothing_to_import(home, suffix, content):
    tensors = read(home.parent, f"random{suffix}", content)
    assert not tensors


@pytest.mark.parametrize("name", WHOLE)
@examples(IMPORT_EXAMPLES)
@given(damage=damages)
def test_damaged_files_to_import(home, name, damage):
    read(home.parent, name, damaged(WHOLE[name], damage))


# --- (5) files to fetch, and prepared datasets ------------------------------------------------


def fetched(content, suffix, split=None):
    """The dataset of a file with these bytes; None if it is refused, which changes nothing."""
    file = home.root().parent / f"fuzz.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    before = contents(home.datasets())
    try:
        data = sources.fetch(str(file), name="fuzz", split=split).dataset
    except DrakeGPTError as error:
        check_explained(error)
        assert contents(home.datasets()) == before
        data = None
    assert file.read_bytes() == content
    assert not [path for path in home.datasets().rglob(".*") if path.exists()]
    if data:
        data.verify()
    return data


def whole_text(data):
    return "".join(piece for split in ("train", "val") for piece in data.iter_text(split))


# Long enough for a validation split in whole songs, which may be half as long as it should be.
long_texts = st.lists(
    st.sampled_from(["a line of a song\n", "é…“”", "\r\n", "\r", "日本", "👩", "\0", " ", ";,\t"]),
    min_size=1,
).map(lambda parts: "x" * 200 + "".join(parts))
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-32-be", "windows-1252"]
csv_pieces = st.sampled_from(
    ["a", '"', '""', ",", ";", "\t", "\n", "\r\n", " ", "nan", "é", "\0", '"a\nb"', "Lyric", "1,"]
)
csv_texts = st.lists(csv_pieces, max_size=30).map("".join)


@examples(FETCH_EXAMPLES)
@given(
    text=long_texts,
    encoding=st.sampled_from(ENCODINGS),
    suffix=st.sampled_from(["txt", "csv"]),
    split=st.sampled_from([None, "contiguous"]),
)
def test_texts_in_any_encoding(home, text, encoding, suffix, split):
    plain = text.replace("\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    data = fetched(text.encode(encoding, "replace"), suffix, split)
    if suffix == "txt" and encoding.startswith(("utf-8", "utf-16", "utf-32")):
        assert (data is None) == encoding.endswith(("-le", "-be"))
    if data and encoding != "windows-1252":
        whole = whole_text(data)
        # A split by songs puts those of the validation split last.
        assert sorted(whole) == sorted(plain) if data.metadata.split == "songs" else whole == plain


@examples(FETCH_EXAMPLES)
@given(content=st.binary(max_size=300), suffix=st.sampled_from(["txt", "csv"]))
def test_files_of_any_bytes(home, content, suffix):
    fetched(content, suffix)


@examples(FETCH_EXAMPLES)
@given(header=st.sampled_from(["Lyric", "a,Lyric", "a; Lyric ", "Lyric\ta", ""]), rest=csv_texts)
def test_csvs_of_any_form(home, header, rest):
    song = "la " * 40 + "\n"
    separator = next((c for c in ",;\t" if c in header), "")
    row = separator.join([song.strip()] * (2 if separator else 1))
    data = fetched(f"{header}\n{row}\n{rest}".encode(), "csv")
    if data:
        assert whole_text(data).startswith(song.strip())
        assert data.metadata.songs >= 1
        assert data.metadata.rows_left_out >= 0


@examples(FETCH_EXAMPLES)
@given(damage=damages)
def test_damaged_csvs(home, damage):
    rows = "".join(f'{i},"a song, number {i}\nabout ""rain""",x\n' for i in range(9))
    fetched(damaged(f"id,Lyric,other\n{rows}".encode(), damage), "csv")


DATASET_FILES = ["current", "dataset.json", "tokenizer.json", "train.npy", "val.npy"]


def look_at_datasets(drakegpt):
    """Every look at the datasets goes well or tells what is wrong, and changes nothing."""
    before = contents(home.datasets())
    for command in (["list"], ["list", "--json"], ["show", "small"], ["show", "small", "--json"]):
        outcome = drakegpt("data", *command)
        assert outcome.code == 0, outcome.err
        if "--json" in command:
            assert outcome.json
    assert contents(home.datasets()) == before


@pytest.fixture
def two_datasets(home):
    """Makes a fresh dataset "small" beside a whole one, and gives a file of it."""
    text = "the quick brown fox jumps over the lazy dog\n" * 12
    about = {"source": "t", "provenance": "t", "source_sha256": ""}
    prepare_dataset(text + "!", name="whole", **about)

    def file(name):
        shutil.rmtree(home / "data" / "small", ignore_errors=True)
        data = prepare_dataset(text, name="small", **about)
        return (data.folder.parent if name == "current" else data.folder) / name

    return file


@pytest.mark.parametrize("name", DATASET_FILES)
@examples(DATASET_EXAMPLES // 4)
@given(damage=damages)
def test_damaged_datasets(drakegpt, two_datasets, name, damage):
    file = two_datasets(name)
    file.write_bytes(damaged(file.read_bytes(), damage))
    look_at_datasets(drakegpt)


@pytest.mark.parametrize("name", ["dataset.json", "tokenizer.json"])
@examples(DATASET_EXAMPLES // 2)
@given(path=paths_inside, new=json_values)
def test_datasets_with_a_value_replaced(drakegpt, two_datasets, name, path, new):
    file = two_datasets(name)
    file.write_text(json.dumps(replaced_inside(json.loads(file.read_text()), path, new)))
    look_at_datasets(drakegpt)


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("name", DATASET_FILES)
def test_datasets_beyond_what_python_reads(drakegpt, two_datasets, name, huge):
    file = two_datasets(name)
    file.write_text(HUGE[huge])
    look_at_datasets(drakegpt)


# --- (6) names on the command line ------------------------------------------------------------

name_pieces = st.sampled_from(
    ["a", "[red]", "[/]", "[/red]", "[link=file:///x]", "\x1b[31m", "\x1b]0;t\x07", "\x9b",
     "\u202e", " ",
     "'", '"', "$HOME", "`id`", "\\", "-", "--data", ";", "&&", "*", "~", "\n", "é", "日"]
)  # fmt: skip
odd_names = st.lists(name_pieces, min_size=1, max_size=6).map("".join)
NAMED = (
    ("eval",), ("runs", "show"), ("data", "show"), ("export", "packed"), ("compare", "--data"),
    ("train", "--resume"), ("generate", "--run"), ("train", "BigramLM", "--name"), ("sweep",),
)  # fmt: skip


@examples(NAME_EXAMPLES)
@given(name=odd_names, words=st.sampled_from(NAMED))
@example(name="[/]", words=("eval",))
@example(name="-", words=("generate", "--run"))
@example(name="-a 'b' $c", words=("train", "BigramLM", "--name"))
def test_odd_names_on_the_command_line(drakegpt, home, name, words):
    """Each is refused in words that hold no traceback; a run that is made can be named again."""
    if words[-1] == "--name":
        words = (*words[:-1], "--iters", "1", "--eval-iters", "1", "-q", f"--name={name}")
        outcome = drakegpt(*words)
        if outcome.code == 0:
            (line,) = re.findall(r"^Next: drakegpt (generate .*?)\nNext", outcome.err, re.M | re.S)
            generate, *names = shlex.split(line)
            assert drakegpt(generate, "-n", "1", *names).code == 0
            shutil.rmtree(home / "runs" / name)
    else:
        outcome = drakegpt(*words[:-1], f"{words[-1]}={name}") if words[-1].startswith("-") else (
            drakegpt(*words, "--", name)
        )  # fmt: skip
        assert outcome.code in (1, 2), outcome.err
    assert "Traceback" not in outcome.err


@examples(NAME_EXAMPLES)
@given(name=odd_names)
def test_odd_names_in_commands(name):
    words = shlex.split(
        wording.format_command("generate", name, data=name, set_=[f"init_from={name}"])
    )
    assert name in words
    assert [word for word in words if word.removeprefix("--data=") == name]
    assert f"init_from={name}" in words
    assert all(c.isprintable() or c in "\n\t" for c in wording.escape_control_characters(name))


# --- (7) sizes --------------------------------------------------------------------------------

SIZE_EXAMPLES = 60
SIZES = ["context_length", "embedding_dim", "num_heads", "num_layers", "batch_size"]
COUNTS = ["eval_iters", "grad_accumulation", "iters"]
RATES = ["max_lr", "dropout", "weight_decay", "grad_clip"]
# Whole numbers that no machine has the memory for, and what is no size at all.
beyond = st.integers(38, 70).map(lambda power: 2**power + 1) | st.just(10**400)
odd = st.sampled_from(["0", "-1", "1.5", "1e9", "", "nan", "0x10", "\u0665", "1_0", "9" * 5000])
endless = st.sampled_from(["nan", "inf", "-inf", "1e400", "1e308", "-1", "", "x", "9" * 400])


@st.composite
def impossible_commands(draw):
    """A command with one setting, at least, that cannot be."""
    name = draw(st.sampled_from([*SIZES, *COUNTS[:2], *RATES]))
    value = draw(endless) if name in RATES else str(draw(beyond | odd))
    if name != "iters" and value in ("1_0", "\u0665"):  # Python reads these as numbers
        value = "0"
    kind = draw(st.sampled_from(["train", "compare", "sweep"]))
    model = draw(st.sampled_from([n for n in MODEL_NAMES if n != "BigramLM"]))
    if kind == "train":
        return ["train", model, "-q", "--iters", "1", f"--{name.replace('_', '-')}={value}"]
    rest = ["-q", "--iters", "1", "--set", f"{name}={value}"]
    if kind == "compare":
        return ["compare", "--train", *rest]
    return ["sweep", model, "--param", "seed=1,2", "--trials", "1", *rest]


@st.composite
def impossible_texts(draw):
    """A `generate` or `params` with a number that cannot be."""
    flags = ["--length", "--num-samples", "--temperature", "--top-p", "--repetition-penalty"]
    flag = draw(st.sampled_from([*flags, "--vocab-size"]))
    whole = flag in ("--length", "--num-samples", "--vocab-size")
    value = str(draw(beyond)) if whole else draw(st.sampled_from(["nan", "inf", "1e400", "-1"]))
    command = ["params"] if flag == "--vocab-size" else ["generate", "whole"]
    return [*command, f"{flag}={value}"]


@examples(SIZE_EXAMPLES, of_all=600)
@given(command=impossible_commands() | impossible_texts())
@example(command=["train", "BlocksLM", "-q", "--iters", "1", f"--num-layers={2**28}"])
def test_sizes_that_cannot_be(drakegpt, file, command):
    before = contents(home.root())
    outcome = drakegpt(*command)
    assert outcome.code in (1, 2), command
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert "rror" in outcome.err
    assert contents(home.root()) == before


@examples(SIZE_EXAMPLES // 2, of_all=300)
@given(name=st.sampled_from([*SIZES, *COUNTS]), value=beyond, more=st.sampled_from(SIZES))
@example(name="num_layers", value=2**28, more="num_layers")
def test_sizes_that_cannot_be_in_a_run(copied, name, value, more):
    """Weights of another shape are not looked for: a sentence, before the memory is taken."""
    with copied() as folder:
        settings = from_file(folder / "config.toml") | {"model": "BlocksLM"}
        settings |= {name: value, more: value}
        (folder / "scores.json").unlink()
        (folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        for action in (load, scored, resumed):
            assert attempt(folder, action) is None
