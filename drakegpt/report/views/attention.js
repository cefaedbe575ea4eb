/* Where it looked: the weights of each head over the text before a touched character.
 *
 * Weights, not reasons: a head may look at a place and use nothing of it. Not here: how the
 * roles of heads are measured.
 */

const WEAK = 0.5; // a score below which a head looks elsewhere as much
const WEIGHT_STEPS = [0.05, 0.1, 0.2, 0.4, 0.7]; // from which a colour begins

function openAttention(place, page) {
  const choice = makeModelChoice("Model", page.models, page.best, (chosen) => {
    model = chosen;
    look();
  });
  const status = makeStatus();
  const note = make("p");
  const heads = makeBox("heads");
  const shown = make(
    "div", {}, makeWeightKey(), heads,
    makeNote("A role is what the head looks at most on held-out text: the number is how much more weight the place gets than if the head looked at all places alike, from 0 to 1."),
  );
  const latest = makeLatest(page.ask);
  const walk = makeWalk("The text: touch a character", (i) => {
    current = i;
    look();
  });
  let model = page.best;
  let characters = [];
  let current = 0;

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
      shown.hidden = !found.layers.length;
      note.textContent = found.layers.length
        ? "The touched character is the last one in each row. The stronger a colour, the more this head took from there, from the character itself too, to guess what comes next."
        : `${model.label} has no heads: it sees the last ${model.unit} only.`;
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
  }
  place.append(
    choice, makeNote("The text is that of Surprise. Touch a character, or walk with the arrow keys."), walk.element,
    status, note, shown,
  );
  current = Math.floor(Array.from(page.text).length / 3);
  whenSeen(place, () => {
    page.onText(draw);
    draw();
  });
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
  return `${score < WEAK ? "often" : "mostly"} looks at ${role} (${score.toFixed(2)})`;
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
  const most = order.flatMap((i) => [quotePiece(pieces[i]), ` ${formatPercent(weights[i])} `]);
  return makeBox("attention-head",
    make("h3", {}, title, " ", make("small", {}, role ? likes : "")),
    make("div", { class: "text verse", dir: "auto", "aria-hidden": "true" }, ...text),
    makeNote("Most: ", ...most),
  );
}
