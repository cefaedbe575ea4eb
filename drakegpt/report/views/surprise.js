/* Surprise: how many bits each character of a text was to two models, and what they expected.
 *
 * With what counting says for the same place. Not here: how bits are computed.
 */

const BIT_STEPS = [1, 2, 4, 6, 8]; // bits per character from which a colour begins

function openSurprise(place, page) {
  const input = make("textarea", { rows: 4, maxlength: MOST_TEXT, dir: "auto" });
  const status = makeStatus();
  const first = page.ladder[0];
  const shown = new Set([first, page.best === first ? page.models.at(-1) : page.best]);
  const sides = [...shown].map((model) => makeSide(page, model, touch));
  const counting = makeCounting(page);
  let waiting;
  let offset = null; // until one is touched: where the models differ most
  input.value = page.text;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => page.changeText(input.value), 300);
  });
  function touch(at) {
    offset = at;
    mark(at);
  }
  function mark(at) {
    for (const side of sides) side.select(at);
    counting?.draw(textBefore(page) + page.text.slice(0, at)).catch(fail);
  }
  const fail = (error) => (status.textContent = error.message);
  async function read() {
    status.textContent = "Reading …";
    try {
      const read = sides.map((side) =>
        side.read((done) => (status.textContent = `Reading … ${formatPercent(done)}`)),
      );
      if ((await Promise.all(read)).includes(undefined)) return; // the text has changed again
      status.textContent = "";
      mark(Math.min(offset ?? findContrast(sides), Math.max(0, page.text.length - 1)));
    } catch (error) {
      fail(error);
    }
  }
  sides.forEach((side) => side.onchange(read));
  place.append(
    labelled("Any text", input),
    makeNote("Touch a character, or walk with the arrow keys, to see what each model expected there."),
    makeColourKey(), makeBox("sides", ...sides.map((side) => side.element)),
    status, counting?.element ?? "",
  );
  whenSeen(place, () => {
    page.onText(read);
    read();
  });
}

/** The place at which the second model was right and the first one wrong, by most bits. */
function findContrast([first, second]) {
  const bits = new Map(first.pieces().map((piece) => [piece.start, piece.bits]));
  const gains = (second ?? first).pieces().map(({ start, bits: own }) => [(bits.get(start) ?? 0) - (own ?? Infinity), start]);
  return gains.reduce((best, each) => (each[0] > best[0] ? each : best), [-Infinity, 0])[1];
}

function makeColourKey() {
  const names = [0, ...BIT_STEPS].map((from, i) => {
    const to = BIT_STEPS[i];
    if (!from) return `under ${to} bit`;
    return to ? `${from} to ${to}` : `${from} and more`;
  });
  const steps = names.map((name, i) => make("li", {}, make("span", { class: `s${i}` }, name)));
  return make("ul", { class: "steps", "aria-label": "Colours, in bits per character" }, ...steps);
}

function colourOf(bits, characters) {
  return `s${BIT_STEPS.filter((step) => bits / characters >= step).length}`;
}

/** What stands before the text of the views: the beginning of a line, if it is somebody's own. */
function textBefore(page) {
  return (page.text === page.givenText && page.before) || "\n";
}

/** One model and the text in its colours. */
function makeSide(page, chosen, touch) {
  let model = chosen;
  let pieces = [];
  let changed = () => {};
  const latest = makeLatest(page.ask);
  const mean = make("p", { class: "mean" }, make("b", {}, "–"), " bits per character");
  const walk = makeWalk("Text, coloured by surprise", (i) => touch(pieces[i].start));
  const choice = makeModelChoice("Model", page.models, model, (next) => {
    model = next;
    changed();
  });
  const expectation = makeExpectation();
  const indexAt = (offset) => Math.max(0, pieces.findLastIndex((piece) => piece.start <= offset));
  async function read(progress) {
    const question = { model: model.index, before: textBefore(page), text: page.text };
    const found = await latest("surprise", question, (part) => progress(part.done));
    if (!found) return undefined;
    let start = 0;
    pieces = found.map((piece) => {
      start += piece.text.length;
      return { ...piece, start: start - piece.text.length };
    });
    walk.draw(pieces.map(describeCell));
    mean.firstChild.textContent = meanBits(pieces);
    return true;
  }
  return {
    element: makeBox("side", choice, mean, walk.element, expectation.element),
    read,
    pieces: () => pieces,
    onchange: (listener) => (changed = listener),
    select(offset) {
      const piece = pieces[indexAt(offset)];
      walk.select(indexAt(offset));
      const before = Array.from(page.text.slice(0, piece?.start));
      expectation.draw(before.slice(-countSeen(model)).join(""), piece, model.unit);
    },
  };
}

