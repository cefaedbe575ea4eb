/* Sampling: from logits to the next token, as `drakegpt generate` does it.
 *
 * The same seed draws the same numbers as PyTorch on a CPU, so that a page writes the same
 * text as the command. A logit that is rounded otherwise in its last digits changes that only
 * where two tokens are that close, which is rare; and PyTorch may draw otherwise in another
 * version: the tests compare. This mirrors `generation/sampling.py`.
 */

// --- Random numbers -----------------------------------------------------------------------------

/**
 * PyTorch's random generator on a CPU: MT19937 (Matsumoto and Nishimura 1998), which the
 * lowest 32 bits of the seed start. Returns a function that draws 32 random bits.
 *
 * `seed`: an integer from 0 to 2^63 - 1, or a BigInt.
 */
function createGenerator(seed) {
  const N = 624, M = 397;
  const state = new Uint32Array(N);
  state[0] = Number(BigInt(seed) & 0xffffffffn);
  for (let i = 1; i < N; i++) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let next = N;
  const twist = (i) => {
    const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
    state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  };
  return () => {
    if (next === N) {
      for (let i = 0; i < N; i++) twist(i);
      next = 0;
    }
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** A number in [0, 1) with 24 random bits, as `torch.rand` draws in float32. */
function drawUniform(generator) {
  return (generator() & 0xffffff) / 2 ** 24;
}

/** A number of the exponential distribution, as `Tensor.exponential_` draws in float32. */
function drawExponential(generator) {
  const high = generator() & 0x1fffff; // 53 random bits of 64
  return Math.fround(-Math.log1p(-(high * 2 ** 32 + generator()) / 2 ** 53));
}

const TINY = 2 ** -126; // the smallest normal number of float32

/** Fill with noise of the Gumbel distribution: -log of exponential noise, in float32. */
function drawGumbel(generator, noise) {
  for (let i = 0; i < noise.length; i++) {
    noise[i] = -Math.log(Math.max(drawExponential(generator), TINY));
  }
  return noise;
}

// --- Rules --------------------------------------------------------------------------------------

/**
 * The token with the largest sum of logit and noise, which is each token with its softmax
 * probability (Gumbel 1954).
 *
 * `sampling`: {temperature, topK, topP}; topK and topP may be null.
 */
function sampleToken(logits, sampling, noise) {
  if (sampling.temperature === 0) return argmax(logits);
  if (truncates(sampling)) {
    logits = computeProbabilities(logits, sampling).map((p) => Math.log(p));
  } else if (sampling.temperature !== 1) {
    logits = applyTemperature(logits, sampling.temperature);
  }
  return argmax(logits.map((logit, i) => logit + noise[i]));
}

function truncates({ topK, topP }) {
  return topK != null || (topP != null && topP < 1);
}

function argmax(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}

/** (logits - max) / temperature: the largest becomes 0, so that nothing overflows. */
function applyTemperature(logits, temperature) {
  const largest = logits[argmax(logits)];
  return logits.map((logit) => Math.fround(logit - largest) / temperature);
}

function softmax(logits) {
  const largest = logits[argmax(logits)];
  const probabilities = logits.map((logit) => Math.exp(logit - largest));
  const total = probabilities.reduce((sum, p) => sum + p, 0);
  return probabilities.map((p) => p / total);
}

/** The distribution that `sampleToken` samples from: (V) -> (V). */
function computeProbabilities(logits, sampling) {
  const { temperature, topK, topP } = sampling;
  if (temperature === 0) {
    const best = argmax(logits);
    return logits.map((_, i) => (i === best ? 1 : 0));
  }
  if (temperature !== 1) logits = applyTemperature(logits, temperature);
  if (!truncates(sampling)) return softmax(logits);
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const ranked = order.slice(0, topK ?? order.length);
  let kept = softmax(Float32Array.from(ranked, (token) => logits[token]));
  if (topP != null && topP < 1) kept = keepLikeliest(kept, topP);
  const probabilities = new Float32Array(logits.length);
  ranked.forEach((token, rank) => (probabilities[token] = kept[rank]));
  return probabilities;
}

/** Keep the smallest set of ranked tokens with total probability p (Holtzman et al. 2020). */
function keepLikeliest(ranked, p) {
  let total = 0;
  let before = 0;
  const kept = ranked.map((probability, rank) => {
    const keep = rank === 0 || before < p;
    before += probability;
    if (keep) total += probability;
    return keep ? probability : 0;
  });
  return kept.map((probability) => probability / total);
}

/** Lower the logits of the tokens that were seen (Keskar et al. 2019, section 4.1). */
function applyRepetitionPenalty(logits, seen, penalty) {
  return logits.map((logit, token) => {
    if (!seen.has(token)) return logit;
    return logit > 0 ? logit / penalty : logit * penalty;
  });
}

// --- Generation ---------------------------------------------------------------------------------

/**
 * Yield tokens that continue a prompt, without end, each with the probabilities it was
 * sampled from.
 *
 * `prompt`: tokens, which may be none; `start`: the token that stands for no prompt.
 * `sampling`: {temperature, topK, topP, penalty}.
 */
function* generate(model, prompt, sampling, seed, start) {
  const sees = model.config.model !== "BigramLM" || sampling.penalty !== 1;
  yield* (sees ? generateByNoise : generateFromTable)(model, prompt, sampling, seed, start);
}

function* generateByNoise(model, prompt, sampling, seed, start) {
  const generator = createGenerator(seed);
  const noise = new Float32Array(model.config.vocab_size);
  const seen = new Set(prompt); // not the start token: it is not part of the text
  const reader = createReader(model);
  let logits = reader.start(prompt.length ? prompt : [start]);
  for (;;) {
    if (sampling.penalty !== 1) logits = applyRepetitionPenalty(logits, seen, sampling.penalty);
    const token = sampleToken(logits, sampling, drawGumbel(generator, noise));
    yield { token, logits };
    seen.add(token);
    logits = reader.next(token);
  }
}

/** For a model that sees the last token only, a single random number decides. */
function* generateFromTable(model, prompt, sampling, seed, start) {
  const generator = createGenerator(seed);
  let token = prompt.length ? prompt[prompt.length - 1] : start;
  for (;;) {
    restart(model);
    const logits = read(model, [token]);
    let total = 0;
    const cumulative = Array.from(computeProbabilities(logits, sampling), (p) => (total += p));
    const drawn = drawUniform(generator) * total;
    token = cumulative.findIndex((sum) => sum > drawn);
    yield { token, logits };
  }
}
