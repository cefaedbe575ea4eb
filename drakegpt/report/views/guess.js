/* Guess: somebody guesses the next letter of text that no model has seen, and so do the models.
 *
 * Shannon's bounds turn the numbers of guesses into bits, so that a person and a model can be
 * compared. Only models that read single characters take part. Not here: the bounds themselves,
 * which the engine computes.
 */

const AHEAD = 40; // characters that the models read ahead
const SEEN_BEFORE = 180; // characters before the hidden one that are shown
const JUMP = 150; // characters to the next text, at least
const FIRST = 5; // letters, below which there is no result
const FEW = 20; // below which it says next to nothing
const ENOUGH = 100;

function openGuess(place, page) {
  const models = page.models.filter((model) => model.known);
  const before = Array.from(page.heldOut?.before ?? "");
  const text = Array.from(page.heldOut?.text ?? "");
  const all = [...before, ...text];
  const known = page.models.filter((model) => model.known).at(-1).known;
  const others = makeOpponents(page, models, all);
  const result = makeResult(page, others);
  const status = makeStatus();
  const board = makeBoard([...known].sort(), guess, [status, result.last]);
  let at = before.length; // the hidden character
  let tried = [];
  let ranks = [];
  let places = []; // of the letters that were found

  function begin(position) {
    at = position;
    while (at < all.length && !known.has(all[at])) at++;
    if (at >= all.length) at = before.length;
    tried = [];
    board.draw(all, at, tried);
    others.readFrom(at).then(() => result.draw(ranks, places), fail);
  }
  const fail = (error) => (status.textContent = error.message);
  function guess(character) {
    if (tried.includes(character)) return;
    if (character !== all[at]) {
      tried.push(character);
      board.draw(all, at, tried);
      status.textContent = `Not ${sayPiece(character)}. Guess ${tried.length + 1}?`;
      result.last.replaceChildren(...tried.map((each) => make("s", { class: "piece" }, showPiece(each))));
      return;
    }
    find(tried.length + 1, `Yes, ${sayPiece(character)}, at guess ${tried.length + 1}.`);
  }
  function showIt() {
    status.textContent = `It was ${sayPiece(all[at])}. It does not count, for nobody.`;
    begin(at + 1);
  }
  function find(rank, sentence) {
    ranks.push(rank);
    places.push(at);
    status.textContent = sentence;
    result.draw(ranks, places);
    begin(at + 1);
  }
  const restart = makeButton("Start again", () => {
    ranks = [];
    places = [];
    status.textContent = "";
    result.draw(ranks, places);
    begin(before.length);
  });
  const onward = makeButton("Next text", () => {
    const line = all.indexOf("\n", at + JUMP);
    status.textContent = "";
    result.last.replaceChildren();
    begin(line < 0 ? before.length : line + 1);
  });
  place.append(
    makeNote("Type the next letter, or tap it below. Wrong ones are crossed out. A letter, a space and the end of a line ⏎ all count."),
    makeBox("duo",
      make("div", {}, board.element, makeBox("actions", makeButton("Show it", showIt), onward, restart)),
      result.element,
    ),
  );
  board.draw(all, at, tried);
  result.draw(ranks, places);
  whenSeen(place, () => begin(at));
}

/** The models, and counting: at which guess each would have had a character, and its bits. */
function makeOpponents(page, models, all) {
  const players = models.map((model) => ({ asked: model.index, model, found: new Map() }));
  if (page.counts) players.unshift({ asked: "counts", model: null, found: new Map() });
  let from = 0;
  let to = 0; // all characters between have been read
  async function readFrom(position) {
    if (position < from || position > to) from = to = position;
    if (to - position > AHEAD / 2) return;
    const start = to;
    to = Math.min(all.length, start + AHEAD);
    const end = to;
    await Promise.all(players.map((player) => readAhead(page.ask, player, all, start, end)));
  }
  return { players, readFrom };
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
  const draw = (all, at, tried) => {
    text.textContent = showText(all.slice(Math.max(0, at - SEEN_BEFORE), at).join(""));
    keys.draw(tried, at === 0 || all[at - 1] === "\n");
  };
  return { element, draw };
}

/**
 * A key for each character; small and capital letters share one, which shows what it would
 * guess: capitals first at the start of a line, and the other one once the first was wrong.
 */
