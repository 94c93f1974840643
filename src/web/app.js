// The page: puts session, subscription and lists together.

import { AccountList } from "./account-list.js";
import { ConnectionState } from "./connection-state.js";
import { byId } from "./dom.js";
import { EventList } from "./event-list.js";
import { announcement, isOfAccount } from "./event-text.js";
import { Refused, explanation, request } from "./http.js";
import * as session from "./session.js";
import { SignInForm } from "./sign-in-form.js";
import { Subscription } from "./subscription.js";
import { Unseen } from "./unseen.js";

/** Events in the list at the beginning. */
const EVENTS_FIRST = 50;
/** Events that come together are shown together: a burst costs one layout, not a hundred. */
const GATHER_MS = 30;
/** Events of a burst that are kept for the list; it would not keep more of them either. */
const GATHERED_MAX = 200;
/** While nothing could be shown at all, it is tried again after this. */
const AGAIN_MS = 3_000;

// Before anything else, while nobody had time to copy the address.
const tokenInAddress = session.takeTokenFromAddress();

const signInForm = new SignInForm(begin);
const connection = new ConnectionState(tryNow);
const accounts = new AccountList(askAgain);
const events = new EventList();
const unseen = new Unseen();
// Who signs out in one tab wants no mail on show in another.
const otherTabs = new BroadcastChannel("postrider-session");

/** The work of one session; a new one takes its place and leaves the old one's answers nowhere to go. */
let current = { abandoned: true };

byId("sign-out").addEventListener("click", signOut);
otherTabs.addEventListener("message", () => askAgain());
window.addEventListener("online", tryNow);
window.addEventListener("hashchange", () => {
  const token = session.takeTokenFromAddress();
  if (token !== null) begin(token);
});
begin(tokenInAddress);

/** Signs in with a token; without one, goes on with the session that this browser has. */
async function begin(token) {
  const work = replaceWork();
  connection.is("connecting");
  try {
    const { allowed, problem } = await signIn(token);
    if (work.abandoned) return;
    if (!allowed) return askAgain(problem);
    // Links are good for an hour, and a browser's history offers old ones.
    byId("notice").textContent = problem ? `You are still signed in, but not by that link. ${problem}` : "";
    open(work, allowed);
  } catch (error) {
    if (!work.abandoned) retry(work, error, () => begin(token));
  }
}

async function signIn(token) {
  let problem = "";
  if (token !== null) {
    try {
      return { allowed: await session.begin(token), problem };
    } catch (error) {
      const isOfToken = error instanceof Refused && error.status < 500;
      if (!isOfToken) throw error;
      problem = error.message;
    }
  }
  return { allowed: await session.current(), problem };
}

function open(work, allowed) {
  byId("overview").hidden = false;
  signInForm.hide();
  byId("sign-out").hidden = false;
  const seesEvents = allowed.subscribe.length > 0;
  byId("events-forbidden").hidden = seesEvents;
  accounts.start(allowed);
  if (seesEvents) follow(work);
  else connection.is("none");
}

/** Shows the last events, then what comes after them. */
async function follow(work) {
  try {
    const newest = await (await request(`api/events?limit=${EVENTS_FIRST}`)).json();
    if (work.abandoned) return;
    events.reset(newest.events);
    // Who has events already need not read how to get them first.
    byId("accounts-how").open = newest.events.length === 0;
    subscribe(work);
  } catch (error) {
    if (work.abandoned) return;
    if (error.needsSignIn) askAgain(error.message);
    else retry(work, error, () => follow(work));
  }
}

function subscribe(work) {
  const arrived = [];
  const show = () => {
    work.gathering = undefined;
    const batch = arrived.splice(0);
    events.add(batch);
    unseen.add(batch.length);
    byId("announcement").textContent = announcement(batch);
    if (batch.some((event) => isOfAccount(event) || !accounts.lists(event.account))) accounts.refresh();
  };
  work.subscription = new Subscription(events.lastEventId, {
    event(event) {
      arrived.push(event);
      if (arrived.length > GATHERED_MAX) arrived.shift();
      work.gathering ??= setTimeout(show, GATHER_MS);
    },
    live() {
      connection.is("live");
      accounts.refresh();
    },
    waiting: (why) => connection.is("waiting", why),
    lost() {
      // What waits to be shown is in the list that is fetched now, too.
      clearTimeout(work.gathering);
      work.gathering = undefined;
      follow(work);
    },
    refused: (refusal) => askAgain(refusal.message),
  });
  work.subscription.run();
}

/** Something failed before there was a stream that could look after itself. */
function retry(work, error, again) {
  connection.is("waiting", explanation(error));
  work.again = () => {
    clearTimeout(work.timer);
    work.again = undefined;
    again();
  };
  work.timer = setTimeout(work.again, AGAIN_MS);
}

function tryNow() {
  current.subscription?.tryNow();
  current.again?.();
}

function replaceWork() {
  current.abandoned = true;
  current.subscription?.stop();
  clearTimeout(current.timer);
  clearTimeout(current.gathering);
  current = { abandoned: false };
  return current;
}

/** Takes everything off the page and asks for a token. */
function askAgain(problem) {
  replaceWork();
  accounts.stop();
  events.reset([]);
  unseen.clear();
  connection.is("none");
  byId("overview").hidden = true;
  byId("sign-out").hidden = true;
  byId("notice").textContent = "";
  byId("announcement").textContent = "";
  signInForm.show(problem);
}

async function signOut() {
  try {
    await session.end();
  } catch (error) {
    // The cookie is still there: a page that looks signed out would be a lie.
    byId("notice").textContent = `Not signed out. ${explanation(error)}`;
    return;
  }
  otherTabs.postMessage("ended");
  askAgain();
}
