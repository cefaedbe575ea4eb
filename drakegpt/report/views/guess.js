/* Guess: somebody guesses the next letter of text that no model has seen, and so do the models.
 *
 * Shannon's bounds turn the numbers of guesses into bits, so that a person and a model can be
 * compared. Only models that read single characters take part. The browser keeps the game, if it
 * may. Not here: the bounds themselves, which the engine computes.
 */

const AHEAD = 40; // characters that the models read ahead
const SEEN_BEFORE = 180; // characters before the hidden one that are shown
const JUMP = 150; // characters to the next text, at least
const FIRST = 5; // letters, below which there is no result
const FEW = 20; // below which it says next to nothing
const ENOUGH = 100;
const PATIENCE = 5000; // milliseconds in which a question waits for its answer
const USUAL = ",.'’\"!?-"; // signs that stay beside the letters
const ROW = 8; // keys in a row of a phone

function openGuess(place, page) {
  const text = readHiddenText(page);
  const store = makeStore(page, text);
  const others = makeOpponents(page, text.all);
  const result = makeResult(page, others);
  const latest = makeLatestLine(others.players, text.known.size);
  const status = makeStatus();
  const kept = make("span");
  const board = makeBoard([...text.known].sort(), guess, [status, latest.element, result.short]);
  let game = store.read() ?? startGame(text);
  let found = null; // the place of the letter that was just found

  function draw() {
    board.draw(text.all, game.at, game.tried);
    latest.draw(game.tried, found);
    kept.textContent = store.works() ? " This browser keeps the game." : " This browser does not keep the game: a reload ends it.";
  }
  const drawScores = () => {
    latest.draw(game.tried, found);
    return result.draw(game.ranks, game.places);
  };
  const fail = (error) => (status.textContent = error.message);
  function go(position, sentence) {
    game = { ...game, at: findPlace(text, position), tried: [] };
    status.textContent = sentence;
    store.write(game);
    draw();
    drawScores().catch(fail);
    others.readFrom(game.at).then(drawScores).catch(fail);
  }
  function guess(character) {
    if (game.tried.includes(character)) return;
    if (character === text.all[game.at]) return find(game.tried.length + 1, character);
    game.tried.push(character);
    store.write(game);
    status.textContent = `Not ${sayPiece(character)}. Guess ${game.tried.length + 1}?`;
    draw();
  }
  function find(rank, character) {
    found = game.at;
    game.ranks.push(rank);
    game.places.push(found);
    go(found + 1, `Yes, ${sayPiece(character)}, at guess ${rank}.`);
  }
  const leave = (position, sentence) => {
    found = null;
    go(position, sentence);
  };
  const showIt = () => leave(game.at + 1, `It was ${sayPiece(text.all[game.at])}. It counts for no one.`);
  const goOn = () => leave(text.all.indexOf("\n", game.at + JUMP) + 1 || text.first, "");
  const startAgain = () => {
    game = startGame(text);
    leave(text.first, "");
    store.remove();
  };
  const restart = makeAskingButton("Start again", "Really start again?", () => game.ranks.length, startAgain);
  place.append(
    makeNote("Type the next letter, or tap it below. Wrong ones are crossed out. A letter, a space and the end of a line ⏎ all count.", kept),
    makeBox("duo",
      make("div", {}, board.element, makeBox("actions", makeButton("Show it", showIt), makeButton("Next text", goOn), restart)),
      result.element,
    ),
  );
  draw();
  drawScores().catch(fail);
  whenSeen(place, () => {
    others.readFrom(game.at).then(() => others.readAt(game.places)).then(drawScores).catch(fail);
  });
}

/** A button that asks back: it acts when pressed again, before anything else is done. */
function makeAskingButton(text, question, isNeeded, act) {
  let waiting = null;
  const button = makeButton(text, press, { class: "asking", "data-question": question });
  function press() {
    if (waiting === null && isNeeded()) {
      button.textContent = question;
      waiting = setTimeout(goBack, PATIENCE);
    } else {
      goBack();
      act();
    }
  }
  function goBack() {
    clearTimeout(waiting);
    waiting = null;
    button.textContent = text;
  }
  for (const kind of ["click", "keydown", "input", "focusin"]) {
    document.addEventListener(kind, ({ target }) => target !== button && waiting !== null && goBack(), true);
  }
  return button;
}

// --- The game ---------------------------------------------------------------------------------------

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

