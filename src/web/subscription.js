// A subscription that stays: Server-Sent Events, resumed after the last event whenever the connection ends.

import { EventStreamParser } from "./event-stream.js";
import { Refused, explanation, request } from "./http.js";

/** Three missed signs of life at the default heartbeat (40 s). A connection that is only quiet loses nothing by it. */
const SILENCE_MAX_MS = 120_000;
/** Delay before a new try until the server says its own. */
const RETRY_MS = 2_000;
/** The delay doubles with each failure, up to this. */
const RETRY_MAX_MS = 30_000;

/**
 * Runs until `stop()`. Handlers: `event(event)` for each event, in order; `live()` when the stream has begun;
 * `waiting(why)` when it has ended and will be tried again; `lost()` when events that were to come are no longer kept;
 * `refused(refusal)` when only signing in helps. After the last two it has stopped.
 */
export class Subscription {
  #handlers;
  #lastEventId;
  #retryMs = RETRY_MS;
  #failures = 0;
  #stopped = new AbortController();
  #wake = () => {};

  /** `lastEventId`: the event to go on after, or `earliest`. */
  constructor(lastEventId, handlers) {
    this.#lastEventId = lastEventId;
    this.#handlers = handlers;
  }

  async run() {
    while (!this.#stopped.signal.aborted) {
      const why = await this.#connect();
      if (this.#stopped.signal.aborted) return;
      this.#handlers.waiting(why);
      await this.#pause();
    }
  }

  stop() {
    this.#stopped.abort();
    this.#wake();
  }

  /** Tries now instead of later, where it waits. */
  tryNow() {
    this.#wake();
  }

  /** One connection, to its end. Gives the reason for the end. */
  async #connect() {
    const connection = new AbortController();
    const watchdog = new Watchdog(SILENCE_MAX_MS, () => connection.abort());
    try {
      const address = `events?${new URLSearchParams({ topic: "*", last_event_id: this.#lastEventId })}`;
      const response = await request(address, {
        headers: { Accept: "text/event-stream" },
        signal: AbortSignal.any([this.#stopped.signal, connection.signal]),
      });
      return await this.#read(response.body.pipeThrough(new TextDecoderStream()).getReader(), watchdog);
    } catch (error) {
      this.#failures += 1;
      if (error instanceof Refused && error.needsSignIn) {
        this.stop();
        this.#handlers.refused(error);
      }
      if (error instanceof Refused) this.#retryMs = Math.max(this.#retryMs, error.retryAfterMs);
      return connection.signal.aborted ? "The connection had gone silent." : explanation(error);
    } finally {
      watchdog.stop();
      connection.abort();
    }
  }

  async #read(reader, watchdog) {
    const parser = new EventStreamParser();
    let why = "The connection was closed.";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      watchdog.seen();
      for (const record of parser.push(value)) {
        why = this.#take(record) ?? why;
        if (this.#stopped.signal.aborted) return why;
      }
    }
    return why;
  }

  /** Acts on one record; gives the reason where it announces the end. */
  #take(record) {
    if (record.retryMs !== undefined) {
      this.#retryMs = record.retryMs;
      return undefined;
    }
    const data = JSON.parse(record.data);
    switch (record.name) {
      case "hello":
        this.#begin(data.last_event_id);
        return undefined;
      case "bye":
        return BYES[data.reason] ?? `The server said: ${data.reason}.`;
      default:
        this.#lastEventId = record.id;
        this.#handlers.event(data);
        return undefined;
    }
  }

  #begin(opening) {
    // The server begins elsewhere than asked where it no longer knows the event: its history is another one now.
    if (opening !== this.#lastEventId) {
      this.stop();
      this.#handlers.lost();
      return;
    }
    this.#failures = 0;
    this.#handlers.live();
  }

  async #pause() {
    const doubled = this.#retryMs * 2 ** Math.max(0, this.#failures - 1);
    // The server's own delay is another one for each page, so that they do not all come back at one moment.
    const delay = Math.min(doubled, Math.max(RETRY_MAX_MS, this.#retryMs));
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => {};
  }
}

const BYES = {
  "shutting-down": "postrider is stopping or restarting.",
  "token-expired": "The session has expired.",
  "lifetime-over": "The connection was open for long and is renewed.",
  "event-log-unavailable": "postrider cannot read its event log; its own log says why.",
};

/** Calls `bite` when nothing was seen for `limitMs`: a dead connection looks exactly like a quiet one. */
class Watchdog {
  #limitMs;
  #bite;
  #timer;

  constructor(limitMs, bite) {
    this.#limitMs = limitMs;
    this.#bite = bite;
    this.seen();
  }

  seen() {
    this.stop();
    this.#timer = setTimeout(this.#bite, this.#limitMs);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
