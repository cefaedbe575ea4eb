import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from comparison_rows import RESULT, evaluated, row, rows
from learning import train
from matplotlib.figure import Figure

from drakegpt.config import merge_layers, resolve
from drakegpt.config.files import named_settings
from drakegpt.config.presets import CLASS
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import RunError
from drakegpt.evaluation.baseline import Baseline, score_ngram_baselines
from drakegpt.evaluation.scoring import Score
from drakegpt.experiments import agreement, ladder
from drakegpt.experiments.agreement import (
    agrees,
    find_differences,
    find_largest_group,
    find_newer_runs,
    get_shared_settings,
    list_missing_models,
    select_others,
    select_runs,
)
from drakegpt.experiments.claims import check_claims
from drakegpt.experiments.ladder import (
    Comparison,
    choose_trained_settings,
    compare,
    select_ladder,
)
from drakegpt.experiments.plots import _draw_losses, draw_bits, draw_curves
from drakegpt.experiments.results import aggregate_runs
from drakegpt.runs import lookup
from drakegpt.runs.create import create_run
from drakegpt.runs.lookup import INCIDENTAL, find_run
from drakegpt.runs.run import Run
from drakegpt.runs.scores import score_run
from drakegpt.runs.session import TrainingSession


def test_rows_come_from_the_latest_runs_in_the_order_of_the_ladder(prepared):
    train(prepared, "TransformerLM")
    train(prepared, "SingleHeadAttentionLM")
    train(prepared, "BigramLM")
    newest = train(prepared, "BigramLM")
    comparison = compare(prepared, select_runs(prepared))
    first, second, last = comparison.rows
    assert [r.model for r in comparison.rows] == [
        "BigramLM", "SingleHeadAttentionLM", "TransformerLM",
    ]  # fmt: skip
    assert first.runs[-1] == newest.name
    assert second.gain.decrease == pytest.approx(first.val_loss - second.val_loss)
    # no neighbour below, no gain
    assert first.gain is None
    assert last.gain is None
    assert len(comparison.missing) == 3
    json.dumps(comparison.to_json(), allow_nan=False)


def chosen(prepared):
    """The runs of each row by model."""
    return {model: [run.name for run in runs] for (model, _), runs in select_runs(prepared).items()}


def test_a_run_with_other_settings_does_not_displace_one_that_agrees(prepared):
    """After the README's own next command, `train TransformerLM --dropout 0`."""
    for model in ("BigramLM", "ResidualBlocksLM", "TransformerLM"):
        train(prepared, model)
    before = chosen(prepared)
    odd = train(prepared, "TransformerLM", dropout=0.0)
    wide = train(prepared, "TransformerLM", context_length=128)
    assert chosen(prepared) == before
    comparison = compare(prepared, select_runs(prepared))
    assert not any(row.differs for row in comparison.rows)
    assert comparison.context_lengths == (8,)
    assert [run.name for run in find_newer_runs(prepared, select_runs(prepared))] == [wide.name]
    (((named,)),) = select_runs(prepared, settings={"dropout": 0.0}).values()
    assert named.name == odd.name


def test_the_runs_of_the_home_are_listed_once(prepared, monkeypatch):
    for model in ("BigramLM", "GPT1LM"):
        train(prepared, model)
    newest = train(prepared, "BigramLM", context_length=4)
    listed = lookup.list_runs
    calls = []

    def count(*arguments, **given):
        calls.append(arguments)
        return listed(*arguments, **given)

    for module in (lookup, agreement, ladder):
        monkeypatch.setattr(module, "list_runs", count, raising=False)
    selection = select_ladder(prepared, ["default"], {}, None)
    assert len(calls) == 1
    assert [[run.config.model for run in runs] for runs in selection.by_row] == [
        ["BigramLM"], ["GPT1LM"],
    ]  # fmt: skip
    assert selection.by_row[0][0].name == newest.name


