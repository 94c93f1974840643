// The text of an event stream (WHATWG HTML §9.2.6) as records. No I/O: text in, records out, however it was cut.
//
// Not `EventSource`, for three reasons: it hands over only names that were known beforehand, and publishers choose
// their own; it tells nothing of a refusal, so that a session's end would look like a bad network; and after a refusal
// it never tries again.

/** What was said since the last call of `push`. */
export class EventStreamParser {
  #rest = "";
  #name = "";
  #data = [];
  #id;

  /** Takes the next piece of the stream. Gives `{ name, data, id }` for events, `{ retryMs }` for the delay. */
  push(text) {
    const records = [];
    // A CR at the end may be half a CRLF: it waits for what follows.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      const record = this.#line(line);
      if (record) records.push(record);
    }
    return records;
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    switch (field) {
      case "event":
        this.#name = value;
        break;
      case "data":
        this.#data.push(value);
        break;
      case "id":
        if (!value.includes("\0")) this.#id = value;
        break;
      case "retry":
        if (/^\d+$/.test(value)) return { retryMs: Number(value) };
        break;
      // A comment (no field name) is a sign of life, all else is for readers newer than this one.
    }
    return null;
  }

  #dispatch() {
    const record = { name: this.#name || "message", data: this.#data.join("\n"), id: this.#id };
    const hasData = this.#data.length > 0;
    this.#name = "";
    this.#data = [];
    return hasData ? record : null;
  }
}
