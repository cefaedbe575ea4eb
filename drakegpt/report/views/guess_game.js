/* The game of Guess: the hidden text, where somebody is in it, and what the browser keeps of it.
 *
 * What is kept may be damaged, or of another page. Not here: what is shown.
 */

/** {all, first, known}: the text, where its hidden part begins, and what can be guessed. */
function readHiddenText(page) {
  const before = Array.from(page.heldOut?.before ?? "");
  const text = Array.from(page.heldOut?.text ?? "");
  const known = page.models.filter((model) => model.known).at(-1).known;
  return { all: [...before, ...text], first: before.length, known };
}

/** The hidden place, wrong guesses there, and of the letters that were found: guesses and places. */
function startGame(text) {
  return { at: findPlace(text, text.first), tried: [], ranks: [], places: [] };
}

/** The first place from a position on whose letter can be guessed; after the end, the first one. */
function findPlace({ all, first, known }, position) {
  const next = all.findIndex((character, i) => i >= position && known.has(character));
  return next < 0 ? first : next;
}

/**
 * The game in the browser's storage, which other pages may share: the key is of this one's text
 * and models. A browser may refuse: then nothing is read, and `works()` is false.
 */
function makeStore(page, text) {
  const content = [text.all.join(""), ...page.models.map((model) => model.checksum)];
  const key = `drakegpt-guess-${hashText(content.join(" "))}`;
  let works = true;
  const use = (action) => {
    try {
      works = true;
      return action(localStorage);
    } catch {
      works = false;
      return null;
    }
  };
  return {
    read: () => readGame(use((storage) => storage.getItem(key)), text),
    write: (game) => use((storage) => storage.setItem(key, JSON.stringify(game))),
    remove: () => use((storage) => storage.removeItem(key)),
    works: () => works,
  };
}

/** FNV-1a, of the text's UTF-16 units: other texts have, nearly always, another number. */
function hashText(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
}

/** A game that was stored; null if it is none, or does not fit the text. */
function readGame(stored, text) {
  try {
    const { at, tried, ranks, places } = JSON.parse(stored);
    const game = { at, tried, ranks, places };
    return isPossible(game, text) ? game : null;
  } catch {
    return null;
  }
}

function isPossible({ at, tried, ranks, places }, { all, first, known }) {
  const isPlace = (place) => Number.isInteger(place) && place >= first && known.has(all[place]);
  const isRank = (rank) => Number.isInteger(rank) && rank >= 1 && rank <= known.size;
  if (!isPlace(at) || ![tried, ranks, places].every(Array.isArray)) return false;
  const isWrong = (guessed, i) => known.has(guessed) && guessed !== all[at] && tried.indexOf(guessed) === i;
  return tried.every(isWrong) && ranks.length === places.length && ranks.every(isRank) && places.every(isPlace);
}