def test_a_model_without_a_run_that_agrees_is_set_apart(prepared):
    for model in ("BigramLM", "SingleHeadAttentionLM", "BlocksLM"):
        train(prepared, model)
    odd = train(prepared, "MultiHeadAttentionLM", context_length=16, iters=6, seed=7)
    comparison = compare(prepared, select_runs(prepared))
    by_model = {row.model: row for row in comparison.rows}
    row_ = by_model["MultiHeadAttentionLM"]
    assert row_.runs == (odd.name,)
    assert row_.differs == {"context_length": (16, 8), "iters": (6, 4)}  # but not its seed
    assert row_.marked_label == "MultiHeadAttentionLM *"
    assert row_.command == (
        "drakegpt train MultiHeadAttentionLM --data small --iters 4 --eval-interval 2 "
        "--eval-iters 1"
    )
    assert by_model["SingleHeadAttentionLM"].gain is not None
    assert row_.gain is None
    assert by_model["BlocksLM"].gain is None
    assert comparison.context_lengths == (8,)  # what counting reaches is not scored in 16
    shown = {r["model"]: r for r in comparison.to_json()["rows"]}
    assert shown["MultiHeadAttentionLM"]["differs"] == {
        "context_length": {"run": 16, "others": 8}, "iters": {"run": 6, "others": 4},
    }  # fmt: skip
    assert shown["BigramLM"]["differs"] == {}
    for claim in check_claims(comparison.rows):
        assert "MultiHead" not in claim.finding
    assert all(m.command.endswith("--iters 4 --eval-interval 2 --eval-iters 1")
               for m in comparison.missing)  # fmt: skip


def begun(prepared, **settings):
    """A run before its first step: its row's key, its weights and its first windows."""
    given = {"iters": 4, "eval_interval": 2, "eval_iters": 1, "seed": 5, **settings}
    run = create_run(resolve("TransformerLM", "default", prepared.name, given), prepared)
    with TrainingSession(run) as recorder:
        weights = {k: v.clone() for k, v in recorder.trainer.model.state_dict().items()}
        windows = recorder.trainer._windows.at(0)[0].clone()
        list(recorder.reports())
    return aggregate_runs([run]).pairing_key, weights, windows


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({"dropout": 0.0, "schedule": "constant", "patience": 3}, True),
        ({"max_lr": 6e-3, "weight_decay": 0.0}, True),
        ({"batch_size": 16}, False),
        ({"embedding_dim": 16}, False),
        ({"bits": "1.58"}, False),
        ({"window_order": "epoch"}, False),
    ],
)
def test_rows_are_paired_only_where_weights_and_windows_are_the_same(prepared, changes, alike):
    key, weights, windows = begun(prepared)
    other_key, other_weights, other_windows = begun(prepared, **changes)
    same = (
        weights.keys() == other_weights.keys()
        and all(v.shape == other_weights[k].shape for k, v in weights.items())
        and all(v.equal(other_weights[k]) for k, v in weights.items())
        and windows.shape == other_windows.shape
        and bool(windows.equal(other_windows))
    )
    assert (key == other_key) is same is alike


def test_of_groups_of_equal_size_the_newest_is_taken(prepared):
    train(prepared, "BigramLM", iters=6)
    train(prepared, "BlocksLM", iters=6)
    train(prepared, "BigramLM")
    newest = train(prepared, "BlocksLM")
    assert chosen(prepared)["BlocksLM"] == [newest.name]
    train(prepared, "TransformerLM", iters=6)
    comparison = compare(prepared, select_runs(prepared))
    assert {row.iterations for row in comparison.rows} == {6}


def test_incidental_settings_and_seeds_do_not_part_runs(prepared):
    first = train(prepared, "BigramLM")
    other = train(prepared, "BlocksLM", seed=3, save_interval=2, device="cpu", wandb="off")
    assert agrees(first, get_shared_settings(other))
    assert set(INCIDENTAL) == {"device", "wandb", "save_interval"}
    comparison = compare(prepared, select_runs(prepared))
    assert not any(row.differs for row in comparison.rows)


