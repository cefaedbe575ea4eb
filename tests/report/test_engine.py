"""The page's engine computes what PyTorch computes: numbers drawn, logits, texts, tokens."""

import base64
import math

import pytest
import torch
from engine_models import TOKENIZER, V, copy_model, some_tokens
from node_engine import needs_node, run_engine

from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.evaluation.attribution import compute_attention_weights
from drakegpt.evaluation.surprisal import compute_token_surprisals
from drakegpt.generation.prompt import fit_prompt
from drakegpt.generation.sampling import Sampling, compute_probabilities, generate
from drakegpt.generation.text import generate_text
from drakegpt.models.packed_linear import pack_, quantize_after_training_
from drakegpt.models.registry import MODELS
from drakegpt.report.embedded_model import PRECISIONS, embed_model, embed_tokenizer, round_weights_

pytestmark = needs_node

CLOSE = 1e-4
LOADED = "const model = createModel(given.model.config, decodeTensors(given.model));"
PLAIN = {"temperature": 1, "topK": None, "topP": None, "penalty": 1}


@torch.no_grad()
def compute_logits(model, tokens):
    return model(tokens[None])[0]


def read_in_engine(model, tokens):
    given = {"model": embed_model(model), "tokens": tokens.tolist()}
    return torch.tensor(run_engine(f"{LOADED} return [...readEach(model, given.tokens)];", given))


# --- logits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_its_logits_are_those_of_pytorch_at_every_position(name, precision):
    model = round_weights_(copy_model(name, context_length=200), precision)
    tokens = some_tokens(200)
    expected = compute_logits(model, tokens)
    assert (read_in_engine(model, tokens) - expected).abs().max() < CLOSE
    assert expected.std(0).max() > 0.5  # they differ by position


@pytest.mark.parametrize("name", [name for name in MODELS if name != "BigramLM"])
def test_its_logits_with_rotary_positions_are_those_of_pytorch(name):
    model = copy_model(name, context_length=200, positions="rotary")
    tokens = some_tokens(200)
    assert (read_in_engine(model, tokens) - compute_logits(model, tokens)).abs().max() < CLOSE


def test_a_tied_head_reads_the_token_table():
    model = copy_model("GPT1LM", context_length=50, tie_embeddings=True)
    tokens = some_tokens(50)
    assert (read_in_engine(model, tokens) - compute_logits(model, tokens)).abs().max() < CLOSE


@pytest.mark.parametrize("bits", ["8", "1.58", "1"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "BigramLM"])
@pytest.mark.parametrize("trained", [True, False])
def test_its_logits_with_few_bits_are_those_of_pytorch(name, bits, trained):
    """At nearly all positions, that is: activations are rounded to integers.

    Where two libraries differ in the last digit, that is rarely another integer, which changes
    all that follows by more than rounding.
    """
    if trained and bits == "8":
        pytest.skip("8 bits are for after training only")
    model = copy_model(name, context_length=200, bits=bits if trained else "full")
    model = pack_(model) if trained else quantize_after_training_(model, bits)
    tokens = some_tokens(200)
    off = (read_in_engine(model, tokens) - compute_logits(model, tokens)).abs().amax(1)
    assert (off >= CLOSE).sum() <= 2
    assert off.max() < 0.3


@pytest.mark.parametrize("bits", ["8", "1.58", "1"])
def test_a_layer_of_few_bits_is_that_of_pytorch_to_the_last_digit(bits):
    model = quantize_after_training_(copy_model("TransformerLM"), bits)
    x = torch.randn(50, 24, generator=torch.Generator().manual_seed(3))
    script = """
      const layer = decodeTensors(given.model).blocks[0].attention.query_key_value;
      return linear(Float32Array.from(given.x), 50, layer);
    """
    found = run_engine(script, {"model": embed_model(model), "x": x.flatten().tolist()})
    expected = model.blocks[0].attention.query_key_value(x)
    assert found == expected.flatten().tolist()


