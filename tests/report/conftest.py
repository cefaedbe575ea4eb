"""Reports, made once in a session.

An ordinary one with everything in it, a hostile one, and a live one, which has a script.
"""

import json

import pytest
from browser import Visit, start_chromium
from learning import at_home, prepare, train
from report_pages import (
    CLOSING,
    ENGINE,
    HOSTILE,
    HOSTILE_NAME,
    HOSTILE_RUN,
    MARKUP,
    MODELS,
    SCRIPT,
    STYLE,
    corpus_with_stanzas,
    ending_with,
    page_of,
)

from drakegpt.config import LADDER
from drakegpt.experiments.agreement import select_runs
from drakegpt.report.live import Live
from drakegpt.report.samples import Samples


@pytest.fixture(scope="session")
def lasting(tmp_path_factory):
    """A folder that outlives a single test."""
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def ordinary(lasting):
    """All six rungs, one with three seeds; one in BPE tokens beside them; a prompt."""
    with at_home(lasting):
        text = corpus_with_stanzas()
        data = prepare(text)
        for model in LADDER:
            train(data, model)
        for seed in (43, 44):
            train(data, "BlocksLM", seed=seed)
        tokens = prepare(text, "small-bpe", tokenizer="bpe", vocab_size=290)
        train(tokens, "TransformerLM", embedding_dim=16)
        return page_of(data, lasting / "ordinary.html", prompt="the ", claims=True)


@pytest.fixture(scope="session")
def hostile(lasting):
    """Hostile lyrics, name, source, run, prompt and samples; only two rungs are trained."""
    with at_home(lasting):
        text = ending_with("x\n\n" + "\n".join(HOSTILE))
        data = prepare(text, HOSTILE_NAME, source=f"{MARKUP}.txt", provenance=MARKUP)
        train(data, "BigramLM", HOSTILE_RUN)
        train(data, "TransformerLM")
        names = [first.name for first, *_ in select_runs(data).values()]
        written = dict.fromkeys(names, CLOSING + "\n".join(HOSTILE))
        samples = Samples(CLOSING, 42, 160, written)
        return page_of(data, lasting / "hostile.html", samples=samples)


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """A report with a script, an engine and models, and with texts written in training."""
    folder = tmp_path_factory.mktemp("live")
    with at_home(folder):
        data = prepare(corpus_with_stanzas())
        train(data, "BigramLM", iters=64, eval_interval=32)
        train(data, "SingleHeadAttentionLM")
        names = {"title": "Six <b> & more", "licence": "CC0 <i>"}
        parts = Live(STYLE, SCRIPT, ENGINE, json.dumps(MODELS), count=6)
        return page_of(data, folder / "live.html", live=parts, **names)


@pytest.fixture(scope="session")
def living(tmp_path_factory):
    """A page in which the models of a ladder and one of BPE tokens live, as they were trained."""
    folder = tmp_path_factory.mktemp("living")
    with at_home(folder):
        text = corpus_with_stanzas()
        data = prepare(text)
        for model in LADDER:
            train(data, model, iters=64, eval_interval=32)
        tokens = prepare(text, "small-bpe", tokenizer="bpe", vocab_size=290)
        train(tokens, "TransformerLM", embedding_dim=16)
        return page_of(data, folder / "living.html", prompt="the ", alive=True)


@pytest.fixture(scope="session")
def living_hostile(tmp_path_factory):
    """A live page of hostile lyrics."""
    folder = tmp_path_factory.mktemp("living-hostile")
    with at_home(folder):
        lyrics = "\n".join(HOSTILE)
        data = prepare(ending_with(f"x\n\n{lyrics}\n\n{lyrics}"), HOSTILE_NAME)
        train(data, "BigramLM", HOSTILE_RUN, iters=64, eval_interval=32)
        train(data, "TransformerLM")
        return page_of(data, folder / "hostile.html", prompt=HOSTILE[3], alive=True)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One browser for all tests of a process."""
    driver = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def visit(chromium):
    # Pages keep games in the browser, and all files share one storage.
    kept = {"origin": "file://", "storageTypes": "local_storage"}
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", kept)
    return lambda page, *how, **given: Visit(chromium, page.path.as_uri(), *how, **given)