def test_what_a_recipe_sets_by_the_kind_of_model_does_not_part_runs(prepared):
    """Wide models of the fast recipe differ in their optimizer, as one command trains them."""
    wide = {"recipe": "fast", "embedding_dim": 96, "num_layers": 1}
    first, second = (train(prepared, model, **wide) for model in ("BigramLM", "TransformerLM"))
    assert first.config.optimizer != second.config.optimizer
    assert agrees(first, get_shared_settings(second))
    assert agrees(second, get_shared_settings(first))
    plain = train(prepared, "BigramLM", embedding_dim=96, num_layers=1)
    assert not agrees(plain, get_shared_settings(first))
    assert find_differences(plain, get_shared_settings(first)) == {"recipe": ("original", "fast")}


def test_a_number_that_one_model_would_have_anyway_does_not_part_runs():
    """4,000 iterations are the fast recipe's for one kind of model, and named for the other."""
    given = {"recipe": "fast", "embedding_dim": 96, "iters": 4000}
    configs = [resolve(model, "default", "d", given) for model in ("BigramLM", "TransformerLM")]
    assert [dict(named_settings(config)).get("iters") for config in configs] == [None, 4000]
    runs = [Run(Path("r"), config, {"created_at": "1"}, None) for config in configs]
    assert agrees(runs[0], get_shared_settings(runs[1]))
    assert find_largest_group(runs) == get_shared_settings(runs[1])


def test_groups_are_found_in_step_with_the_number_of_runs(monkeypatch):
    """There may be thousands of runs, and as many groups."""
    asked = []
    monkeypatch.setattr(
        agreement, "merge_layers", lambda *given: asked.append(given) or merge_layers(*given)
    )
    rates = [0.01 + i / 10_000 for i in range(60)]
    configs = [resolve("BigramLM", "default", "d", {"max_lr": rate}) for rate in rates]
    again = [replace(config, seed=7, save_interval=3) for config in configs]
    runs = [
        Run(Path("r"), config, {"created_at": f"{number:03}"}, None)
        for number, config in enumerate(configs + again)
    ]
    assert find_largest_group(runs) == get_shared_settings(runs[-1])
    assert len(asked) <= len(rates) + 1


def test_settings_choose_among_the_runs(prepared):
    long = train(prepared, "BigramLM", iters=6)
    train(prepared, "BigramLM", iters=4)
    (((only,)),) = select_runs(prepared, settings={"iters": 6}).values()
    assert only.name == long.name
    assert select_runs(prepared, settings={"iters": 5}) == {}
    assert select_runs(prepared, ["scaled"]) == {}


def test_the_ladder_is_in_full_precision_unless_asked_otherwise(prepared):
    full, few = (train(prepared, "TransformerLM", bits=bits) for bits in ("full", "1.58"))
    key = ("TransformerLM", "default")
    assert [run.name for run in select_runs(prepared)[key]] == [full.name]
    chosen = select_runs(prepared, settings={"bits": "1.58"})[key]
    assert [run.name for run in chosen] == [few.name]


def test_runs_on_an_older_text_do_not_count(prepared, corpus):

    train(prepared, "BigramLM")
    changed = prepare_dataset(
        corpus + "more!\n", name="small", source="", provenance="", source_sha256=""
    )
    assert select_runs(changed) == {}
    assert len(select_runs(prepared)) == 1
    with pytest.raises(RunError, match="no run on 'small'"):
        find_run(None)


def test_an_unfinished_run_does_not_count(prepared):
    config = resolve("BigramLM", "default", "small", {"iters": 9, "eval_iters": 1})
    run = create_run(config, prepared)
    with TrainingSession(run) as recorder:
        for report in recorder.reports():
            if report.iteration == 3:
                recorder.save()
                break
    assert select_runs(prepared) == {}
    assert find_run("BigramLM").name == run.name


