/* Guess: somebody guesses the next letter of text that no model has seen, and so do the models.
 *
 * Shannon's bounds turn the numbers of guesses into bits, so that a person and a model can be
 * compared. Only models that read single characters take part. The browser keeps the game, if it
 * may. Not here: the bounds themselves, which the engine computes.
 */

const AHEAD = 40; // characters that the models read ahead
const JUMP = 150; // characters to the next text, at least
const PATIENCE = 5000; // milliseconds in which a question waits for its answer

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
