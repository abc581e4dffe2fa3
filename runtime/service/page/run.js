/** What is sent for one picture, or for one group of them, and what came back. */

import { storedEntries } from "./archive.js";
import { Refusal } from "./client.js";
import { bytes, phases } from "./format.js";

/** A sentence if `file` is too large to be sent, else null. */
export function refusal(file, limits) {
  if (file.size <= limits.bytes) return null;
  return `${file.name}: has ${bytes(file.size)}, and this server takes at most ${bytes(limits.bytes)}.`;
}

/** Pictures that are sent together, with the settings of that moment. */
export class Run {
  #client;
  #slots;
  #settings;
  #files;
  #prior = null;
  #answers = new Map();
  #last = Promise.resolve();
  #abort = new AbortController();

  constructor(client, slots, settings, cards) {
    this.#client = client;
    this.#slots = slots;
    this.#settings = settings;
    this.#files = cards.map((card) => card.file);
    this.cards = cards;
  }

  get cancelled() {
    return this.#abort.signal.aborted;
  }

  cancel() {
    this.#abort.abort();
  }

  /** Fetch the maps and show them, or show why there are none, at every card. */
  async start(limits) {
    const { model } = this.#settings;
    this.#tell("Waiting for its turn");
    try {
      this.#checkSettings(limits);
      await this.#checkFiles();
      const answer = await this.#answer("map");
      if (this.cancelled) return;
      this.cards.forEach((card, index) => card.showResult({ ...answer, map: answer.pictures[index], model }));
    } catch (error) {
      if (!this.cancelled) this.cards.forEach((card) => card.showFailure(sentence(error)));
    }
  }

  /** The server's own rendering of one card's picture, as a Blob. */
  async rendering(card, kind) {
    try {
      return (await this.#answer(kind)).pictures[this.cards.indexOf(card)];
    } catch (error) {
      this.#answers.delete(kind);
      throw new Refusal(sentence(error), { cause: error });
    } finally {
      if (!this.cancelled) this.#tell("");
    }
  }

  #tell(words) {
    this.cards.forEach((card) => card.showBusy(words));
  }

  #checkSettings(limits) {
    const { model, prior } = this.#settings;
    if (this.#files.length > limits.images) {
      throw new Refusal(`The group has ${this.#files.length} pictures, and this server takes at most ${limits.images}.`);
    }
    if (model.takes === "prior" && !prior) {
      throw new Refusal(`${model.name} promotes a prior: choose its file under Prior, then run again.`);
    }
    const total = [...this.#files, prior?.file].reduce((sum, file) => sum + (file?.size ?? 0), 0);
    if (total > limits.bytes) {
      const what = prior?.file ? "Picture and prior" : "The group's pictures";
      throw new Refusal(`${what} have ${bytes(total)} together, and this server takes at most ${bytes(limits.bytes)}.`);
    }
  }

  /** A folder looks like a file until it is read. */
  async #checkFiles() {
    for (const file of this.#files) {
      await file.slice(0, 1).arrayBuffer().catch(() => {
        throw new Refusal(`${file.name}: cannot be read; is it a folder, or was it moved?`);
      });
    }
  }

  /** One request for each kind, kept; one after another. */
  #answer(kind) {
    if (!this.#answers.has(kind)) {
      const answer = this.#last.then(() => this.#slots.use(() => this.#ask(kind)));
      this.#last = answer.catch(() => {});
      this.#answers.set(kind, answer);
    }
    return this.#answers.get(kind);
  }

  async #ask(kind) {
    this.#abort.signal.throwIfAborted();
    const { model, className } = this.#settings;
    const started = performance.now();
    const fields = { kind };
    if (className) fields.class = className;
    if (model.takes === "prior") fields.prior = await this.#priorMap();
    const { pictures, headers } = await this.#predict(model, fields);
    return { pictures, headers, phases: phases(headers.get("Server-Timing")), totalMs: performance.now() - started };
  }

  /** An own file, or another model's map of the picture, fetched once. */
  async #priorMap() {
    const { prior } = this.#settings;
    this.#prior ??= prior.file ?? (await this.#predict(prior.model, { kind: "map" })).pictures[0];
    return this.#prior;
  }

  async #predict(model, fields) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    for (const file of this.#files) body.append("image", file, file.name);
    const response = await this.#client.request(`api/predict/${encodeURIComponent(model.name)}`, {
      body,
      signal: this.#abort.signal,
      onWait: (seconds) => this.#tell(seconds ? `The server is busy; again in ${seconds} s` : `Running ${model.name}`),
    });
    return { headers: response.headers, pictures: await this.#pictures(response) };
  }

  async #pictures(response) {
    const answer = await response.blob();
    if (!(response.headers.get("Content-Type") ?? "").startsWith("application/zip")) return [answer];
    const entries = await storedEntries(answer, "image/png");
    return this.#files.map((_, index) => {
      const picture = entries.get(`${index + 1}.png`);
      if (!picture) throw new Refusal(`The server's answer holds no map of picture ${index + 1}.`);
      return picture;
    });
  }
}

function sentence(error) {
  return error instanceof Refusal ? error.message : `The server's answer cannot be read (${error.message}).`;
}
