/* The page: reads the models, starts the engine, and opens each view where the page has a place.
 *
 * Where something is missing or damaged, the page stays as it was, readable without any of this,
 * and a sentence says so. Not here: what a view shows.
 */

const NEEDED = ["Worker", "Blob", "Float32Array", "TextDecoder", "IntersectionObserver"];
const DAMAGED = "The models in this file are damaged. Get the file again, whole.";
const MOST_TEXT = 2000; // characters of a text that one may enter

const VIEWS = {
  write: openWrite,
  ladder: openLadder,
  guess: openGuess,
  surprise: openSurprise,
  attention: openAttention,
  learning: openLearning,
};

document.addEventListener("DOMContentLoaded", startPage);

async function startPage() {
  try {
    const missing = NEEDED.find((name) => !(name in window));
    if (missing) throw new Error(`This browser is too old to run the models: it has no ${missing}.`);
    const stored = readStored();
    if (!stored.models.length) throw new Error("No model was small enough to be in this file.");
    const ask = startEngine(document.getElementById("engine").textContent);
    const { models, tokenizers, counts } = stored;
    await ask("open", { models, tokenizers, counts });
    const page = describePage(stored, ask);
    for (const [name, open] of Object.entries(VIEWS)) openView(name, open, page);
  } catch (error) {
    giveUp(error.message);
  }
}

/** What the page holds. Throws an error if it is not whole. */
function readStored() {
  try {
    const stored = JSON.parse(document.getElementById("models").textContent);
    if (stored.format === 1) return stored;
  } catch {
    // Said below.
  }
  throw new Error(DAMAGED);
}

/**
 * What the views share: {ask, models, counts, …}, and the text that Surprise and Where it looked
 * have in common. A model knows its index and its characters, null where it knows all.
 */
function describePage(stored, ask) {
  const models = stored.models.map((model, index) => {
    const tokenizer = stored.tokenizers[model.tokenizer];
    const single = tokenizer.kind === "char";
    return {
      ...model, index, tokenizer, base64: null,
      known: single ? new Set(tokenizer.characters) : null,
      unit: single ? "character" : "piece",
    };
  });
  const rungs = models.filter((model) => model.rung !== null);
  const listeners = [];
  return {
    ...stored, ask, models, givenText: stored.text,
    ladder: rungs.length > 1 ? rungs : models,
    best: models.reduce((best, model) => (model.bits < best.bits ? model : best)),
    onText: (listener) => listeners.push(listener),
    changeText(text) {
      this.text = text;
      listeners.forEach((listener) => listener());
    },
  };
}

/** Open a view in its place, if the page has one; what it replaces is hidden. */
function openView(name, open, page) {
  const place = document.querySelector(`[data-view="${name}"]`);
  if (!place) return;
  try {
    if (open(place, page) === false) return;
    place.hidden = false;
    const still = document.querySelector(`[data-still="${name}"]`);
    if (still) still.hidden = true;
  } catch (error) {
    place.replaceChildren(makeFailure(error.message));
    place.hidden = false;
  }
}

/** The page without life, and why. */
function giveUp(reason) {
  for (const view of document.querySelectorAll("[data-view]")) view.hidden = true;
  for (const still of document.querySelectorAll("[data-still]")) still.hidden = false;
  document.querySelector("main")?.prepend(makeFailure(`${reason} What is below can be read all the same.`));
}

function makeFailure(sentence) {
  return make("p", { class: "failure", role: "alert" }, sentence);
}

/**
 * Start the engine in a worker. Returns `ask(call, args, onPart)`: a promise of the result, with
 * `stop()`.
 */
function startEngine(source) {
  const blob = new Blob([source], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(blob));
  const questions = new Map();
  let next = 0;
  worker.onmessage = ({ data: { id, part, result, error } }) => {
    const question = questions.get(id);
    if (part !== undefined) return question.onPart(part);
    questions.delete(id);
    if (error !== undefined) question.fail(new Error(error));
    else question.answer(result);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { fail } of questions.values()) fail(new Error("The models of this page cannot run here."));
    questions.clear();
  };
  return (call, args, onPart = () => {}) => {
    const id = next++;
    const promise = new Promise((answer, fail) => questions.set(id, { answer, fail, onPart }));
    worker.postMessage({ id, call, args });
    promise.stop = () => worker.postMessage({ stop: id });
    return promise;
  };
}

/** Call a function once, when an element is about to be seen. */
function whenSeen(element, then) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      then();
    },
    { rootMargin: "200px" },
  );
  observer.observe(element);
}

function prefersStillness() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Asks of which only the last one counts: earlier ones are stopped, their answers dropped. */
function makeLatest(ask) {
  let current = null;
  const latest = async (call, args, onPart = () => {}) => {
    current?.stop();
    const question = ask(call, args, (part) => question === current && onPart(part));
    current = question;
    const result = await question;
    return question === current ? result : undefined;
  };
  latest.stop = () => current?.stop();
  latest.drop = () => {
    current?.stop();
    current = null;
  };
  return latest;
}