def test_missing_models_are_those_of_the_sizes_begun(prepared):
    assert len(list_missing_models({})) == 6
    train(prepared, "BigramLM")
    runs = select_runs(prepared)
    assert ("BigramLM", "default") not in list_missing_models(runs)
    assert {size for _, size in list_missing_models(runs)} == {"default"}
    assert len(list_missing_models(runs, ["scaled"])) == 6


def test_figures_are_pictures_of_both_losses(prepared):
    train(prepared, "BigramLM")
    rows_ = compare(prepared, select_runs(prepared)).rows
    files = draw_curves("small", rows_)
    contents = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in draw_curves("small", rows_)] == contents
    assert sorted(f.name for f in files) == [
        "train_loss.png", "train_loss.svg", "val_loss.png", "val_loss.svg",
    ]  # fmt: skip
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in files if f.suffix == ".png")
    svg = (files[1]).read_text(encoding="utf-8")
    assert "<svg" in svg


def baseline(order, loss):
    return Baseline(order, 8, Score(loss, 100, 100), 99)


def test_baselines_stand_beside_the_rows(prepared):
    train(prepared, "BigramLM")
    comparison = compare(prepared, select_runs(prepared))
    assert comparison.baselines == score_ngram_baselines(prepared, 8)
    assert comparison.context_lengths == (8,)
    shown = comparison.to_json()
    assert shown["baselines"] == [baseline.to_json() for baseline in comparison.baselines]
    assert [baseline["order"] for baseline in shown["baselines"]] == [1, 2, 3, 4, 5, 6, 7]


def test_baselines_have_the_context_of_the_ladders_runs_that_agree(prepared):
    train(prepared, "BigramLM", context_length=2)
    train(prepared, "BlocksLM", context_length=4)
    other = train(prepared, "GPT1LM", context_length=16)
    comparison = compare(prepared, select_runs(prepared), others=[[other]])
    assert comparison.context_lengths == (4,)
    assert comparison.baselines == score_ngram_baselines(prepared, 4)
    assert compare(prepared, {}, others=[[other]]).baselines == score_ngram_baselines(prepared, 16)


def test_rows_are_ranked_against_the_bigram_baseline():
    """By bits per character, of the others too; level with the counts is not beyond them."""
    two = math.log(2)
    ladder = [
        row({"run": f"ladder {bits}", "bits_per_character": bits, "val_loss": 0.0})
        for bits in (3.5, 2.995, 2.98)
    ]
    other = row({"run": "other", "bits_per_character": 2.0}, tokenizer="bpe")
    counted = (baseline(1, 4 * two), baseline(2, 3 * two), baseline(3, 1 * two))
    comparison = Comparison("d", tuple(ladder), (), (other,), counted)
    ranked = comparison.rank_against(comparison.bigram_baseline)
    groups = [[row.runs[0] for row in rows] for rows in ranked]
    assert groups == [["ladder 2.98", "other"], ["ladder 2.995"], ["ladder 3.5"]]
    assert comparison.to_json()["better_than_bigrams"] == ["ladder 2.98", "other"]
    assert comparison.to_json()["better_than_baselines"] == []
    lowest = Comparison("d", tuple(ladder), (), (other,), (*counted[:2], baseline(3, 2.5 * two)))
    assert lowest.to_json()["better_than_baselines"] == ["other"]
    assert Comparison("d", tuple(ladder), (), (other,)).to_json()["better_than_baselines"] == []


def test_pairs_threes_and_the_lowest_baseline_are_drawn():
    def drawn(*losses):
        counted = tuple(baseline(order, loss) for order, loss in enumerate(losses, 1))
        return [f.order for f in Comparison("d", (), (), (), baselines=counted).drawn_baselines]

    assert drawn(3.0, 2.5, 1.9, 2.0) == [2, 3]
    assert drawn(3.0, 2.5, 2.2, 2.0, 1.9, 2.1) == [2, 3, 5]
    assert drawn(1.0, 2.5, 1.9) == [1, 2, 3]
    assert drawn() == []


