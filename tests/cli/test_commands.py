"""Each command: what it prints, where, and its JSON."""

import html
import json
import math
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from kaggle_server import Answer, KaggleServer, environment
from learning import prepare
from program_runs import settings

from drakegpt.data import dataset
from drakegpt.evaluation.scoring import score_validation_split
from drakegpt.runs.run import open_run

TEXT = "one two three four five six seven eight nine ten\n" * 80
BRIEF = ("--iters", 20, "--eval-iters", 2)


@pytest.fixture
def song(drakegpt, tmp_path):
    (tmp_path / "song.txt").write_text(TEXT)
    assert drakegpt("data", "fetch", tmp_path / "song.txt").code == 0


def train_mine(drakegpt):
    prepare(TEXT, "song")
    done = drakegpt("train", "TransformerLM", *BRIEF, "--json", "--quiet", "--name", "mine")
    assert done.code == 0, done.err
    return done.json


@pytest.fixture
def run(home_as):
    return home_as(train_mine)


def test_params_shows_counted_beside_published(drakegpt):
    shown = drakegpt("params")
    assert shown.code == 0
    for figure in ("6,400", "2,560", "8,528", "11,264", "17,840", "29,952", "42,896", "42,240",
                   "43,344", "602,192", "3,701,072", "10,790,480", "10,800,464",
                   "11,223,632"):  # fmt: skip
        assert figure in shown.out
    assert "worked out by hand" in shown.out


def test_params_as_json(drakegpt):
    shown = drakegpt("params", "--model", "transformerlm", "--vocab-size", 65, "--json")
    assert shown.json["vocab_size"] == 65
    default, scaled = shown.json["models"]
    assert (default["size"], scaled["size"]) == ("default", "scaled")
    assert default["counted"] == sum(default["components"].values()) == 43_344 - 15 * (32 + 33)


def test_data_is_fetched_listed_and_shown(drakegpt, song, home, tmp_path):
    again = drakegpt("data", "fetch", tmp_path / "song.txt")
    assert "prepared already" in again.out
    listed = drakegpt("data", "list").out
    assert "song (default)" in listed
    assert "not fetched" in listed
    shown = drakegpt("data", "show", "song", "--json").json
    assert shown["characters"] == len(TEXT)
    assert shown["train_tokens"] + shown["val_tokens"] == len(TEXT)
    assert TEXT.startswith(shown["begins"])
    assert drakegpt("data", "show", "song").out.count("one two three") >= 1
    fetched = drakegpt("data", "fetch", "sample", "--json").json
    assert fetched["outcome"] == "prepared"
    assert fetched["songs"] >= 40


def test_add_and_fetch_are_the_same(drakegpt, tmp_path):
    (tmp_path / "songs").mkdir()
    for number, song in enumerate(SONGS):
        (tmp_path / "songs" / f"{number}.txt").write_text(song)
    added = drakegpt("data", "add", tmp_path / "songs", "--json")
    assert added.json["outcome"] == "prepared"
    assert added.json["summary"][0] == "Taken: 40 files (40 .txt)."
    assert "Taken: 40 files" in added.err
    fetched = drakegpt("data", "fetch", tmp_path / "songs", "--json")
    assert fetched.json["outcome"] == "already there"
    assert fetched.json["version"] == added.json["version"]
    again = drakegpt("data", "add", tmp_path / "songs", "--split", "contiguous")
    assert "The same text as before, now divided at its last tenth" in again.out
    piped = drakegpt("data", "add", "-", stdin="\n\n\n".join(SONGS))
    assert "Prepared 'stdin': 40 songs" in piped.out
    assert "(whole songs)" in piped.out
    assert "Two or more blank lines divide it into songs." in piped.err


def test_a_dataset_is_removed_by_its_whole_name(drakegpt, song, home):
    version = drakegpt("data", "show", "song", "--json").json["version"]
    refused = drakegpt("data", "remove", "song", stdin="n\n")
    assert refused.code == 1
    assert drakegpt("data", "show", "song", "--json").json["version"] == version
    removed = drakegpt("data", "remove", "song", "--yes")
    assert (removed.code, removed.out) == (0, "Removed song\n")
    assert not (home / "data" / "song").exists()
    assert drakegpt("data", "remove", "song", "--yes").code == 1
    assert "song" not in {
        row["name"] for row in drakegpt("data", "list", "--json").json["datasets"]
    }


