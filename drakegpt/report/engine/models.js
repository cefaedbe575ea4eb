/* The seven models: tokens in, logits of the next token out.
 *
 * This mirrors `drakegpt/models`, function by function: read `ladder.py` for the ideas.
 * What differs: a matrix (n, C) is one Float32Array with n rows after each other; dropout
 * is not there, for it is for training only; and each function reads a text in parts, so
 * that keys and values of earlier tokens are kept and not computed again.
 *
 * Shapes: n tokens read together, T context length, C embedding width, H heads, D = C / H,
 * V tokens in the vocabulary.
 */

// --- Layers -------------------------------------------------------------------------------------

/** x @ weight.T + bias: (n, K) -> (n, N). Weights of few bits are multiplied as integers. */
function linear(x, n, layer) {
  if (layer.packed) return packedLinear(x, n, layer);
  const [N, K] = layer.weight.shape;
  const y = new Float32Array(n * N);
  multiply(x, layer.weight, y, n, N, K);
  if (layer.bias) addToRows(y, layer.bias);
  return y;
}

/**
 * x @ weight.T into y: (n, K), (N, K) -> (n, N).
 *
 * Four rows of x and two of the weight at a time: a number that was loaded is used more than
 * once, and loading is what the time goes into.
 */
function multiply(x, weight, y, n, N, K) {
  let row = 0;
  for (; row + 4 <= n; row += 4) multiplyFourRows(x, weight, y, row, N, K);
  for (; row < n; row++) multiplyRow(x, weight, y, row, N, K);
}

function multiplyFourRows(x, weight, y, row, N, K) {
  const a = row * K, b = a + K, c = b + K, d = c + K;
  let j = 0;
  for (; j + 2 <= N; j += 2) {
    const w0 = j * K, w1 = w0 + K;
    let a0 = 0, a1 = 0, b0 = 0, b1 = 0, c0 = 0, c1 = 0, d0 = 0, d1 = 0;
    for (let k = 0; k < K; k++) {
      const v0 = weight[w0 + k], v1 = weight[w1 + k];
      const xa = x[a + k], xb = x[b + k], xc = x[c + k], xd = x[d + k];
      a0 += xa * v0; a1 += xa * v1; b0 += xb * v0; b1 += xb * v1;
      c0 += xc * v0; c1 += xc * v1; d0 += xd * v0; d1 += xd * v1;
    }
    const ya = row * N + j, yb = ya + N, yc = yb + N, yd = yc + N;
    y[ya] = a0; y[ya + 1] = a1; y[yb] = b0; y[yb + 1] = b1;
    y[yc] = c0; y[yc + 1] = c1; y[yd] = d0; y[yd + 1] = d1;
  }
  for (; j < N; j++) {
    for (let i = 0; i < 4; i++) y[(row + i) * N + j] = dot(x, a + i * K, weight, j * K, K);
  }
}

function multiplyRow(x, weight, y, row, N, K) {
  const a = row * K;
  let j = 0;
  for (; j + 4 <= N; j += 4) {
    let w0 = j * K, w1 = w0 + K, w2 = w1 + K, w3 = w2 + K;
    let a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    for (let k = 0; k < K; k++) {
      const xa = x[a + k];
      a0 += xa * weight[w0++]; a1 += xa * weight[w1++];
      a2 += xa * weight[w2++]; a3 += xa * weight[w3++];
    }
    const ya = row * N + j;
    y[ya] = a0; y[ya + 1] = a1; y[ya + 2] = a2; y[ya + 3] = a3;
  }
  for (; j < N; j++) y[row * N + j] = dot(x, a, weight, j * K, K);
}

function dot(x, a, y, b, length) {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += x[a + k] * y[b + k];
  return sum;
}

/** Add a vector (C) to each row of x (n, C), in place. */
function addToRows(x, vector) {
  const C = vector.length;
  for (let start = 0; start < x.length; start += C) {
    for (let c = 0; c < C; c++) x[start + c] += vector[c];
  }
}

/** x + change: (n, C), (n, C) -> (n, C). */
function add(x, change) {
  const sum = new Float32Array(x.length);
  for (let i = 0; i < sum.length; i++) sum[i] = x[i] + change[i];
  return sum;
}

/** max(x, 0), in place. */
function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
  return x;
}

/** x * Phi(x), with the distribution function of the normal distribution, in place. */
function gelu(x) {
  for (let i = 0; i < x.length; i++) x[i] *= 0.5 * (1 + erf(x[i] * Math.SQRT1_2));
  return x;
}

/**
 * The error function, to 1e-15: its power series for small numbers, and a continued
 * fraction for large ones (Abramowitz and Stegun, 7.1.5 and 7.1.14).
 */
function erf(x) {
  const size = Math.abs(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  if (size > 6) return Math.sign(x);
  let fraction = size;
  for (let n = 40; n > 0; n--) fraction = size + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction);
}