// --- The opponents ----------------------------------------------------------------------------------

/** The models, and counting: at which guess each would have had a character, and its bits. */
function makeOpponents(page, all) {
  const players = page.models.filter((model) => model.known).map((model) => ({ asked: model.index, model, found: new Map() }));
  if (page.counts) players.unshift({ asked: "counts", model: null, found: new Map() });
  let from = 0;
  let to = 0; // all characters between have been read
  async function readFrom(position) {
    if (position < from || position > to) from = to = position;
    if (to - position > AHEAD / 2) return;
    const start = to;
    to = Math.min(all.length, start + AHEAD);
    await readAll(start, to);
  }
  /** Read the places of letters that were found before the page was loaded. */
  async function readAt(places) {
    let left = [...places].sort((a, b) => a - b);
    while (left.length) {
      const end = Math.min(all.length, left[0] + AHEAD);
      await readAll(left[0], end);
      left = left.filter((place) => place >= end);
    }
  }
  const readAll = (start, end) => Promise.all(players.map((player) => readAhead(page.ask, player, all, start, end)));
  return { players, readFrom, readAt };
}

async function readAhead(ask, { asked, found }, all, start, end) {
  const before = all.slice(0, start).join("");
  const pieces = await ask("surprise", { model: asked, before, text: all.slice(start, end).join("") });
  pieces.forEach(({ bits, rank }, i) => found.set(start + i, { bits, rank }));
}

// --- The board --------------------------------------------------------------------------------------

/** The text with a gap, and keys: {element, draw(all, at, tried)}. */
function makeBoard(characters, guess, between) {
  const text = make("span");
  const gap = make("input", { class: "gap", inputmode: "none", autocomplete: "off", autocapitalize: "off", spellcheck: "false", "aria-label": "The next letter" });
  const keys = makeKeys(characters, guess);
  gap.addEventListener("input", (event) => {
    if (event.isComposing) return;
    const typed = Array.from(gap.value).at(-1);
    gap.value = "";
    if (typed) keys.type(typed);
  });
  const element = make(
    "div",
    {
      class: "board",
      keydown: (event) => {
        if (event.target === gap && event.key === "Enter") keys.type("\n");
        else if (event.target !== gap && /^\S$/u.test(event.key) && !event.ctrlKey && !event.metaKey) {
          keys.type(event.key);
          gap.focus({ preventScroll: true });
        } else return;
        event.preventDefault();
      },
    },
    makeBox("window", make("div", { class: "text sample", dir: "auto" }, text, gap)), ...between, keys.element,
  );
  let drawn = null;
  const draw = (all, at, tried) => {
    text.textContent = showText(all.slice(Math.max(0, at - SEEN_BEFORE), at).join(""));
    if (at !== drawn) keys.begin(at === 0 || all[at - 1] === "\n");
    drawn = at;
    keys.draw(tried);
  };
  return { element, draw };
}

/**
 * A key for each character; small and capital letters share one, which shows what it would
 * guess: capitals first at the start of a line, and the other one once the first was wrong.
 */
function makeKeys(characters, guess) {
  let tried = [];
  let capitals = false;
  const shown = (forms) => {
    const order = capitals ? [...forms].reverse() : forms;
    return order.find((form) => !tried.includes(form)) ?? order[0];
  };
  const keys = shareKeys(characters).map(([name, forms]) => {
    const button = makeButton("", () => guess(shown(forms)), { class: "letter" });
    return { name, forms, button };
  });
  const paint = () => {
    for (const { forms, button } of keys) {
      const form = shown(forms);
      button.textContent = showPiece(form);
      button.classList.toggle("wide", / |\n/.test(form) || button.textContent.length > 2);
      button.setAttribute("aria-label", namePiece(form));
      button.setAttribute("aria-disabled", tried.includes(form));
    }
  };
  const type = (typed) => {
    const key = keys.find(({ forms }) => forms.includes(typed)) ?? keys.find(({ forms }) => forms.includes(typed.toLowerCase()));
    if (!key) return;
    const exact = typed !== typed.toLowerCase() && key.forms.includes(typed) && !tried.includes(typed);
    guess(exact ? typed : shown(key.forms));
  };
  const double = keys.some(({ forms }) => forms.length > 1);
  const shift = makeButton("⇧ Capitals", () => turn(!capitals), { class: "letter wide", "aria-pressed": "false" });
  const turn = (on) => {
    capitals = on;
    shift.setAttribute("aria-pressed", on);
    paint();
  };
  const sets = makeKeySets(keys, double ? shift : null);
  return {
    element: make("div", { class: "keys", role: "group", "aria-label": "Letters" }, ...sets.elements),
    type,
    begin(lineStart) {
      sets.show(0);
      turn(double && lineStart);
    },
    draw(wrong) {
      tried = wrong;
      paint();
    },
  };
}

