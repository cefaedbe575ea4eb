"""A model of one's own, registered in one file, is a model like the others everywhere."""

import importlib
import sys

import pytest

from drakegpt.config import LADDER, MODEL_NAMES, ORIGINAL_MODELS, resolve
from drakegpt.config.model_facts import MODEL_FACTS
from drakegpt.errors import UsageError
from drakegpt.models.registry import MODELS, register

NAME = "GatedTransformerLM"
QUICK = ("--iters", 20, "--set", "eval_iters=2")


@pytest.fixture
def seventh():
    """Import the file, as a program would; afterwards all is as before."""
    before = [list(names) for names in (LADDER, MODEL_NAMES)]
    yield importlib.import_module("models.seventh_rung").GatedTransformerLM
    LADDER[:], MODEL_NAMES[:] = before
    del MODELS[NAME], MODEL_FACTS[NAME], sys.modules["models.seventh_rung"]


@pytest.mark.slow
def test_it_trains_scores_generates_and_is_compared(drakegpt, prepared, seventh):
    trained = drakegpt("train", NAME.lower(), "--iters", 20, "--eval-iters", 2, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["model"] == NAME
    assert drakegpt("eval", NAME, "--json").json["model"] == NAME
    text = drakegpt("generate", NAME, "-n", 30, "-p", "the ", "--seed", 1)
    assert text.out.startswith("the "), text.err
    compared = drakegpt("compare", "--train", *QUICK, "--claims", "--json")
    assert compared.code == 0, compared.err
    rows = compared.json["rows"]
    assert [row["model"] for row in rows] == [*ORIGINAL_MODELS, NAME]
    assert rows[-1]["val_gain"] == pytest.approx(rows[-2]["val_loss"] - rows[-1]["val_loss"])
    assert rows[-1]["parameters"] > rows[-2]["parameters"]


@pytest.mark.slow
def test_its_page_and_parameters(drakegpt, prepared, seventh, tmp_path):
    settings = ("--iters", 5, "--set", "eval_iters=2")
    page = tmp_path / "page.html"
    done = drakegpt("compare", "--train", *settings, "--html", page)
    assert done.code == 0, done.err
    assert seventh.idea in page.read_text(encoding="utf-8")
    counted = drakegpt("params", "--model", NAME, "--json").json["models"]
    assert all(model["counted"] and model["published"] is None for model in counted)


def test_a_run_resumes(drakegpt, prepared, seventh):
    assert drakegpt("train", NAME, "--name", "own", "--iters", 5, "--eval-iters", 2).code == 0
    longer = drakegpt("train", "--resume", "own", "--iters", 10, "--json")
    assert longer.json["iterations"] == 10


def test_without_registration_there_is_no_such_model():
    with pytest.raises(UsageError, match=f"model cannot be '{NAME}': input should be 'BigramLM', "):
        resolve(NAME, "default", "x")


def test_a_name_is_registered_once(seventh):
    with pytest.raises(ValueError, match=NAME):
        register(seventh)
    assert MODEL_NAMES.count(NAME) == 1
