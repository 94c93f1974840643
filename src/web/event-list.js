// The list of the last events, newest first, a section for each day.

import { byId, element } from "./dom.js";
import { row } from "./event-row.js";
import { isArrival } from "./event-text.js";
import { day } from "./time.js";

/** Rows that are kept: enough to look back, few enough that a page may stay open for months. */
const ROWS_MAX = 200;
/** How long new rows stand out. */
const FRESH_MS = 4_000;

export class EventList {
  #root = byId("events");
  #empty = byId("events-empty");
  /** Newest first, as the rows. */
  #events = [];

  /** The ID after which a subscription goes on. */
  get lastEventId() {
    return this.#events[0]?.id ?? "earliest";
  }

  /** Shows these instead of all that was there, newest first. */
  reset(events) {
    this.#events = [];
    this.#root.replaceChildren();
    for (const event of events.toReversed()) this.#insert(event);
    this.#bound();
  }

  /** Adds events, oldest first, and lets them stand out for a moment. */
  add(events) {
    for (const event of events) {
      const made = this.#insert(event);
      made.classList.add("fresh");
      setTimeout(() => made.classList.remove("fresh"), FRESH_MS);
    }
    this.#bound();
  }

  #insert(event) {
    const made = row(event, this.#arrivalOf(event));
    this.#events.unshift(event);
    this.#dayOf(event).prepend(made);
    return made;
  }

  /** The arrival of the message that an event is about, if it is still listed. */
  #arrivalOf(event) {
    if (event.uid === undefined || isArrival(event)) return undefined;
    const same = ["account", "mailbox", "uid_validity", "uid"];
    return this.#events.find((other) => isArrival(other) && same.every((key) => other[key] === event[key]));
  }

  /** The newest day's list, if that is the event's day; else a new one. */
  #dayOf(event) {
    const date = new Date(event.time).toDateString();
    const newest = this.#root.firstElementChild;
    if (newest?.dataset.day === date) return newest.querySelector("ol");
    const list = element("ol", { className: "plain" });
    const section = element("section", { className: "day" }, element("h3", {}, day(event.time)), list);
    section.dataset.day = date;
    this.#root.prepend(section);
    return list;
  }

  #bound() {
    while (this.#events.length > ROWS_MAX) {
      this.#events.pop();
      const oldest = this.#root.lastElementChild;
      oldest.querySelector("li:last-child").remove();
      if (!oldest.querySelector("li")) oldest.remove();
    }
    this.#empty.hidden = this.#events.length > 0;
  }
}