def test_runs_on_a_dataset_are_told_of_before_it_is_removed(drakegpt, song):
    quick = ("--iters", 1, "--eval-iters", 1, "-q", "--name", "r")
    assert drakegpt("train", "BigramLM", *quick).code == 0
    removed = drakegpt("data", "remove", "song", stdin="y\n")
    assert removed.code == 0
    assert "1 run on it can generate without it" in removed.err
    assert drakegpt("generate", "r", "-n", 5).code == 0


def test_bpe_datasets_live_beside_those_of_characters(drakegpt, song, tmp_path):
    command = ("data", "fetch", tmp_path / "song.txt", "--tokenizer", "bpe")
    first = drakegpt(*command)
    assert (first.code, "training split" in first.out and " tokens" in first.out) == (0, True)
    assert re.search(r"Note: The text supports .* fewer than 20,000", first.err)
    again = drakegpt(*command, "--vocab-size", 262, "--json")
    assert again.json["outcome"] == "prepared"
    assert (again.json["vocab_size"], again.json["vocab_asked"]) == (262, 262)
    assert "supports" not in again.err
    listed = drakegpt("data", "list").out
    assert "song-bpe (default)" in listed
    assert "bpe, vocabulary of 262" in listed
    shown = drakegpt("data", "show", "song-bpe")
    assert re.search(r"longest tokens: +'[ a-z][a-z]', ", shown.out)
    assert TEXT[:30] in shown.out
    char, bpe = (drakegpt("data", "show", name, "--json").json for name in ("song", "song-bpe"))
    assert (char["tokenizer"], bpe["tokenizer"]) == ("char", "bpe")
    assert char["text_sha256"] == bpe["text_sha256"]
    assert char["begins"] == bpe["begins"]


SONGS = [f"line {i} of a song about the rain\nand line {i * i} about the river" for i in range(40)]


def csv_of(songs, separator=","):
    rows = "".join(f'{i}{separator}"{song}"\n' for i, song in enumerate(songs))
    return f"id{separator}Lyric\n{rows}"


def test_what_one_should_know_of_a_text_is_told(drakegpt, tmp_path):
    """Its separator, the rows left out, NUL characters, and what both splits have."""
    songs = [*SONGS, "", "nan", *SONGS[:3], "\0"]
    (tmp_path / "songs.csv").write_text(csv_of(songs, ";"))
    told = drakegpt("data", "fetch", tmp_path / "songs.csv", "--split", "contiguous")
    assert told.code == 0
    assert "separated by semicolons" in told.err
    assert "Left out: 2 rows with nothing, nan or null in the column 'Lyric'" in told.err
    assert "NUL characters" in told.err
    assert "3 whole songs are in both" in told.err
    shown = drakegpt("data", "show", "songs", "--json").json
    assert (shown["songs"], shown["rows_left_out"], shown["val_songs_in_train"]) == (44, 2, 3)
    assert 0.5 < shown["val_share_in_train"] < 1
    people = drakegpt("data", "show", "songs")
    assert re.search(
        rf"^val_share_in_train: +{shown['val_share_in_train']:.2%} of validation$", people.out, re.M
    )
    assert re.search(r"^val_songs_in_train: +3$", people.out, re.M)
    assert "Note: " in people.err


def test_nothing_is_told_of_a_text_without_peculiarities(drakegpt, tmp_path):
    (tmp_path / "songs.csv").write_text(csv_of(SONGS))
    assert "Note" not in drakegpt("data", "fetch", tmp_path / "songs.csv").err
    shown = drakegpt("data", "show", "songs")
    assert re.search(r"^val_share_in_train: +0\.00% of validation$", shown.out, re.M)
    assert re.search(r"^val_songs_in_train: +0$", shown.out, re.M)
    assert "Note" not in shown.err


def test_compare_and_the_report_tell_what_both_splits_have(drakegpt, tmp_path):
    (tmp_path / "songs.csv").write_text(csv_of([*SONGS, *SONGS[:6]]))
    drakegpt("data", "fetch", tmp_path / "songs.csv", "--split", "contiguous")
    assert drakegpt("train", "BigramLM", *BRIEF, "-q").code == 0
    page = tmp_path / "page.html"
    told = drakegpt("compare", "--html", page)
    assert told.code == 0
    assert "of the validation text is in lines of 20 characters or more" in told.err
    result = drakegpt("compare", "--json").json
    assert (result["val_share_in_train"] > 0.8, result["val_songs_in_train"]) == (True, 4)
    text = page.read_text(encoding="utf-8")
    assert "4 whole songs are in both." in text
    assert "may have memorized that part" in text
    assert "never seen" not in text


