/* The board of Guess: the text up to the hidden letter, and the keys.
 *
 * Not here: what a guess does.
 */

const SEEN_BEFORE = 180; // characters before the hidden one that are shown
const USUAL = ",.'’\"!?-"; // signs that stay beside the letters
const ROW = 8; // keys in a row of a phone

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