/** Bring each row to mean 0 and variance 1, then scale and shift it: (n, C) -> (n, C). */
function layerNorm(x, norm) {
  const C = norm.weight.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += C) {
    let mean = 0;
    for (let c = 0; c < C; c++) mean += x[start + c];
    mean /= C;
    let variance = 0;
    for (let c = 0; c < C; c++) variance += (x[start + c] - mean) ** 2;
    const scale = 1 / Math.sqrt(variance / C + 1e-5);
    for (let c = 0; c < C; c++) {
      y[start + c] = (x[start + c] - mean) * scale * norm.weight[c] + norm.bias[c];
    }
  }
  return y;
}

// --- Weights of few bits: `models/bitlinear.py`, `models/packed_linear.py` ------------------------

/**
 * Multiply integers, then scale: (n, K) -> (n, N).
 *
 * Activations become integers from -127 to 127, with one scale for each row; weights are
 * integers already, with a scale for each of P equal parts of the rows. Sums of integers are
 * exact, so it is all the same that they are stored as floats, which JavaScript multiplies faster.
 */
function packedLinear(x, n, layer) {
  const { codes, scales, bias } = unpackOnce(layer);
  const [N, K] = codes.shape;
  if (layer.norm) x = layerNorm(x, layer.norm);
  const { activations, tokenScales } = quantizeActivations(x, n);
  const y = new Float32Array(n * N);
  multiply(activations, codes, y, n, N, K);
  const perScale = N / scales.length;
  for (let row = 0; row < n; row++) {
    for (let j = 0; j < N; j++) {
      const scale = Math.fround(scales[(j / perScale) | 0] / tokenScales[row]);
      y[row * N + j] = Math.fround(y[row * N + j] * scale) + (bias ? bias[j] : 0);
    }
  }
  return y;
}

function unpackOnce(layer) {
  if (!layer.codes) {
    layer.codes = Float32Array.from(layer.packed);
    layer.codes.shape = layer.packed.shape;
  }
  return layer;
}

/** Round each row of x (n, K) to integers: activations (n, K) = x * scale, and the scales (n). */
function quantizeActivations(x, n) {
  const K = x.length / n;
  const activations = new Float32Array(x.length);
  const tokenScales = new Float32Array(n);
  for (let row = 0; row < n; row++) {
    let largest = Math.fround(1e-5);
    for (let k = row * K; k < (row + 1) * K; k++) largest = Math.max(largest, Math.abs(x[k]));
    const scale = Math.fround(127 * Math.fround(1 / largest)); // as PyTorch divides a number
    tokenScales[row] = scale;
    for (let k = row * K; k < (row + 1) * K; k++) {
      activations[k] = roundHalfToEven(Math.fround(x[k] * scale));
    }
  }
  return { activations, tokenScales };
}

/** The nearest integer; the even one of two that are as near. For |x| below 2^51. */
function roundHalfToEven(x) {
  return x + 6755399441055744 - 6755399441055744; // 1.5 * 2^52: no digits are left after the point
}

// --- Attention ----------------------------------------------------------------------------------

/** A vector for each token plus one for its position: n tokens -> (n, C). */
function tokenAndPositionEmbedding(tokens, embedding, state) {
  const C = embedding.token.weight.shape[1];
  const x = new Float32Array(tokens.length * C);
  tokens.forEach((token, i) => {
    const row = embedding.token.weight.subarray(token * C, (token + 1) * C);
    x.set(row, i * C);
    if (!embedding.position) return;
    const position = (state.length + i) * C;
    for (let c = 0; c < C; c++) x[i * C + c] += embedding.position.weight[position + c];
  });
  return x;
}

/**
 * Each token gathers information from itself and the tokens before it: (n, C) -> (m, C).
 *
 * Keys and values are kept in `state`; only the last m tokens look back, with m = n, or 1 if
 * the results of the others are not needed. With `state.weights`, the weights are kept too.
 */
function causalSelfAttention(x, n, attention, state, m) {
  const { H, C, rotary } = state;
  const queryKeyValue = linear(x, n, attention.query_key_value); // (n, 3 C)
  if (rotary) rotate(queryKeyValue, n, state);
  const { key, value } = cacheOf(attention, state);
  for (let i = 0; i < n; i++) {
    const row = queryKeyValue.subarray(i * 3 * C, (i + 1) * 3 * C);
    key.set(row.subarray(C, 2 * C), (state.length + i) * C);
    value.set(row.subarray(2 * C), (state.length + i) * C);
  }
  const gathered = new Float32Array(m * C);
  const weights = new Float32Array(state.length + n);
  for (let i = n - m; i < n; i++) {
    const seen = state.length + i + 1;
    for (let h = 0; h < H; h++) {
      const query = i * 3 * C + (h * C) / H;
      weighTokens(queryKeyValue, query, key, (h * C) / H, seen, state, weights);
      gatherValues(weights, value, (h * C) / H, seen, state, gathered, (i - n + m) * C + (h * C) / H);
      state.weights?.push(weights.slice(0, seen));
    }
  }
  return gathered;
}