def test_another_source_takes_a_name_by_force_alone(drakegpt, tmp_path):
    drakegpt("data", "fetch", "sample")
    before = drakegpt("data", "show", "sample", "--json").json
    (tmp_path / "other.txt").write_text(TEXT)
    refused = drakegpt("data", "fetch", tmp_path / "other.txt", "--name", "sample")
    assert refused.code == 2
    assert "already, from drakegpt/data/sample_lyrics.csv" in refused.err
    assert drakegpt("data", "show", "sample", "--json").json == before
    forced = drakegpt("data", "fetch", tmp_path / "other.txt", "--name", "sample", "--force")
    assert forced.code == 0
    assert drakegpt("data", "show", "sample", "--json").json["characters"] == len(TEXT)


@pytest.mark.slow
def test_kaggles_column_can_be_told(program, home):
    table = "id,Lyrics\n" + "".join(f'{i},"{song}"\n' for i, song in enumerate(SONGS))
    with KaggleServer({"song-lyrics-dataset": Answer(table.encode())}) as server:
        variables = environment(server.address, str(home.parent)) | {"DRAKEGPT_HOME": str(home)}
        refused = program("data", "fetch", **variables)
        assert refused.code == 1
        assert "its columns are: id, Lyrics." in refused.err
        assert "--text-column" in refused.err
        told = ("data", "fetch", "drake", "--text-column", "Lyrics", "--json")
        assert program(*told, **variables).json["outcome"] == "prepared"
        again = program(*told, **variables).json
        assert (again["outcome"], again["text_column"]) == ("already there", "Lyrics")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_what_a_killed_fetch_leaves_is_cleared_by_the_next_command(drakegpt, tmp_path, home):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "drakegpt", "data", "fetch", "/dev/stdin", "--name", "piped"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=-3, stderr=-3, env=environment
    )
    process.stdin.write(TEXT.encode() * 2000)
    process.stdin.flush()
    while not [path for path in temporary.rglob("copy") if path.stat().st_size]:
        time.sleep(0.01)
        assert process.poll() is None
    alive = list(temporary.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temporary))
        assert drakegpt("data", "list").code == 0
        assert list(temporary.iterdir()) == alive
        process.kill()
        process.communicate()
        assert drakegpt("runs", "list").code in (0, 1)
    assert list(temporary.iterdir()) == []


def test_train_json_is_one_object_with_true_figures(drakegpt, run):
    assert run["model"] == "TransformerLM"
    assert (run["size"], run["data"], run["iterations"]) == ("default", "song", 20)
    assert run["seconds"] > 0
    assert run["tokens_per_second"] > 0
    scored = drakegpt("eval", "mine", "--json").json
    assert scored["val"]["loss"] == run["val_loss"]
    assert scored["train"]["loss"] == run["train_loss"]
    val = scored["val"]
    assert val["bits_per_character"] == pytest.approx(val["loss"] / math.log(2))
    assert val["perplexity"] == pytest.approx(math.exp(val["loss"]))
    assert val["tokens"] == len(TEXT) // 10
    assert scored["train"]["tokens"] == len(TEXT) * 9 // 10 - 1


def test_train_prints_plain_lines_off_a_terminal_and_results_on_stdout(drakegpt, song):
    done = drakegpt("train", "BlocksLM", *BRIEF)
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if line.startswith("iteration")]
    assert len(lines) == 20
    line = r"iteration +%d/20  train \d\.\d{4}  val \d\.\d{4}  lr %s  [\d,]+ tokens/s%s"
    assert re.fullmatch(line % (1, r"1\.00e-03", ""), lines[0])  # no pace yet
    assert re.fullmatch(line % (20, r"1\.80e-03", "  .* left"), lines[-1])
    assert "\x1b" not in done.out + done.err
    assert "validation loss" in done.out
    assert "Next: drakegpt generate song-1\n" in done.err


def test_train_again_gives_the_same_losses(drakegpt, song):
    figures = ("train_loss", "val_loss", "evaluations")
    runs = []
    for _ in range(2):
        run = drakegpt("train", "ResidualBlocksLM", *BRIEF, "--json", "-q").json
        for evaluation in run["evaluations"]:
            del evaluation["seconds"], evaluation["tokens_per_second"]
        runs.append([run[figure] for figure in figures])
    assert runs[0] == runs[1]


