"""The loop itself: reproducible, and honest in what it reports."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from learning import losses, new_trainer

from drakegpt.config import MODEL_NAMES
from drakegpt.data.windows import Stream, TrainingWindows, random_windows, spread_windows
from drakegpt.errors import RunError
from drakegpt.evaluation.scoring import score_validation_split
from drakegpt.models.loss import next_token_loss
from drakegpt.training.loss_estimates import scores_whole_validation
from drakegpt.training.reports import Evaluation, Step

trainer = partial(new_trainer, iters=20, eval_interval=5, eval_iters=3)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_same_seed_gives_the_same_losses(prepared, model):
    first = losses(trainer(prepared, model))
    assert first == losses(trainer(prepared, model))
    assert first != losses(trainer(prepared, model, seed=7))


def test_reports_come_in_order_and_learning_rates_follow_the_evaluations(prepared):
    reports = list(trainer(prepared, iters=12).reports())
    kinds = [type(report).__name__[0] for report in reports]
    assert "".join(kinds) == "SSSSSESSSSSESSE"
    assert [r.iteration for r in reports if isinstance(r, Evaluation)] == [5, 10, 12]
    rates = [r.learning_rate for r in reports if isinstance(r, Step)]
    assert rates == pytest.approx([1.0e-3] * 5 + [1.8e-3] * 5 + [2.6e-3] * 2)


@pytest.mark.parametrize("schedule", ["cyclic", "cosine", "step"])
def test_steps_are_those_of_adamw_with_the_rates_that_are_reported(prepared, schedule):
    """PyTorch's own AdamW on an equal model, fed the same windows by a plain loop."""
    settings = {"schedule": schedule, "base_lr": 1e-4, "max_lr": 2e-3, "decay_interval": 3}
    training = trainer(prepared, iters=12, weight_decay=0.07, dropout=0.0, **settings)
    twin = copy.deepcopy(training.model)
    adamw = torch.optim.AdamW(twin.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.07)
    windows = TrainingWindows(prepared.split("train"), 8, 32, training.config.seed)
    rates = set()
    for report in training.reports():
        if isinstance(report, Step):
            rates.add(report.learning_rate)
            inputs, targets = (part.long() for part in windows.at(report.iteration - 1))
            adamw.param_groups[0]["lr"] = report.learning_rate
            loss = next_token_loss(twin(inputs), targets)
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            assert report.loss.item() == pytest.approx(loss.item(), abs=1e-5)
    assert len(rates) > 1, "the schedule moves"
    for ours, theirs in zip(training.model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_an_evaluation_is_the_mean_over_its_random_batches(prepared):
    training = trainer(prepared, iters=5, eval_iters=7)
    last = list(training.reports())[-1]
    config, model = training.config, training.model.eval()
    for stream, split, reported in (
        (Stream.ESTIMATE_TRAIN, "train", last.train_loss),
        (Stream.ESTIMATE_VAL, "val", last.val_loss),
    ):
        inputs, targets = random_windows(prepared.split(split), 8, 7 * 32, config.seed, stream, 5)
        with torch.no_grad():
            batches = [
                next_token_loss(model(inputs[i : i + 32]), targets[i : i + 32]).item()
                for i in range(0, 7 * 32, 32)
            ]
        assert reported == pytest.approx(sum(batches) / 7, abs=1e-6)


def test_of_other_recipes_it_is_the_mean_over_windows_spread_evenly(prepared):
    training = trainer(prepared, iters=5, recipe="fast", batch_size=8)
    last = list(training.reports())[-1]
    model = training.model.eval()
    for split, reported in (("train", last.train_loss), ("val", last.val_loss)):
        inputs, targets = spread_windows(prepared.split(split), 8, 3 * 8)
        with torch.no_grad():
            assert reported == pytest.approx(next_token_loss(model(inputs), targets).item())
    again = training.evaluate()
    assert (again.train_loss, again.val_loss) == (last.train_loss, last.val_loss)


@pytest.mark.parametrize("recipe", ["original", "fast"])
def test_weights_do_not_depend_on_what_is_evaluated(prepared, recipe):
    settings = {"recipe": recipe, "dropout": 0.1, "schedule": "hold", "iters": 10}
    ends = []
    for often in ({"eval_iters": 1}, {"eval_iters": 9}, {"eval_interval": 10}):
        training = trainer(prepared, **settings | often)
        list(training.reports())
        ends.append(training.optimizer.weights.values)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_evaluating_does_not_disturb_training(prepared):
    """Dropout's randomness and the windows go on as if nobody had looked."""
    often = losses(trainer(prepared, iters=10, eval_interval=1, base_lr=1e-3, max_lr=1e-3))
    once = losses(trainer(prepared, iters=10, eval_interval=10, base_lr=1e-3, max_lr=1e-3))
    assert often == once


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept(prepared):
    """Beside an equal run without it, whose weights are averaged here after each step."""
    settings = {"iters": 3, "eval_interval": 3, "dropout": 0.0}
    plain, averaged = trainer(prepared, **settings), trainer(prepared, **settings, ema=0.7)
    expected = copy.deepcopy(plain.model)
    for report, theirs in zip(plain.reports(), averaged.reports(), strict=True):
        assert isinstance(report, Evaluation) or report.loss == theirs.loss
        if isinstance(report, Step):
            for average, now in zip(expected.parameters(), plain.model.parameters(), strict=True):
                average.data.lerp_(now.data, 0.3)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(averaged.weights()[name], tensor, msg=name)
    other = trainer(prepared, **settings)
    next(other.reports())
    other.model.load_state_dict(expected.state_dict())
    other.iteration = 3
    assert other.evaluate().val_loss == pytest.approx(theirs.val_loss, abs=1e-6)
    assert theirs.val_loss != report.val_loss


@pytest.mark.parametrize("stop", [1, 5, 13])
def test_going_on_from_a_saved_state_is_exact(prepared, stop):
    whole = trainer(prepared)
    expected = losses(whole)
    first = trainer(prepared)
    steps = itertools.islice((r for r in first.reports() if isinstance(r, Step)), stop)
    begun = [r.loss.item() for r in steps]
    if stop % 5 == 0:  # the evaluation due after this step belongs to it
        first.evaluate()
    state, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(first.model.state_dict())
    torch.rand(3)  # somebody else uses the generator meanwhile
    second = trainer(prepared)
    second.model.load_state_dict(weights)
    second.load_state_dict(state)
    assert begun + losses(second) == expected
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(prepared):
    training = trainer(prepared, iters=20)
    steps = training.reports()
    next(steps)
    with torch.no_grad():
        training.model.head.weight.fill_(math.nan)
    with pytest.raises(RunError, match="nan at iteration 2") as caught:
        list(steps)
    assert "--lr" in caught.value.fix


@pytest.mark.parametrize(
    ("settings", "whole"),
    [
        ({"recipe": "fast", "eval_iters": 1000}, True),
        ({"recipe": "fast", "eval_iters": 3}, False),
        ({"recipe": "original", "eval_iters": 1000}, False),
    ],
)
def test_validation_is_scored_whole_where_that_is_less(prepared, settings, whole):
    """Which makes it exact: the loss that `eval` finds. The original's recipe draws windows."""
    training = new_trainer(prepared, iters=2, eval_interval=2, **settings)
    *_, evaluation = training.reports()
    exact = score_validation_split(training.model.eval(), prepared, training.device).loss
    assert scores_whole_validation(training.config, len(prepared.split("val"))) == whole
    assert (abs(evaluation.val_loss - exact) < 1e-6) == whole


@pytest.mark.parametrize("schedule", ["cyclic", "constant", "cosine", "hold", "step", "plateau"])
def test_an_evaluation_tells_the_rate_of_the_step_before_it(prepared, schedule):
    settings = {"schedule": schedule, "decay_interval": 5, "plateau_patience": 1}
    training = trainer(prepared, warmup_iters=3, **settings)
    rate = None
    for report in training.reports():
        if isinstance(report, Step):
            rate = report.learning_rate
        else:
            assert report.learning_rate == rate


def test_the_rate_of_the_last_step_is_kept_where_the_schedule_is_another_afterwards(prepared):
    """Stopped between a step and its evaluation, and gone on with for longer."""
    first = trainer(prepared, schedule="cosine")
    *_, last = itertools.islice((r for r in first.reports() if isinstance(r, Step)), 5)
    second = trainer(prepared, schedule="cosine", iters=40)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    report = next(second.reports())
    assert isinstance(report, Evaluation)
    assert report.learning_rate == last.learning_rate


def test_what_a_step_costs_does_not_grow_with_the_evaluations_before_it(prepared):
    """Counted in evaluations read again, not in seconds, which a busy machine changes."""

    class Counted(list):
        read = 0

        def __iter__(self):
            Counted.read += len(self)
            return super().__iter__()

    training = trainer(prepared, "BigramLM", iters=300, eval_interval=1, eval_iters=1, patience=300,
                       schedule="plateau", batch_size=1)  # fmt: skip
    training.evaluations = Counted()
    assert len(list(training.reports())) == 600
    assert Counted.read == 0