/** softmax(query . key / sqrt(D)) over the tokens `seen`, into `weights`. */
function weighTokens(queries, query, keys, head, seen, { C, H }, weights) {
  const D = C / H;
  const scale = 1 / Math.sqrt(D);
  let largest = -Infinity;
  for (let t = 0; t < seen; t++) {
    const score = dot(queries, query, keys, t * C + head, D) * scale;
    weights[t] = score;
    if (score > largest) largest = score;
  }
  let total = 0;
  for (let t = 0; t < seen; t++) total += weights[t] = Math.exp(weights[t] - largest);
  for (let t = 0; t < seen; t++) weights[t] /= total;
}

/** The mean of the values of the tokens `seen`, by their weights, into `gathered` from `to` on. */
function gatherValues(weights, values, head, seen, { C, H }, gathered, to) {
  const D = C / H;
  for (let t = 0; t < seen; t++) {
    const weight = weights[t];
    const from = t * C + head;
    for (let d = 0; d < D; d++) gathered[to + d] += weight * values[from + d];
  }
}

/** Rotate queries and keys (n, 3 C) by angles that grow with the position: `compute/rotary.py`. */
function rotate(queryKeyValue, n, state) {
  const { C, H, length } = state;
  const half = C / H / 2;
  for (let i = 0; i < n; i++) {
    for (let d = 0; d < half; d++) {
      const angle = (length + i) * 10000 ** (-d / half);
      const cos = Math.fround(Math.cos(angle)), sin = Math.fround(Math.sin(angle));
      for (let head = 0; head < 2 * H; head++) { // of the queries, then of the keys
        const a = i * 3 * C + head * 2 * half + d;
        const b = a + half;
        const first = queryKeyValue[a], second = queryKeyValue[b];
        queryKeyValue[a] = first * cos - second * sin;
        queryKeyValue[b] = second * cos + first * sin;
      }
    }
  }
}

/** Keys and values of one layer, (T, C) each, made when first asked for. */
function cacheOf(attention, state) {
  let cache = state.caches.get(attention);
  if (!cache) {
    const size = state.T * state.C;
    cache = { key: new Float32Array(size), value: new Float32Array(size) };
    state.caches.set(attention, cache);
  }
  return cache;
}

// --- Blocks: (n, C) -> (m, C), of which only the last m rows are needed -------------------------

function feedForward(x, n, layers) {
  return linear(relu(linear(x, n, layers.widen)), n, layers.narrow);
}

function geluFeedForward(x, n, layers) {
  return linear(gelu(linear(x, n, layers.widen)), n, layers.narrow);
}

function block(x, n, layers, state, m) {
  const attended = causalSelfAttention(x, n, layers.attention, state, m);
  return relu(linear(attended, m, layers.feed_forward));
}

function residualBlock(x, n, layers, state, m) {
  const attended = causalSelfAttention(x, n, layers.attention, state, m);
  x = add(lastRows(x, n, m), linear(attended, m, layers.projection));
  return add(x, feedForward(x, m, layers.feed_forward));
}

function transformerBlock(x, n, layers, state, m, think = feedForward) {
  const normed = layerNorm(x, layers.attention_norm);
  const attended = causalSelfAttention(normed, n, layers.attention, state, m);
  x = add(lastRows(x, n, m), linear(attended, m, layers.projection));
  return add(x, think(layerNorm(x, layers.feed_forward_norm), m, layers.feed_forward));
}

function gpt1Block(x, n, layers, state, m) {
  return transformerBlock(x, n, layers, state, m, geluFeedForward);
}

function lastRows(x, n, m) {
  return x.subarray(((n - m) * x.length) / n);
}

/** Each block in turn; only the last one may leave out rows. */
function blocks(x, n, layers, state, m, kind) {
  layers.forEach((each, i) => {
    x = kind(x, n, each, state, i === layers.length - 1 ? m : n);
  });
  return x;
}

// --- Models: n tokens -> logits (m, V) of the tokens that follow the last m ------------------------