def test_baselines_are_drawn_at_their_loss_and_named():
    axes = Figure().add_subplot()
    _draw_losses(axes, "val_loss", "t", rows(2.5, 2.4), [baseline(1, 3.3), baseline(5, 1.8)])
    lines = {line.get_label(): line for line in axes.get_lines()}
    for label, loss in (("1-gram counts", 3.3), ("5-gram counts", 1.8)):
        assert list(lines[label].get_ydata()) == [loss, loss]
        assert list(lines[label].get_xdata()) == [0, 1]  # of the width: from edge to edge
        assert lines[label].get_linewidth() < lines["BigramLM"].get_linewidth()
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(lines)
    assert axes.get_ylim()[0] < 1.8
    assert axes.get_ylim()[1] > 3.3


def test_baselines_are_in_the_figure_of_validation_alone():
    files = draw_curves("d", rows(2.5, 2.4), [baseline(1, 3.3), baseline(5, 1.8)])
    texts = {f.name: f.read_text(encoding="utf-8") for f in files if f.suffix == ".svg"}
    for label in ("1-gram counts", "5-gram counts"):
        assert f"<!-- {label} -->" in texts["val_loss.svg"]
        assert label not in texts["train_loss.svg"]
    without = {f.name: f.read_bytes() for f in draw_curves("d", rows(2.5, 2.4))}
    assert without["train_loss.svg"] == texts["train_loss.svg"].encode()


@pytest.mark.parametrize(
    ("kinds", "title", "labels"),
    [
        (["validation"] * 2, "Validation loss on d", ["BigramLM", "SingleHeadAttentionLM"]),
        (["training-tail"] * 2, "Held-out tail loss on d", ["BigramLM", "SingleHeadAttentionLM"]),
        (
            ["validation", "training-tail"],
            "Validation or held-out tail loss on d",
            ["BigramLM", "SingleHeadAttentionLM (tail)"],
        ),
    ],
)
def test_a_figure_says_what_its_curves_are_of(kinds, title, labels):
    shown = [
        row({"evaluations": [each | {"scored_on": kind, "seconds": each["iteration"] / 10}
                             for each in evaluated((3, 3), (2, 2))]}, model=model)
        for kind, model in zip(kinds, ("BigramLM", "SingleHeadAttentionLM"), strict=True)
    ]  # fmt: skip
    files = draw_curves("d", shown, [baseline(5, 1.8)])
    texts = {f.name: f.read_text(encoding="utf-8") for f in files if f.suffix == ".svg"}
    for text in (title, *labels):
        assert f"<!-- {text} -->" in texts["val_loss.svg"]
    assert "<!-- Training loss on d -->" in texts["train_loss.svg"]
    assert "(tail)" not in texts["train_loss.svg"]
    # What counting reaches is of the validation split.
    assert ("5-gram counts" in texts["val_loss.svg"]) == ("validation" in kinds)
    bits = draw_bits("d", shown)[1].read_text(encoding="utf-8")
    named = title.removesuffix(" loss on d").lower()
    assert f"<!-- bits per character, {named}, estimated -->" in bits


def test_the_best_run_is_the_one_with_the_lowest_validation_loss(prepared):
    long = train(prepared, "MultiHeadAttentionLM", iters=150)
    train(prepared, "TransformerLM", iters=1)
    assert find_run(None).name == long.name
    assert find_run("multiheadattentionlm").name == long.name
    assert find_run(long.name).name == long.name
    assert find_run(str(long.folder)).name == long.name
    with pytest.raises(RunError, match="no scaled run"):
        find_run(None, scaled=True)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, ["no run", "drakegpt train"]),
        ("BlocksLM", ["no run of BlocksLM", "drakegpt train BlocksLM"]),
        ("nonsense", ["'nonsense'", "BigramLM"]),
        ("blocklm", ["Did you mean BlocksLM"]),
    ],
)
def test_what_is_not_there_is_explained(target, words):
    with pytest.raises(RunError) as caught:
        find_run(target)
    for word in words:
        assert word in str(caught.value)