/** Characters by the key that they share: [[name, forms]], in the order of the keys. */
function shareKeys(characters) {
  const shared = new Map();
  for (const character of characters) {
    const small = character.toLowerCase();
    const name = characters.includes(small) ? small : character;
    shared.set(name, [...(shared.get(name) ?? []), character].sort((a, b) => (a === small ? -1 : 1)));
  }
  return [...shared].sort(([a], [b]) => compareKeys(a, b));
}

/**
 * Keys in one set, or in two that take the same room, if that saves a row: letters, and behind
 * a key what is rare. Returns {elements, show(index)}.
 */
function makeKeySets(keys, shift) {
  const rare = keys.filter(({ name }) => !isLetter(name) && !/\s/.test(name) && !USUAL.includes(name));
  const letters = keys.filter(({ name }) => isLetter(name)).map(({ name }) => name);
  const makeSet = (these, ...more) => makeBox("set", ...these.map((key) => key.button), ...more);
  if (rare.length < ROW || !letters.length) return { elements: [makeSet(keys, shift)], show() {} };
  const label = rare.some(({ name }) => /\d/.test(name)) ? "123…" : "#+=…";
  const doors = [[label, `${label} digits and signs`], [letters.slice(0, 3).join(""), `${letters.slice(0, 3).join("")} letters`]].map(
    ([text, name], i) => makeButton(text, () => show(1 - i), { class: "letter wide", "aria-label": name }),
  );
  const elements = [makeSet(keys.filter((key) => !rare.includes(key)), shift, doors[0]), makeSet(rare, doors[1])];
  const show = (index) => {
    const focused = elements[1 - index].contains(document.activeElement);
    elements.forEach((element, i) => element.classList.toggle("away", i !== index));
    if (focused) doors[index].focus({ preventScroll: true });
  };
  return { elements, show };
}

function isLetter(name) {
  return /[\p{L}\p{M}]/u.test(name);
}

/** Space and end of line, then letters, then all else. */
function compareKeys(a, b) {
  const group = (key) => (key === " " ? 0 : key === "\n" ? 1 : /\p{L}/u.test(key) ? 2 : 3);
  return group(a) - group(b) || (a < b ? -1 : 1);
}

// --- The result -------------------------------------------------------------------------------------

/** A row for each player, and the score in one line: {element, short, draw(ranks, places)}. */
function makeResult(page, { players }) {
  const newest = makeLatest(page.ask);
  const rows = [makePlayerRow("you", "You"), ...players.map(makeOpponentRow)];
  const words = makeNote();
  const short = makeSteady("short", describeScores(players, 88, "88.8", players.map(() => "88.8"), "guesses on average"));
  const element = makeBox("result", make("h3", {}, "So far: bits per letter, and the mean number of guesses"),
    make("ul", { class: "players" }, ...rows.map((row) => row.element)), words,
  );
  const draw = async (ranks, places) => {
    const bounds = ranks.length ? await newest("bounds", { ranks }) : null;
    if (bounds === undefined) return;
    const you = bounds && describeYou(bounds, ranks.length);
    const scores = players.map(({ found }) => scorePlayer(found, places));
    const top = Math.max(4, you?.upper ?? 0, ...scores.map((score) => score?.bits ?? 0));
    rows[0].draw(you, top);
    players.forEach((_, i) => rows[i + 1].draw(scores[i], top));
    words.textContent = describeTrust(ranks.length, you);
    short.draw(describeShortly(players, ranks.length, you, scores));
  };
  return { element, short: short.element, draw };
}

/** An element as high as the longest that it may say, so that nothing below it moves. */
function makeSteady(kind, longest) {
  const now = make("span", { class: "now" });
  const room = make("span", { class: "room", "aria-hidden": "true" }, ...longest);
  return { element: make("p", { class: `steady ${kind}` }, room, now), draw: (parts) => now.replaceChildren(...parts) };
}