@pytest.mark.parametrize("T", [16, 64])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_long_text_is_read_with_the_window_of_generate(T, positions):
    """Beyond the context, old tokens are dropped one by one, or by halves with a long context."""
    model = copy_model("TransformerLM", context_length=T, positions=positions)
    tokens = some_tokens(3 * T).tolist()
    steps = range(T, len(tokens))
    kept = [tokens[:T]]
    for place in steps:
        full = len(kept[-1]) == T
        keep = (T // 2 if T >= 32 else T) - 1
        kept.append([*(kept[-1][-keep:] if full else kept[-1]), tokens[place]])
    expected = torch.stack([compute_logits(model, torch.tensor(window))[-1] for window in kept[1:]])
    assert (read_in_engine(model, torch.tensor(tokens))[T:] - expected).abs().max() < CLOSE


# --- random numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 7, 2**63 - 1])
def test_its_random_numbers_are_those_of_pytorch(seed):
    script = """
      const generator = createGenerator(BigInt(given.seed));
      const uniform = Array.from({ length: 2000 }, () => drawUniform(generator));
      const exponential = Array.from({ length: 2000 }, () => drawExponential(generator));
      return { uniform, exponential };
    """
    drawn = run_engine(script, {"seed": str(seed)})
    generator = torch.Generator().manual_seed(seed)
    assert drawn["uniform"] == torch.rand(2000, generator=generator).tolist()
    exponential = torch.empty(2000).exponential_(generator=generator)
    assert drawn["exponential"] == exponential.tolist()


# --- generation ---------------------------------------------------------------------------------

RULES = {
    "plain": PLAIN,
    "cool": PLAIN | {"temperature": 0.7},
    "hot": PLAIN | {"temperature": 1.5},
    "greedy": PLAIN | {"temperature": 0},
    "top-k": PLAIN | {"topK": 5},
    "top-p": PLAIN | {"topP": 0.8},
    "both": PLAIN | {"topK": 10, "topP": 0.7, "temperature": 0.9},
    "penalty": PLAIN | {"penalty": 1.4},
}
SEEDS = range(10)


def sampling_of(rule):
    return Sampling(rule["temperature"], rule["topK"], rule["topP"], rule["penalty"])


def generate_in_engine(model, prompt, rule, seeds, length, start=0):
    given = {"model": embed_model(model), "prompt": prompt, "rule": rule, "seeds": list(seeds),
             "length": length, "start": start}  # fmt: skip
    script = f"""{LOADED}
      return given.seeds.map((seed) => {{
        const tokens = [];
        for (const next of generate(model, given.prompt, given.rule, seed, given.start)) {{
          tokens.push(next.token);
          if (tokens.length === given.length) return tokens;
        }}
      }});
    """
    return run_engine(script, given)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["BigramLM", "BlocksLM", "TransformerLM", "GPT1LM"])
def test_a_seed_writes_the_text_of_generate(name, rule):
    model = copy_model(name)
    written = generate_in_engine(model, [3, 1, 4], RULES[rule], SEEDS, 100)
    for seed, tokens in zip(SEEDS, written, strict=True):
        expected = list(generate(model, [3, 1, 4], 100, sampling_of(RULES[rule]), seed))
        assert tokens == expected, seed
    assert rule == "greedy" or len(set(map(tuple, written))) == len(SEEDS)


def test_without_a_prompt_it_begins_after_the_start_token():
    model = copy_model("TransformerLM")
    (written,) = generate_in_engine(model, [], PLAIN | {"penalty": 2}, [5], 60, start=7)
    assert written == list(generate(model, [], 60, Sampling(repetition_penalty=2), 5, start=7))


@pytest.mark.parametrize("rule", RULES)
def test_its_distributions_are_those_of_generate(rule):
    logits = torch.randn(50, V, generator=torch.Generator().manual_seed(2)) * 3
    script = """
      return given.logits.map((each) => computeProbabilities(Float32Array.from(each), given.rule));
    """
    found = run_engine(script, {"logits": logits.tolist(), "rule": RULES[rule]})
    expected = compute_probabilities(logits, sampling_of(RULES[rule]))
    found = torch.tensor(found, dtype=torch.float32)
    assert torch.allclose(found, expected, atol=1e-6)
    assert ((found > 0) == (expected > 0)).all()


