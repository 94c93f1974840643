// Who is signed in. The token itself is in a cookie that no script can read; here is only what it allows.

import { Refused, request } from "./http.js";

/**
 * Takes the token out of the address (`#token=…`) before anything else happens, so that it stays in no history entry
 * and in no bookmark. Null where there is none.
 */
export function takeTokenFromAddress() {
  const token = tokenIn(location.hash);
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** What was pasted: a token, or the whole link. */
export function tokenFromInput(text) {
  const hash = text.indexOf("#");
  return (hash < 0 ? null : tokenIn(text.slice(hash))) ?? text.trim();
}

function tokenIn(hash) {
  return new URLSearchParams(hash.trim().slice(1)).get("token");
}

/** Exchanges a token for a session, and says what it allows. */
export async function begin(token) {
  const answer = await request("api/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  return answer.json();
}

/** What the session allows that this browser has; null without one. */
export async function current() {
  try {
    return await (await request("api/session")).json();
  } catch (error) {
    if (error instanceof Refused && error.needsSignIn) return null;
    throw error;
  }
}

/** Ends the session in this browser. */
export async function end() {
  await request("api/session", { method: "DELETE" });
}
