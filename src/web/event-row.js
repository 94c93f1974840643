// One event in the list. All text in here may come from a stranger: see `dom.js`.

import { element, foreign } from "./dom.js";
import { headline, isTrouble, numbers, place, published, remarks, sender, size, subject } from "./event-text.js";
import { ago, moment } from "./time.js";

/** Its list item. `about`: the event of the message's arrival, where this is one of what befell it later. */
export function row(event, about) {
  const parts = event.kind === "MessageNew" ? mail(event) : notice(event, about);
  const made = element("li", { className: `event ${event.kind === "MessageNew" ? "mail" : "minor"}` }, ...parts);
  if (isTrouble(event)) made.classList.add("trouble");
  // For tests and for the curious: the place in the log.
  made.dataset.id = event.id;
  return made;
}

function mail(event) {
  const { message } = event;
  const { name, address } = sender(event);
  return [
    element(
      "p",
      { className: "line" },
      element(
        "span",
        { className: "sender" },
        foreign("strong", "name", name),
        address && " ",
        address && foreign("span", "address", address),
      ),
      moment(event.time, ago),
    ),
    foreign("p", "subject", subject(message)),
    message?.preview && foreign("p", "preview", message.preview),
    meta(place(event), remarks(message)),
    message?.attachments && attachments(message.attachments),
  ];
}

function notice(event, about) {
  const data = published(event);
  // The headline of what concerns a whole account names it.
  const places = event.mailbox || !event.account ? place(event) : [];
  return [
    element(
      "p",
      { className: "line" },
      element("span", { className: "what" }, foreign("span", "headline", headline(event)), ...spaced(subjectOf(event, about))),
      moment(event.time, ago),
    ),
    event.reason && foreign("p", "reason", event.reason),
    data !== undefined && foreign("pre", "data", data),
    places.length > 0 && meta(places, []),
  ];
}

/** Which messages it is about, if it is about any. */
function subjectOf(event, about) {
  const known = about ?? event;
  if (known.message) return [foreign("span", "about", subject(known.message))];
  const which = numbers(event);
  return which ? [element("span", { className: "uid" }, which)] : [];
}

function meta(places, notes) {
  const words = [
    ...places.map((text) => foreign("span", "place", text)),
    ...notes.map((text) => element("span", { className: "remark" }, text)),
  ];
  return element("p", { className: "meta" }, ...spaced(words));
}

/** With a space before each, for those who hear or copy it; the eye gets its separators from the style. */
function spaced(nodes) {
  return nodes.flatMap((node) => [" ", node]);
}

function attachments(files) {
  const items = files.map((file) =>
    element(
      "li",
      {},
      foreign("span", "file", file.filename ?? file.content_type),
      " ",
      element("span", { className: "size" }, size(file.size)),
    ),
  );
  return element("ul", { className: "attachments plain", ariaLabel: "Attachments" }, ...items);
}