function makeKeys(characters, guess) {
  const shared = new Map();
  for (const character of characters) {
    const small = character.toLowerCase();
    const name = characters.includes(small) ? small : character;
    shared.set(name, [...(shared.get(name) ?? []), character].sort((a, b) => (a === small ? -1 : 1)));
  }
  let tried = [];
  let capitals = false;
  const shown = (forms) => {
    const order = capitals ? [...forms].reverse() : forms;
    return order.find((form) => !tried.includes(form)) ?? order[0];
  };
  const names = [...shared.keys()].sort(compareKeys);
  const keys = names.map((name) => {
    const forms = shared.get(name);
    const button = makeButton("", () => guess(shown(forms)), { class: "letter" });
    return { forms, button };
  });
  const paint = () => {
    for (const { forms, button } of keys) {
      const form = shown(forms);
      const out = tried.includes(form);
      button.textContent = showPiece(form);
      button.setAttribute("aria-label", namePiece(form));
      button.setAttribute("aria-disabled", out);
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
  const element = make("div", { class: "keys", role: "group", "aria-label": "Letters" }, ...keys.map((key) => key.button), double ? shift : null);
  return {
    element,
    type,
    draw(wrong, lineStart) {
      const anew = !wrong.length;
      tried = wrong;
      if (anew) turn(double && lineStart);
      else paint();
    },
  };
}

/** Space and end of line, then letters, then all else. */
function compareKeys(a, b) {
  const group = (key) => (key === " " ? 0 : key === "\n" ? 1 : /\p{L}/u.test(key) ? 2 : 3);
  return group(a) - group(b) || (a < b ? -1 : 1);
}

// --- The result -------------------------------------------------------------------------------------

/** A row for each player, and a line about the last letter: {element, last, draw(ranks, places)}. */
function makeResult(page, { players }) {
  const latest = makeLatest(page.ask);
  const rows = [makePlayerRow("you", "You"), ...players.map(makeOpponentRow)];
  const words = makeNote();
  const last = make("p", { class: "latest" });
  const element = makeBox("result", make("h3", {}, "So far: bits per letter, and the mean number of guesses"),
    make("ul", { class: "players" }, ...rows.map((row) => row.element)), words,
  );
  const draw = async (ranks, places) => {
    const bounds = ranks.length ? await latest("bounds", { ranks }) : null;
    if (bounds === undefined) return;
    const scores = players.map(({ found }) => scorePlayer(found, places));
    const top = Math.max(4, bounds?.upper ?? 0, ...scores.map((score) => score?.bits ?? 0));
    rows[0].draw(bounds && describeYou(bounds, ranks.length), top);
    players.forEach((_, i) => rows[i + 1].draw(scores[i], top));
    words.textContent = describeTrust(ranks.length, bounds);
    last.replaceChildren(...(ranks.length ? describeLast(players, places.at(-1)) : []));
  };
  return { element, last, draw };
}

/** At which guess the others had a character. */
function describeLast(players, place) {
  const guesses = players.map(({ model, found }) => {
    const who = model ? [makeSign(model), make("span", { class: "unseen" }, model.label)] : ["counting"];
    return make("span", {}, ...who, ` ${found.get(place)?.rank ?? "…"}`);
  });
  return ["The others had it at guess: ", ...guesses];
}

function describeYou({ lower, upper, meanGuesses }, count) {
  if (count < FIRST) return { bits: 0, mean: meanGuesses };
  const middle = (lower + upper) / 2;
  const text = `${middle.toFixed(1)} (${lower.toFixed(1)} to ${upper.toFixed(1)})`;
  return { bits: middle, text, lower, upper, mean: meanGuesses };
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
  const meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
  const bits = make("b");
  const guesses = make("span", { class: "note" });
  const element = make(
    "li", { class: `player ${colour}` },
    make("span", { class: "who" }, name), make("span", { class: "score" }, bits, " ", guesses), meter,
  );
  const draw = (score, top) => {
    bits.textContent = score?.text ? `${score.text} bits` : "–";
    guesses.textContent = score ? `${score.mean.toFixed(1)} guesses` : "";
    const set = (name, value) => meter.style.setProperty(name, (value / top).toFixed(4));
    set("--from", score?.lower ?? 0);
    set("--to", score?.upper ?? score?.bits ?? 0);
    set("--middle", score?.bits ?? 0);
  };
  return { element, draw };
}

/** What a number of letters is worth. */
function describeTrust(count, bounds) {
  if (!count) return "Bits per letter: fewer are better. 0 would be to know every letter at once.";
  const letters = countOf(count, "letter");
  if (count < FIRST) return `${letters}. There is a result from ${FIRST} letters on.`;
  if (count < FEW) return `${letters}: far too few to say who is better; guess at least ${FEW}. You lie between the two numbers in brackets, if chance was fair.`;
  const chance = Math.max(bounds.lowerError, bounds.upperError).toFixed(1);
  const more = count < ENOUGH ? ` With ${ENOUGH} letters it is less.` : "";
  return `${letters}. Yours lies between the two numbers in brackets (Shannon 1951), and chance moves these by about ${chance}.${more}`;
}