def test_settings_come_from_the_environment_and_flags_win(drakegpt, song, home):
    done = drakegpt("train", "BigramLM", "--iters", 4, "-q", "--json",
                    DRAKEGPT_ITERS=9, DRAKEGPT_SEED=7, DRAKEGPT_EVAL_ITERS=1)  # fmt: skip
    assert (done.json["iterations"], done.json["seed"]) == (4, 7)


def test_the_sample_is_prepared_when_nothing_was_fetched(drakegpt):
    done = drakegpt("train", "BigramLM", *BRIEF, "--json")
    assert done.json["data"] == "sample"
    assert "bundled sample lyrics" in done.err


def test_eval_prints_a_table(drakegpt, run):
    shown = drakegpt("eval", "TransformerLM")
    assert f"{run['val_loss']:.4f}" in shown.out
    assert "validation" in shown.out
    assert "Scoring mine" in shown.err


def test_eval_shows_the_best_weights_where_they_are_others(drakegpt, song, home):
    """A rate that is far too high: the first evaluation is better than the last."""
    wild = ("--max-lr", 2, "--base-lr", 2, "--schedule", "constant", "--seed", 1)
    drakegpt("train", "BigramLM", *wild, "--iters", 40, "--eval-interval", 1, "--name", "w", "-q")
    best = open_run(home / "runs" / "w").load_model(torch.device("cpu"), best=True)
    exact = score_validation_split(best, dataset.load("song"), torch.device("cpu")).loss
    scored = drakegpt("eval", "w", "--json").json
    assert scored["best_val"]["loss"] == pytest.approx(exact)
    assert scored["best_val"]["loss"] < scored["val"]["loss"]
    assert re.search(rf"lowest estimate +│ +{exact:.4f}", drakegpt("eval", "w").out)


def test_train_says_from_where_on_a_model_overfits(drakegpt, song, home, tmp_path):
    """Random letters: all that can be learnt of them is learnt by heart."""
    chance = random.Random(3)
    (tmp_path / "noise.txt").write_text("".join(chance.choices("abcdefgh", k=600)))
    drakegpt("data", "fetch", tmp_path / "noise.txt")
    done = drakegpt("train", "TransformerLM", "--dropout", 0, "--iters", 400, "--eval-interval", 20,
                    "--eval-iters", 20, "--name", "n")  # fmt: skip
    losses = {e["iteration"]: e["val_loss"] for e in open_run(home / "runs" / "n").evaluations}
    turn = min(losses, key=losses.get)
    assert f"Overfits from iteration {turn} on: the validation loss rose by" in done.out
    assert turn < 400


def test_generate_streams_text_alone_and_keeps_it(drakegpt, run, home):
    written = drakegpt("generate", "--length", 100, "--prompt", "one ")
    assert written.code == 0
    assert len(written.out.rstrip("\n")) <= 104
    assert written.out.startswith("one ")
    assert "lowest validation loss on 'song'" in written.err
    (path,) = (home / "generations").iterdir()
    assert re.fullmatch(r"generation_TransformerLM_\d{8}_\d{4}\.txt", path.name)
    assert str(path) in written.err
    text = path.read_text(encoding="utf-8")
    assert len(text) == 104
    assert written.out in (text, text + "\n")
    drakegpt("generate", "--length", 5)
    drakegpt("generate", "--length", 5)
    assert len(list((home / "generations").iterdir())) == 3
    assert path.read_text(encoding="utf-8") == text


def test_generate_json_and_samples(drakegpt, run):
    arguments = ("generate", "mine", "-n", 30, "--num-samples", 2, "--seed", 5, "--json")
    shown = drakegpt(*arguments).json
    assert shown["seed"] == 5
    assert [len(sample["text"]) for sample in shown["samples"]] == [30, 30]
    assert shown["samples"][0]["text"] != shown["samples"][1]["text"]
    assert shown["characters_per_second"] > 0
    second = drakegpt("generate", "mine", "-n", 30, "--seed", 6, "--json").json
    assert second["samples"][0]["text"] == shown["samples"][1]["text"]