def test_bits_against_time_for_rows_that_read_other_tokens(home):
    """An estimate of 5.2 nats, where the exact 5.0 are 2.5 bits a character, is 2.6 bits."""
    evaluations = ({"iteration": 5, "val_loss": 5.2, "seconds": 3.0},)
    longer = row(
        {"val_loss": 5.0, "bits_per_character": 2.5, "evaluations": evaluations},
        model="GPT1LM", tokenizer="bpe", vocab_size=2048,
    )  # fmt: skip
    letters = row(
        {"evaluations": tuple({**e, "seconds": e["iteration"]} for e in RESULT.evaluations)}
    )
    files = draw_bits("d", [letters, longer, row({"evaluations": ()})])
    assert [file.name for file in files] == ["bits.png", "bits.svg"]
    svg = files[1].read_text(encoding="utf-8")
    assert "GPT1LM (2,048 BPE tokens)" in svg
    (line,) = [line for line in _drawn_bits([longer]) if line.get_label().startswith("GPT1LM")]
    assert line.get_xydata().tolist() == [[3.0, pytest.approx(2.6)]]


def _drawn_bits(rows):
    """The lines of the figure, caught before it is written."""
    from drakegpt.experiments import plots

    caught = []
    saved = plots._save
    plots._save = lambda figure, *_: caught.append(figure) or []
    try:
        draw_bits("d", rows)
    finally:
        plots._save = saved
    return caught[0].axes[0].get_lines()


def test_runs_that_differ_in_their_seed_alone_are_one_row(prepared):
    train(prepared, "BigramLM", seed=7, iters=6)
    runs = [train(prepared, "BigramLM", seed=seed) for seed in (3, 1, 2)]
    again = train(prepared, "BigramLM", seed=3)
    chosen = select_runs(prepared)["BigramLM", "default"]
    assert [run.name for run in chosen] == [runs[1].name, runs[2].name, again.name]
    (row_,) = compare(prepared, {("BigramLM", "default"): chosen}).rows
    scores = [score_run(run).val.loss for run in chosen]
    assert row_.seeds == (1, 2, 3)
    assert row_.val_loss == pytest.approx(sum(scores) / 3)
    assert row_.val_spread == pytest.approx(statistics.stdev(scores))
    assert row_.val_spread > 0
    assert [e["iteration"] for e in row_.evaluations] == [2, 4]
    firsts = [run.evaluations[0]["val_loss"] for run in chosen]
    assert row_.evaluations[0]["val_loss"] == pytest.approx(sum(firsts) / 3)
    assert row_.range_over_seeds("val_loss")[0] == (2, min(firsts), max(firsts))
    shown = row_.to_json()
    assert [run["seed"] for run in shown["runs"]] == [1, 2, 3]
    assert shown["val_loss"] == row_.val_loss
    only = select_runs(prepared, seeds=[2, 3])["BigramLM", "default"]
    assert [run.config.seed for run in only] == [2, 3]
    assert select_runs(prepared, seeds=[9]) == {}


def test_others_come_with_their_seeds_too(prepared):
    runs = [train(prepared, "GPT1LM", seed=seed) for seed in (1, 2)]
    assert [[run.name for run in of_row] for of_row in select_others(prepared)] == [
        [run.name for run in runs]
    ]


def test_one_run_has_no_spread():
    assert row().val_spread is None
    assert row().train_spread is None


def test_overfitting_begins_where_validation_was_lowest_while_training_fell():
    rising = evaluated((2.6, 2.6), (2.4, 2.5), (2.2, 2.7))
    worse = {"val_loss": 2.7, "best_val_loss": 2.5}
    assert row({"evaluations": rising, **worse}).overfits_from == 20
    # exact losses decide, not the estimates
    assert (
        row({"evaluations": rising, "val_loss": 2.505, "best_val_loss": 2.5}).overfits_from is None
    )
    # both rise: that is not overfitting
    assert row({"evaluations": evaluated((2.4, 2.5), (2.5, 2.7)), **worse}).overfits_from is None
    assert row({"evaluations": (), **worse}).overfits_from is None


