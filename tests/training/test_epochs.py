"""Runs in epochs: counted in iterations, and gone on with in the middle of one."""

import pytest
from learning import record

from drakegpt.config import resolve
from drakegpt.errors import UsageError
from drakegpt.training.budget import iterations_of, length_of, seconds_for
from drakegpt.training.run import create_run, open_run


def configured(data, **settings):
    settings = {"windows": "shuffled", "eval_interval": 50, "eval_iters": 1, **settings}
    return resolve("TransformerLM", "default", data.name, settings)


@pytest.mark.parametrize(
    ("epochs", "batch", "accumulation"), [(1, 32, 1), (3, 32, 1), (2, 7, 3), (1, 10_000, 1)]
)
def test_epochs_in_iterations(prepared, epochs, batch, accumulation):
    config = configured(prepared, epochs=epochs, batch_size=batch, grad_accumulation=accumulation)
    windows = (prepared.metadata.train_tokens - 1) // 8
    iterations = iterations_of(config, prepared)
    assert (iterations - 1) * batch * accumulation < epochs * windows
    assert iterations * batch * accumulation >= epochs * windows


def test_a_run_goes_on_in_the_middle_of_an_epoch(prepared):
    length = length_of(configured(prepared, epochs=2), prepared)
    assert length["windows"] == "shuffled"
    per_epoch = iterations_of(configured(prepared, epochs=1), prepared)
    config = configured(prepared, **length)
    whole, cut = (create_run(config, prepared, name) for name in ("whole", "cut"))
    record(whole)
    stop = per_epoch + per_epoch // 3
    record(cut, until=stop, save=True)
    record(open_run(cut.folder), resume=True)
    ends = [run.last_checkpoint().weights.read_bytes() for run in (whole, cut)]
    assert ends[0] == ends[1]


def test_other_windows_than_drawn_at_random(prepared):
    weights = []
    for windows in ("random", "shuffled"):
        run = create_run(configured(prepared, windows=windows, iters=5), prepared)
        record(run)
        weights.append(run.last_checkpoint().weights.read_bytes())
    assert weights[0] != weights[1]


def test_the_time_of_a_run_grows_with_it():
    brief = {"eval_iters": 1, "iters": 100}
    small = seconds_for(resolve("TransformerLM", "default", "", brief), 65)
    longer = seconds_for(resolve("TransformerLM", "default", "", brief | {"iters": 10_000}), 65)
    wide = {"embedding_dim": 256, "context_length": 64}
    large = seconds_for(resolve("TransformerLM", "default", "", brief | wide), 65)
    assert 0 < small < large
    assert 20 * small < longer < 500 * small


def test_epochs_and_minutes_are_not_given_together(prepared):
    with pytest.raises(UsageError, match="both say how long"):
        configured(prepared, epochs=1, minutes=1.0)
