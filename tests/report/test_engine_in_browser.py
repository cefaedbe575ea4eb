"""The engine of a page in a real Chromium, from a file: its logits and texts are PyTorch's."""

import pytest
import torch
from browser import needs_chromium
from engine_models import copy_model, some_tokens

from drakegpt.generation.sampling import Sampling, generate
from drakegpt.models.packed_linear import pack_, quantize_after_training_
from drakegpt.models.registry import MODELS
from drakegpt.report.embedded_model import embed_model

pytestmark = [pytest.mark.slow, needs_chromium]

# A worker of the page's own engine, which is asked for the logits of a text and for some texts.
ASK = """
const [stored, tokens, seeds, done] = arguments;
const engine = document.getElementById("engine").textContent;
const asked = `
  self.onmessage = ({ data: { stored, tokens, seeds } }) => {
    const model = createModel(stored.config, decodeTensors(stored));
    const logits = [...readEach(model, tokens)].map((each) => Array.from(each));
    const sampling = { temperature: 0.9, topK: 12, topP: 0.95, penalty: 1.1 };
    const texts = seeds.map((seed) => {
      const text = [];
      for (const next of generate(model, tokens.slice(0, 5), sampling, seed, 0)) {
        text.push(next.token);
        if (text.length === 120) return text;
      }
    });
    self.postMessage({ logits, texts });
  };`;
const worker = new Worker(URL.createObjectURL(new Blob([engine, asked])));
worker.onmessage = ({ data }) => done(data);
worker.onerror = (error) => done(String(error.message));
worker.postMessage({ stored, tokens, seeds });
"""


def with_bits(name, bits):
    if bits == "full":
        return copy_model(name, context_length=200)
    if bits == "8":
        return quantize_after_training_(copy_model(name, context_length=200), "8")
    return pack_(copy_model(name, context_length=200, bits=bits))


@pytest.mark.parametrize("bits", ["full", "8", "1.58"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_texts_in_a_browser_are_those_of_pytorch(visit, living, name, bits):
    if name == "BigramLM" and bits != "full":
        pytest.skip("it has no hidden layers")
    model, tokens = with_bits(name, bits), some_tokens(200)
    visit = visit(living)
    found = visit.driver.execute_async_script(ASK, embed_model(model), tokens.tolist(), [0, 1, 2])
    with torch.no_grad():
        expected = model(tokens[None])[0]
    off = (torch.tensor(found["logits"]) - expected).abs().amax(1)
    assert (off >= 1e-4).sum() <= (0 if bits == "full" else 2)
    sampling = Sampling(0.9, 12, 0.95, 1.1)
    for seed, text in enumerate(found["texts"]):
        assert text == list(generate(model, tokens[:5].tolist(), 120, sampling, seed))
