#!/usr/bin/env bash
# Prints the sender and subject of each new mail, for ever: reconnects, and resumes after the last event it saw.
#
#   TOKEN=$(postrider token --subscribe '*') examples/subscribe.sh [URL] [TOPIC]
#
# Needs curl and jq. The last event ID is kept in a file, so that nothing is missed between two runs either.
set -u
url=${1:-http://127.0.0.1:8025} topic=${2:-*}
state=${STATE_FILE:-${XDG_STATE_HOME:-$HOME/.local/state}/postrider-last-event-id}
: "${TOKEN:?set TOKEN: TOKEN=\$(postrider token --subscribe '*')}"
mkdir -p "$(dirname "$state")"

while :; do
    arguments=(-sSN --get --fail --data-urlencode "topic=$topic" -H 'Accept: application/x-ndjson')
    [ -s "$state" ] && arguments+=(--data-urlencode "last_event_id=$(cat "$state")")
    # The token goes by a file descriptor: arguments are seen by everybody on the machine.
    while IFS= read -r line; do
        # An event's ID, or that of `hello`: with it, even a stream that breaks before its first event resumes.
        id=$(jq -r '.id // .last_event_id // empty' <<<"$line")
        [ -n "$id" ] || continue
        jq -r 'select(.kind == "MessageNew") | "\(.account)/\(.mailbox)  \(.message.from[0].address // "?")  \(.message.subject // "(no subject)")"' <<<"$line"
        printf '%s' "$id" >"$state.new" && mv "$state.new" "$state" # Whole or not at all.
    done < <(curl "${arguments[@]}" --config <(printf 'header = "Authorization: Bearer %s"\n' "$TOKEN") "$url/events")
    sleep $((2 + RANDOM % 3)) # Not everybody at once after a restart.
done
