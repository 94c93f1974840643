// Requests to postrider, and its refusals as something that can be shown.

/** An answer other than success. Its message is for people: the server's own `detail` (RFC 9457) where there is one. */
export class Refused extends Error {
  constructor(status, detail, retryAfterMs) {
    super(detail);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Signing in would help. */
  get needsSignIn() {
    return this.status === 401;
  }
}

/** `fetch`, but what is not a success throws `Refused`. No connection throws what `fetch` throws. */
export async function request(address, options = {}) {
  const response = await fetch(address, { cache: "no-store", ...options });
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const retryAfterMs = Number(response.headers.get("Retry-After")) * 1000 || 0;
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  // A proxy in between answers in its own way.
  const problem = isProblem ? await response.json().catch(() => null) : null;
  const detail = sentence(problem?.detail) ?? `The server answered ${response.status} ${response.statusText}`.trim() + ".";
  return new Refused(response.status, detail, retryAfterMs);
}

/** Details are written as the end of a log line; a page has sentences. */
function sentence(detail) {
  if (typeof detail !== "string" || detail === "") return undefined;
  const first = detail.charAt(0);
  return first.toUpperCase() + detail.slice(1) + (/[.!?]$/.test(detail) ? "" : ".");
}

/** What to show of an error, whatever it is. */
export function explanation(error) {
  if (error instanceof Refused) return error.message;
  return "postrider cannot be reached. Is it running, and is the network up?";
}
