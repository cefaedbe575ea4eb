// What counting says: the n-grams of the training text, and the probabilities estimated from them.
//
// This is `drakegpt/data/ngrams.py` again: interpolated modified Kneser-Ney (Chen and Goodman
// 1999). The docstring there explains the estimate. Only n-grams of the highest order arrive
// (`drakegpt/report/counts.py`); those of lower orders are derived from them when the page loads.
//
// An n-gram is one number, its tokens being the digits in base V, the oldest first. All lists of
// n-grams are sorted typed arrays, searched by halving: no object is made for an n-gram.
//
// Not here: models, drawing tokens, and what the page shows.

/** Discounts of counts 0, 1, 2, and 3 or more, where a text is too small to estimate them. */
const DEFAULT_DISCOUNTS = [0, 0.5, 1, 1.5];
const LEAST_DISCOUNT = 0.05;
const SHOWN_FOLLOWERS = 5;

/**
 * The estimate of one level by one way of counting; G n-grams with H different contexts.
 * @typedef {object} Estimate
 * @property {Float64Array} shares   (G,): discounted count over that of its context
 * @property {Float64Array} backoff  (H,): the mass that a context leaves to the level below
 *
 * The n-grams of one length: a context and the token after it.
 * @typedef {object} Level
 * @property {Float64Array} grams     (G,), sorted
 * @property {Int32Array} counts      (G,): how often each occurs
 * @property {Float64Array} contexts  (H,), sorted; of level 1 the empty context, 0
 * @property {Int32Array} starts      (H + 1,): the first n-gram of each context, and G
 * @property {Estimate} first         for predictions that start here: by occurrences
 * @property {?Estimate} lower        below another level: by different tokens that precede
 *
 * @typedef {{vocabSize: number, order: number, levels: Level[]}} Counts  levels of 1 to n tokens
 */

/**
 * Unpack what `PackedCounts.to_json()` made, and estimate all levels.
 * @param {{vocab_size: number, order: number, ngrams: number, grams: string, tail: number[]}} json
 * @returns {Counts}
 */
function unpackCounts(json) {
  const vocabSize = json.vocab_size;
  const levels = [];
  let longer = null;
  let list = readGrams(decodeCountBytes(json.grams), json.ngrams);
  for (let length = json.order; length >= 1; length--) {
    if (longer) list = shortenGrams(longer, vocabSize, lastGram(json.tail, length, vocabSize));
    const { contexts, starts } = groupByContext(list.grams, vocabSize);
    const first = estimateShares(list.counts, starts);
    const preceding = longer && countPreceding(list.grams, longer.grams, vocabSize ** length);
    const lower = preceding && estimateShares(preceding, starts);
    levels.unshift({ grams: list.grams, counts: list.counts, contexts, starts, first, lower });
    longer = list;
  }
  return { vocabSize, order: json.order, levels };
}

/**
 * The probability of every token after a context of any length.
 *
 * Only the last n - 1 tokens are used. Where a context is unknown, all longer ones are.
 * @param {Counts} counts
 * @param {ArrayLike<number>} context
 * @returns {Float64Array} (V,)
 */
function predictByCounts(counts, context) {
  const { vocabSize, order, levels } = counts;
  const probabilities = new Float64Array(vocabSize).fill(1 / vocabSize);
  const highest = Math.min(order, context.length + 1);
  for (let length = 0; length < highest; length++) {
    const level = levels[length];
    const key = encodeContext(context, length, vocabSize);
    const index = findKey(level.contexts, key);
    if (index < 0) break;
    const { shares, backoff } = length + 1 === highest ? level.first : level.lower;
    for (let token = 0; token < vocabSize; token++) probabilities[token] *= backoff[index];
    for (let at = level.starts[index]; at < level.starts[index + 1]; at++) {
      probabilities[level.grams[at] - key * vocabSize] += shares[at];
    }
  }
  return probabilities;
}

/**
 * What was counted after the last tokens of a context: one entry for each order, from 1 to the
 * highest at which something ever followed them.
 *
 * `occurrences`: how often anything followed the n - 1 tokens `context`. `different`: how many
 * different tokens did. `followers`: at most five of these, the most frequent first.
 * @param {Counts} counts
 * @param {ArrayLike<number>} context
 * @returns {{order: number, context: number[], occurrences: number, different: number,
 *   followers: {token: number, count: number}[]}[]}
 */
function explainCounts(counts, context) {
  const found = [];
  for (let length = 0; length < counts.order && length <= context.length; length++) {
    const level = counts.levels[length];
    const key = encodeContext(context, length, counts.vocabSize);
    const index = findKey(level.contexts, key);
    if (index < 0) break;
    const followers = [];
    let occurrences = 0;
    for (let at = level.starts[index]; at < level.starts[index + 1]; at++) {
      occurrences += level.counts[at];
      followers.push({ token: level.grams[at] - key * counts.vocabSize, count: level.counts[at] });
    }
    followers.sort((a, b) => b.count - a.count || a.token - b.token);
    found.push({
      order: length + 1,
      context: Array.from(context).slice(context.length - length),
      occurrences,
      different: followers.length,
      followers: followers.slice(0, SHOWN_FOLLOWERS),
    });
  }
  return found;
}

// --- Unpacking ---------------------------------------------------------------------------------

/** Decode base64: string -> Uint8Array. */
function decodeCountBytes(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at);
  return bytes;
}

