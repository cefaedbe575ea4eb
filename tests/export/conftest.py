"""Small trained runs, each made once and shared by the tests that export them."""

import logging
import os

import pytest
from exported import ODD, SMALL
from learning import prepare, small_text, train

from drakegpt.runs.lookup import find_run
from drakegpt.runs.packing import pack_run

os.environ["HF_HUB_OFFLINE"] = "1"  # Hugging Face's libraries read it when they are imported


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory):
    """A home, and the names of the runs and datasets made in it so far, by their settings."""
    return tmp_path_factory.mktemp("exported"), {}


@pytest.fixture
def trained(home, made_runs, monkeypatch):
    """A run with these settings, trained once; `packed` in bits, of BPE tokens, or `odd` text."""
    folder, names = made_runs
    monkeypatch.setenv("DRAKEGPT_HOME", str(folder))

    def prepare_once(tokenizer, odd):
        name = ("odd" if odd else "small") + ("-bpe" if tokenizer == "bpe" else "")
        if name not in names:
            how = {"tokenizer": "bpe", "vocab_size": 320} if tokenizer == "bpe" else {}
            names[name] = prepare(small_text() + (ODD * 20 if odd else ""), name, **how)
        return names[name]

    def make(model="TransformerLM", tokenizer="char", packed=None, odd=False, **settings):
        key = (model, tokenizer, packed, odd, *sorted(settings.items()))
        if key not in names:
            if packed:
                run = pack_run(make(model, tokenizer, odd=odd, **settings), packed)
            else:
                run = train(prepare_once(tokenizer, odd), model, **SMALL | settings)
            names[key] = run.name
        return find_run(names[key])

    return make


@pytest.fixture
def no_warnings(caplog):
    """A test in which Hugging Face's libraries, which log what they miss, have logged nothing."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == []
