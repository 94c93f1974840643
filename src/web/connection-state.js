// Says whether what is shown is live.

import { byId, element } from "./dom.js";

const WORDS = { none: "", connecting: "Connecting…", live: "Live", waiting: "Reconnecting…" };

export class ConnectionState {
  #root = byId("connection");
  #why = byId("connection-why");

  /** `tryNow()` is called when somebody does not want to wait. */
  constructor(tryNow) {
    byId("try-now").addEventListener("click", tryNow);
  }

  /** `state` is a key of `WORDS`; `why` belongs to `waiting`. */
  is(state, why = "") {
    this.#root.dataset.state = state;
    byId("offline").hidden = why === "";
    this.#why.textContent = why;
    // Said again, it would be heard again.
    if (this.#root.textContent !== WORDS[state]) {
      this.#root.replaceChildren(element("span", { className: "lamp", ariaHidden: "true" }), WORDS[state]);
    }
  }
}
