// The form in which a token can be pasted.

import { byId } from "./dom.js";
import { tokenFromInput } from "./session.js";

export class SignInForm {
  #section = byId("sign-in");
  #field = byId("token");
  #problem = byId("sign-in-problem");

  /** `entered(token)` is called with what was pasted. */
  constructor(entered) {
    byId("sign-in-form").addEventListener("submit", (submission) => {
      submission.preventDefault();
      this.#problem.textContent = "";
      entered(tokenFromInput(this.#field.value));
    });
  }

  /** Asks for a token, and says what was wrong with the last one. */
  show(problem = "") {
    this.#section.hidden = false;
    this.#problem.textContent = problem;
    this.#field.ariaInvalid = problem === "" ? "false" : "true";
    this.#field.focus();
    this.#field.select();
  }

  /** Somebody has signed in. Whoever used the form goes on at the events. */
  hide() {
    if (!this.#section.hidden) byId("events-heading").focus();
    this.#section.hidden = true;
    this.#field.value = "";
  }
}
