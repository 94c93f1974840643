// Builds elements. Text becomes text nodes only: mail says what it likes, and none of it is ever markup.

/**
 * An element with properties and children. A child is a node, a text, or nothing (null, undefined, false); a property
 * that is undefined is left alone.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [property, value] of Object.entries(properties)) {
    if (value !== undefined) made[property] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Text from a mail or a server: its own writing direction, which stays inside it. */
export function foreign(name, className, text) {
  return element(name, { className, dir: "auto" }, text);
}

/** The element of an ID that `index.html` has. */
export function byId(id) {
  return document.getElementById(id);
}
