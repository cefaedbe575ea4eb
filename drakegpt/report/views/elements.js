/* Elements that several views are made of: bars, a choice of models, steps, a text to walk over.
 *
 * Text of people gets into the page as text only, never as markup. Not here: what is asked of
 * the engine, and what a view is for.
 */

/** An element: attributes by name, where functions are listeners; then children or text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function makeBox(kind, ...children) {
  return make("div", { class: kind }, ...children);
}

function makeNote(...children) {
  return make("p", { class: "note" }, ...children);
}

const WHOLE_NUMBER = "a whole number"; // what a seed is

let lastNumber = 0;

/** An id that nothing else in the page has. */
function newId() {
  return `part-${++lastNumber}`;
}

/** A labelled control: the control gets an id. */
function labelled(text, control, note) {
  control.id ||= newId();
  const label = make("label", { for: control.id }, text);
  return makeBox("field", label, control, note);
}

function makeButton(text, onclick, attributes = {}) {
  return make("button", { type: "button", click: onclick, ...attributes }, text);
}

/** A line that says what is going on; it keeps its height, so that nothing moves. */
function makeStatus() {
  return make("p", { class: "status", role: "status" });
}

// --- Text -----------------------------------------------------------------------------------------

// What would not be seen, or would turn the text around it.
const UNSEEN = /[\p{Cf}\p{Zl}\p{Zp}\u0080-\u009f]/u;

/** A text as it is shown: control characters as pictures; ends of lines stay. */
function showText(text) {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, showControl).replace(/[\x80-\x9f\ufdd0-\ufdef\ufffe\uffff]/g, "\ufffd");
}

function showControl(character) {
  return character === "\x7f" ? "␡" : String.fromCharCode(0x2400 + character.charCodeAt(0));
}

/** A character or a piece of text by itself: also white space is seen. */
function showPiece(piece) {
  const characters = Array.from(piece, (character) => {
    if (character === "\n") return "⏎";
    if (character === " ") return "␣";
    if (character < " " || character === "\x7f") return showControl(character);
    if (!UNSEEN.test(character)) return character;
    return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  });
  return characters.join("");
}

/** A piece in words, for those who listen. */
function namePiece(piece) {
  return { "\n": "end of line", " ": "space" }[piece] ?? showPiece(piece);
}

/** A piece within a sentence: as text, and as an element. */
function sayPiece(piece) {
  return /^[\n ]$/.test(piece) ? namePiece(piece) : `“${showPiece(piece)}”`;
}

function quotePiece(piece) {
  return make("bdi", { class: "piece" }, showPiece(piece));
}

