/* The worker: answers the page's questions, so that the page itself never waits.
 *
 * A question is {id, call, args}; `call` names one of `CALLS`. Answers are {id, part} for
 * what is known so far, then {id, result} or {id, error}. {stop: id} ends a question early;
 * its result is what there was, or null.
 * Not here: anything that is drawn (`views`).
 */

const SLICE = 25; // milliseconds of work between two looks at new messages
const SHOWN = 5; // likeliest tokens that are shown for a place
const CHOICES = 12; // of those for the next token of a text

// What the page holds; set by `open`.
const page = { models: [], counts: null };

const CALLS = {
  /**
   * Take what the page holds: {models, tokenizers, counts}. Models are decoded when first used,
   * but damaged ones are an error at once.
   */
  open(stored) {
    stored.models.forEach(decodeBytes);
    const tokenizers = stored.tokenizers.map(createTokenizer);
    page.models = stored.models.map((each) => ({
      stored: each,
      tokenizer: tokenizers[each.tokenizer],
    }));
    const { counts } = stored;
    if (counts) page.counts = { stored: counts, tokenizer: tokenizers[counts.tokenizer ?? 0] };
    return {};
  },

  /**
   * Continue a prompt: {model, prompt, seed, length, sampling, stop, pace}.
   *
   * `pace`: milliseconds to wait before each token, to let a reader watch; 0 for none.
   * Parts: {text, chances}, the new piece of text and what the next token may be.
   * Result: {tokens, seconds}.
   */
  async write({ model: index, prompt, seed, length, sampling, stop, pace = 0 }, answer, asked) {
    const { model, tokenizer } = openModel(index);
    const begun = performance.now();
    const tokens = encodeKnown(prompt, tokenizer);
    const decoder = tokenizer.decoder();
    let text = "";
    let written = 0;
    let paused = performance.now();
    for (const { token, logits } of generate(model, tokens, sampling, seed, tokenizer.start)) {
      if (pace || performance.now() - paused > SLICE) {
        answer({ text, chances: listChances(computeProbabilities(logits, sampling), tokenizer) });
        text = "";
        await pause(pace);
        if (asked.stopped) break;
        paused = performance.now();
      }
      if (written === length || (stop && token === tokenizer.end)) {
        answer({ text, chances: listChances(computeProbabilities(logits, sampling), tokenizer) });
        text = "";
        break;
      }
      text += decoder.add(token);
      written++;
    }
    answer({ text: text + decoder.finish() });
    return { tokens: written, seconds: (performance.now() - begun) / 1000 };
  },

  /** What may come after a text: {model, text, sampling} -> [[text, probability]], likeliest first. */
  chances({ model, text, sampling }) {
    const { predict, tokenizer } = openPredictor(model, sampling);
    const tokens = encodeKnown(text, tokenizer);
    return listChances(predict(tokens), tokenizer);
  },

  /**
   * How surprising each piece of a text is after what stands before it: {model, before, text}.
   *
   * Result: [{text, bits, rank, likeliest}], where bits and rank are null for the first piece of
   * a text with nothing before it, and for characters that are not in the vocabulary. A piece is
   * a character, or the characters of a token. `likeliest`: [[text, probability]]. Of what
   * stands before the text, the last tokens are read that fit into a context.
   */
  async surprise({ model, before, text }, answer, asked) {
    const { predictAll, tokenizer, reach } = openPredictor(model, PLAIN);
    const tokens = tokenizer.encode(text);
    const history = encodeKnown(before, tokenizer).slice(-reach);
    const known = [...history, ...tokens.filter((token) => token !== undefined)];
    const predictions = [];
    let paused = performance.now();
    for (const probabilities of predictAll(known)) {
      predictions.push(probabilities);
      if (performance.now() - paused < SLICE) continue;
      answer({ done: predictions.length / known.length });
      await pause();
      if (asked.stopped) return null;
      paused = performance.now();
    }
    return describePieces(text, tokens, predictions.slice(Math.max(0, history.length - 1)), {
      tokenizer,
      hasBefore: history.length > 0,
    });
  },

  /**
   * What the heads looked at from the last token of a text: {model, text}.
   *
   * Result: {pieces, layers}: the tokens in the context as text, and for each layer and head the
   * weight of each of them.
   */
  attention({ model: index, text }) {
    const { model, tokenizer } = openModel(index);
    const tokens = encodeKnown(text, tokenizer);
    if (!tokens.length) return { pieces: [], layers: [] };
    const pieces = tokens.slice(-model.config.context_length).map(tokenizer.show);
    return { pieces, layers: readAttention(model, tokens) };
  },

  /** What counting says after a text: {text} -> as `explainCounts`, with tokens as text. */
  counting({ text }) {
    const { counts, tokenizer } = openCounts();
    const tokens = tokenizer.encode(text);
    return explainCounts(counts, tokens.slice(tokens.lastIndexOf(undefined) + 1)).map((order) => ({
      ...order,
      context: order.context.map(tokenizer.show).join(""),
      followers: order.followers.map(({ token, count }) => [tokenizer.show(token), count]),
    }));
  },

  /** Bits per letter by the guesses that letters took: {ranks} -> as `shannonBounds`. */
  bounds({ ranks }) {
    return shannonBounds(ranks);
  },
};