# --- tokenizers ---------------------------------------------------------------------------------

STRANGE = (
    "It's the dog's, isn't it?  We'll  go\n\n\tnow... 12.5% of 3rd\r\n"
    "Überfluß naïve e\u0301 日本語 שלום 😀👩\u200d👧 \x00\x1b\ufeff\u2028\u0085 </s> <s>\u00a0x"
)


@pytest.fixture(scope="module")
def bpe():
    words = "the dog's bone isn't here we'll go now naïve über 日本 12 3rd it's "
    return BPETokenizer.train([words * 50, STRANGE * 3], 400)


@pytest.mark.parametrize("text", ["", " ", STRANGE, STRANGE[::-1], "the dog's  bone isn't\n  here"])
def test_bpe_gives_the_tokens_of_the_library(bpe, text):
    script = """
      const tokenizer = createTokenizer(given.tokenizer);
      const tokens = tokenizer.encode(given.text);
      const decoder = tokenizer.decoder();
      return { tokens, text: tokens.map(decoder.add).join("") + decoder.finish() };
    """
    found = run_engine(script, {"tokenizer": embed_tokenizer(bpe), "text": text})
    assert found["tokens"] == bpe.encode(text).tolist()
    assert found["text"] == text


def test_characters_are_encoded_by_code_point_and_unknown_ones_are_named():
    tokenizer = CharTokenizer.from_text("ab😀\n\u0301")
    script = """
      const tokenizer = createTokenizer(given.tokenizer);
      return { tokens: tokenizer.encode("a😀b\\n\\u0301"), unknown: tokenizer.unknown("aXbX😀Y") };
    """
    found = run_engine(script, {"tokenizer": embed_tokenizer(tokenizer)})
    assert found["tokens"] == tokenizer.encode("a😀b\n\u0301").tolist()
    assert found["unknown"] == ["X", "Y"]


# --- weights ------------------------------------------------------------------------------------


def test_every_number_of_half_precision_is_read():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    data = base64.b64encode(bits.numpy().tobytes()).decode()
    script = (
        "return Array.from(decodeFloat16(decodeBase64(given)), (x) => isFinite(x) ? x : String(x));"
    )
    expected = [
        x if math.isfinite(x) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(x, "NaN")
        for x in bits.view(torch.float16).tolist()
    ]
    assert run_engine(script, data) == expected


