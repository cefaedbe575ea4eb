/* The result of Guess: the bits of somebody and of the models, in short and as a table.
 *
 * Not here: Shannon's bounds, which the engine computes.
 */

const FIRST = 5; // letters, below which there is no result
const FEW = 20; // below which it says next to nothing
const ENOUGH = 100;

/** A row for each player, and the score in one line: {element, short, draw(ranks, places)}. */
function makeResult(page, { players }) {
  const newest = makeLatest(page.ask);
  const rows = [makePlayerRow("you", "You"), ...players.map(makeOpponentRow)];
  const words = makeNote();
  const short = makeSteady("short", describeScores(players, 88, "about 8.8 (8.8–8.8)", players.map(() => "88.8"), "guesses on average"));
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
  if (you.text) return describeScores(players, count, `about ${you.bits.toFixed(1)} (${you.lower.toFixed(1)}–${you.upper.toFixed(1)})`, scores.map((score) => score?.bits.toFixed(1)), "bits per letter");
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
  if (count < FIRST) return `${letters}. Your bits can be estimated from ${FIRST} letters on.`;
  const few = count < FEW ? `: far too few to say who is better; guess at least ${FEW}` : "";
  const range = `Your bits can only be estimated from your guesses: probably between ${you.lower.toFixed(1)} and ${you.upper.toFixed(1)} (Shannon 1951).`;
  const more = count < ENOUGH ? ` With ${ENOUGH} letters the range is narrower.` : "";
  return `${letters}${few}. ${range}${more} The others have no range, as the chance that they gave each letter is known exactly.`;
}