def test_generate_without_anything(drakegpt, run):
    nothing = drakegpt("generate", "-n", 0)
    assert (nothing.code, nothing.out.strip()) == (0, "")
    drawn = [drakegpt("generate", "-n", 60, "--json").json for _ in range(2)]
    assert drawn[0]["seed"] != drawn[1]["seed"]
    assert drawn[0]["samples"][0]["text"] != drawn[1]["samples"][0]["text"]
    assert "Seed " in drakegpt("generate", "-n", 1).err
    greedy = [drakegpt("generate", "-n", 20, "--temperature", 0, "--seed", s).out for s in (1, 2)]
    assert greedy[0] == greedy[1]


def test_generate_reads_a_long_prompt_from_stdin_and_folds_it(drakegpt, run):
    shown = drakegpt("generate", "-n", 5, "--prompt", "-", stdin="Ône two three four five six\n")
    assert shown.code == 0
    assert shown.out.startswith("one two three four five six")
    assert "Ô → o" in shown.err
    skipped = drakegpt("generate", "-n", 5, "-p", "one 7", "--unknown", "skip")
    assert skipped.out.startswith("one ")
    assert "skipped" in skipped.err


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(run, home):
    command = f"{sys.executable} -m drakegpt generate -n 3000 | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 10
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
    assert len(list((home / "generations").iterdir())) == 1


