/** One picture on the page: what was sent, what came back, and what went wrong. */

import { downloadName, duration } from "./format.js";

const VIEWS = { original: "Original", map: "Map", cutout: "Cutout", overlay: "Overlay" };
let made = 0;

/** The views are the original and the map laid over each other by the style sheet; no pixel is computed here. */
export class Card {
  run = null;
  /** "waiting", "done" or "failed". */
  state = "waiting";
  #root;
  #gone = false;
  #original = null;
  #map = null;

  /** `actions`: again(card), remove(card), download(card, kind), changed(). */
  constructor(file, actions) {
    this.file = file;
    this.actions = actions;
    this.#root = document.getElementById("card-template").content.firstElementChild.cloneNode(true);
    made += 1;
    this.#fill();
    this.#listen();
  }

  get element() {
    return this.#root;
  }

  /** Show the picture itself, before anything has come back. */
  showOriginal() {
    if (this.#original) return;
    this.#original = URL.createObjectURL(this.file);
    const images = this.#all("img.original");
    images[0].addEventListener("load", ({ target }) => {
      this.#root.classList.add("pictured");
      this.#fit(target);
    });
    images[0].addEventListener("error", () => this.#showBlind());
    for (const image of images) image.src = this.#original;
  }

  /** Say what is going on; "" for nothing. */
  showBusy(words) {
    this.#find(".busy").hidden = !words;
    this.#find(".busy-words").textContent = words;
    if (words) this.#find(".error").hidden = true;
  }

  /** Forget the last result and wait for another. */
  showWaiting() {
    this.#setState("waiting");
    this.#forgetMap();
    for (const part of [".tiles", ".facts", ".downloads", ".error"]) this.#find(part).hidden = true;
    this.#find(".frame").classList.remove("split-open");
  }

  showResult({ map, phases, totalMs, headers, model }) {
    if (this.#gone) return; // of a group, whose other pictures are still wanted
    this.showBusy("");
    this.#forgetMap();
    this.#map = URL.createObjectURL(map);
    this.#root.style.setProperty("--map", `url("${this.#map}")`);
    const images = this.#all("img.map");
    images[0].addEventListener("load", ({ target }) => this.#showSize(target, model), { once: true });
    for (const image of images) image.src = this.#map;
    this.#showClass(headers);
    this.#showTiming(phases, totalMs);
    for (const part of [".tiles", ".facts", ".downloads"]) this.#find(part).hidden = false;
    this.#find(".frame").classList.add("split-open");
    this.#setState("done");
  }

  /** The picture has no result, for this reason. */
  showFailure(sentence) {
    this.showBusy("");
    this.showError(sentence);
    this.#setState("failed");
  }

  /** Something went wrong; a result that is there stays. */
  showError(sentence) {
    const error = this.#find(".error");
    error.textContent = sentence;
    error.hidden = false;
  }

  /** Take the card off the page and free what it holds. */
  dispose() {
    this.#gone = true;
    this.#forgetMap();
    if (this.#original) URL.revokeObjectURL(this.#original);
    this.#root.remove();
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }

  #all(selector) {
    return this.#root.querySelectorAll(selector);
  }

  #fill() {
    const { name } = this.file;
    const view = document.getElementById("view-template").content;
    for (const place of this.#all(".view")) place.append(view.cloneNode(true));
    this.#find("h2").textContent = name;
    this.#find("h2").title = name;
    for (const radio of this.#all("[type=radio]")) radio.name = `view-${made}`;
    for (const [part, words] of [[".again", "Run again"], [".remove", "Remove"]]) {
      this.#find(part).title = words;
      this.#find(part).setAttribute("aria-label", `${words}: ${name}`);
    }
    this.#find(".downloads").setAttribute("aria-label", `Downloads of ${name}`);
    this.#find(".base").setAttribute("aria-label", `Original of ${name}`);
    this.#show("cutout");
    this.#split();
  }

  #listen() {
    const { again, remove, download } = this.actions;
    this.#find(".again").addEventListener("click", () => again(this));
    this.#find(".remove").addEventListener("click", () => remove(this));
    this.#find(".slider").addEventListener("input", () => this.#split());
    this.#find(".tiles").addEventListener("change", ({ target }) => this.#show(target.value));
    this.#find(".downloads").addEventListener("click", ({ target }) => {
      const kind = target.closest("button")?.dataset.kind;
      if (kind) download(this, kind);
    });
  }

  #setState(state) {
    this.state = state;
    this.#root.dataset.state = state;
    this.actions.changed();
  }

  #show(view) {
    this.#find(".shown").dataset.view = view;
    this.#find(".shown").setAttribute("aria-label", `${VIEWS[view]} of ${this.file.name}`);
    this.#find(".tag-shown").textContent = VIEWS[view];
    this.#find(".slider").setAttribute("aria-label", `Original against ${view} of ${this.file.name}`);
    this.#find(".frame").classList.toggle("whole", view === "original");
  }

  #split() {
    const slider = this.#find(".slider");
    slider.setAttribute("aria-valuetext", `${slider.value} % original`);
    this.#find(".frame").style.setProperty("--split", `${slider.value}%`);
  }

  #fit({ naturalWidth, naturalHeight }) {
    this.#root.style.setProperty("--ratio", naturalWidth / naturalHeight);
  }

  #showBlind() {
    this.#root.classList.add("blind");
    this.#find("[value=map]").checked = true;
    this.#show("map");
  }

  #showSize(image, model) {
    this.#fit(image);
    const engine = `${model.name}, ${model.precision}`;
    this.#find(".about").textContent = `${image.naturalWidth} × ${image.naturalHeight} pixels · ${engine}`;
  }

  #showClass(headers) {
    const name = headers.get("Salience-Class");
    const share = Number(headers.get("Salience-Probability"));
    this.#find(".seen").hidden = name === null;
    if (name === null) return;
    this.#find(".seen-name").textContent = decodeURIComponent(name);
    this.#find(".seen-share").textContent = `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  }

  #showTiming(phases, totalMs) {
    const serverMs = phases.reduce((sum, [, ms]) => sum + ms, 0);
    const parts = [...phases, ["transfer", Math.max(totalMs - serverMs, 0)]];
    const bars = parts.map(([name, ms]) => {
      const bar = document.createElement("span");
      bar.dataset.phase = name;
      bar.style.flexGrow = String(ms);
      return bar;
    });
    this.#find(".timing-bar").replaceChildren(...bars);
    this.#find(".timing").replaceChildren(...[...parts, ["total", totalMs]].map(timingRow));
  }

  #forgetMap() {
    if (!this.#map) return;
    URL.revokeObjectURL(this.#map);
    this.#map = null;
    this.#root.style.removeProperty("--map");
    for (const image of this.#all("img.map")) image.removeAttribute("src");
  }
}

/** Hand a Blob to the browser as a file of its own. */
export function save(blob, name, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = downloadName(name, kind);
  link.click();
  // The browser has taken hold of the Blob by then; the address alone goes.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function timingRow([name, ms]) {
  const row = document.createElement("div");
  row.dataset.phase = name;
  for (const [tag, text] of [["dt", name], ["dd", duration(ms)]]) {
    row.appendChild(document.createElement(tag)).textContent = text;
  }
  return row;
}