/** What was wrong here, or at which guess the others had the last letter: {element, draw(tried, place)}. */
function makeLatestLine(players, most) {
  const describe = (rankOf) => ["The others had it at guess: ", ...players.map((player) => {
    const { model } = player;
    const who = model ? [makeSign(model), make("span", { class: "unseen" }, model.label)] : ["counting"];
    return make("span", {}, ...who, ` ${rankOf(player)}`);
  })];
  const line = makeSteady("latest", describe(() => "8".repeat(String(most).length)));
  const draw = (tried, place) => {
    if (tried.length) line.draw(tried.map((each) => make("s", { class: "piece" }, showPiece(each))));
    else line.draw(place === null ? [] : describe(({ found }) => found.get(place)?.rank ?? "…"));
  };
  return { element: line.element, draw };
}

/** The score in a line: you, the best model and counting, in bits as soon as yours are known. */
function describeShortly(players, count, you, scores) {
  if (!count) return ["Your score comes here."];
  if (you.text) return describeScores(players, count, you.bits.toFixed(1), scores.map((score) => score?.bits.toFixed(1)), "bits per letter");
  return describeScores(players, count, you.mean.toFixed(1), scores.map((score) => score?.mean.toFixed(1)), "guesses on average");
}

function describeScores(players, count, yours, theirs, unit) {
  const best = players.reduce((best, { model }) => (model && !(best?.bits <= model.bits) ? model : best), null);
  const shown = players.flatMap(({ model }, i) => {
    if (model && model !== best) return [];
    return [[model ? make("bdi", {}, model.label) : "counting", ` ${theirs[i] ?? "…"}`]];
  });
  const others = shown.reverse().flatMap((parts) => [" · ", ...parts]);
  return [make("b", {}, `You ${yours}`), ...others, ` ${unit}, ${countOf(count, "letter")}`];
}

/** Shannon's bounds, a standard error wider on each side, and their middle. */
function describeYou({ lower, upper, lowerError, upperError, meanGuesses }, count) {
  if (count < FIRST) return { bits: 0, mean: meanGuesses };
  const middle = (lower + upper) / 2;
  const range = { lower: Math.max(0, lower - lowerError), upper: upper + upperError };
  return { bits: middle, text: `about ${middle.toFixed(1)}`, ...range, mean: meanGuesses };
}

/** Over the places that both have reached; null if there is none. */
function scorePlayer(found, places) {
  const read = places.map((place) => found.get(place)).filter((each) => each?.rank);
  if (!read.length) return null;
  const mean = (key) => read.reduce((sum, each) => sum + each[key], 0) / read.length;
  return { bits: mean("bits"), text: formatBits(mean("bits")), mean: mean("rank") };
}

function makeOpponentRow({ model }) {
  return model ? makePlayerRow(model.colour, makeName(model)) : makePlayerRow("other", "Counting");
}

function makePlayerRow(colour, name) {
  const range = make("span", { class: "range" });
  const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"), range);
  const bits = make("b");
  const guesses = make("span", { class: "note" });
  const element = make(
    "li", { class: `player ${colour}` },
    make("span", { class: "who" }, name), make("span", { class: "score" }, bits, " ", guesses), meter,
  );
  const draw = (score, top) => {
    bits.textContent = score?.text ? `${score.text} bits` : "–";
    guesses.textContent = score ? `${score.mean.toFixed(1)} guesses` : "";
    range.hidden = score?.lower === undefined;
    const set = (name, value) => meter.style.setProperty(name, ((value ?? 0) / top).toFixed(4));
    set("--bits", score?.bits);
    set("--from", score?.lower);
    set("--to", score?.upper);
  };
  return { element, draw };
}

/** What a number of letters is worth, and why only you have a range. */
function describeTrust(count, you) {
  if (!count) return "Bits per letter: fewer are better. 0 would be to know every letter at once.";
  const letters = countOf(count, "letter");
  if (count < FIRST) return `${letters}. There is a result from ${FIRST} letters on.`;
  const few = count < FEW ? `: far too few to say who is better; guess at least ${FEW}` : "";
  const range = `Your bits can only be estimated from your guesses: probably between ${you.lower.toFixed(1)} and ${you.upper.toFixed(1)} (Shannon 1951).`;
  const more = count < ENOUGH ? ` With ${ENOUGH} letters the range is narrower.` : "";
  return `${letters}${few}. ${range}${more} The others have no range, as the chance that they gave each letter is known exactly.`;
}
