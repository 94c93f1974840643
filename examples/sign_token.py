#!/usr/bin/env python3
"""Signs a token for one user's mailboxes, as a webmail's server does after its own login. Standard library only.

    examples/sign_token.py ~/.local/state/postrider/token.key alice

The token goes into a cookie that postrider gets too, for example, from https://mail.example.org to
https://push.example.org:

    Set-Cookie: mercureAuthorization=TOKEN; Domain=example.org; Path=/; Secure; HttpOnly; SameSite=Strict
"""

import base64
import hashlib
import hmac
import json
import sys
import time
import urllib.parse

LIFETIME_SECONDS = 12 * 3600


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(key, claims):
    """A JWT with HS256 (RFC 7515 §3.1)."""
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = b".".join(map(base64url, parts))
    return (signed + b"." + base64url(hmac.digest(key, signed, hashlib.sha256))).decode()


def claims_for(account, now):
    # As it stands in topics: everything but unreserved characters is encoded.
    name = urllib.parse.quote(account, safe="")
    return {
        # The account's mailboxes, and the account itself: AccountUp, AccountDown.
        "mercure": {"subscribe": [f"mail/{name}/{{mailbox}}", f"mail/{name}"]},
        "postrider": {"accounts": [account]},
        "sub": account,
        "exp": now + LIFETIME_SECONDS,
    }


if __name__ == "__main__":
    key_file, account = sys.argv[1:]
    with open(key_file, "rb") as file:
        print(sign(file.read(), claims_for(account, int(time.time()))))
