"""Every mistake a user can make: one clear message on stderr, an exit code, nothing lost."""

import gzip
import hashlib
import sys

import pytest
from learning import prepare

TEXT = "one two three four five six seven eight nine ten\n" * 40


def train_r(drakegpt):
    prepare(TEXT, "song")
    done = drakegpt("train", "BigramLM", "--iters", 2, "--eval-iters", 1, "--quiet", "--name", "r")
    assert done.code == 0, done.err
    assert drakegpt("eval", "r").code == 0


@pytest.fixture
def trained(home_as):
    """A home with a dataset and a run."""
    home_as(train_r)


def fingerprint(home):
    files = sorted(path for path in home.rglob("*") if path.is_file())
    return [(str(f), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


# command line, exit code, words that stderr must hold; {tmp} is a folder of the test's own
MISTAKES = [
    ("", 2, ["Usage"]),
    ("sing", 2, ["No such command 'sing'"]),
    ("train", 2, ["No model is named", "TransformerLM"]),
    ("train GPT5", 2, ["no model named 'GPT5'", "TransformerLM"]),
    ("train BigramML", 2, ["Did you mean BigramLM"]),
    ("train BigramLM --iters", 2, ["--iters"]),
    ("train BigramLM --iters many", 2, ["--iters", "should be a whole number"]),
    ("train BigramLM --iters 0", 2, ["iters", "0"]),
    ("train BigramLM --iters -5", 2, ["iters", "-5"]),
    ("train BigramLM --dropout 1.5", 2, ["dropout", "1.5"]),
    ("train BigramLM --seed -1", 2, ["seed"]),
    ("train BigramLM --learning-rate 1", 2, ["No such option", "--learning-rate"]),
    ("train BigramLM --scale False", 2, ["--scale"]),
    ("train BigramLM --scaled False", 2, ["False"]),
    ("train BigramLM --device cuda", 2, ["no cuda device", "--device auto", "pytorch.org"]),
    ("train BigramLM --device tpu", 2, ["tpu"]),
    ("train BigramLM --data nothing", 1, ["no dataset named 'nothing'", "data fetch"]),
    ("train BigramLM --name r", 2, ["named 'r' already"]),
    ("train BigramLM --name a/b", 2, ["cannot name a run"]),
    ("train BigramLM --base-lr 1 --max-lr 0.1", 2, ["base_lr", "max_lr"]),
    ("train TransformerLM --num-heads 5", 2, ["embedding_dim 32", "num_heads 5"]),
    ("train BigramLM --context-length 5000", 1, ["too short", "196 tokens", "5,001"]),
    ("data fetch {tmp}/none.txt", 2, ["neither a known source nor a file"]),
    ("data add {tmp}/none.txt", 2, ["neither a known source nor a file"]),
    ("data add {tmp}/empty", 1, ["no file of songs", "It is empty", ".jsonl"]),
    ("data add {tmp}/packed.zip", 1, ["damaged archive"]),
    ("data add {tmp}/table.csv --split halves", 2, ["--split", "halves"]),
    ("data add {tmp}/latin1.txt --encoding none", 2, ["no encoding 'none'"]),
    ("data add {tmp}/latin1.txt --encoding ascii", 1, ["not text in ascii", "line 3"]),
    ("data remove", 2, ["NAME"]),
    ("data remove son --yes", 1, ["no dataset named 'son'", "exact name"]),
    ("data remove ../data --yes", 1, ["no dataset named"]),
    ("data remove . --yes", 1, ["no dataset named"]),
    ("data remove default --yes", 1, ["no dataset named"]),
    ("data fetch {tmp}/empty.txt", 1, ["no text"]),
    ("data fetch {tmp}/short.txt", 1, ["5 characters", "90"]),
    ("data fetch {tmp}/latin1.txt", 1, ["line 3", "0xe9", "UTF-8", "windows-1252"]),
    ("data fetch {tmp}/wide.txt", 1, ["UTF-16, without a byte-order mark", "iconv -f utf-16le"]),
    ("data fetch {tmp}/packed.txt", 1, ["not text but gzip", "gunzip -c packed.txt"]),
    ("data fetch {tmp}/open.csv", 1, ["line 2: a quote opens a cell and is never closed"]),
    ("data fetch {tmp}/short.csv", 1, ["line 3 has 1 field", "header 2 names", "semicolons"]),
    ("data fetch {tmp}/song.txt --name sample --name other --name=", 2, ["--name is empty"]),
    ("data fetch {tmp}/short.csv --text-column=", 2, ["--text-column is empty"]),
    ("data fetch {tmp}/latin1.txt --name song", 2, ["dataset 'song' already, from", "--force"]),
    ("train BigramLM --data=", 2, ["--data is empty"]),
    ("data fetch {tmp}/table.csv", 1, ["no column 'Lyric'", "artist, words"]),
    ("data fetch {tmp}/table.csv --text-column nope", 1, ["no column 'nope'"]),
    ("data fetch {tmp}/latin1.txt --text-column words", 2, ["--text-column"]),
    ("data fetch {tmp}/latin1.txt --name ../x", 2, ["cannot name a dataset"]),
    ("data fetch {tmp}/none.txt --tokenizer word", 2, ["--tokenizer", "word"]),
    ("data fetch {tmp}/none.txt --vocab-size 300", 2, ["--vocab-size is for --tokenizer bpe"]),
    ("data fetch sample --tokenizer bpe --vocab-size 9", 2, ["vocabulary of 9", "261"]),
    ("data fetch sample --tokenizer bpe --vocab-size 9000000", 2, ["9,000,000", "at most"]),
    ("data fetch {tmp}/repeated.txt --tokenizer bpe", 1, ["smaller split", "tokenizer char"]),
    ("data fetch", 1, ["Kaggle", "data fetch sample"]),
    ("data fetch shakespeare", 1, ["could not be reached", "browser"]),
    ("data show nothing", 1, ["no dataset named 'nothing'", "song"]),
    ("data fetch {tmp}/other/song.txt", 2, ["dataset 'song' already", "--name"]),
    ("train BigramLM --name BlocksLM", 2, ["cannot name a run"]),
    ("eval --scaled", 1, ["no scaled run"]),
    ("eval r --device cuda", 2, ["no cuda device"]),
    ("compare --scaled", 1, ["No model has been trained"]),
    ("generate bigram", 1, ["Did you mean BigramLM"]),
    ("generate --data nothing", 1, ["no dataset named 'nothing'"]),
    ("eval TransformerLM", 1, ["no run of TransformerLM", "drakegpt train TransformerLM"]),
    ("eval {tmp}", 1, ["not a whole run"]),
    ("eval nothing", 1, ["no model, run or folder named 'nothing'"]),
    ("generate nothing", 1, ["named 'nothing'"]),
    ("generate r --length -1", 2, ["--length"]),
    ("generate r --temperature -1", 2, ["--temperature"]),
    ("generate r --temperature nan", 2, ["temperature"]),
    ("generate r --top-k 0", 2, ["--top-k"]),
    ("generate r --top-p 1.5", 2, ["--top-p"]),
    ("generate r --num-samples 0", 2, ["--num-samples"]),
    ("generate r --unknown maybe", 2, ["--unknown", "skip"]),
    ("generate r --prompt 7é🎤", 2, ["'7' (U+0037)", "'🎤' (U+1F3A4)", "--unknown skip"]),
    ("compare --data nothing", 1, ["no dataset named 'nothing'"]),
    ("params --vocab-size 0", 2, ["--vocab-size"]),
    ("params --model GPT5", 2, ["no model named 'GPT5'"]),
]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "empty").mkdir()
    (folder / "packed.zip").write_bytes(b"PK")
    (folder / "short.txt").write_bytes(b"la la")
    (folder / "repeated.txt").write_bytes(b"la" * 99)
    (folder / "latin1.txt").write_bytes(("la\n" * 2 + "caf\xe9 " * 50).encode("latin-1"))
    (folder / "wide.txt").write_bytes(TEXT.encode("utf-16-le"))
    (folder / "packed.txt").write_bytes(gzip.compress(TEXT.encode()))
    (folder / "open.csv").write_text('a,Lyric\n1,"never closed\n2,two\n')
    (folder / "short.csv").write_text("a;Lyric\n1;one\n2\n")
    (folder / "table.csv").write_text("artist,words\nme,la la la\n")
    (folder / "other").mkdir()
    for place in (folder, folder / "other"):
        (place / "song.txt").write_text(TEXT)
    return folder


def test_mistakes(drakegpt, trained, home, bad_files):
    before = fingerprint(home)
    for line, code, words in MISTAKES:
        arguments = [word.replace("{tmp}", str(bad_files)) for word in line.split()]
        outcome = drakegpt(*arguments)
        everything = outcome.err + (outcome.out if not line else "")
        context = f"drakegpt {line}\n{outcome.out}\n{outcome.err}"
        assert outcome.code == code, context
        assert "Traceback" not in everything, context
        squeezed = " ".join(everything.replace("│", " ").split())
        for word in words:
            assert word in squeezed, context
        if line:
            assert outcome.out == "", context
        assert fingerprint(home) == before, context


@pytest.mark.parametrize("command", [["data", "fetch"], ["data", "show"]])
def test_an_empty_name_is_no_missing_one(drakegpt, trained, home, command):
    before = fingerprint(home)
    outcome = drakegpt(*command, "")
    assert (outcome.code, "empty" in outcome.err.lower()) == (2, True)
    assert fingerprint(home) == before


def test_no_results_where_there_are_no_runs(drakegpt):
    for command in ("eval", "generate", "compare"):
        outcome = drakegpt(command)
        assert outcome.code == 1, command
        assert "drakegpt" in outcome.err
        assert outcome.out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file permissions")
def test_a_home_that_cannot_be_written(drakegpt, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    outcome = drakegpt("data", "fetch", "sample", DRAKEGPT_HOME=file / "home")
    assert outcome.code == 1
    assert "DRAKEGPT_HOME" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ITERS", "abc", ["DRAKEGPT_ITERS", "should be a whole number"]),
        ("ITERS", "0", ["DRAKEGPT_ITERS: iters cannot be 0"]),
        ("DROPOUT", "2", ["DRAKEGPT_DROPOUT: dropout cannot be 2"]),
        ("COMPILE", "perhaps", ["DRAKEGPT_COMPILE", "true or false"]),
        ("OPTIMIZER", "sgd", ["DRAKEGPT_OPTIMIZER", "sgd"]),
        ("SCHEDULE", "line", ["DRAKEGPT_SCHEDULE: schedule cannot be 'line'"]),
        ("DEVICE", "tpu", ["DRAKEGPT_DEVICE", "tpu"]),
    ],
)
def test_an_error_names_the_variable_that_is_wrong(drakegpt, trained, variable, value, words):
    refused = drakegpt("train", "BigramLM", **{f"DRAKEGPT_{variable}": value})
    assert refused.code == 2
    assert all(word in refused.err for word in words), refused.err
    assert "--" + variable.lower() not in refused.err
    # A flag goes before the variable, and then it is the flag that is wrong.
    flag = f"--{variable.lower()}"
    refused = drakegpt("train", "BigramLM", flag, "-9", **{f"DRAKEGPT_{variable}": value})
    assert refused.code == 2
    assert "DRAKEGPT_" not in refused.err


def test_misspelt_variables_are_told(drakegpt):
    told = drakegpt("runs", DRAKEGPT_ITTERS=3, DRAKEGPT_DATA="x")
    assert told.code == 0
    assert "DRAKEGPT_ITTERS is not a variable of drakegpt. Did you mean DRAKEGPT_ITERS?" in told.err
    assert "DRAKEGPT_DATA" not in told.err
    assert "DRAKEGPT_HOME" not in told.err


def test_only_schedules_that_can_be_taken_are_listed(drakegpt, trained):
    wrong = ("train", "TransformerLM", "--schedule", "line")
    refused = drakegpt(*wrong)
    assert refused.code == 2
    assert "'step' or 'plateau'." in refused.err
    assert "two-stage" not in refused.err
    assert "'plateau' or 'two-stage'." in drakegpt(*wrong, "--bits", "1.58").err
    for where in (["compare", "--set", "schedule=line"], ["sweep", "TransformerLM", "--param",
                  "schedule=line,cyclic"]):  # fmt: skip
        assert "two-stage" not in drakegpt(*where).err