@pytest.mark.slow
def test_an_interrupted_text_is_kept(run, home):
    process = subprocess.Popen(
        [sys.executable, "-m", "drakegpt", "generate", "-n", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # where tests run in the background, SIGINT may be ignored, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdout.read(200)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    (file,) = (home / "generations").iterdir()
    assert 200 <= len(file.read_text(encoding="utf-8")) < 1_000_000


@pytest.mark.slow
def test_a_dataset_survives_a_failed_fetch(program, drakegpt, home):
    """The installed program against a Kaggle that refuses, over a `drake` fetched before."""
    answers = {"song-lyrics-dataset": Answer(b"Artist,Lyric\nme," + b"la la " * 40 + b"\n")}
    with KaggleServer(answers) as server:
        variables = environment(server.address, str(home.parent)) | {"DRAKEGPT_HOME": str(home)}
        first = program("data", "fetch", "--json", **variables)
        assert first.code == 0, first.err
        assert first.json["name"] == "drake"
        for answer, words in (
            (Answer(status=403), "terms"),
            (Answer(status=404), "404"),
            (Answer(b"PK\x03\x04 no archive", "Drake.csv.zip"), "damaged"),
        ):
            server.answers["song-lyrics-dataset"] = answer
            failed = program("data", "fetch", "--force", **variables)
            assert failed.code == 1
            assert words in failed.err
            assert failed.out == ""
            shown = drakegpt("data", "show", "drake", "--json").json
            assert shown["version"] == first.json["version"]


def test_compare_shows_rows_curves_and_samples(drakegpt, run, home):
    drakegpt("train", "BigramLM", *BRIEF, "-q")
    shown = drakegpt("compare")
    assert shown.code == 0
    assert "The ladder on song" in shown.out
    assert f"{run['val_loss']:.4f}" in shown.out
    assert "claims" not in shown.out
    assert "Training loss, estimated while training" in shown.out
    assert (
        "no finished run of BlocksLM: `drakegpt train BlocksLM --data song --iters 20 "
        "--eval-iters 2` makes one" in shown.err
    )
    assert len(list((home / "comparisons" / "song").iterdir())) == 4
    result = drakegpt("compare", "--json").json
    assert [floor["order"] for floor in result["baselines"]] == [1, 2, 3, 4, 5, 6, 7]
    lowest = min(result["baselines"], key=lambda floor: floor["loss"])
    for floor in result["baselines"]:
        counted = re.search(rf"│ {floor['order']}-gram counts +│.*", shown.out)
        assert bool(counted) == (floor["order"] in (2, 3) or floor is lowest)
        for cell in ("loss", ".4f"), ("bits_per_character", ".3f"), ("ngrams", ","):
            assert not counted or f" {floor[cell[0]]:{cell[1]}} " in counted[0]
    pairs = result["baselines"][1]["loss"]
    beyond = [row for row in result["rows"] if row["val_loss"] < pairs]
    assert result["better_than_bigrams"] == [row["runs"][0]["run"] for row in beyond]
    told = " ".join(shown.out.split())
    named = " and ".join(row["model"] for row in beyond) or "none"
    assert f"Better than the bigram baseline: {named} " in told
    lowest = min(result["baselines"], key=lambda floor: floor["loss"])
    assert f"counts of {lowest['ngrams']:,} different sequences of up to" in told
    better = [row for row in result["rows"] if row["val_loss"] < lowest["loss"]]
    assert result["better_than_baselines"] == [row["runs"][0]["run"] for row in better]
    assert ("better than it" in told) == bool(better)
    before, after = shown.out.split("Validation loss, estimated while training")
    assert "2-gram counts" in after
    assert "gram counts" not in before.partition("Training loss, estimated")[2]
    assert result["data"] == "song"
    assert [row["model"] for row in result["rows"]] == ["BigramLM", "TransformerLM"]
    for key in ("model", "size", "parameters", "train_loss", "val_loss", "runs",
                "bits_per_character", "perplexity", "tokens_per_second", "seconds"):  # fmt: skip
        assert key in result["rows"][0]
    assert len(result["figures"]) == 4
    assert "claims" not in result


def test_the_originals_claims_are_shown_where_they_are_asked_for(drakegpt, run, tmp_path):
    drakegpt("train", "BigramLM", *BRIEF, "-q")
    page = tmp_path / "report.html"
    shown = drakegpt("compare", "--claims", "--html", page)
    assert shown.code == 0, shown.err
    for text in (shown.out, page.read_text(encoding="utf-8")):
        assert "The original's claims, checked" in html.unescape(text)
        assert "The training loss falls with each added component" in text
    claims = drakegpt("compare", "--claims", "--json").json["claims"]
    assert [claim["holds"] for claim in claims] == [None, None, None]


def test_compare_without_a_rung_of_the_ladder_draws_no_curves_of_it(drakegpt, song, home):
    few = ("--iters", 3, "--eval-iters", 1, "--embedding-dim", 12, "--num-heads", 2, "-q")
    assert drakegpt("train", "GPT1LM", *few).code == 0
    shown = drakegpt("compare")
    assert shown.code == 0, shown.err
    assert "estimated while training" not in shown.out
    assert "Warning" not in shown.err
    (folder,) = (home / "comparisons").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["bits.png", "bits.svg"]


def test_compare_fits_a_narrow_terminal(terminal, run):
    """Through a pseudo-terminal of 60 columns: whole lines, the vital columns, no crash."""
    shown = terminal("compare", columns=60)
    assert shown.code == 0, shown.text
    assert "TransformerLM" in shown.text
    assert "validation" in shown.text
    assert "Left out: " in shown.text
    table = [line for line in shown.text.split("\n") if line[:1] in "┏┃┡│└"]
    assert table
    assert all(len(line) <= 60 for line in table)


@pytest.mark.slow
def test_compare_trains_what_is_missing(drakegpt, song):
    few = settings("--iters", 3, "--eval-iters", 1)
    shown = drakegpt("compare", "--train", *few, "--json", "-q")
    assert shown.code == 0, shown.err
    assert len(shown.json["rows"]) == 6
    assert shown.json["missing"] == []
    runs = [row["runs"] for row in shown.json["rows"]]
    kept = ("--set", "save_interval=1")
    again = drakegpt("compare", "--train", *few, *kept, "--json")
    assert "nothing to train" in again.err
    assert [row["runs"] for row in again.json["rows"]] == runs
    # a short trial of one model does not take its place
    short = drakegpt("train", "BigramLM", "--iters", 1, "--eval-iters", 1, "--json", "-q").json
    for given in ((), ("--iters", 3)):
        named = drakegpt("compare", *given, "--json")
        assert [row["runs"] for row in named.json["rows"]] == runs
    latest = drakegpt("compare")
    name = pathlib.Path(short["run"]).name
    assert f"Left out: {name}, newer but trained with other settings." in latest.err
    choosing = re.search(r"`(drakegpt compare --data song --set iters=1)`", latest.err).group(1)
    (row,) = drakegpt(*choosing.split()[1:], "--json").json["rows"]
    assert row["runs"][0]["run"] == name


def test_compare_trains_with_the_presets_settings_where_none_are_given(drakegpt, song):
    """A run without dropout, the README's next command, is none of the ladder that is asked for."""
    few = ("--iters", 3, "--eval-iters", 1)
    odd = drakegpt("train", "TransformerLM", *few, "--dropout", 0, "--json", "-q").json
    shown = drakegpt("compare", "--train", *settings(*few), "--json", "-q")
    assert shown.code == 0, shown.err
    names = {row["model"]: [run["run"] for run in row["runs"]] for row in shown.json["rows"]}
    assert len(names) == 6
    assert pathlib.Path(odd["run"]).name not in names["TransformerLM"]
    assert all(row["differs"] == {} for row in shown.json["rows"])
    refused = drakegpt("compare", "--train", "--set", "minutes=1")
    assert refused.code == 2
    assert "minutes would give each run a different number of iterations" in refused.err


def test_runs_with_losses_that_are_not_finite_are_shown_without_a_verdict(drakegpt, song, tmp_path):
    """As they were imported once: they are refused now."""
    import torch

    from drakegpt.config import resolve
    from drakegpt.data import dataset
    from drakegpt.models.registry import build_model
    from drakegpt.runs.checkpoint import save_checkpoint
    from drakegpt.runs.create import create_run

    data = dataset.load("song")
    for model in ("BigramLM", "SingleHeadAttentionLM"):
        config = resolve(model, "default", "song")
        run = create_run(config, data, facts={"imported_from": "old.pt", "final_norm": False})
        weights = build_model(run.model_config).state_dict()
        if model == "SingleHeadAttentionLM":
            weights = {name: torch.full_like(w, float("nan")) for name, w in weights.items()}
        save_checkpoint(run.folder / "checkpoints", 0, weights, {}, run.describe_weights(0))
    page = tmp_path / "report.html"
    shown = drakegpt("compare", "--claims", "--html", page, "--json")
    assert shown.code == 0, shown.err
    row = shown.json["rows"][1]
    assert (row["val_loss"], row["runs"][0]["val_loss"], row["val_gain"]) == (None, None, None)
    assert [claim["holds"] for claim in shown.json["claims"]] == [None, None]
    text = page.read_text(encoding="utf-8")
    assert (
        "SingleHeadAttentionLM has a loss that is not finite, so it is excluded from all verdicts."
        in text
    )
    assert "--at:nan" not in text
    assert drakegpt("compare").code == 0
    assert drakegpt("eval", "--json").json["model"] == "BigramLM"


def test_a_row_that_was_trained_otherwise_is_marked_with_what_differs(drakegpt, song, tmp_path):
    few = ("--iters", 3, "--eval-iters", 1)
    for model in ("BigramLM", "SingleHeadAttentionLM", "BlocksLM"):
        drakegpt("train", model, *few, "-q")
    drakegpt("train", "MultiHeadAttentionLM", *few, "--context-length", 16, "-q")
    page = tmp_path / "report.html"
    shown = drakegpt("compare", "--claims", "--html", page, COLUMNS=200)
    assert shown.code == 0, shown.err
    told = (
        "MultiHeadAttentionLM was trained with other settings (context_length 16, others 8), "
        "so it has no gain and is excluded from all verdicts."
    )
    assert f"* {told}" in " ".join(shown.out.split())
    assert re.search(r"│ MultiHeadAttentionLM \* +│", shown.out)
    command = "drakegpt train MultiHeadAttentionLM --data song --iters 3 --eval-iters 1"
    assert f"`{command}` trains it like the others" in shown.err
    assert " ".join(html.unescape(page.read_text(encoding="utf-8")).split()).count(told) == 2
    assert "other settings</span>" in page.read_text(encoding="utf-8")
    drakegpt(*command.split()[1:], "-q")
    assert "was trained with other settings" not in drakegpt("compare").out


@pytest.mark.slow
def test_compare_of_several_seeds(drakegpt, song):
    """The missing ones are trained, and each row is the mean of its runs, with its spread."""
    few = settings("--iters", 3, "--eval-iters", 1)
    first = drakegpt("compare", "--train", *few, "--set", "seed=8", "--json", "-q")
    shown = drakegpt("compare", "--train", *few, "--set", "seed=7", "--seeds", 2, "--json")
    assert shown.code == 0, shown.err
    assert "6 of 6: TransformerLM on 'song', seed 7" in shown.err
    for row, before in zip(shown.json["rows"], first.json["rows"], strict=True):
        assert [run["seed"] for run in row["runs"]] == [7, 8]
        assert row["runs"][1] == before["runs"][0]
        losses = [run["val_loss"] for run in row["runs"]]
        assert row["val_loss"] == pytest.approx(statistics.fmean(losses))
        assert row["val_spread"] == pytest.approx(statistics.stdev(losses))
    bare = drakegpt("compare", "--json")
    assert bare.json["rows"] == shown.json["rows"]
    text = drakegpt("compare", "--prompt", "ten ten ten", COLUMNS=200).out
    assert "Means of 2 seeds each; ±: their sample standard deviation." in " ".join(text.split())
    assert re.search(r"┃ +validation ┃ +± ┃", text)
    assert text.split("What they write, with the same seed")[1].count("\nten ten ten") == 6
    refused = drakegpt("compare", "--prompt", "日本")
    assert refused.code == 2
    none = drakegpt("compare", "--set", "seed=7", "--seeds", 3, "--iters", 4)
    assert none.code == 1
    refused = drakegpt("compare", "--train", "--seeds", 2, "--set", "minutes=1")
    assert refused.code == 2


@pytest.mark.slow
def test_seeds_of_a_row_are_alike_in_all_else(drakegpt, song):
    """A later run of one seed, with another rate, does not stand for that seed."""
    few = ("--iters", 3, "--eval-iters", 1)
    odd = drakegpt("train", "BlocksLM", *few, "--max-lr", 0.007, "--json", "-q").json
    shown = drakegpt("compare", "--train", *settings(*few), "--seeds", 2, "--json", "-q")
    assert shown.code == 0, shown.err
    drakegpt("train", "BlocksLM", *few, "--max-lr", 0.007, "-q")
    again = drakegpt("compare", "--train", *settings(*few), "--seeds", 2, "--json")
    assert "nothing to train" in again.err
    for done in (shown, again):
        (row,) = (row for row in done.json["rows"] if row["model"] == "BlocksLM")
        assert [run["seed"] for run in row["runs"]] == [42, 43]
        assert pathlib.Path(odd["run"]).name not in [run["run"] for run in row["runs"]]


@pytest.mark.parametrize(
    "arguments",
    ["--low-bit --regularization", "--low-bit --prompt one", "--low-bit --html r.html"],
)
def test_tables_of_compare_are_not_mixed(drakegpt, song, arguments):
    refused = drakegpt("compare", *arguments.split())
    assert refused.code == 2
    assert "Error: " in refused.err


def test_all_json_is_strict_json_on_one_line(drakegpt, run):
    for arguments in ("params", "data list", "data show song", "eval", "generate -n 3", "compare"):
        shown = drakegpt(*arguments.split(), "--json")
        assert shown.code == 0, shown.err
        assert shown.out.count("\n") == 1, arguments
        json.loads(shown.out, parse_constant=pytest.fail)


def test_scaled_runs_are_scaled(drakegpt, song):
    """Batches, context and learning rates of the scaled recipe, not of the default one."""
    shape = ("--embedding-dim", 12, "--num-layers", 1, "--batch-size", 4)
    done = drakegpt("train", "SingleHeadAttentionLM", "--scaled", *shape, "--iters", 2,
                    "--eval-iters", 1, "--json", "-q")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["size"] == "scaled"
    rates = [e["learning_rate"] for e in done.json["evaluations"]]
    assert rates == pytest.approx([3e-4, 3.6e-4])
    text = drakegpt("generate", "--scaled", "-n", 3, "SingleHeadAttentionLM")
    assert "_scaled_" in text.err


def test_compare_of_regularizers(drakegpt, song, home):
    small = settings("--context-length", 8, "--embedding-dim", 8, "--num-layers", 1, "--iters", 12,
                     "--eval-interval", 3, "--eval-iters", 1)  # fmt: skip
    none = drakegpt("compare", "--regularization", *small)
    assert none.code == 1
    assert (
        "not trained yet: 12." in drakegpt("compare", "--regularization", *small, "--seeds", 2).err
    )
    assert "same command with --train" in none.err
    trained = drakegpt("compare", "--regularization", *small, "--train", "--json")
    assert trained.code == 0, trained.err
    assert "6 of 6: TransformerLM on 'song', seed 42, dropout 0.3\n" in trained.err
    rows = {row["regularizer"]: row for row in trained.json["rows"]}
    assert len(rows) == 6
    assert len({row["val_loss"] for row in rows.values()}) > 3
    shown = drakegpt("compare", "--regularization", *small, COLUMNS=120)
    assert shown.code == 0, shown.err
    for name, row in rows.items():
        assert re.search(
            rf"│ {name} +│.*{row['train_loss']:.4f} │ +{row['val_loss']:.4f}", shown.out
        )
    for figure in trained.json["figures"]:
        assert figure in shown.err
        assert pathlib.Path(figure).exists()
    refused = drakegpt("compare", "--regularization", "--set", "dropout=0.1")
    assert refused.code == 2
