"""The stable name of everything that is logged.

A rule or a dashboard may hang on it, whatever the words become. The key is the message as written at the
call, before its arguments. A test sees to it that each has a name.
"""

from __future__ import annotations

from typing import Final

EVENTS: Final = {
    # nodes
    "waiting for auth at %s, to join: %s": "join.waiting",
    "this machine's clock is %.0f s %s auth's, and certificates hang on it: follow a time server": (
        "clock.apart"
    ),
    "renewal failed, trying on: %s": "renewal.failed",
    "this node's certificate has ended: start it again with a new token": "certificate.ended",
    "waiting for gatekeeper: %s": "gatekeeper.waiting",
    "this instance was revoked by an operator: stop it, and join with a new token": "instance.revoked",
    "denied without an answer of gatekeeper: source=%r method=%r: %s": "gatekeeper.unanswered",
    "cannot write the renewed certificate, trying on: %s": "certificate.not-written",
    "no policy in force any more: refusing calls until gatekeeper is back": "policy.stale",
    "gatekeeper sends policy %d, older than %d held here: ignored, then denied once stale": "policy.older",
    "call rejected: id=%s cause=%r detail=%r method=%r peer=%s": "call.rejected",
    "audit: would be denied: source=%r method=%r destination=%s rule=%r by=%r policy=%d untold=%d": (
        "call.audited"
    ),
    "handler of %s failed": "handler.failed",
    "connection failed: %r": "connection.failed",
    "the iterator of requests failed, so the call is cancelled": "requests.failed",
    "cannot connect to myself at %s:%d: the certificate rolls when others do": "certificate.rolls-later",
    "%s: requests that gRPC cannot take, so far %d: listening anew": "listener.anew",
    "gatekeeper takes no decisions: it is older than this node": "decisions.not-taken",
    "left out: instance %s of %s, for %.0f s: %d calls in a row were not answered": "instance.left-out",
    "not left out any more: instance %s of %s has answered": "instance.returned",
    "no place for calls to %s: %d are open and %d wait, so far refused: %d": "calls.overloaded",
    "calls beyond the rate of a caller, refused so far: %d, the last: source=%r method=%r": "calls.limited",
    "port %d: hung up on %s for a flood, %d so far": "flood.ended",
    # sidecar
    "waiting for the app at %s: it does not accept connections yet": "app.waiting",
    "the app at %s does not serve, and has no calls until it does: %s": "app.not-serving",
    "the app at %s serves again": "app.serving",
    "no socket for %s: %s": "socket.missing",
    # auth
    "auth of %s is ready: join at %s": "auth.ready",
    "cannot answer: %s": "auth.cannot-answer",
    "whether the last commit was made cannot be found out: ending, to recover at the next start": (
        "store.in-doubt"
    ),
    "the machine's clock leapt %.0f s ahead, not followed for now: is it right?": "clock.leapt",
    "%s: THIS AUTH IS UNDER TEST AND KILLS ITSELF at the step %r of a join": "auth.under-test",
    "cannot keep epochs and certificate fresh, trying on: %s": "auth.upkeep-failed",
    "kept for the audit log until it can be written: %s": "audit.kept",
    "the audit log of %s is written again": "audit.written-again",
    "not done, or not in the audit log yet: %s": "audit.refused",
    "no notices of other auths' changes, looking twice a second: %s": "notices.missing",
    "notices of other auths' changes come again": "notices.again",
    # gatekeeper
    "serving on port %d as instance %s": "gatekeeper.ready",
    "drained": "gatekeeper.drained",
    "denied: source=%r method=%r destination=%s rule=%r%s%s": "question.denied",
    "answering proxies on port %d": "proxies.ready",
    "waiting for mesh.auth to send the policy: %s": "policy.waiting",
    "mesh.auth sends the policy again": "policy.again",
    "policy from mesh.auth not taken: %s": "policy.untrusted",
    "policy %d is in force": "policy.in-force",
    "%d instances are revoked": "instances.revoked",
    "%s is damaged: moved to %s, and begun anew": "decisions.damaged",
    "%s: waiting until that is over": "decisions.waiting",
    "recorded decisions: over %d rows: the oldest %d calls to %s are only counted now": "decisions.full",
    "%s: %s: recorded decisions are kept in memory, until the next start": "decisions.in-memory",
    # Kubernetes
    "cannot publish the join key, trying on: %s": "join-key.not-published",
    "published the join key in %s/%s": "join-key.published",
    "%s can join now": "namespace.ready",
    "made a certificate for %s": "webhook.certificate",
    "refused: %s": "pod.refused",
    "%s: trying on": "injector.trying-on",
    # scripts
    "%s: no new worker: %s": "worker.missing",
    "%s: worker %d was ended: %s": "worker.ended",
    "%s: %s failed in worker %d: %s": "script.failed",
    "%s is not served any more: %s": "service.ended",
    "%s RUNS WITHOUT A JAIL: whoever wrote its script owns this process": "service.unjailed",
    "busy scripts cannot be made to give way to others: give the host CAP_SYS_NICE, or another user": (
        "worker.greedy"
    ),
    # mesh up
    "waiting for a token for %s: %s": "token.waiting",
    "process %d did not end in %.0f s: killed": "process.killed",
    "%s ended with status %d: starting it again in %.1f s": "process.ended",
    "%s started again as process %d": "process.started",
    "ended": "mesh.ended",
    # telemetry
    "the backend at %s does not take %s: they are dropped meanwhile": "telemetry.away",
    "the backend at %s takes %s again": "telemetry.again",
    "no metrics at %s:%s, set another %s: %s": "metrics.not-served",
    "metrics at http://%s:%d/metrics": "metrics.served",
}


#: What auth logs of each entry of the audit log: the message is the entry, as JSON.
AUDITED: Final = "audit.entry"


def event_of(logger: str, message: str) -> str:
    """Give the name of a log record's event; of what others log, ``log``."""
    if message == "%s" and logger == "mesh.auth":
        return AUDITED
    if message == "%s" and logger.startswith("mesh.lua."):
        return "script.said"
    return EVENTS.get(message, "log")
