/** The page: from pictures that are dropped to cards with their results. */

import { Card, save } from "./card.js";
import { Client, Slots } from "./client.js";
import { bytes } from "./format.js";
import { ModelChoice } from "./models.js";
import { Run, refusal } from "./run.js";

const AT_ONCE = 2;

const find = (id) => document.getElementById(id);
const client = new Client(askToken);
const slots = new Slots(AT_ONCE);
const choice = new ModelChoice(showTask);
const cards = [];
let limits = null;

/** Show the form for the token; resolves when the user has given one. */
function askToken(reason) {
  const form = find("token");
  const field = find("token-field");
  form.hidden = false;
  find("token-reason").textContent = reason;
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      resolve(field.value.trim());
      field.value = "";
    };
  });
}

async function loadModels() {
  find("models-again").hidden = true;
  sayOfModels("Asking the server for its models …");
  try {
    const answer = await (await client.request("api/models")).json();
    if (!answer.models.length) throw new Error("The server has no model ready.");
    limits = answer.limits;
    choice.show(answer.models);
    find("files").disabled = false;
    sayOfModels("");
    // Those that do not come stay grey; nothing is lost without them.
    loadExamples().catch(() => {});
  } catch (error) {
    sayOfModels(error.message);
    find("models-again").hidden = false;
  }
}

function sayOfModels(words) {
  find("models-state").textContent = words;
  find("models-state").hidden = !words;
}

function showTask(model) {
  const grouped = model.takes === "group";
  find("drop-ask").textContent = grouped ? "Drop a group of pictures here" : "Drop pictures here";
  const most = `${bytes(limits.bytes)} and ${Math.floor(limits.pixels / 1e6)} megapixels`;
  const size = grouped ? `up to ${limits.images} pictures, ${most} together` : `up to ${most} each`;
  find("limits").textContent = `JPEG, PNG, WebP, BMP, TIFF or GIF, ${size}`;
}

async function loadExamples() {
  const { examples } = await (await client.request("api/examples")).json();
  find("example-list").replaceChildren();
  find("examples").hidden = !examples.length;
  await Promise.all(examples.map(addExample));
}

async function addExample(name) {
  const item = find("example-template").content.firstElementChild.cloneNode(true);
  const [button, image] = [item.querySelector("button"), item.querySelector("img")];
  find("example-list").append(item);
  button.title = name;
  button.setAttribute("aria-label", `Example: ${name}`);
  const blob = await (await client.request(`api/examples/${encodeURIComponent(name)}`)).blob();
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.src = URL.createObjectURL(blob);
  const suffix = blob.type === "image/png" ? "png" : "jpg";
  button.addEventListener("click", () => add([new File([blob], `${name}.${suffix}`, { type: blob.type })]));
  button.disabled = false;
}

/** Show files as cards, the newest first, and run them. */
function add(files) {
  if (!limits || !files.length) return;
  const added = files.map((file) => new Card(file, { again, remove, download, changed: showStatus }));
  cards.unshift(...added);
  find("cards").prepend(...added.map((card) => card.element));
  find("results").hidden = false;
  document.body.classList.add("working");
  start(added);
}

/** Run cards with the present settings: as one group, or each for itself. */
function start(chosen) {
  for (const card of chosen) {
    card.run?.cancel();
    card.run = null;
    card.showWaiting();
  }
  const accepted = chosen.filter((card) => {
    const reason = refusal(card.file, limits);
    if (reason) card.showFailure(reason);
    return !reason;
  });
  const settings = choice.settings();
  const groups = settings.model.takes === "group" && accepted.length ? [accepted] : accepted.map((card) => [card]);
  for (const group of groups) {
    const run = new Run(client, slots, settings, group);
    for (const card of group) {
      card.run = run;
      card.showOriginal();
    }
    run.start(limits);
  }
}

function again(card) {
  const together = card.run?.cards.filter((other) => cards.includes(other));
  start(together ?? [card]);
}

function remove(card) {
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  cards.splice(cards.indexOf(card), 1);
  card.dispose();
  if (!card.run?.cards.some((other) => cards.includes(other))) card.run?.cancel();
  showStatus();
  (next?.querySelector(".remove") ?? find("files")).focus();
}

async function download(card, kind) {
  const { run } = card;
  try {
    save(await run.rendering(card, kind), card.file.name, kind);
  } catch (error) {
    if (!run.cancelled) card.showError(error.message);
  }
}

function showStatus() {
  const count = (state) => cards.filter((card) => card.state === state).length;
  const failed = count("failed");
  const parts = [`${count("done")} of ${cards.length} done`];
  if (failed) parts.push(`${failed} failed`);
  find("status").textContent = cards.length ? parts.join(", ") : "";
  find("results").hidden = !cards.length;
  document.body.classList.toggle("working", cards.length > 0);
}

function clear() {
  for (const card of cards.splice(0)) {
    card.run?.cancel();
    card.dispose();
  }
  showStatus();
  find("files").focus();
}

function listen() {
  find("files").addEventListener("change", ({ target }) => {
    add([...target.files]);
    target.value = "";
  });
  find("models-again").addEventListener("click", loadModels);
  find("all-again").addEventListener("click", () => start([...cards]));
  find("clear").addEventListener("click", clear);
  const mark = (on) => find("drop").classList.toggle("over", on);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(event.dataTransfer.types.includes("Files"));
  });
  addEventListener("dragleave", ({ relatedTarget }) => mark(relatedTarget !== null));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    add([...event.dataTransfer.files]);
  });
}

listen();
loadModels();
