/* Tokenizers: text to tokens and back.
 *
 * This mirrors `data/tokenizers`: one token for each character, or byte-level BPE with the
 * merges that were learned in Python.
 *
 * A tokenizer here: {kind, encode(text) -> tokens, where undefined is a character that it does not know, unknown(text) -> characters,
 * decoder() -> {add(token) -> text, finish() -> text}, show(token) -> text, start, end}.
 */

/** `stored`: {kind: "char", characters} or {kind: "bpe", bytes, merges, start, end}. */
function createTokenizer(stored) {
  return stored.kind === "char" ? createCharTokenizer(stored) : createBPETokenizer(stored);
}

function createCharTokenizer({ characters }) {
  const vocabulary = Array.from(characters);
  const tokens = new Map(vocabulary.map((character, token) => [character, token]));
  const find = (character) => tokens.get(findEquivalent(character, (each) => tokens.has(each)));
  return {
    kind: "char",
    start: 0,
    end: null,
    encode: (text) => Array.from(text, find),
    unknown: (text) => [...new Set(text)].filter((character) => find(character) === undefined),
    decoder: () => ({ add: (token) => vocabulary[token], finish: () => "" }),
    show: (token) => vocabulary[token],
  };
}

/**
 * A character of the vocabulary that stands for this one: itself, in the other case, or without
 * its accents; undefined if there is none. `generation/prompt.py` does the same, and more.
 */
function findEquivalent(character, isKnown) {
  const base = character.normalize("NFKD").replace(/\p{M}/gu, "");
  const forms = [character, base].flatMap((form) => [form, form.toLowerCase(), form.toUpperCase()]);
  return forms.find(isKnown);
}

// GPT-2's words: contractions, letters, numbers or signs with a space before them, white space.
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/**
 * `bytes`: the bytes of each token in hexadecimal. `merges`: pairs of tokens that become one,
 * [left, right, merged], the first to merge first.
 */
function createBPETokenizer({ bytes, merges, start, end }) {
  const V = bytes.length;
  const pieces = bytes.map((hex) => Uint8Array.from(hex.match(/../g) ?? [], (b) => parseInt(b, 16)));
  const single = new Map();
  pieces.forEach((piece, token) => {
    if (piece.length === 1 && token !== end) single.set(piece[0], token);
  });
  const rules = new Map(
    merges.map(([left, right, merged], rank) => [left * V + right, { rank, merged }]),
  );
  const encodeWord = (word) => {
    const tokens = Array.from(new TextEncoder().encode(word), (byte) => single.get(byte));
    return mergePairs(tokens, (left, right) => rules.get(left * V + right));
  };
  return {
    kind: "bpe",
    start,
    end,
    encode: (text) => (text.match(WORDS) ?? []).flatMap(encodeWord),
    unknown: () => [],
    decoder: () => createDecoder(pieces),
    show: (token) => new TextDecoder().decode(pieces[token]),
  };
}

/** Merge the pair that was learned first, again and again, until there is none. */
function mergePairs(tokens, findRule) {
  for (;;) {
    let best = null;
    for (let i = 0; i + 1 < tokens.length; i++) {
      const rule = findRule(tokens[i], tokens[i + 1]);
      if (rule && (!best || rule.rank < best.rank)) best = { ...rule, place: i };
    }
    if (!best) return tokens;
    const { place, rank, merged } = best;
    const [left, right] = tokens.slice(place, place + 2);
    for (let i = place; i + 1 < tokens.length; i++) {
      if (tokens[i] === left && tokens[i + 1] === right) tokens.splice(i, 2, merged);
    }
  }
}

/** Decodes tokens as they come: a character that is split over several comes with the last. */
function createDecoder(pieces) {
  const decoder = new TextDecoder();
  return {
    add: (token) => decoder.decode(pieces[token], { stream: true }),
    finish: () => decoder.decode(),
  };
}
