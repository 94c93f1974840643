#!/usr/bin/env python3
"""Follows events with nothing but Python's standard library: reconnects, and resumes after the last event it saw.

    POSTRIDER_TOKEN=$(postrider token --subscribe '*') examples/subscribe.py [URL] [TOPIC ...]
"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def records(url, topics, token, last_event_id):
    """Yields the JSON objects of one stream until it ends."""
    query = [("topic", topic) for topic in topics]
    if last_event_id:
        query.append(("last_event_id", last_event_id))
    request = urllib.request.Request(
        f"{url}/events?{urllib.parse.urlencode(query)}",
        headers={"Accept": "application/x-ndjson", "Authorization": f"Bearer {token}"},
    )
    # Longer than the heartbeat: after this long without a byte the connection is dead.
    with urllib.request.urlopen(request, timeout=90) as stream:
        for line in stream:
            if line.strip():
                yield json.loads(line)


def follow(url, topics, token):
    """Yields events for ever."""
    last_event_id = None
    while True:
        retry = 2.0
        try:
            for record in records(url, topics, token, last_event_id):
                if "id" in record:
                    last_event_id = record["id"]
                    yield record
                elif record.get("control") == "hello":
                    last_event_id = record["last_event_id"]
                elif record.get("control") == "bye":
                    retry = record["retry_ms"] / 1000
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise SystemExit(f"{error.code}: {json.load(error).get('detail')}") from None
        except (OSError, ValueError) as error:
            print(f"not connected: {error}", file=sys.stderr)
        time.sleep(retry * random.uniform(1, 2))


def main():
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8025"
    for event in follow(url, sys.argv[2:] or ["*"], os.environ["POSTRIDER_TOKEN"]):
        message = event.get("message", {})
        sender = message.get("from") or [{}]
        print(event["kind"], ", ".join(event["topics"]), sender[0].get("address", ""), message.get("subject", ""), flush=True)


if __name__ == "__main__":
    main()
