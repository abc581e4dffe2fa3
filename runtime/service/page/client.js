/** Requests to the server's /api: the token, waiting while it is busy, and its sentences. */

const RETRIES = 4;
const LONGEST_WAIT_S = 30;

/** An error whose message is a sentence for the user. */
export class Refusal extends Error {}

/** Speaks to one server; the token lives in memory and ends with the page. */
export class Client {
  #token = null;
  #asking = null;
  #askToken;

  /** @param {(reason: string) => Promise<string>} askToken asks the user for a token. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  /**
   * The server's answer, after asking for a token (401) or waiting (503) where it wants that.
   * `onWait(seconds)` is told of each wait, and of 0 whenever it sends. Throws a Refusal with the server's sentence, or an AbortError.
   */
  async request(path, { body, signal, onWait = () => {} } = {}) {
    for (let waits = 0; ; ) {
      const token = this.#token;
      onWait(0);
      const response = await send(path, token, body, signal);
      if (response.ok) return response;
      const sentence = await sentenceOf(response);
      if (response.status === 401) {
        // An answer to an older token says nothing about the present one.
        if (token === this.#token) await this.#renew(sentence);
      } else if (response.status === 503 && waits < RETRIES) {
        waits += 1;
        const seconds = waitOf(response);
        onWait(seconds);
        await pause(seconds * 1000, signal);
      } else {
        throw new Refusal(sentence);
      }
    }
  }

  /** One question to the user, however many requests wait for its answer. */
  #renew(reason) {
    this.#asking ??= this.#askToken(reason).then((token) => {
      this.#token = token;
      this.#asking = null;
    });
    return this.#asking;
  }
}

/** Lets a number of works run at once; the others wait in order. */
export class Slots {
  #free;
  #waiting = [];

  constructor(count) {
    this.#free = count;
  }

  async use(work) {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

async function send(path, token, body, signal) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    return await fetch(path, { method: body ? "POST" : "GET", headers, body, signal, cache: "no-store" });
  } catch (error) {
    signal?.throwIfAborted();
    throw new Refusal("The server cannot be reached: is it running, and is the network up?", { cause: error });
  }
}

async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string" && error) return error;
  } catch {
    // A proxy's answer is no JSON; the status says what there is to say.
  }
  return `The server answered ${response.status} ${response.statusText}`.trimEnd() + ".";
}

function waitOf(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? 1);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), LONGEST_WAIT_S) : 1;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