// As a model is scored: no temperature, nothing left out.
const PLAIN = { temperature: 1, topK: null, topP: null, penalty: 1 };

/**
 * The model at an index of the page; its weights are decoded once. What it has read is its own
 * for each question, for questions take turns.
 */
function openModel(index) {
  const entry = page.models[index];
  entry.layers ??= decodeTensors(entry.stored);
  return { model: createModel(entry.stored.config, entry.layers), tokenizer: entry.tokenizer };
}

function openCounts() {
  page.counts.counts ??= unpackCounts(page.counts.stored);
  return page.counts;
}

/** What predicts the next token from the last `reach` ones: a model by its index, or "counts". */
function openPredictor(index, sampling) {
  if (index === "counts") {
    const { counts, tokenizer } = openCounts();
    const predict = (tokens) => predictByCounts(counts, tokens);
    const predictAll = (tokens) => predictEachByCounts(counts, tokens);
    return { tokenizer, predict, predictAll, reach: counts.order };
  }
  const { model, tokenizer } = openModel(index);
  const predict = (tokens) => {
    let logits = createReader(model).start(tokens.length ? tokens : [tokenizer.start]);
    if (sampling.penalty !== 1) {
      logits = applyRepetitionPenalty(logits, new Set(tokens), sampling.penalty);
    }
    return computeProbabilities(logits, sampling);
  };
  return {
    tokenizer,
    reach: model.config.context_length,
    predict,
    predictAll: (tokens) => predictEach(model, tokens),
  };
}

function* predictEach(model, tokens) {
  for (const logits of readEach(model, tokens)) yield softmax(logits);
}

function* predictEachByCounts(counts, tokens) {
  for (let i = 1; i <= tokens.length; i++) yield predictByCounts(counts, tokens.slice(0, i));
}

/** Tokens of a text, without characters outside the vocabulary. */
function encodeKnown(text, tokenizer) {
  return tokenizer.encode(text).filter((token) => token !== undefined);
}

/** The likeliest tokens: [[text, probability]]. */
function listChances(probabilities, tokenizer, most = CHOICES) {
  const order = Array.from(probabilities.keys()).sort(
    (a, b) => probabilities[b] - probabilities[a] || a - b,
  );
  return order
    .slice(0, most)
    .filter((token) => probabilities[token] > 0)
    .map((token) => [tokenizer.show(token), probabilities[token]]);
}

/** Divide a text into pieces, each with how surprising it was. */
function describePieces(text, tokens, predictions, { tokenizer, hasBefore }) {
  const characters = tokenizer.kind === "char" ? Array.from(text) : null;
  const decoder = tokenizer.decoder();
  const pieces = [];
  let next = hasBefore ? 0 : -1; // index of the prediction of the next token
  let bits = 0;
  tokens.forEach((token, i) => {
    if (token === undefined) {
      pieces.push({ text: characters[i], bits: null, rank: null, likeliest: [] });
      return;
    }
    const prediction = predictions[next++];
    bits = prediction && bits !== null ? bits - Math.log2(prediction[token]) : null;
    const shown = decoder.add(token);
    if (!shown) return; // a part of a character
    pieces.push({
      text: shown,
      bits,
      rank: prediction ? rankOf(prediction, token) : null,
      likeliest: prediction ? listChances(prediction, tokenizer, SHOWN) : [],
    });
    bits = 0;
  });
  return pieces;
}

/** Let messages that came in meanwhile be read, and wait as long as is asked for. */
function pause(milliseconds = 0) {
  if (milliseconds) return new Promise((resolve) => setTimeout(resolve, milliseconds));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

const open = new Map(); // questions that are being answered, by their id

async function answerQuestion({ data }, send) {
  if ("stop" in data) {
    const asked = open.get(data.stop);
    if (asked) asked.stopped = true;
    return;
  }
  const { id, call, args } = data;
  const asked = { stopped: false };
  open.set(id, asked);
  await pause(); // it may be stopped already
  try {
    const answer = (part) => send({ id, part });
    send({ id, result: asked.stopped ? null : await CALLS[call](args, answer, asked) });
  } catch (error) {
    send({ id, error: error.message });
  }
  open.delete(id);
}

// In a worker; the tests call `answerQuestion` themselves.
if (typeof WorkerGlobalScope !== "undefined") {
  self.onmessage = (message) => answerQuestion(message, (answer) => self.postMessage(answer));
}