function formatPercent(share) {
  const percent = 100 * share;
  if (percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

function formatBits(bits) {
  return bits.toFixed(2);
}

/** Bits as a number of choices: 1 bit is one of 2. */
function formatChoices(bits) {
  const choices = 2 ** bits;
  return choices.toFixed(choices < 10 ? 1 : 0);
}

/** "1 time", "2 times". */
function countOf(count, one) {
  return `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
}

// --- Models ---------------------------------------------------------------------------------------

/** Whether a model has a character, or one that stands for it, as `findEquivalent` of the engine says. */
function knows({ known }, character) {
  const base = character.normalize("NFKD").replace(/\p{M}/gu, "");
  const forms = [character, base].flatMap((form) => [form, form.toLowerCase(), form.toUpperCase()]);
  return forms.some((form) => known.has(form));
}

function makeSign(model) {
  return make("span", { class: `sign ${model.colour}`, "aria-hidden": "true" }, model.sign);
}

/** A model's sign and name. */
function makeName(model) {
  const label = make("bdi", { class: "label" }, model.label);
  return make("span", { class: "named" }, makeSign(model), " ", label);
}

/**
 * A choice of one model, as radio buttons.
 *
 * `models`: those of the page to choose from. `onchange` gets the model.
 */
function makeModelChoice(legend, models, chosen, onchange) {
  const group = newId();
  const choices = models.map((model) => {
    const input = make("input", {
      type: "radio", name: group, class: "unseen", value: model.index,
      checked: model === chosen, change: () => onchange(model),
    });
    return make("label", { class: `choice ${model.colour}` }, input, makeName(model));
  });
  return make("fieldset", { class: "choices" }, make("legend", {}, legend), ...choices);
}

// --- Bars -----------------------------------------------------------------------------------------

/**
 * Bars of what may come next. There are always `size` rows, so that nothing moves.
 *
 * `onpick`, if given, gets the text of a row that is clicked: rows are buttons then.
 * Returns {element, draw(chances, came)}, with chances [[text, share]]; `came` is marked.
 */
function makeBars(size, onpick) {
  const rows = Array.from({ length: size }, () => makeBar(onpick));
  const element = make("ol", { class: "bars" }, ...rows.map((row) => row.element));
  const draw = (chances, came) => {
    element.classList.toggle("pieces", chances.some(([piece]) => piece.length > 2));
    rows.forEach((row, i) => row.draw(chances[i], came !== undefined && chances[i]?.[0] === came));
  };
  return { element, draw };
}

function makeBar(onpick) {
  const glyph = make("bdi", { class: "piece" });
  const share = make("span", { class: "share" });
  const inside = [glyph, make("span", { class: "line" }), share];
  let piece = null;
  const row = onpick
    ? makeButton("", () => onpick(piece), { class: "bar" })
    : make("span", { class: "bar" });
  row.append(...inside);
  const element = make("li", { class: "empty" }, row);
  const draw = (chance, came) => {
    element.classList.toggle("empty", !chance);
    row.classList.toggle("came", came);
    if (onpick) row.disabled = !chance;
    if (!chance) return;
    piece = chance[0];
    glyph.textContent = showPiece(piece);
    share.textContent = formatPercent(chance[1]);
    row.style.setProperty("--share", chance[1].toFixed(4));
    if (onpick) row.setAttribute("aria-label", `${namePiece(piece)}, ${share.textContent}`);
  };
  return { element, draw };
}

// --- Steps: a slider under columns ------------------------------------------------------------------

/**
 * A slider through steps, each with a column as high as its value.
 *
 * `steps`: {value, text, colour, under}: a number from 0 on, how it is written above the column,
 * the class of its colour, and an element to stand under it. `tell(step)`: the step in words.
 * `level`: a value at which a dashed line crosses all columns. `onchange` gets the index. Returns
 * {element, choose(index)}.
 */
function makeSteps(label, steps, chosen, { tell, level, onchange }) {
  const largest = Math.max(...steps.map((step) => step.value), level ?? 0);
  const columns = steps.map((step, i) => {
    const column = make(
      "div", { class: `column ${step.colour}`, click: () => choose(i) },
      make("span", { class: "value" }, step.text), make("span", { class: "height" }),
      level === undefined ? null : make("span", { class: "level" }), step.under,
    );
    column.style.setProperty("--high", (step.value / largest).toFixed(4));
    return column;
  });
  const slider = make("input", {
    type: "range", min: 1, max: steps.length, value: chosen + 1, "aria-label": label,
    input: () => choose(slider.value - 1),
  });
  const choose = (index) => {
    slider.value = index + 1;
    slider.setAttribute("aria-valuetext", tell(index));
    columns.forEach((column, i) => column.classList.toggle("chosen", i === index));
    onchange(index);
  };
  const element = makeBox("slide",
    make("div", { class: "columns", "aria-hidden": "true" }, ...columns), slider,
  );
  element.style.setProperty("--steps", steps.length);
  if (level !== undefined) element.style.setProperty("--level", (level / largest).toFixed(4));
  return { element, choose };
}

// --- A text to walk over ----------------------------------------------------------------------------

/**
 * A text of which each piece can be touched, and walked over with the arrow keys.
 *
 * Returns {element, draw(pieces), select(index)}; pieces are {text, class, name}. `ontouch`
 * gets the index of a piece.
 */
function makeWalk(label, ontouch) {
  const element = make("div", {
    class: "text verse walk", role: "grid", dir: "auto", "aria-label": label,
    click: (event) => touch(cells.indexOf(event.target.closest("[role=gridcell]"))),
    keydown: (event) => {
      const next = moveByKey(event, lines, current);
      if (next === undefined) return;
      event.preventDefault();
      touch(next);
      cells[next].focus();
    },
  });
  let cells = [];
  let lines = []; // of each cell
  let current = -1;
  const touch = (index) => {
    if (index >= 0) ontouch(index);
  };
  const select = (index) => {
    cells[current]?.setAttribute("tabindex", -1);
    cells[current]?.removeAttribute("aria-selected");
    current = Math.min(index, cells.length - 1);
    cells[current]?.setAttribute("tabindex", 0);
    cells[current]?.setAttribute("aria-selected", "true");
    if (cells[current]) scrollWithin(element, cells[current]);
  };
  const draw = (pieces) => {
    cells = pieces.map(makeCell);
    let line = 0;
    lines = pieces.map((piece) => (piece.text.includes("\n") ? line++ : line));
    const rows = Array.from({ length: line + 1 }, () => make("div", { role: "row" }));
    cells.forEach((cell, i) => rows[lines[i]].append(cell));
    element.replaceChildren(...rows.filter((row) => row.firstChild));
    select(Math.max(0, current));
  };
  return { element, draw, select };
}

/** Scroll an element, and nothing around it, so that a part of it is seen. */
function scrollWithin(element, part) {
  const [outer, inner] = [element, part].map((each) => each.getBoundingClientRect());
  const middle = inner.top - outer.top + (inner.height - outer.height) / 2;
  if (inner.top < outer.top || inner.bottom > outer.bottom) element.scrollTop += middle;
}

function makeCell({ text, class: colour, name }) {
  const shown = text === " " ? " " : showPiece(text).replaceAll("␣", " ");
  const attributes = { role: "gridcell", class: colour, tabindex: -1, "aria-label": name };
  return make("span", attributes, shown);
}

/** The index that a key leads to from the current one; none if it leads nowhere. */
function moveByKey({ key, ctrlKey, metaKey, altKey }, lines, current) {
  if (ctrlKey || metaKey || altKey) return undefined;
  const line = lines[current];
  const start = lines.indexOf(line);
  const inLine = (other) =>
    Math.min(lines.indexOf(other) + current - start, lines.lastIndexOf(other));
  const index = {
    ArrowLeft: current - 1,
    ArrowRight: current + 1,
    ArrowUp: inLine(line - 1),
    ArrowDown: inLine(line + 1),
    Home: start,
    End: lines.lastIndexOf(line),
  }[key];
  return lines[index] === undefined ? undefined : index;
}
