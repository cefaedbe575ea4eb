"""Two reports, made once in a session: an ordinary one with everything in it, and a hostile one."""

import pytest
import torch
from report_pages import (
    CLOSING,
    HOSTILE,
    HOSTILE_NAME,
    HOSTILE_RUN,
    MARKUP,
    corpus_with_stanzas,
    ending_with,
    page_of,
    prepare,
    train,
)

from drakegpt.config import LADDER
from drakegpt.evaluation.samples import Samples
from drakegpt.evaluation.selection import select_runs


@pytest.fixture(scope="session")
def lasting_home(tmp_path_factory):
    """A home that outlives a single test; what is made in it is made before a test has its own."""
    folder = tmp_path_factory.mktemp("report")
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAKEGPT_HOME", str(folder / "home"))
        torch.set_num_threads(1)
        yield folder
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ordinary(lasting_home):
    """All six rungs, one with three seeds; one in BPE tokens beside them; a prompt."""
    text = corpus_with_stanzas()
    data = prepare(text)
    for model in LADDER:
        train(data, model)
    for seed in (43, 44):
        train(data, "BlocksLM", seed=seed)
    tokens = prepare(text, "small-bpe", tokenizer="bpe", vocab_size=290)
    train(tokens, "TransformerLM", embedding_dim=16)
    return page_of(data, lasting_home / "ordinary.html", prompt="the ")


@pytest.fixture(scope="session")
def hostile(lasting_home):
    """Hostile lyrics, name, source, run, prompt and samples; only two rungs are trained."""
    text = ending_with("x\n\n" + "\n".join(HOSTILE))
    data = prepare(text, HOSTILE_NAME, source=f"{MARKUP}.txt", provenance=MARKUP)
    train(data, "BigramLM", HOSTILE_RUN)
    train(data, "TransformerLM")
    names = [first.name for first, *_ in select_runs(data).values()]
    written = dict.fromkeys(names, CLOSING + "\n".join(HOSTILE))
    samples = Samples(CLOSING, 42, 160, written)
    return page_of(data, lasting_home / "hostile.html", samples=samples)