def test_damaged_weights_are_refused_with_a_sentence():
    stored = embed_model(copy_model("BigramLM"))
    stored["base64"] = "AAAA" + stored["base64"][4:]
    script = "try { decodeTensors(given); } catch (error) { return error.message; }"
    assert run_engine(script, stored) == (
        "The weights in this file are damaged. Get the file again, whole."
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_twice_changes_nothing(precision):
    model = round_weights_(copy_model("TransformerLM"), precision)
    first = embed_model(model)
    assert embed_model(round_weights_(model, precision)) == first


# --- the worker ---------------------------------------------------------------------------------

# What the worker answers to each of `given.asked`; a number stops the question of that id later.
ANSWERS = """
  const answers = [];
  const send = (answer) => answers.push(answer);
  const ask = (data) => answerQuestion({ data }, send);
  await ask({ id: 0, call: "open", args: given.page });
  await Promise.all(given.asked.map((args, i) => typeof args === "number"
    ? setTimeout(() => ask({ stop: args }), 300) : ask({ id: i + 1, ...args })));
  return answers;
"""


def ask_worker(models, *asked, tokenizer=TOKENIZER, counts=None):
    """The answers to questions, by their number from 1 on: a list of each."""
    stored = [embed_model(model) | {"tokenizer": 0} for model in models]
    page = {"models": stored, "tokenizers": [embed_tokenizer(tokenizer)], "counts": counts}
    answers = run_engine(ANSWERS, {"page": page, "asked": asked})
    return [[a for a in answers if a["id"] == number + 1] for number in range(len(asked))]


def test_the_worker_writes_what_generate_writes():
    model = copy_model("TransformerLM")
    args = {"model": 0, "prompt": "the ", "seed": 7, "length": 120, "sampling": PLAIN}
    (answers,) = ask_worker([model], {"call": "write", "args": args | {"stop": False}})
    written = "".join(answer["part"]["text"] for answer in answers if "part" in answer)
    assert written == "".join(generate_text(model, TOKENIZER, "the ", 120, seed=7))
    assert answers[-1]["result"]["tokens"] == 120


def test_a_question_can_be_stopped():
    model = copy_model("TransformerLM")
    args = {"model": 0, "prompt": "", "seed": 1, "length": 10**9, "sampling": PLAIN, "stop": False}
    answers, _ = ask_worker([model], {"call": "write", "args": args}, 1)
    assert 0 < answers[-1]["result"]["tokens"] < 10**7
    assert answers[-1]["result"]["seconds"] < 10


def test_its_surprise_is_that_of_the_report():
    model = copy_model("TransformerLM")
    before, text = "the night is ", "long and the road is wide again and wide"
    (answers,) = ask_worker(
        [model], {"call": "surprise", "args": {"model": 0, "before": before, "text": text}}
    )
    pieces = answers[-1]["result"]
    tokens = torch.from_numpy(TOKENIZER.encode(before + text).astype("int64"))
    expected = compute_token_surprisals(model, tokens, len(text)).tolist()
    assert "".join(piece["text"] for piece in pieces) == text
    assert [piece["bits"] for piece in pieces] == pytest.approx(expected, abs=1e-4)
    for piece in pieces:
        likeliest = [shown for shown, _ in piece["likeliest"]]
        assert piece["rank"] > 5 or likeliest[piece["rank"] - 1] == piece["text"]


def test_what_a_model_never_saw_is_named_and_left_out():
    model = copy_model("BlocksLM")
    (answers,) = ask_worker(
        [model], {"call": "surprise", "args": {"model": 0, "before": "", "text": "thQe"}}
    )
    first, known, unknown, last = answers[-1]["result"]
    assert (first["bits"], unknown["bits"]) == (None, None)
    assert known["bits"] > 0
    assert last["bits"] > 0


def test_its_attention_is_that_of_the_model():
    model = copy_model("TransformerLM", positions="rotary")
    text = "the night is long and the road"
    (answers,) = ask_worker([model], {"call": "attention", "args": {"model": 0, "text": text}})
    found = answers[-1]["result"]
    assert "".join(found["pieces"]) == text[-16:]
    collected = []
    for block in model.blocks:
        block.attention.register_forward_hook(
            lambda layer, given, _: collected.append(compute_attention_weights(layer, given[0]))
        )
    compute_logits(model, torch.from_numpy(TOKENIZER.encode(text[-16:]).astype("int64")))
    expected = torch.stack([weights[0, :, -1] for weights in collected])  # layers, heads, T
    assert torch.allclose(torch.tensor(found["layers"]), expected, atol=1e-5)


def test_an_error_is_an_answer():
    (answers,) = ask_worker([copy_model("BigramLM")], {"call": "attention", "args": {"model": 9}})
    assert answers[-1]["error"]


def test_a_character_in_the_other_case_or_with_an_accent_stands_for_one_that_is_known():
    tokenizer = CharTokenizer.from_text("abco\n")
    script = """
      const tokenizer = createTokenizer(given);
      return { tokens: tokenizer.encode("AbÇÖ"), unknown: tokenizer.unknown("AbÇÖß日") };
    """
    found = run_engine(script, embed_tokenizer(tokenizer))
    fitted = fit_prompt("AbÇÖ", tokenizer, skip_unknown=False).text
    assert found["tokens"] == tokenizer.encode(fitted).tolist()
    assert found["unknown"] == ["ß", "日"]


def test_a_model_of_the_original_has_no_final_norm():
    model = copy_model("TransformerLM", context_length=50, final_norm=False)
    assert "final_norm.weight" not in model.state_dict()
    tokens = some_tokens(50)
    assert (read_in_engine(model, tokens) - compute_logits(model, tokens)).abs().max() < CLOSE