def test_a_row_knows_how_long_each_of_its_runs_is():
    every = row(*({"iterations": length} for length in (560, 385, None, 455, 385)))
    assert (every.lengths, every.iterations) == ((385, 455, 560), 560)
    assert (row({"iterations": None}).lengths, row({"iterations": None}).iterations) == ((), None)


def test_of_several_seeds_most_must_overfit():
    worse = {"val_loss": 2.7, "best_val_loss": 2.5}
    turns = [evaluated((2.6, 2.5), (2.5, 2.6)), evaluated((2.6, 2.6), (2.4, 2.5), (2.3, 2.6))]
    overfit = [{"evaluations": turn, **worse} for turn in turns]
    assert row(overfit[0], {}).overfits_from is None
    most = row(overfit[0], overfit[1], overfit[1], {"best_val_loss": 2.499})
    assert most.overfits_from == 20
    assert most.overfits_by == pytest.approx(0.2)  # of those that do
    # Of two it is one of theirs, at which there is an evaluation.
    assert row(*overfit).overfits_from == 10


def test_seeds_are_drawn_as_a_band_and_overfitting_as_a_triangle():
    """From the lowest to the highest seed, around their mean."""
    worse = {"val_loss": 2.9, "best_val_loss": 2.5}
    two = row(
        {"evaluations": evaluated((2.6, 2.5), (2.5, 2.9)), **worse},
        {"evaluations": evaluated((2.6, 2.7), (2.5, 3.1)), **worse},
    )
    axes = Figure().add_subplot()
    _draw_losses(axes, "val_loss", "t", [two], [])
    line, turn = axes.get_lines()
    assert line.get_xydata().tolist() == [[10, pytest.approx(2.6)], [20, pytest.approx(3.0)]]
    assert turn.get_xydata().tolist() == [[10, pytest.approx(2.6)]]
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert {(10, 2.5), (10, 2.7), (20, 2.9), (20, 3.1)} <= corners
    plain = Figure().add_subplot()
    _draw_losses(plain, "train_loss", "t", [row()], [])
    assert len(plain.get_lines()) == 1
    assert not plain.collections


def test_means_are_of_the_iterations_that_all_runs_have():
    """A run that was resumed with more iterations has one more where it had ended before."""
    resumed = evaluated((2.6, 2.6), (2.4, 2.4), (2.2, 2.2))
    straight = ({**resumed[0], "val_loss": 2.8}, {**resumed[2], "val_loss": 2.0})
    two = row({"evaluations": resumed}, {"evaluations": straight})
    assert [e["iteration"] for e in two.evaluations] == [10, 30]
    assert [e["val_loss"] for e in two.evaluations] == pytest.approx([2.7, 2.1])
    assert two.range_over_seeds("val_loss") == [(10, 2.6, 2.8), (30, 2.0, 2.2)]


@pytest.mark.parametrize(
    ("size", "given", "preset"),
    [(None, {}, CLASS), (None, {"seed": 3, "device": "cpu"}, CLASS), (None, {"iters": 5}, None),
     (None, {"preset": "none"}, "none"), ("scaled", {}, None)],
)  # fmt: skip
def test_a_lesson_is_trained_where_nothing_else_is_asked(size, given, preset):
    assert choose_trained_settings(size, given).get("preset") == preset


def test_runs_of_a_lesson_and_of_the_original_are_ladders_of_their_own(prepared):
    models = ("BigramLM", "TransformerLM")
    plain = [train(prepared, model) for model in models]
    small = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1}
    lesson = [train(prepared, model, preset=CLASS, **small) for model in models]

    def selected(**settings):
        runs = select_runs(prepared, settings=settings)
        return [run.name for of_model in runs.values() for run in of_model]

    assert selected() == [run.name for run in lesson]  # the newest
    assert selected(preset="none") == [run.name for run in plain]
    assert selected(preset=CLASS) == [run.name for run in lesson]
    rows = compare(prepared, select_runs(prepared)).rows
    assert [row.label for row in rows] == [*models]