/**
 * Read n-grams and their counts from varints: twice the distance from the n-gram before, plus 1
 * if its count is above 1, and then that count less 2.
 * @param {Uint8Array} bytes
 * @param {number} size  G
 * @returns {{grams: Float64Array, counts: Int32Array}}
 */
function readGrams(bytes, size) {
  let at = 0;
  const readNumber = () => {
    // Products, for `<<` works on 32 bits only.
    let number = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      number += (byte % 128) * scale;
      if (byte < 128) return number;
    }
  };
  const grams = new Float64Array(size);
  const counts = new Int32Array(size).fill(1);
  let gram = 0;
  for (let index = 0; index < size; index++) {
    const number = readNumber();
    gram += Math.floor(number / 2);
    grams[index] = gram;
    if (number % 2) counts[index] = readNumber() + 2;
  }
  return { grams, counts };
}

/**
 * Count the n-grams that are one token shorter: each longer one without its last token, and the
 * one that ends the text.
 * @param {{grams: Float64Array, counts: Int32Array}} longer
 * @param {number} vocabSize
 * @param {number} last  that one, -1 if the text is shorter
 */
function shortenGrams(longer, vocabSize, last) {
  const grams = new Float64Array(longer.grams.length + 1);
  const counts = new Int32Array(grams.length);
  let size = 0;
  const add = (gram, count) => {
    if (size && grams[size - 1] === gram) counts[size - 1] += count;
    else {
      grams[size] = gram;
      counts[size++] = count;
    }
  };
  let waiting = last >= 0;
  for (let index = 0; index < longer.grams.length; index++) {
    const gram = Math.floor(longer.grams[index] / vocabSize);
    if (waiting && last <= gram) {
      add(last, 1);
      waiting = false;
    }
    add(gram, longer.counts[index]);
  }
  if (waiting) add(last, 1);
  return { grams: grams.slice(0, size), counts: counts.slice(0, size) };
}

/** The n-gram of this length at the end of the text, -1 if the text is shorter. */
function lastGram(tail, length, vocabSize) {
  return tail.length < length ? -1 : encodeContext(tail, length, vocabSize);
}

/** The different contexts of sorted n-grams, and where the n-grams of each start. */
function groupByContext(grams, vocabSize) {
  const contexts = new Float64Array(grams.length);
  const starts = new Int32Array(grams.length + 1);
  let size = 0;
  for (let index = 0; index < grams.length; index++) {
    const context = Math.floor(grams[index] / vocabSize);
    if (!size || contexts[size - 1] !== context) {
      contexts[size] = context;
      starts[size++] = index;
    }
  }
  starts[size] = grams.length;
  return { contexts: contexts.slice(0, size), starts: starts.slice(0, size + 1) };
}

/** Count the different tokens that precede each n-gram; `modulus`, V^n, removes the oldest. */
function countPreceding(grams, longer, modulus) {
  const counts = new Int32Array(grams.length);
  for (let index = 0; index < longer.length; index++) {
    const oldest = Math.floor(longer[index] / modulus); // `%` takes several times as long
    counts[findKey(grams, longer[index] - oldest * modulus)]++;
  }
  return counts;
}

// --- The estimate ------------------------------------------------------------------------------

/**
 * The discounted shares of n-grams, and the mass that their contexts leave to the level below.
 * @param {Int32Array} counts  (G,)
 * @param {Int32Array} starts  (H + 1,)
 * @returns {Estimate}
 */
function estimateShares(counts, starts) {
  const discounts = estimateDiscounts(counts);
  const shares = new Float64Array(counts.length);
  const backoff = new Float64Array(starts.length - 1).fill(1);
  for (let context = 0; context < backoff.length; context++) {
    let total = 0;
    let freed = 0;
    for (let at = starts[context]; at < starts[context + 1]; at++) {
      total += counts[at];
      freed += discounts[counts[at] < 3 ? counts[at] : 3];
    }
    // An n-gram that occurs only at the start of the text follows nothing: totals may be 0.
    if (!total) continue;
    backoff[context] = freed / total;
    for (let at = starts[context]; at < starts[context + 1]; at++) {
      shares[at] = (counts[at] - discounts[counts[at] < 3 ? counts[at] : 3]) / total;
    }
  }
  return { shares, backoff };
}

/**
 * Estimate the discounts of counts 0, 1, 2, and 3 or more (Chen and Goodman's equation 26).
 * @param {Int32Array} counts  (G,)
 * @returns {number[]} (4,)
 */
function estimateDiscounts(counts) {
  const many = [0, 0, 0, 0, 0]; // how many n-grams have each count
  for (let at = 0; at < counts.length; at++) if (counts[at] < 5) many[counts[at]]++;
  const [, one, two, three, four] = many;
  if (!one || !two || !three) return DEFAULT_DISCOUNTS;
  const y = one / (one + 2 * two);
  const ofMany = four ? 3 - (4 * y * four) / three : DEFAULT_DISCOUNTS[3];
  const found = [1 - (2 * y * two) / one, 2 - (3 * y * three) / two, ofMany];
  return [0, ...found.map((discount) => Math.max(LEAST_DISCOUNT, discount))];
}

// --- Keys --------------------------------------------------------------------------------------

/** Encode the last `length` tokens of a context as one number. */
function encodeContext(context, length, vocabSize) {
  let key = 0;
  for (let at = context.length - length; at < context.length; at++) {
    key = key * vocabSize + context[at];
  }
  return key;
}

/** The index of a number in a sorted array, -1 if it is not there. */
function findKey(keys, key) {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return keys[low] === key ? low : -1;
}