const MODELS = {
  BigramLM(tokens, { table }, state, m) {
    const V = table.weight.shape[1];
    const logits = new Float32Array(m * V);
    tokens.slice(-m).forEach((token, i) => {
      logits.set(table.weight.subarray(token * V, (token + 1) * V), i * V);
    });
    return logits;
  },

  SingleHeadAttentionLM(tokens, layers, state, m) {
    let x = tokenAndPositionEmbedding(tokens, layers.embedding, state);
    x = causalSelfAttention(x, tokens.length, layers.attention, state, m);
    return linear(x, m, layers.head);
  },

  MultiHeadAttentionLM(tokens, layers, state, m) {
    return MODELS.SingleHeadAttentionLM(tokens, layers, state, m); // with more heads
  },

  BlocksLM(tokens, layers, state, m) {
    let x = tokenAndPositionEmbedding(tokens, layers.embedding, state);
    x = blocks(x, tokens.length, layers.blocks, state, m, block);
    return linear(x, m, layers.head);
  },

  ResidualBlocksLM(tokens, layers, state, m) {
    let x = tokenAndPositionEmbedding(tokens, layers.embedding, state);
    x = blocks(x, tokens.length, layers.blocks, state, m, residualBlock);
    return linear(x, m, layers.head);
  },

  TransformerLM(tokens, layers, state, m) {
    let x = tokenAndPositionEmbedding(tokens, layers.embedding, state);
    x = blocks(x, tokens.length, layers.blocks, state, m, transformerBlock);
    if (layers.final_norm) x = layerNorm(x, layers.final_norm); // the original never applied it
    return linear(x, m, layers.head);
  },

  GPT1LM(tokens, layers, state, m) {
    let x = tokenAndPositionEmbedding(tokens, layers.embedding, state);
    x = blocks(x, tokens.length, layers.blocks, state, m, gpt1Block);
    const head = layers.head ?? { weight: layers.embedding.token.weight }; // tied
    return linear(layerNorm(x, layers.final_norm), m, head);
  },
};

// --- Reading a text -----------------------------------------------------------------------------

/**
 * A model that reads a text from its start, in parts: `generation/kv_cache.py`.
 *
 * `config`: {model, vocab_size, context_length, embedding_dim, num_heads, positions}.
 * `layers`: of `decodeTensors`.
 */
function createModel(config, layers) {
  const single = config.model === "SingleHeadAttentionLM";
  const state = {
    T: config.context_length,
    C: config.embedding_dim,
    H: single ? 1 : config.num_heads,
    rotary: config.positions === "rotary",
    length: 0, // tokens read so far
    caches: new Map(),
    weights: null,
  };
  return { config, layers, state };
}

function restart(model) {
  model.state.length = 0;
}

/** Read more tokens; returns the logits (m, V) after the last m of them, one if not given. */
function read(model, tokens, m = 1) {
  const logits = MODELS[model.config.model](tokens, model.layers, model.state, m);
  model.state.length += tokens.length;
  return logits;
}

// Context length from which old tokens are dropped by halves, and not one by one.
const CACHED_FROM = 32;

/**
 * Reads a text of any length token by token: `generation/context_window.py`.
 *
 * When the context is full, the oldest tokens are dropped: one for each new one, or with a
 * long context the older half together. What remains is read again.
 */
function createReader(model) {
  const T = model.config.context_length;
  const kept = T >= CACHED_FROM ? Math.max(1, T >> 1) : T;
  let window = [];
  return {
    /** Read a text that is not empty; returns the logits (V) of the token after it. */
    start(tokens) {
      window = tokens.slice(-T);
      restart(model);
      return read(model, window);
    },
    /** Read one more token; returns the logits (V) of the next. */
    next(token) {
      if (window.length < T) {
        window.push(token);
        return read(model, [token]);
      }
      window = [...window.slice(T - kept + 1), token];
      restart(model);
      return read(model, window);
    },
  };
}

const PART = 32; // tokens that are read together, so that a reader of long texts can be stopped

/**
 * Yield the logits (V) after each token of a text, each from the tokens before it as in
 * `createReader`.
 */
function* readEach(model, tokens) {
  const { context_length: T, vocab_size: V } = model.config;
  const first = tokens.slice(0, T);
  restart(model);
  for (let start = 0; start < first.length; start += PART) {
    const part = first.slice(start, start + PART);
    const logits = read(model, part, part.length);
    for (let i = 0; i < part.length; i++) yield logits.subarray(i * V, (i + 1) * V);
  }
  if (tokens.length <= T) return;
  const reader = createReader(model);
  reader.start(first);
  for (const token of tokens.slice(T)) yield reader.next(token);
}

/**
 * What each head looked at from the last token of a text: layers of heads of weights.
 *
 * The text is cut to the context; the weights of a head are those of the tokens left.
 */
function readAttention(model, tokens) {
  const { state, config } = model;
  const window = tokens.slice(-config.context_length);
  restart(model);
  if (window.length > 1) read(model, window.slice(0, -1));
  state.weights = [];
  read(model, window.slice(-1));
  const heads = state.weights;
  state.weights = null;
  return Array.from({ length: heads.length / state.H }, (_, layer) =>
    heads.slice(layer * state.H, (layer + 1) * state.H),
  );
}
