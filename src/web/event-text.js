// What events say, in words. Values in, texts out; how they look is elsewhere.

/** The headline of an event that is not new mail. */
export function headline(event) {
  const of = event.account ?? "an account";
  switch (event.kind) {
    case "MessageAppend":
      return "Stored by a mail program, or copied";
    case "MessageMove":
      return moved(event);
    case "MessageRead":
      return "Read";
    case "MessageTrash":
      return "Marked for removal";
    case "MessageExpunge":
      return "Removed";
    case "FlagsSet":
      return flags("Marked", event);
    case "FlagsClear":
      return flags("No longer marked", event);
    case "MailboxCreate":
      return `Mailbox ${event.mailbox} was created`;
    case "MailboxDelete":
      return `Mailbox ${event.mailbox} was deleted`;
    case "MailboxRename":
      return renamed(event);
    case "MailboxOverflow":
      return overflow(event);
    case "MailboxReset":
      return "The server numbered the mailbox anew; what was known of it is void";
    case "QuotaExceed":
      return `The mailboxes of ${of} are full`;
    case "AccountUp":
      return `${of} is watched`;
    case "AccountDown":
      return `${of} is not watched`;
    case "AccountAuthFailed":
      return `The server refused the password of ${of}`;
    case "AccountAlert":
      return `The server says to ${of}`;
    case "ForwardFailed":
      return `A message for ${of} could not be forwarded`;
    case "Published":
      return event.type ?? "Published";
    default:
      // A kind that is newer than this page.
      return event.kind;
  }
}

function flags(verb, event) {
  const names = (event.flags ?? []).map((flag) => flag.replace(/^\\/, ""));
  return names.length > 0 ? `${verb}: ${names.join(", ")}` : `${verb}`;
}

function moved(event) {
  const from = event.old_mailbox;
  return from ? `Moved here from ${from}` : "Moved here";
}

function renamed(event) {
  const old = event.old_mailbox;
  return old ? `Mailbox ${old} is called ${event.mailbox} now` : `Mailbox ${event.mailbox} was renamed`;
}

function overflow(event) {
  const skipped = event.data?.skipped;
  return skipped ? `${skipped} more came than are listed one by one` : "More mail came than is listed one by one";
}

/** Which messages an event is about, by number, if they are told by number: `message 7`, `messages 4, 7 to 9`. */
export function numbers(event) {
  if (event.uid !== undefined) return `message ${event.uid}`;
  if (!event.uids) return undefined;
  const ranges = event.uids.split(",");
  const shown = ranges.slice(0, RANGES_MAX).map((range) => range.replace(":", " to "));
  return `messages ${shown.join(", ")}${ranges.length > RANGES_MAX ? " and others" : ""}`;
}

/** More numbers than these say nothing to anybody. */
const RANGES_MAX = 5;

/** Kinds after which somebody should do something. */
export function isTrouble(event) {
  return ["AccountDown", "AccountAuthFailed", "AccountAlert", "QuotaExceed", "ForwardFailed"].includes(event.kind);
}

/** Kinds with which a message appears in a mailbox. */
export function isArrival(event) {
  return ["MessageNew", "MessageAppend", "MessageMove"].includes(event.kind);
}

/** Kinds that say how an account is doing. */
export function isOfAccount(event) {
  return event.kind.startsWith("Account");
}

/** Who sent a message: `{ name, address }`, of which the name is always there. */
export function sender(event) {
  const [first] = event.message?.from ?? [];
  if (first) return first.name ? first : { name: first.address };
  // A message without `From` came from somebody, too, if it came by SMTP.
  return { name: event.envelope?.mail_from || "Unknown sender" };
}

/** The subject, or that there is none to show. */
export function subject(message) {
  if (!message) return "New message";
  return message.subject?.trim() || "(no subject)";
}

/** What else the message says of itself that one wants to know beforehand. */
export function remarks(message) {
  return [
    message?.priority === "high" && "urgent",
    message?.list_id && "mailing list",
    message?.auto_submitted && "automatic",
    message?.security?.some((kind) => kind.endsWith("-encrypted")) && "encrypted",
    message?.report?.recipients?.some(({ action }) => action === "failed") && "not delivered",
    message?.calendar && "invitation",
    message?.parse_error && "damaged: not all of it could be read",
  ].filter(Boolean);
}

/** `alice · INBOX`, or the topics of what a publisher sent. */
export function place(event) {
  const mailbox = [event.account, event.mailbox].filter(Boolean);
  return mailbox.length > 0 ? mailbox : event.topics;
}

/** A publisher's data as text, no longer than is of use in a list. What else has data says it in its headline. */
export function published({ kind, data }) {
  if (kind !== "Published") return undefined;
  if (data === undefined || data === null) return undefined;
  const line = typeof data === "string" ? data : JSON.stringify(data);
  const text = typeof data === "object" && line.length > LINE_CHARS_MAX ? JSON.stringify(data, null, 2) : line;
  return text.length > DATA_CHARS_MAX ? `${text.slice(0, DATA_CHARS_MAX)}…` : text;
}

const DATA_CHARS_MAX = 2_000;
/** JSON up to this is read at a glance; longer, it needs its lines. */
const LINE_CHARS_MAX = 100;

/** `3 KB`. */
export function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(bytes || 1) / 3)));
  const style = { style: "unit", unit: units[step], unitDisplay: step === 0 ? "long" : "short", maximumSignificantDigits: 2 };
  return new Intl.NumberFormat("en", style).format(bytes / 1000 ** step);
}

/** One sentence for those who hear the page; nothing for what need not interrupt them. */
export function announcement(events) {
  const mails = events.filter((event) => event.kind === "MessageNew");
  const trouble = events.filter(isTrouble).map(headline);
  const [mail] = mails;
  if (mails.length === 1) trouble.push(`New mail from ${sender(mail).name}: ${subject(mail.message)}`);
  if (mails.length > 1) trouble.push(`${mails.length} new mails`);
  return trouble.join(". ");
}
