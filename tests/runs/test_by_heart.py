"""Songs known by heart: a planted song, a planted copy, and leaving single songs out."""

import random
from dataclasses import replace

import numpy as np
import pytest

from drakegpt.config import resolve
from drakegpt.data import song_halves
from drakegpt.data.dataset import load
from drakegpt.data.song_halves import choose_half, list_training_songs, select_half
from drakegpt.errors import UsageError
from drakegpt.runs import by_heart
from drakegpt.runs.by_heart import count_models_needed, measure_by_heart
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.session import train_run

SHAPE = {"embedding_dim": 32, "num_heads": 2, "num_layers": 1, "context_length": 16}
SETTINGS = {
    **SHAPE, "batch_size": 8, "iters": 120, "recipe": "fast", "eval_iters": 1, "eval_interval": 120
}  # fmt: skip
WORDS = "night road rain fire gold heart train light home call".split()
NONSENSE = "random letters"
COPIED = "song 3"


def make_songs_of_own_words():
    """Songs that share some words, and have some of their own, more or less of them."""
    chance, songs = random.Random(6), {}
    for number in range(14):
        own = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(4)]
        words = WORDS + own * (number % 4)
        songs[f"song {number}"] = "\n".join(" ".join(chance.choices(words, k=5)) for _ in range(8))
    return songs


def make_songs(copies=0):
    """Songs of the same few words, and one of random letters, at the end."""
    chance = random.Random(5)
    songs = {
        f"song {number}": "\n".join(" ".join(chance.choices(WORDS, k=5)) for _ in range(8))
        for number in range(14)
    }
    strange = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=240))
    songs[NONSENSE] = strange
    for copy in range(copies):
        songs[f"copy {copy}"] = strange
    return songs


@pytest.fixture
def train_on(drakegpt, tmp_path):
    """Prepares songs, and returns a run that was trained on them."""

    def train(songs, tokenizer="char", **settings):
        folder = tmp_path / f"songs{len(songs)}{tokenizer}"
        folder.mkdir()
        for title, text in songs.items():
            (folder / f"{title}.txt").write_text(text + "\n", encoding="utf-8")
        encoded = ("--tokenizer", "bpe", "--vocab-size", 300) if tokenizer == "bpe" else ()
        added = drakegpt("data", "add", folder, "--name", folder.name, *encoded)
        assert added.code == 0, added.err
        config = resolve("TransformerLM", "default", folder.name, SETTINGS | settings)
        run = create_run(config, load(folder.name))
        train_run(run)
        return open_run(run.folder)

    return train


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_each_half_holds_its_songs_whole(train_on, tokenizer):
    data = load(train_on(make_songs(), tokenizer, iters=1).config.data)
    songs, tokens = list_training_songs(data)
    texts = [data.tokenizer.decode(part.tolist()).strip("\n") for part in tokens]
    assert all(make_songs()[song.title] == text for song, text in zip(songs, texts, strict=True))
    for number in (1, 2, -2):
        held, others = (data.tokenizer.decode(part.tolist()) for part in select_half(data, number))
        inside = choose_half(len(songs), number)
        assert abs(2 * inside.sum() - len(songs)) <= 1
        assert np.array_equal(choose_half(len(songs), -number), ~inside)
        for text, is_in in zip(texts, inside, strict=True):
            assert (text in held, text in others) == (is_in, not is_in)


def test_a_song_of_random_letters_ranks_first(train_on):
    known = measure_by_heart(train_on(make_songs()), 8)
    first, second = known.songs[:2]
    assert first.title == NONSENSE
    assert first.memory - second.memory > 2 * (first.error + second.error)
    assert first.without_it > first.with_it
    assert first.characters == 243  # with what divides it from the next one
    assert known.models == 8
    assert known.iterations == 60
    assert known.reliability > 0.8


def test_a_copy_of_a_song_lowers_it(train_on):
    alone = measure_by_heart(train_on(make_songs()), 8)
    copied = measure_by_heart(train_on(make_songs(copies=1)), 8)
    memory = {song.title: song.memory for song in copied.songs}
    assert memory[NONSENSE] < alone.songs[0].memory / 1.5


