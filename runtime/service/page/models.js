/** The choice of a model, and of what its method takes beside the picture. */

const TAKES = {
  image: "One picture at a time",
  prior: "Improves a first map of a picture",
  group: "What a group of pictures shares",
  class: "The object of a class in a picture",
};
const OWN_FILE = "own file";

const find = (id) => document.getElementById(id);

/** The panel of settings; `onChange(settings)` after each change of the model. */
export class ModelChoice {
  #models = [];
  #chosen = null;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    find("prior-source").addEventListener("change", () => this.#showPriorFile());
  }

  /** Show the server's models; the one chosen before stays chosen where it is still there. */
  show(models) {
    this.#models = models;
    find("models").querySelectorAll(".model").forEach((label) => label.remove());
    find("models").append(...models.map((model) => this.#option(model)));
    const chosen = models.find(({ name }) => name === this.#chosen?.name) ?? models[0];
    if (chosen) this.#choose(chosen);
  }

  /** What is chosen at this moment: {model, prior: {model} | {file} | null, className}. */
  settings() {
    const model = this.#chosen;
    const className = model.takes === "class" ? find("class-name").value.trim() : "";
    return { model, prior: model.takes === "prior" ? this.#prior() : null, className };
  }

  #option(model) {
    const label = find("model-template").content.firstElementChild.cloneNode(true);
    const texts = {
      "model-name": model.name,
      "model-method": model.method === model.name ? "" : model.method,
      "model-takes": TAKES[model.takes],
      "model-engine": `${model.precision} · ${model.backend}`,
    };
    for (const [name, text] of Object.entries(texts)) label.querySelector(`.${name}`).textContent = text;
    const radio = label.querySelector("input");
    radio.value = model.name;
    radio.addEventListener("change", () => this.#choose(model));
    return label;
  }

  #choose(model) {
    this.#chosen = model;
    for (const radio of find("models").querySelectorAll("input")) radio.checked = radio.value === model.name;
    find("prior-options").hidden = model.takes !== "prior";
    find("class-options").hidden = model.takes !== "class";
    if (model.takes === "prior") this.#listPriors();
    if (model.takes === "class") find("class-names").replaceChildren(...model.classes.map((name) => new Option("", name)));
    this.#onChange(model);
  }

  /** Every model that needs no prior itself can make one. */
  #listPriors() {
    const list = find("prior-source");
    const before = list.value;
    const makers = this.#models.filter(({ takes }) => takes !== "prior");
    const options = makers.map(({ name }) => new Option(`Map of ${name}`, `model ${name}`));
    list.replaceChildren(...options, new Option("A file of mine", OWN_FILE));
    if ([...list.options].some(({ value }) => value === before)) list.value = before;
    this.#showPriorFile();
  }

  #showPriorFile() {
    find("prior-own").hidden = find("prior-source").value !== OWN_FILE;
  }

  #prior() {
    const source = find("prior-source").value;
    if (source !== OWN_FILE) return { model: this.#models.find(({ name }) => `model ${name}` === source) };
    const [file] = find("prior-file").files;
    return file ? { file } : null;
  }
}
