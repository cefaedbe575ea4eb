"""How a run begins: no setting is recorded that is not followed."""

import pytest
import torch

from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.runs.create import create_run
from drakegpt.runs.run import open_run
from drakegpt.runs.session import TrainingSession, train_run
from drakegpt.runs.start import resolve_run, start_run
from drakegpt.training.reports import Evaluation

SHORT = {"iters": 6, "eval_interval": 3, "eval_iters": 1}


def test_epochs_become_iterations_in_shuffled_windows(prepared):
    once = resolve_run("BigramLM", "default", prepared, {"epochs": 1})
    twice = resolve_run("BigramLM", "default", prepared, {"batch_size": 64}, {"epochs": 2})
    assert (once.epochs, once.window_order, once.iters) == (0, "epoch", twice.iters)
    with pytest.raises(UsageError, match="both set the length of a run"):
        resolve_run("BigramLM", "default", prepared, {"epochs": 1}, {"iters": 5})


def test_a_run_is_not_made_with_a_length_that_would_be_ignored(prepared, home):
    config = resolve("BigramLM", "default", prepared.name, {"epochs": 5})
    with pytest.raises(UsageError, match="resolve_run"):
        create_run(config, prepared)
    assert not list((home / "runs").glob("*"))


def test_an_origin_and_its_weights_come_together(prepared):
    first = start_run(resolve_run("BigramLM", "default", prepared, SHORT), prepared, "first")
    assert train_run(first)
    config = resolve_run("BigramLM", "default", prepared, SHORT, {"init_from": "first"})
    with pytest.raises(UsageError, match="init_from names first, but its weights are missing"):
        create_run(config, prepared)
    weights = first.load_model(torch.device("cpu")).state_dict()
    with pytest.raises(UsageError, match="init_from is empty, but its weights are given"):
        create_run(first.config, prepared, initial=weights)
    second = start_run(config, prepared, "second")
    assert second.initial_weights.exists()


def test_training_says_nothing_stops_when_asked_and_is_resumed(prepared, capsys):
    config = resolve_run("BlocksLM", "default", prepared, SHORT)
    whole, stopped = (create_run(config, prepared, name) for name in ("whole", "stopped"))
    assert train_run(whole)
    heard = []
    assert not train_run(stopped, progress=heard.append, stop=lambda: heard[-1].iteration == 4)
    assert open_run(stopped.folder).last_checkpoint().iteration == 4
    assert train_run(stopped, resume=True, progress=heard.append)
    assert [r.iteration for r in heard if isinstance(r, Evaluation)] == [3, 6]
    first, second = (run.last_checkpoint().weights.read_bytes() for run in (whole, stopped))
    assert first == second
    assert capsys.readouterr() == ("", "")
    with TrainingSession(stopped, resume=True), pytest.raises(UsageError, match="Another process"):
        train_run(stopped, resume=True)


@pytest.mark.parametrize("model", ["MultiHeadAttentionLM", "TransformerLM"])
def test_fast_drops_nothing_from_a_wide_model_that_reads_its_text_a_few_times(prepared, model):
    wide = {"recipe": "fast", "embedding_dim": 96, "num_heads": 4, "batch_size": 4}
    pass_ = len(prepared.split("train")) / (4 * 8)  # iterations in which the text is read once

    def dropout(passes, **changes):
        given = wide | {"iters": int(passes * pass_)} | changes
        return resolve_run(model, "default", prepared, given).dropout

    assert dropout(4.9) == dropout(2.4, grad_accumulation=2) == 0.0
    assert dropout(5.1) == dropout(2.6, grad_accumulation=2) == 0.1
    # Nine tenths of the text are read more often.
    assert dropout(4.9, select_on="training-tail") == 0.1
    assert dropout(4.9, dropout=0.3) == 0.3
    assert dropout(4.9, recipe="original") == 0.1
    assert dropout(50, embedding_dim=64) == 0.0  # narrow models never need it


def test_the_best_recipe_drops_more_the_more_often_it_reads_its_text(prepared):
    epoch = len(prepared.split("train")) / (32 * 8)  # iterations

    def dropout(epochs, **changes):
        given = {"recipe": "best", "iters": int(epochs * epoch)} | changes
        config = resolve_run("TransformerLM", "default", prepared, given)
        return config.dropout, config.embedding_dropout, config.token_dropout

    assert dropout(11.9) == (0.0, 0.0, 0.0)
    assert dropout(12.1) == dropout(24.9) == (0.1, 0.1, 0.0)
    assert dropout(25.1) == dropout(59.9) == (0.2, 0.2, 0.0)
    assert dropout(60.1) == (0.3, 0.3, 0.15)
    assert dropout(4.9, token_dropout=0.2) == (0.0, 0.0, 0.2)
    assert dropout(4.9, dropout=0.2) == (0.2, 0.2, 0.0)
    # A model with fewer parameters than the text has tokens.
    small = {"embedding_dim": 4, "num_heads": 1, "num_layers": 1}
    assert dropout(12.1, **small) == (0.0, 0.0, 0.0)


def test_dropout_of_a_system_stays(prepared):
    config = resolve_run("GPT1LM", "default", prepared, {"preset": "gpt1-small", "iters": 1})
    assert (config.recipe, config.dropout) == ("fast", 0.2)
