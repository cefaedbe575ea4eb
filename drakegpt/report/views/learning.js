/* Learning: what a model wrote while it was trained, and its loss then. */

function openLearning(place, page) {
  const models = page.models.filter((model) => model.samples?.length > 1);
  if (!models.length) return false;
  const stage = make("div");
  const show = (model) => stage.replaceChildren(...makeStages(model));
  const start = models.includes(page.best) ? page.best : models.at(-1);
  if (models.length > 1) place.append(makeModelChoice("Model", models, start, show));
  place.append(stage);
  show(start);
}

/** A slider through what one model wrote. */
function makeStages(model) {
  const unit = model.known ? "bits per character" : "bits per piece";
  const stages = model.samples.map(({ iteration, loss, text }) => ({ iteration, bits: loss / Math.LN2, text }));
  const paper = makePaper("What it wrote then");
  const told = make("p", { class: "told" });
  const tell = (i) => `after ${stages[i].iteration.toLocaleString("en")} steps of training: ${formatBits(stages[i].bits)} ${unit}`;
  const steps = makeSteps(
    "Time in training",
    stages.map(({ bits, iteration }) => ({
      value: bits, text: formatBits(bits), colour: model.colour,
      under: make("span", { class: "when" }, iteration.toLocaleString("en")),
    })),
    0,
    {
      tell,
      onchange: (i) => {
        told.replaceChildren(makeName(model), ` ${tell(i)}.`);
        paper.start("");
        paper.add(stages[i].text.replace(/^\n+|\n+$/g, ""));
        paper.element.scrollTop = 0;
      },
    },
  );
  steps.choose(0);
  return [
    makeNote(`Height: ${unit}, estimated then from a part of the text, so that the last may differ a little from the value on the whole of it. Below: the steps of training until then.`),
    makeBox("duo", steps.element, make("div", {}, told, paper.element)),
  ];
}
