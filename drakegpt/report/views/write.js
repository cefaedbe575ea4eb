/* Write: a model continues a prompt, character by character, and one may choose for it.
 *
 * The settings are those of `drakegpt generate`, and the command that writes the same text is
 * shown. Not here: how the next character is drawn, which the engine does.
 */

const SHOWN_CHANCES = 8;
const PACES = [
  ["slow, to watch each choice", 300],
  ["fit to read", 30],
  ["as fast as it can", 0],
];

function openWrite(place, page) {
  const form = makeWriteForm(page);
  const paper = makePaper("What the model writes");
  const bars = makeBars(SHOWN_CHANCES, pick);
  const status = makeStatus();
  const command = makeCommand();
  const latest = makeLatest(page.ask);
  const restart = makeButton("Write", () => write(form.prompt()), { class: "main" });
  const goOn = makeButton("Go on", () => write(text), { disabled: true });
  const stop = makeButton("Stop", () => latest.stop(), { disabled: true });
  let text = "";

  const fail = (error) => (status.textContent = error.message);
  const show = (chances) => chances && bars.draw(chances);
  const look = () => {
    if (!form.isValid()) return;
    latest("chances", { model: form.model().index, text, sampling: form.sampling() }).then(show, fail);
  };
  const begin = (prompt) => {
    text = prompt;
    paper.start(prompt, form.model());
    command.draw(form, prompt);
    goOn.disabled = !text;
  };
  async function write(prompt) {
    if (!form.check()) return;
    begin(prompt);
    setRunning(true);
    status.textContent = "Writing …";
    try {
      const done = await latest("write", form.question(prompt), (part) => {
        text += part.text;
        paper.add(part.text);
        if (part.chances) bars.draw(part.chances);
      });
      if (done === undefined) return; // another question came in between
      status.textContent = done ? `${countOf(done.tokens, form.model().unit)} in ${done.seconds.toFixed(1)} seconds.` : "";
    } catch (error) {
      fail(error);
    }
    setRunning(false);
  }
  function setRunning(running) {
    stop.disabled = !running;
    goOn.disabled = running || !text;
  }
  function pick(piece) {
    latest.drop();
    setRunning(false);
    text += piece;
    paper.add(piece, "picked");
    command.draw(form, text);
    goOn.disabled = false;
    status.textContent = `You chose ${sayPiece(piece)}.`;
    look();
  }
  form.onchange((anew) => {
    latest.drop();
    setRunning(false);
    status.textContent = "";
    if (anew) begin(form.prompt());
    else command.draw(form, form.prompt());
    look();
  });
  place.append(
    form.top,
    makeBox("actions", restart, stop, goOn),
    makeBox("desk", paper.element,
      makeBox("next",
        make("h3", {}, "What may come next"), bars.element,
        makeNote("Choose one yourself: the model goes on from there."),
      ),
    ),
    status, form.more, command.element,
  );
  begin(form.prompt());
  whenSeen(place, look);
}

/** Where text is written: it keeps its height, and scrolls to what is new. */
function makePaper(label) {
  const start = make("span", { class: "given" });
  const text = make("div", { class: "text sample", dir: "auto" }, start);
  const element = make("div", { class: "paper", role: "region", tabindex: 0, "aria-label": label }, text);
  const add = (piece, kind) => {
    const last = text.lastChild;
    const shown = showText(piece);
    if (kind) text.append(make("b", { class: kind }, shown));
    else if (last.nodeType === Node.TEXT_NODE) last.appendData(shown);
    else text.append(shown);
    element.classList.remove("blank");
    element.scrollTop = element.scrollHeight;
  };
  return {
    element,
    add,
    /** Begin anew after a prompt; what a model does not know of it is struck out. */
    start(prompt, model) {
      const unknown = (character) => model?.known && !knows(model, character);
      start.replaceChildren(...Array.from(prompt, (character) =>
        unknown(character) ? make("s", { class: "unknown" }, showText(character)) : showText(character),
      ));
      start.normalize();
      text.replaceChildren(start);
      element.classList.toggle("blank", !prompt);
    },
  };
}

// --- Settings ---------------------------------------------------------------------------------------

