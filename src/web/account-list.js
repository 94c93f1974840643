// The accounts and how each of them is doing.

import { byId, element, foreign } from "./dom.js";
import { explanation, request } from "./http.js";
import { moment, since, until } from "./time.js";

/** Asked again after this while an account is on its way: not every step of that is an event. */
const UNSETTLED_MS = 5_000;
/** Several events at once make one request. */
const GATHER_MS = 150;

const STATES = {
  receiving: { words: "Receives by SMTP", manner: "well" },
  connected: { words: "Watched", manner: "well" },
  connecting: { words: "Connecting…", manner: "underway" },
  syncing: { words: "Catching up…", manner: "underway" },
  connect_error: { words: "Not connected", manner: "trouble" },
  authentication_error: { words: "Password refused", manner: "trouble" },
};

export class AccountList {
  #root = byId("accounts");
  #empty = byId("accounts-empty");
  #forbidden = byId("accounts-forbidden");
  #problem = byId("accounts-problem");
  #session;
  #ended;
  #shown = "[]";
  #names = new Set();
  #timer;

  /** `ended(problem)` is called when only signing in helps. */
  constructor(ended) {
    this.#ended = ended;
  }

  /** Begins to show what this session may see. */
  start(session) {
    this.#session = session;
    this.refresh(0);
  }

  /** Forgets everything. */
  stop() {
    this.#session = undefined;
    clearTimeout(this.#timer);
    this.#show([]);
  }

  /** Asks for the accounts, in a moment. */
  refresh(afterMs = GATHER_MS) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), afterMs);
  }

  /** Whether an account is there; an event that has none is of no account that is missing. */
  lists(name) {
    return name === undefined || this.#names.has(name);
  }

  async #load() {
    const session = this.#session;
    if (!session) return;
    try {
      const { accounts } = await (await request("api/accounts")).json();
      if (session !== this.#session) return;
      this.#problem.textContent = "";
      this.#show(accounts);
      if (accounts.some((account) => stateOf(account).manner !== "well")) this.refresh(UNSETTLED_MS);
    } catch (error) {
      if (session !== this.#session) return;
      if (error.needsSignIn) this.#ended(error.message);
      else this.#problem.textContent = explanation(error);
    }
  }

  #show(accounts) {
    const mayRead = Boolean(this.#session?.admin || this.#session?.accounts.length);
    this.#empty.hidden = !this.#session || !mayRead || accounts.length > 0;
    this.#forbidden.hidden = !this.#session || mayRead;
    // What has not changed is left in place, with whatever somebody has selected in it.
    const text = JSON.stringify(accounts);
    if (text === this.#shown) return;
    this.#shown = text;
    this.#names = new Set(accounts.map((account) => account.name));
    this.#root.replaceChildren(...accounts.map(item));
  }
}

function item(account) {
  const { words, manner } = stateOf(account);
  const where = [account.host, account.mailboxes?.join(", ")].filter(Boolean).join(" · ");
  return element(
    "li",
    { className: `account ${manner}` },
    foreign("p", "account-name", account.name),
    element(
      "p",
      { className: "state" },
      element("span", { className: "state-words" }, words),
      " ",
      moment(account.since, since),
    ),
    where && foreign("p", "where", where),
    account.reason && foreign("p", "reason", account.reason),
    account.retry_at && element("p", { className: "retry" }, "Next try ", moment(account.retry_at, until)),
  );
}

function stateOf(account) {
  return STATES[account.state] ?? { words: account.state, manner: "underway" };
}
