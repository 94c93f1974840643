// Moments as people say them. The exact one is always there too: in `datetime` for machines, in `title` for people.

import { element } from "./dom.js";

/** How often what is relative is said anew. */
const TICK_MS = 10_000;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// Words are English as the rest of the page; clocks and dates go by the reader's own habit.
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** A `<time>` that keeps what it says true while it is in the page, and shows the exact time on request. */
export function moment(iso, say) {
  const made = living(iso, say);
  made.title = exact.format(new Date(iso));
  return made;
}

/** The same for a whole day, of which no time is exact. */
export function day(iso) {
  return living(iso, dayName);
}

function living(iso, say) {
  const made = element("time", { dateTime: iso });
  said.set(made, say);
  tell(made);
  return made;
}

/** `3 min. ago`, and the time of day for what was not today: the day stands above it. */
export function ago(date, now) {
  const past = now - date;
  if (past < MINUTE) return "just now";
  if (past < HOUR) return relative.format(-Math.floor(past / MINUTE), "minute");
  return isSameDay(date, now) ? relative.format(-Math.floor(past / HOUR), "hour") : clock.format(date);
}

/** `since 14:05`, `since yesterday`, `since 19 Nov`: the rest is in the title. */
export function since(date, now) {
  if (isSameDay(date, now)) return `since ${clock.format(date)}`;
  if (isSameDay(date, new Date(now - DAY))) return "since yesterday";
  return `since ${dated(date, now, { day: "numeric", month: "short" })}`;
}

/** `in 20 sec.` */
export function until(date, now) {
  const ahead = date - now;
  if (ahead < 1000) return "now";
  if (ahead < MINUTE) return relative.format(Math.ceil(ahead / 1000), "second");
  return ahead < HOUR
    ? relative.format(Math.round(ahead / MINUTE), "minute")
    : relative.format(Math.round(ahead / HOUR), "hour");
}

/** `Today`, `Yesterday`, `Tuesday, 3 March`. */
function dayName(date, now) {
  if (isSameDay(date, now)) return "Today";
  if (isSameDay(date, new Date(now - DAY))) return "Yesterday";
  return dated(date, now, { weekday: "long", day: "numeric", month: "long" });
}

/** With the year only where it is another one. */
function dated(date, now, parts) {
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return new Intl.DateTimeFormat("en-GB", { ...parts, year }).format(date);
}

function isSameDay(one, other) {
  return one.toDateString() === other.toDateString();
}

/** What each `<time>` says, as a function of its own moment and the present one. */
const said = new WeakMap();

function tell(time) {
  const text = said.get(time)?.(new Date(time.dateTime), new Date());
  if (text !== undefined && text !== time.textContent) time.textContent = text;
}

function tellAll() {
  if (!document.hidden) document.querySelectorAll("time").forEach(tell);
}

setInterval(tellAll, TICK_MS);
document.addEventListener("visibilitychange", tellAll);
