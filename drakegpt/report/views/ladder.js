/* The ladder: the same prompt and the same seed for each model, side by side.
 *
 * It begins to write when it is seen, and stops when it is no longer. Not here: models beside
 * the ladder, unless there is no ladder.
 */

const LADDER_LENGTH = 160; // tokens: enough to see words, or that there are none
const LADDER_PACE = 25; // milliseconds for a token

function openLadder(place, page) {
  const models = page.ladder;
  const prompt = make("input", { dir: "auto", maxlength: 200, autocomplete: "off", value: page.prompt });
  const seed = make("input", { inputmode: "numeric", pattern: "[0-9]{1,18}", title: WHOLE_NUMBER, required: true, value: page.seed });
  const idea = make("div", { class: "idea", "aria-live": "polite" });
  const status = makeStatus();
  const cards = models.map((model, i) => makeCard(model, () => steps.choose(i)));
  const steps = makeSteps(
    "Model on the ladder",
    models.map((model) => ({
      value: model.bits, text: formatBits(model.bits), colour: model.colour, under: makeSign(model),
    })),
    0,
    {
      tell: (i) => `${models[i].label}, ${formatBits(models[i].bits)} bits per character`,
      level: page.counts?.bits,
      onchange: (i) => {
        cards.forEach((card, j) => card.element.classList.toggle("chosen", i === j));
        idea.replaceChildren(...describeRung(models[i], models[i - 1]));
      },
    },
  );
  const stop = makeButton("Stop", () => writing.stop(), { disabled: true });
  const tell = (said, running) => {
    status.textContent = said;
    stop.disabled = !running;
  };
  const writing = makeLadderWriting(page.ask, cards, tell, () => [prompt.value, seed.value]);
  const check = () => seed.reportValidity() && writing.start();
  const renew = makeButton("New seed", () => {
    seed.value = Math.floor(Math.random() * 10000);
    check();
  });
  place.append(
    makeNote(`Height: how surprised the model is by text it never saw, in bits per character. Lower is better.${describeCounting(page)}`),
    makeBox("duo", steps.element, idea),
    make("ol", { class: "cards" }, ...cards.map((card) => card.element)),
    makeBox("actions", labelled("Begin with", prompt), labelled("Seed", seed), renew,
      makeButton("Write again", check, { class: "main" }), stop,
    ),
    makeNote("The same seed draws the same random numbers for all models and all beginnings."),
    status,
  );
  steps.choose(0);
  watchLadder(place.querySelector(".cards"), writing);
}

/** What the line across is, and what it takes to get there. */
function describeCounting({ counts, ladder }) {
  if (!counts) return "";
  const most = countOf(counts.sequences, "sequence");
  const { label, parameters, bits } = ladder.reduce((best, model) => (model.bits < best.bits ? model : best));
  const wins = counts.bits < bits ? ", lower than all models" : "";
  return (
    ` The line across is counting, ${formatBits(counts.bits)}${wins}: it stores ${most} of up to ${counts.order} ` +
    `${counts.unit}, while ${label} stores ${countOf(parameters, "number")}.`
  );
}

/** The idea that a model adds, its loss, and what it cannot do. */
function describeRung(model, before) {
  const compared = before ? `, ${compareBits(model, before)} the model before` : "";
  return [
    make("h3", {}, makeName(model)),
    make("p", { class: "lead" }, `The idea: ${model.idea}.`),
    make("p", {},
      make("b", {}, formatBits(model.bits)), " bits per character", compared,
      `: as hard as guessing one of ${formatChoices(model.bits)} that are equally likely.`,
    ),
    make("p", {}, model.explanation),
    model.limit ? makeNote(`Its limit: ${model.limit}.`) : null,
  ].filter(Boolean);
}

/** The difference of the two numbers as they are shown; none if it may be chance. */
function compareBits(model, before) {
  if (model.level) return "about the same as";
  const change = formatBits(before.bits) - formatBits(model.bits);
  return `${formatBits(Math.abs(change))} ${change < 0 ? "more" : "less"} than`;
}

function makeCard(model, onclick) {
  const paper = makePaper(`What ${model.label} writes`);
  const bits = make("span", { class: "note" }, `${formatBits(model.bits)} bits`);
  const heading = make("h3", {}, makeName(model));
  const element = make(
    "li", { class: `card ${model.colour}`, click: onclick },
    makeBox("head", heading, bits), make("p", { class: "own-idea" }, model.idea), paper.element,
  );
  return { element, paper, model };
}

/** All models write at once: {start, stop, leave, isOver}. `tell(said, running)`: what is going on. */
function makeLadderWriting(ask, cards, tell, given) {
  const latests = cards.map(() => makeLatest(ask));
  let round = 0;
  let state = "new"; // then running, left or over
  async function start() {
    const mine = ++round;
    const [prompt, seed] = given();
    state = "running";
    tell("Writing …", true);
    let said = "";
    try {
      await Promise.all(cards.map((card, i) => writeCard(latests[i], card, prompt, seed)));
    } catch (error) {
      said = error.message;
    }
    if (mine !== round) return;
    tell(said, false);
    if (state === "running") state = "over";
  }
  const end = (how) => {
    if (state === "running") state = how;
    latests.forEach((latest) => latest.stop());
  };
  return { start, stop: () => end("over"), leave: () => end("left"), isOver: () => state === "over" };
}

/** One model writes; where things should be still, its text comes at once. */
async function writeCard(latest, { paper, model }, prompt, seed) {
  const still = prefersStillness();
  const sampling = { temperature: 1, topK: null, topP: null, penalty: 1 };
  const question = {
    model: model.index, prompt, seed, sampling, length: LADDER_LENGTH,
    pace: still ? 0 : LADDER_PACE, stop: false,
  };
  paper.start(prompt, model);
  let waiting = "";
  await latest("write", question, ({ text }) => {
    if (still) waiting += text;
    else paper.add(text);
  });
  if (waiting) paper.add(waiting);
  paper.element.scrollTop = 0; // all begin at the same line, to be compared
}

/** Write once the texts are about to be seen; stop when they are not, and begin again if they were not finished. */
function watchLadder(element, writing) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.at(-1).isIntersecting) writing.leave();
    else if (!writing.isOver()) writing.start();
  }, { rootMargin: "0px 0px 60%" });
  observer.observe(element);
}
