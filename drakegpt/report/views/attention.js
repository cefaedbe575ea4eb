/* Where it looked: the weights of each head over the text before a touched character.
 *
 * Weights, not reasons: a head may look at a place and use nothing of it. Not here: how the
 * roles of heads are measured.
 */

// Scores from which a head does more than a little for its role, and mostly that.
const OFTEN = 0.25;
const MOSTLY = 0.5;
const WEIGHT_STEPS = [0.05, 0.1, 0.2, 0.4, 0.7]; // from which a colour begins

function openAttention(place, page) {
  const choice = makeModelChoice("Model", page.models, page.best, (chosen) => {
    model = chosen;
    look();
  });
  const status = makeStatus();
  const note = make("p", { class: "place" });
  const noHeads = make("p");
  const heads = makeBox("heads");
  const shown = make(
    "div", { class: "stack" }, makeWeightKey(),
    makeNote("Beside a head is what it does on average, over much text: the place that it looks at most, and how much more weight that gets than if the head looked at all places alike, from 0 to 1. Here it may do something else."),
    makeBox("actions",
      makeButton("‹", () => walkBy(-1), { "aria-label": "Previous character" }),
      makeButton("›", () => walkBy(1), { "aria-label": "Next character" }), note,
    ),
    heads,
  );
  const latest = makeLatest(page.ask);
  const walk = makeWalk("The text: touch a character", (i) => {
    current = i;
    look();
  });
  let model = page.best;
  let characters = [];
  let current = 0;

  const walkBy = (step) => {
    current = Math.max(0, Math.min(current + step, characters.length - 1));
    look();
  };
  const draw = () => {
    characters = Array.from(page.text);
    current = Math.min(current, Math.max(0, characters.length - 1));
    walk.draw(characters.map((text) => ({ text, name: namePiece(text) })));
    look();
  };
  async function look() {
    walk.select(current);
    try {
      const text = textBefore(page) + characters.slice(0, current + 1).join("");
      const found = await latest("attention", { model: model.index, text });
      if (!found) return;
      drawHeads(heads, found, model);
      shown.hidden = !found.layers.length || !characters.length;
      noHeads.textContent = found.layers.length ? "" : `${model.label} has no heads: it sees the last ${model.unit} only.`;
      if (characters.length) note.replaceChildren(...describePlace(characters[current], characters[current + 1]));
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
  }
  place.append(
    choice, makeNote("The text is that of Surprise. Touch a character, or walk with the arrow keys."), walk.element,
    status, noHeads, shown,
  );
  current = Math.floor(Array.from(page.text).length / 3);
  whenSeen(place, () => {
    page.onText(draw);
    draw();
  });
}

/** What the model is about to guess: the character after the marked one. */
function describePlace(read, next) {
  const what = next === undefined ? ["what comes next"] : ["the next one, ", quotePiece(next)];
  return [
    "The marked ", quotePiece(read), " is the last character that it has read. The stronger a colour, the more a head took from there to guess ",
    ...what, ".",
  ];
}

function makeWeightKey() {
  const names = WEIGHT_STEPS.map((from, i) => {
    const to = WEIGHT_STEPS[i + 1];
    return to ? `${100 * from} to ${100 * to} %` : `${100 * from} % and more`;
  });
  const steps = names.map((name, i) => make("li", {}, make("span", { class: `s${i + 1}` }, name)));
  return make("ul", { class: "steps", "aria-label": "Colours, in shares of the weight" }, ...steps);
}

function drawHeads(element, { pieces, layers }, model) {
  const boxes = layers.flatMap((heads, layer) =>
    heads.map((weights, head) => {
      const role = model.roles?.[layer]?.[head];
      const title = layers.length > 1 ? `Layer ${layer + 1}, head ${head + 1}` : `Head ${head + 1}`;
      return makeHead(title, role, pieces, Array.from(weights));
    }),
  );
  element.replaceChildren(...boxes);
}

function describeRole({ role, score }) {
  const how = score >= MOSTLY ? "mostly" : score >= OFTEN ? "often" : "a little more";
  return `on average ${how} at ${role} (${score.toFixed(2)})`;
}

/** How far back a piece is, if another one that is named looks the same. */
function describeBack(named, pieces, i) {
  const alike = named.filter((other) => pieces[other] === pieces[i]).length > 1;
  return alike ? ` (${pieces.length - 1 - i} back)` : "";
}

function makeHead(title, role, pieces, weights) {
  const likes = role?.role ? describeRole(role) : "no clear role";
  const text = pieces.map((piece, i) => {
    const step = WEIGHT_STEPS.filter((from) => weights[i] >= from).length;
    const shown = showPiece(piece).replaceAll("␣", " ");
    const last = i === pieces.length - 1 ? " last" : "";
    return step || last ? make("i", { class: `s${step}${last}` }, shown) : shown;
  });
  const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
  const most = order.flatMap((i) => [quotePiece(pieces[i]), ` ${formatPercent(weights[i])}${describeBack(order, pieces, i)} `]);
  return makeBox("attention-head",
    make("h3", {}, title, " ", make("small", {}, role ? likes : "")),
    make("div", { class: "text verse", dir: "auto", "aria-hidden": "true" }, ...text),
    makeNote("Most: ", ...most),
  );
}
