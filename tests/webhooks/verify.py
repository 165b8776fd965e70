"""Verifies received webhooks with other people's code: python3 verify.py FILE.

FILE holds a JSON object: `keys` (whsec_… and whpk_…), and `received`, a list of headers and bodies. v1 is verified by the
standard library and by the package standardwebhooks, v1a by the package cryptography. Prints what verified how many.
"""
import base64, hashlib, hmac, json, sys

with open(sys.argv[1]) as file:
    given = json.load(file)

def keys(prefix):
    return [key for key in given["keys"] if key.startswith(prefix)]

def signed(headers, body):
    return f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()

def signatures(headers, kind):
    return [base64.b64decode(part.split(",")[1]) for part in headers["webhook-signature"].split(" ") if part.startswith(kind + ",")]

def by_hmac(headers, body):
    for key in keys("whsec_"):
        expected = hmac.new(base64.b64decode(key[6:]), signed(headers, body), hashlib.sha256).digest()
        assert expected in signatures(headers, "v1"), "v1 by the standard library"

def by_package(headers, body):
    for key in keys("whsec_"):
        assert Webhook(key).verify(body, headers) == json.loads(body)
        for spoilt in (dict(headers, **{"webhook-id": "other"}), dict(headers, **{"webhook-signature": "v1,AAAA"})):
            try:
                Webhook(key).verify(body, spoilt)
            except WebhookVerificationError:
                continue
            raise AssertionError("a spoilt message verifies")

def by_cryptography(headers, body):
    for key in keys("whpk_"):
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key[5:]))
        for at, signature in enumerate(signatures(headers, "v1a")):
            try:
                return public.verify(signature, signed(headers, body))
            except InvalidSignature:
                continue
        raise AssertionError("v1a by cryptography")

ways = [("hmac", by_hmac)]
try:
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError
    ways.append(("standardwebhooks", by_package))
except ImportError:
    pass
try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    ways.append(("cryptography", by_cryptography))
except ImportError:
    pass
assert given["received"], "nothing was received"
for name, verify in ways:
    for one in given["received"]:
        verify(one["headers"], one["body"])
    print(name, len(given["received"]))