/** How many tokens before a place a model sees. */
function countSeen(model) {
  return model.model === "BigramLM" ? 1 : model.config.context_length;
}

function describeCell({ text, bits }) {
  const name = bits === null ? "unknown" : `${bits.toFixed(1)} bits`;
  const colour = bits === null ? "unknown" : colourOf(bits, Array.from(text).length);
  return { text, class: colour, name: `${namePiece(text)}, ${name}` };
}

/** Mean bits per character of the pieces that the model knows, as text. */
function meanBits(pieces) {
  const known = pieces.filter((piece) => piece.bits !== null);
  const sum = (term) => known.reduce((total, piece) => total + term(piece), 0);
  if (!known.length) return "–";
  return formatBits(sum((piece) => piece.bits) / sum((piece) => Array.from(piece.text).length));
}

// --- The touched place --------------------------------------------------------------------------------

/** What a model expected at a place: {element, draw(before, piece, unit)}. */
function makeExpectation() {
  const bars = makeBars(5);
  const head = make("p");
  const draw = (before, piece, unit) => {
    const known = piece && piece.bits !== null;
    bars.draw(known ? piece.likeliest : [], piece?.text);
    if (!piece) return head.replaceChildren();
    const context = showPiece(before.slice(-16)).replaceAll("␣", " ");
    const after = context ? ["After ", make("q", { dir: "auto" }, context)] : ["At the beginning"];
    const start = [...after, " came ", quotePiece(piece.text)];
    if (!known) return head.replaceChildren(...start, `, a ${unit} that this model never saw.`);
    head.replaceChildren(
      ...start, `, to which it gave ${formatPercent(2 ** -piece.bits)}: `,
      make("b", {}, `${piece.bits.toFixed(1)} bits`), `. It was its ${ordinal(piece.rank)} guess. Its likeliest:`,
    );
  };
  return { element: makeBox("panel", head, bars.element), draw };
}

function ordinal(number) {
  const tens = number % 100;
  const ending = tens > 10 && tens < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th";
  return number === 1 ? "first" : `${number}${ending}`;
}

/** How often each character followed what stands before a place, in the training text: {element, draw(text)}. */
function makeCounting(page) {
  const { counts } = page;
  if (!counts) return null;
  const latest = makeLatest(page.ask);
  const list = make("ol", { class: "orders" });
  const full = counts.full?.order > counts.order ? ` The best counting in this report, of order ${counts.full.order}, has ${formatBits(counts.full.bits)}.` : "";
  const element = makeBox("counting", make("h3", {}, "What counting says"),
    makeNote("What followed in the text that the models learned from, and how often:"), list,
    makeNote(`Counting of order ${counts.order}, up to ${countOf(counts.order, "character")} together, has ${formatBits(counts.bits)} bits per character on the held-out text.${full}`),
  );
  const draw = async (text) => {
    const orders = await latest("counting", { text });
    if (orders) list.replaceChildren(...orders.reverse().map(describeOrder));
  };
  return { element, draw };
}

function describeOrder({ context, occurrences, followers }) {
  const seen = context ? ["After ", quotePiece(context)] : ["Anywhere"];
  const list = followers.flatMap(([piece, count]) => [quotePiece(piece), ` ${count.toLocaleString("en")} `]);
  return make("li", {}, make("span", {}, ...seen, ` (${countOf(occurrences, "time")}): `), ...list);
}
