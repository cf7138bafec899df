"""The JSON of the admin interface, shape by shape: what `Operations` returns and clients read.

Keys only ever get added. Sizes in bytes, times in seconds; an address is text as in the configuration (`10.0.0.1:80`,
`[::1]:80`, `unix:/run/x.sock`); `null` means "none" or "not known", never an error.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class ListenerStatus(TypedDict):
    """One listener. `binds` are the addresses in configured order, as bound: a configured port 0 shows the kernel's choice.

    `state`: `accepting`; `paused` (out of descriptors, or at a limit: the kernel queues); `draining` (closed, sessions
    go on); `unbound` (not yet, or not any more, listening). `rejected` holds counts by rejection reason (interface, closed
    set), reasons never seen may be left out.
    """

    name: str
    binds: list[str]
    upstream: str
    state: Literal["accepting", "paused", "draining", "unbound"]
    active: int
    accepted: int
    rejected: dict[str, int]
    accept_pauses: int
    max_connections: int


class EndpointStatus(TypedDict):
    """One endpoint of an upstream. `address` is its identity and what paths and metric labels name it by.

    `eligible` is whether new sessions go to it as far as its state decides (a full one is eligible and `full`);
    `ineligible` names each cause in lower case: `drained`, `removed`, `weight_zero`. `weight` is in force; `weight_override`
    is what an operator set, else null. `active` counts from the moment of choice; `total` were connected. `connect_failures`
    holds counts by failure (closed set). Bytes: `sent` to the endpoint, `received` from it. `unverified`: remembered from the disk,
    and neither confirmed by its source nor reached by a session yet.
    """

    address: str
    eligible: bool
    ineligible: list[str]
    full: bool
    weight: int
    weight_override: int | None
    priority: int
    zone: str | None
    max_connections: int | None
    metadata: dict[str, str]
    unverified: bool
    active: int
    total: int
    failure_streak: int
    connect_failures: dict[str, int]
    sent_bytes: int
    received_bytes: int


class UpstreamStatus(TypedDict):
    """One upstream in short. `strategy` is the name in force ("" for `original_dst`). `drained` is true while the whole
    upstream is drained by an operator: endpoints that appear then are drained, too."""

    name: str
    kind: Literal["endpoints", "original_dst"]
    strategy: str
    drained: bool
    endpoints_total: int
    endpoints_eligible: int
    active: int
    waiting: int
    connect_attempts: int


class SourceStatus(TypedDict):
    """Who says which endpoints an upstream has. `age_s` is the time since everything it said was known to hold, null before its first
    answer. `results` counts answers by what became of them: `applied`, `unchanged`, `held`, `confirmed`, `expired`, `error`. `held`
    endpoints are in force although the last answer leaves them out, and `held_why` says what is waited for. `unverified`: only the
    state on disk has spoken yet, saved `snapshot_age_s` ago. `refused` counts entries that were not taken, by reason. `error` is what
    the last try met, "" if it was well. `kind` is the `type` of the configuration, `static` for its `endpoints`. `state` is the first
    of these that holds: `unverified`; `waiting` (no answer yet); `stale` (the last try failed); `held`; `current`. `asks_for` is
    what is followed, in words. `endpoints` it has in force, null where that is not counted. `retry_in_s` is how
    long it waits after an error before it asks again, null while it asks. `says` has all of it in words, a line each."""

    name: str
    kind: str
    state: Literal["current", "stale", "held", "unverified", "waiting"]
    age_s: float | None
    results: dict[str, int]
    refused: dict[str, int]
    held: int
    held_why: str
    unverified: bool
    snapshot_age_s: float | None
    error: str
    asks_for: str
    endpoints: int | None
    retry_in_s: float | None
    says: list[str]


class UpstreamDetail(UpstreamStatus):
    """One upstream with its sources in the order of precedence, and a page of its endpoints, ordered by the text of their address;
    `next` is what `after` takes for the page after this one, null on the last."""

    sources: list[SourceStatus]
    endpoints: list[EndpointStatus]
    next: str | None


class ObeyResult(TypedDict):
    """A source whose last answer was obeyed because somebody asked for it: `let_go` endpoints were held until then."""

    upstream: str
    source: str
    let_go: int


class LeaseStatus(TypedDict):
    """An endpoint that has registered, and for how long. `address` as it is compared (`[::1]:80`); the rest as it said itself."""

    address: str
    lease_s: float
    weight: int
    zone: str | None
    priority: int
    max_connections: int | None
    metadata: dict[str, str]


class SessionStatus(TypedDict):
    """One live session. `endpoint` is "" until one is picked. `phase` as in the access log. `idle_s` is the time since its
    last byte (equal to `age_s` without any).

    Of each leg what the kernel's TCP knows: the smoothed round-trip time, null before one was measured; segments sent again.
    Null where there is none: on unix sockets, and while no endpoint is being dialled."""

    id: int
    listener: str
    upstream: str
    endpoint: str
    client: str
    client_port: int
    phase: str
    attempts: int
    age_s: float
    idle_s: float
    sent_bytes: int
    received_bytes: int
    client_rtt_s: float | None
    client_retransmits: int | None
    upstream_rtt_s: float | None
    upstream_retransmits: int | None


class RegistrationStatus(TypedDict):
    """One service that we register. `name` is its id; `address` "" is the node's own. `state`: `absent` (not known to be
    registered), `registered`, `leaving`. `status` and `output` are what the agent was last told, null without an acknowledged
    update; `error` is why the last call failed, "" when it did not, `failures` the number of such calls."""

    name: str
    service: str
    address: str
    port: int
    state: str
    status: str | None
    output: str | None
    error: str
    failures: int


class ReloadResult(TypedDict):
    """`changes`: a line each of what differs now (`upstream web: endpoint 10.0.0.3:80 added`); empty when `unchanged`.
    `restart_needed`: keys that differ in the file and were left as they were (`runtime.relay`)."""

    result: Literal["applied", "unchanged"]
    changes: list[str]
    restart_needed: list[str]


class Problem(TypedDict):
    """The body of every answer of 400 and above (RFC 9457), as `application/problem+json`. `errors`: a line each, where
    there are several (an invalid configuration)."""

    type: str
    title: str
    status: int
    detail: NotRequired[str]
    errors: NotRequired[list[str]]
