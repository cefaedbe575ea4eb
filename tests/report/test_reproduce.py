"""How to make a comparison again: what the report says must lead to the same."""

import json
import shlex

from learning import prepare, train
from report_pages import corpus_with_stanzas

from drakegpt.data import sources
from drakegpt.report.reproduce import describe_reproduction
from drakegpt.report.samples import generate_samples


def test_settings_are_told_once_where_all_share_them(prepared):
    one, other = train(prepared, "BigramLM"), train(prepared, "BlocksLM", num_layers=2)
    made = describe_reproduction([[one], [other]])
    differing = {setting.name: setting.values for setting in made.differing}
    assert differing == {"num_layers": ("3", "2")}
    shared = {setting.name: setting.values for setting in made.shared}
    assert shared["iters"] == ("4",)
    assert shared["init_from"] == ("none",)
    assert shared["compile"] == ("automatic",)
    assert not {"model", "data", "seed"} & shared.keys()


def test_each_run_has_its_command(prepared):
    runs = [train(prepared, "BigramLM", seed=seed) for seed in (1, 2)]
    (row,) = describe_reproduction([runs]).runs
    for run, made, seed in zip(runs, row, (1, 2), strict=True):
        assert made.run == run.name
        words = shlex.split(made.command)
        assert words[:5] == ["drakegpt", "train", "BigramLM", "--data", "small"]
        assert words[words.index("--seed") + 1] == str(seed)


def test_an_imported_run_has_none(prepared):
    run = train(prepared, "BigramLM")
    run.info["imported_from"] = "/somewhere/private/model.pt"
    ((made,),) = describe_reproduction([[run]]).runs
    assert made.command is None
    assert "imported" in made.note
    assert "private" not in str(describe_reproduction([[run]]))


def test_a_text_is_named_without_the_place_where_it_lies(home, tmp_path):
    file = tmp_path / "my songs.txt"
    file.write_text(corpus_with_stanzas(), encoding="utf-8")
    data = sources.fetch(str(file), name="mine", tokenizer="bpe", vocab_size=280).dataset
    (text,) = describe_reproduction([[train(data, "BigramLM")]]).texts
    assert text.command == (
        "drakegpt data fetch 'my songs.txt' --name mine --tokenizer bpe --vocab-size 280"
    )
    assert text.own_file
    assert text.source_sha256 == data.metadata.source_sha256
    assert str(tmp_path) not in str(text)


def test_the_column_of_a_table_is_named_where_it_has_to_be(home, tmp_path):
    table = tmp_path / "songs.csv"
    lines = corpus_with_stanzas().splitlines()
    table.write_text("the words,Lyric\n" + "".join(f"{a},{a[::-1]}\n" for a in lines))
    for column, option in (("the words", " --text-column 'the words'"), ("Lyric", "")):
        data = sources.fetch(str(table), name="mine", text_column=column).dataset
        (text,) = describe_reproduction([[train(data, "BigramLM", iters=1)]]).texts
        assert text.command == f"drakegpt data fetch songs.csv --name mine{option}"


def test_a_known_text_needs_no_file(home):
    data = sources.fetch("sample").dataset
    (text,) = describe_reproduction([[train(data, "BigramLM")]]).texts
    assert text.command == "drakegpt data fetch sample --name sample"
    assert not text.own_file


def test_versions_and_machines_are_told_with_the_number_of_their_runs(prepared):
    runs = [train(prepared, "BigramLM", seed=seed) for seed in (1, 2, 3)]
    runs[2].info["torch"] = "9.9"
    (environment, count), (other, one) = describe_reproduction([runs]).environments
    assert (count, one) == (2, 1)
    assert "PyTorch 9.9" in other
    for part in (runs[0].info["machine"], "drakegpt ", "on cpu"):
        assert part in environment


def test_the_command_under_the_samples_writes_them_again(drakegpt, home):
    data = prepare(corpus_with_stanzas())
    run = train(data, "TransformerLM", iters=30)
    samples = generate_samples([run], "the dog ")
    words = shlex.split(samples.command.replace("RUN", run.name))
    again = drakegpt(*words[1:], "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["samples"][0]["text"] == samples.texts[run.name]


def test_it_does_so_where_a_run_knows_a_part_of_the_prompt(drakegpt, home):
    run = train(prepare(corpus_with_stanzas()), "TransformerLM", iters=30)
    samples = generate_samples([run], "日the dog 本")
    assert samples.texts[run.name].startswith("the dog ")
    again = drakegpt(*shlex.split(samples.command.replace("RUN", run.name))[1:], "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["samples"][0]["text"] == samples.texts[run.name]