@pytest.mark.slow
def test_single_songs_left_out_agree(train_on, monkeypatch):
    """Five songs: a half with the song, beside the same half without it, over random halves."""
    run = train_on(make_songs_of_own_words())
    known = {song.title: song for song in measure_by_heart(run, 24).songs}
    data = run.load_dataset()
    songs, _ = list_training_songs(data)
    number = 0

    def losses(index, inside):
        """Train on some songs, and return the loss of one of them."""
        nonlocal number
        number += 1
        monkeypatch.setattr(song_halves, "choose_half", lambda *_: inside)
        config = replace(by_heart._configure_half(run, 1, "cpu"), seed=100 + number // 2)
        model = create_run(config, data, facts={"song_half": 1})
        train_run(model)
        by_heart._score_songs(model, data, "cpu")
        return by_heart.files.parse_json((model.folder / by_heart.LOSSES).read_text())[index]

    memories = [known[song.title].memory for song in songs]
    assert max(memories) > 3 * min(memories)
    for index in range(0, 10, 2):
        title, found = songs[index].title, []
        for half in range(101, 111):
            inside = choose_half(len(songs), half)
            with_it, without_it = inside.copy(), inside.copy()
            with_it[index], without_it[index] = True, False
            found.append(losses(index, without_it) - losses(index, with_it))
        error = np.std(found, ddof=1) / len(found) ** 0.5
        difference = abs(np.mean(found) - known[title].memory)
        assert difference < 2 * (error**2 + known[title].error ** 2) ** 0.5, title


def test_it_is_resumed_and_kept(train_on):
    run = train_on(make_songs())
    steps = []

    def stop():
        return len(steps) > 150

    assert measure_by_heart(run, 4, stop=stop, progress=lambda *step: steps.append(step)) is None
    kept = sorted(path.name for path in (run.folder / "by-heart").iterdir())
    assert kept == ["60-1a", "60-1b", "60-2a"]
    assert not open_run(run.folder / "by-heart" / "60-2a").finished
    resumed = measure_by_heart(run, 4, progress=lambda *step: steps.append(step))
    assert [done for _, done, _ in steps][-1] == 240
    trained = len(steps)
    assert measure_by_heart(run, 4, progress=lambda *step: steps.append(step)) == resumed
    assert len(steps) == trained


def test_damaged_losses_are_measured_again(train_on):
    run = train_on(make_songs())
    first = measure_by_heart(run, 4)
    stored = run.folder / "by-heart" / "60-2a" / by_heart.LOSSES
    for damage in ("[", "[1.0]", "[NaN]", "{}"):
        stored.write_text(damage)
        assert by_heart.find_by_heart(run) is None
        assert measure_by_heart(run, 4) == first
    assert by_heart.find_by_heart(run) == first


@pytest.mark.parametrize(
    ("models", "reliability", "needed"), [(12, 0.5915, 34), (12, 0.9, 12), (8, -0.1, None)]
)
def test_models_needed_for_a_reliable_order(models, reliability, needed):
    assert count_models_needed(models, reliability) == needed


def test_runs_that_say_nothing_of_their_songs(train_on, drakegpt):
    run = train_on(make_songs())
    with pytest.raises(UsageError, match="too few for the context"):
        measure_by_heart(replace(run, config=replace(run.config, context_length=2000)), 4)
    with pytest.raises(UsageError, match="not trained here from random weights"):
        measure_by_heart(replace(run, config=replace(run.config, init_from="other")), 4)
    packed = drakegpt("export", "packed", run.name, "--name", "packed")
    assert packed.code == 0, packed.err
    refused = drakegpt("eval", "packed", "--by-heart")
    assert refused.code == 2
    assert "not trained here from random weights" in " ".join(refused.err.split())
    shown = drakegpt("eval", run.name, "--by-heart", "--models", 4)
    assert shown.code == 0, shown.err
    for text in (NONSENSE, "memory", "can be said from 8 models on"):
        assert text in shown.out
    as_json = drakegpt("eval", run.name, "--by-heart", "--models", 4, "--json").json
    assert as_json["songs"][0]["title"] == NONSENSE
    page = run.folder.parent.parent / "report.html"
    assert drakegpt("compare", "--data", run.config.data, "--html", page).code == 0
    card = page.read_text(encoding="utf-8").partition("Known by heart, by 4 models")[2]
    memory = as_json["songs"][0]["memory"]
    assert f"<bdi>{NONSENSE}</bdi>, {memory:.3f}" in card
    assert drakegpt("runs").out.count("songs") == drakegpt("runs", "--json").out.count('"songs')
    for words, said in [
        (("--models", 4), "--models is for --by-heart"),
        (("--by-heart", "--counts"), "--by-heart judges one run"),
        (("--by-heart", "--originality"), "judges one run"),
    ]:
        refused = drakegpt("eval", run.name, *words)
        assert refused.code == 2
        assert said in refused.err