/** The controls, and what they say: {top, more, model, prompt, sampling, question, check, onchange}. */
function makeWriteForm(page) {
  let model = page.ladder.at(-1);
  let tell = () => {};
  const prompt = make("textarea", { rows: 2, maxlength: MOST_TEXT, dir: "auto", input: () => changed(true) });
  prompt.value = page.prompt;
  const heat = make("input", { type: "range", min: 0, max: 2, step: 0.1, value: 1, input: () => changed(false) });
  const heatNote = make("output", { class: "note" });
  const fields = makeWriteFields(page, () => changed(false));
  const problem = make("p", { class: "note", role: "status" });
  const choice = makeModelChoice("Model", page.models, model, (chosen) => {
    model = chosen;
    changed(true);
  });
  const describe = () => {
    heatNote.value = `${Number(heat.value).toFixed(1)}: ${describeHeat(Number(heat.value))}`;
    fields.stop.hidden = model.tokenizer.end == null;
    const unknown = model.known && Array.from(prompt.value).filter((each) => !knows(model, each));
    problem.textContent = unknown?.length
      ? `This model never saw ${[...new Set(unknown)].map(showPiece).join(" ")} and skips it.`
      : "";
    form.skips = Boolean(unknown?.length);
  };
  const changed = (anew) => {
    describe();
    tell(anew);
  };
  const more = make("details", {}, make("summary", {}, "More settings"), fields.element);
  const form = {
    top: makeBox("form", choice,
      labelled("Begin with", prompt, problem),
      makeBox("dials", labelled("Temperature", heat, heatNote), fields.seed),
    ),
    more,
    skips: false,
    model: () => model,
    prompt: () => prompt.value,
    sampling: () => ({ ...fields.sampling(), temperature: Number(heat.value) }),
    question: (text) => ({
      model: model.index, prompt: text, sampling: form.sampling(), ...fields.rest(),
    }),
    isValid: () => fields.inputs.every((input) => input.checkValidity()),
    check() {
      more.open ||= !form.isValid(); // or the browser could not show what is wrong
      return fields.inputs.every((input) => input.reportValidity());
    },
    onchange: (listener) => (tell = listener),
  };
  describe();
  return form;
}

function describeHeat(heat) {
  if (heat === 0) return "always the likeliest";
  if (heat < 1) return "careful";
  if (heat === 1) return "as it learned";
  return heat < 1.5 ? "daring" : "wild";
}

/** The settings that are rarely changed. */
function makeWriteFields(page, changed) {
  const number = (value, attributes) =>
    make("input", { type: "number", value, required: value !== "", input: changed, ...attributes });
  const seed = make("input", { inputmode: "numeric", pattern: "[0-9]{1,18}", title: WHOLE_NUMBER, required: true, value: page.seed, input: changed });
  const length = number(page.length, { min: 1, max: 5000 });
  const topK = number("", { min: 1, placeholder: "all" });
  const topP = number("", { min: 0, max: 1, step: 0.05, placeholder: "1" });
  const penalty = number(1, { min: 0.1, max: 10, step: 0.1 });
  const stopBox = make("input", { type: "checkbox", change: changed });
  const stop = make("label", { class: "field", hidden: true }, stopBox, " Stop at the end of a song");
  const pace = make("select", {}, ...PACES.map(([name, value]) => make("option", { value }, name)));
  pace.value = prefersStillness() ? 0 : 30;
  const renew = makeButton("New seed", () => {
    seed.value = Math.floor(Math.random() * 10000);
    changed();
  });
  const inputs = [seed, length, topK, topP, penalty];
  const optional = (input) => (input.value === "" ? null : Number(input.value));
  const element = makeBox("fields",
    labelled("Length", length),
    labelled("Pace", pace),
    labelled("Only from the likeliest … (top-k)", topK),
    labelled("Only from those that together have this share (top-p)", topP),
    labelled("Make what was used less likely (repetition penalty)", penalty),
    stop,
  );
  return {
    element, stop, inputs,
    seed: labelled("Seed: the same one draws the same random numbers", seed, renew),
    sampling: () => ({ topK: optional(topK), topP: optional(topP), penalty: Number(penalty.value) }),
    rest: () => ({
      seed: seed.value, length: Number(length.value), pace: Number(pace.value),
      stop: stopBox.checked && !stop.hidden,
    }),
  };
}

// --- The command ------------------------------------------------------------------------------------

/** The command that writes the same text. */
function makeCommand() {
  const note = makeNote();
  const line = make("bdi");
  const element = makeBox("command", note, make("pre", {}, line));
  const draw = (form, prompt) => {
    const rounded = ["float16", "int8"].includes(form.model().precision);
    note.textContent = rounded
      ? `In a terminal. There the weights are not rounded to ${form.model().precision}, so the text may differ:`
      : "The same text in a terminal:";
    line.textContent = formatCommand(form, prompt);
  };
  return { element, draw };
}

function formatCommand(form, prompt) {
  const { seed, length, stop } = form.question("");
  const { temperature, topK, topP, penalty } = form.sampling();
  const flags = [
    ["seed", seed, null], ["length", length, 500], ["prompt", prompt, ""],
    ["temperature", temperature, 1], ["top-k", topK, null], ["top-p", topP, null],
    ["repetition-penalty", penalty, 1],
  ];
  const given = flags
    .filter(([, value, usual]) => value !== usual)
    .flatMap(([name, value]) => {
      const text = String(value);
      return text.startsWith("-") ? [`--${name}=${text}`] : [`--${name}`, text];
    });
  const last = [stop && "--stop", form.skips && "--unknown", form.skips && "skip"].filter(Boolean);
  return ["drakegpt", "generate", form.model().name, ...given, ...last].map(quoteWord).join(" ");
}

/** A word for a shell, as Python's `shlex.quote` writes it. */
function quoteWord(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
