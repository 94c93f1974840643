// Counts, in the title, what came while nobody looked.

const TITLE = document.title;

export class Unseen {
  #count = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.clear();
    });
  }

  /** New events were added to the page. */
  add(count) {
    if (document.hidden) this.#set(this.#count + count);
  }

  clear() {
    this.#set(0);
  }

  #set(count) {
    this.#count = count;
    document.title = count === 0 ? TITLE : `(${count}) ${TITLE}`;
  }
}
