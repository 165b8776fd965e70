"""Whether a peer does what the comparison says of it, asked before it is measured."""

import http.client
import socket
import ssl
import time

from place import Missing

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE


def status(port, path, credential):
    """The status of one answer, or 0."""
    line = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=CONTEXT)
    try:
        line.request("GET", path, headers={"Authorization": credential} if credential else {})
        return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


def await_service(peer, patience=30):
    """Waits until the peer serves a caller with the right password, and sees that it refuses others.

    It may listen before it has its configuration or its workers. Each password is right at the first try, so that no
    peer slows the account down later.
    """
    path, right = f"/people/{peer.accounts.names[0]}", peer.accounts.credential()
    deadline = time.monotonic() + patience
    while (got := status(peer.port, path, right)) != 200:
        if time.monotonic() > deadline or peer.processes[0].poll() is not None:
            raise Missing(f"an answer with status 200: it is {got}")
        time.sleep(0.05)
    if "checks" in peer.can:
        for credential in ("", peer.accounts.credential(1, "wrong")):
            if status(peer.port, path, credential) not in (401, 403):
                raise Missing("a check of passwords")


def resumes(port):
    """Whether it resumes a session. The load of new connections never offers one, so this is only told."""
    session = None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            with CONTEXT.wrap_socket(plain, session=session) as line:
                if session:
                    return line.session_reused
                line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                line.settimeout(5)
                try:
                    line.recv(4096)
                except OSError:
                    pass
                session = line.session
    return False
