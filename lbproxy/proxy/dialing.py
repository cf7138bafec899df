"""From an admitted client to a relayed one: pick, dial, hand over; and try elsewhere when a dial fails.

Everything here is synchronous and runs in a callback of the event loop: no task, no coroutine, no formatting per connection.
The relay's events come in at `on_events`; `Dialer` is the only owner of a session's life after admission.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from lbproxy.domain.backoff import Backoff
from lbproxy.domain.effects import Effect
from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.errors import DialCause, dial_cause, local_cause
from lbproxy.domain.session import EndReason, Phase, State
from lbproxy.domain.strategy import Random
from lbproxy.pool.lease import Exhausted, Lease
from lbproxy.proxy.admission import Capacity
from lbproxy.proxy.complaints import Complaints
from lbproxy.proxy.routing import Route
from lbproxy.proxy.sessions import Session, SessionTable
from lbproxy.proxy.sockets import FAMILIES, as_socket, open_dialing, refuse
from lbproxy.relay.contract import Connected, Doorway, Event, Outcome, Relay, RelayOptions, Socket
from lbproxy.wire.local import socket_name

logger = logging.getLogger(__name__)

_UNIX: Final = socket.AF_UNIX
# A global is read faster than an enum's member (75 ns in 3.11), and these are read for every session.
_PICKED, _WAITING, _DIALING, _RELAYING, _ENDED = (
    State.PICKED,
    State.WAITING,
    State.DIALING,
    State.RELAYING,
    State.ENDED,
)

# Before an endpoint is tried a second time by one session (all others have failed it): long enough for a restarting
# process to listen again, short beside the default budget of 5 s. HAProxy waits min(connect time-out, 1 s).
RETRY_PAUSE: Final = Backoff(base_s=0.2, cap_s=1.0, floor_s=0.05)


class SessionLog(Protocol):
    """Where a finished session is told: `app` hands the access log down in this shape."""

    def __call__(self, session: Session, outcome: Outcome, ended_at: float) -> None: ...


class Dialer:
    """Owns the session table and every client socket between two dials.

    `clock` gives monotonic seconds; not the loop's own, which under uvloop only knows whole milliseconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        capacity: Capacity,
        rng: Random,
        apply: Callable[[Sequence[Effect]], None],
        log: SessionLog | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = SessionTable()
        self.rng = rng
        self.log = log
        self.complaints = Complaints(logger)
        # Our ends of live original_dst dials, counted: two dials to different places may share a local port.
        self.own_dials: Counter[tuple[str, int]] = Counter()
        self._loop = loop
        self.clock = clock
        self._now = clock
        self._capacity = capacity
        self._apply = apply
        self._relay: Relay | None = None
        self.doorway: Doorway | None = None

    def attach(self, relay: Relay) -> None:
        """The relay is made with `on_events` as its callback, so it comes after the dialer, and before any listener."""
        self._relay = relay
        self.doorway = relay.doorway

    # -- from the listener

    def begin(self, session: Session, client: Socket) -> None:
        """Take over an admitted client: it is counted from here to its end."""
        self._capacity.take()
        self.sessions.add(session)
        try:
            self._dial(session, client)
        except Exception:  # noqa: BLE001 - the wall around a session
            self._crashed(session, client)

    def launch(self, session: Session, client: int, family: int) -> None:
        """As `begin`, for a client that is a plain descriptor: through the doorway, and on as `begin` does where that fails."""
        self._capacity.take()
        self.sessions.add(session)
        held: Socket | None = None
        try:
            doorway, route = self.doorway, session.route
            assert doorway is not None
            lease = route.pool.acquire(session.context)
            if not isinstance(lease, Lease):
                held = as_socket(client, family)
                self._no_endpoint(session, held, lease)
                return
            session.lease = lease
            session.attempts = 1
            session.move(_PICKED)
            plan = route.plan(lease.endpoint, doorway)
            if plan is None:
                held = as_socket(client, family)
                if not self._connect(session, held, lease):
                    self._dial(session, held)
                return
            session.move(_DIALING)
            try:
                failure = doorway.launch(session.id, client, plan, client_unix=family == _UNIX)
            except OSError as error:
                failure = error.errno or 0
                cause = self._local_fault(route, error)
            else:
                if not failure:
                    return  # the relay has taken over
                cause = dial_cause(failure, lease.address.family)
            held = as_socket(client, family)
            if self._try_again(session, held, cause, failure):
                self._dial(session, held)
        except Exception:  # noqa: BLE001 - the wall around a session
            self._crashed(session, as_socket(client, family) if held is None else held)

    def turn_down(
        self, session: Session, client: Socket, reason: EndReason, phase: Phase, error: int
    ) -> None:
        """Take over a client that cannot be served, as a session that ends at once."""
        self._capacity.take()
        self.sessions.add(session)
        try:
            self._fail(session, client, reason, phase, error)
        except Exception:  # noqa: BLE001 - the wall around a session
            self._crashed(session, client)

    def _dial(self, session: Session, client: Socket) -> None:
        pool = session.route.pool
        while True:
            lease = pool.acquire(session.context)
            if not isinstance(lease, Lease):
                self._no_endpoint(session, client, lease)
                return
            session.lease = lease
            session.attempts += 1
            session.move(_PICKED)
            if self._connect(session, client, lease):
                return

    def _connect(self, session: Session, client: Socket, lease: Lease) -> bool:
        """True when the relay has taken over, or the session has ended; False: pick once more."""
        route, endpoint, address = session.route, lease.endpoint, lease.address
        try:
            upstream = open_dialing(FAMILIES[address.family], route.leg_options, route.connect)
        except OSError as error:
            failure = error.errno or 0
            cause = self._local_fault(route, error)
        else:
            try:
                known = address is endpoint.address and "%" not in address.host
                failure = upstream.connect_ex(endpoint.sockaddr if known else socket_name(address))
            except OSError as error:  # an IPv6 zone whose interface is gone is not even an address
                logger.debug("upstream %s: %s: %s", route.upstream, address, error)
                failure = errno.ENETUNREACH
            if failure in {0, errno.EINPROGRESS}:
                session.move(_DIALING)
                self._submit(session, client, upstream, endpoint)
                return True
            upstream.close()
            cause = dial_cause(failure, address.family)
        session.move(_DIALING)
        return not self._try_again(session, client, cause, failure)

    def _local_fault(self, route: Route, error: OSError) -> DialCause:
        cause = local_cause(error.errno or 0)
        if cause.reason is EndReason.INTERNAL_ERROR:
            message = f"upstream {route.upstream}: cannot make a socket to dial from: {error}"
            self.complaints.say(logging.ERROR, f"socket {route.upstream}", message, self._now())
        return cause

    def _submit(self, session: Session, client: Socket, upstream: Socket, endpoint: Endpoint) -> None:
        assert self._relay is not None
        route = session.route
        options: RelayOptions
        if session.attempts == 1:
            options = route.relay_options(endpoint)
        else:
            left_s = session.started + route.connect.budget_s - self._now()
            options = route.retry_options(endpoint, max(0.001, left_s))
        if route.transparent:
            name = upstream.getsockname()
            session.dialled_from = (name[0], name[1])
            self.own_dials[session.dialled_from] += 1
        try:
            self._relay.submit(session.id, client, upstream, options)
        except OSError as error:
            message = f"the relay refused a session: {error}"
            self.complaints.say(logging.ERROR, "relay", message, self._now())
            upstream.close()
            self._fail(session, client, EndReason.LOCAL_FDS, Phase.CONNECT, error.errno or 0)

    def _no_endpoint(self, session: Session, client: Socket, why: Exhausted) -> None:
        route = session.route
        if why is Exhausted.FULL:
            if not session.attempts:
                session.owner.turned_away_full()
            self._fail(session, client, EndReason.FULL, Phase.ROUTE, 0)
        elif why is Exhausted.TRIED:
            pause_s = RETRY_PAUSE.wait_s(session.attempts - 1, self.rng)
            if self._now() + pause_s >= session.started + route.connect.budget_s:
                self._fail(session, client, EndReason.CONNECT_BUDGET, Phase.CONNECT, 0)
                return
            session.client = client
            session.context.tried = ()
            session.move(_WAITING)
            route.pool.waiting += 1
            session.pause = self._loop.call_later(pause_s, self._resume, session)
        else:
            self._fail(session, client, EndReason.NO_ENDPOINT, Phase.ROUTE, 0)

    def _wake(self, session: Session) -> Socket:
        """End the pause of a session, whether it is over or not; its client, which the caller owns from now on."""
        client, session.client = session.client, None
        assert client is not None
        if session.pause is not None:
            session.pause.cancel()
            session.pause = None
        session.route.pool.waiting -= 1
        return client

    def _resume(self, session: Session) -> None:
        client = self._wake(session)
        session.context.now = self._now()
        gone = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if gone:
            self._fail(session, client, EndReason.CLIENT_GONE, Phase.WAIT, gone)
            return
        try:
            self._dial(session, client)
        except Exception:  # noqa: BLE001 - the wall around a session
            self._crashed(session, client)

    def _try_again(self, session: Session, client: Socket, cause: DialCause, error: int) -> bool:
        """After a failed dial: count it, then True when the caller should pick once more; else the session has ended."""
        lease, route = session.lease, session.route
        assert lease is not None
        now = self._now()
        self._blame(session, lease, cause, now)
        if not cause.retryable or session.attempts >= route.connect.attempts:
            self._fail(session, client, cause.reason, Phase.CONNECT, error)
            return False
        if now >= session.started + route.connect.budget_s:
            self._fail(session, client, EndReason.CONNECT_BUDGET, Phase.CONNECT, error)
            return False
        session.context.now = now
        return True

    def _blame(self, session: Session, lease: Lease, cause: DialCause, now: float) -> None:
        endpoint = lease.endpoint
        session.context.tried = (*session.context.tried, endpoint)
        self._forget_dial(session)
        lease.release()
        session.lease = None
        session.failed_last = endpoint.label
        effects = session.route.pool.dial_failed(endpoint, cause.failure, now)
        if effects:
            self._apply(effects)

    # -- from the relay

    def on_events(self, events: Sequence[Event]) -> None:
        """The relay's callback. A defect in one session ends that session alone."""
        now, find = self._now(), self.sessions.get
        for event in events:
            session = find(event.session)
            if session is None:
                logger.error("relay event for unknown session %d", event.session)
                continue
            try:
                if isinstance(event, Connected):
                    self._connected(session, event.connect_s, now)
                elif event.client is not None:
                    self._given_back(session, event, event.client)
                else:
                    if event.connect_s is not None and session.state is _DIALING:
                        self._connected(session, event.connect_s, now)  # told in one event
                    self._end(session, event, now)
            except Exception:
                if isinstance(event, Connected):
                    logger.exception("session %d failed once connected", session.id)
                    self.abort(session, EndReason.INTERNAL_ERROR, reset=True)
                elif event.client is not None:
                    self._crashed(session, event.client)
                else:
                    logger.exception("session %d failed at its end", session.id)
                    self._end_crashed(session, event, now)

    def _connected(self, session: Session, connect_s: float, now: float) -> None:
        lease = session.lease
        assert lease is not None
        session.move(_RELAYING)
        effects = session.route.pool.connected(lease.endpoint, connect_s, now)
        if effects:
            self._apply(effects)

    def _given_back(self, session: Session, outcome: Outcome, client: Socket) -> None:
        if session.doomed is not None:
            self._fail(session, client, session.doomed, Phase.CONNECT, outcome.errno)
            return
        lease = session.lease
        assert lease is not None
        if outcome.reason is EndReason.CONNECT_TIMEOUT and not outcome.errno:
            outcome.errno = errno.ETIMEDOUT  # our own timer or the kernel's, it is the same fact
        cause = dial_cause(outcome.errno, lease.address.family)
        if self._try_again(session, client, cause, outcome.errno):
            self._dial(session, client)

    # -- the end

    def abort(self, session: Session, reason: EndReason, *, reset: bool) -> None:
        """End a session whatever it is doing."""
        assert self._relay is not None
        if session.client is not None:
            self._fail(session, self._wake(session), reason, Phase.WAIT, 0)
        elif not self._relay.abort(session.id, reason, reset=reset):
            # Its outcome is already on the way; should that give the client back, nothing more is tried.
            session.doomed = reason

    def close_sessions(self, endpoint: Endpoint, reason: EndReason) -> int:
        """End all sessions of one endpoint; the number of them."""
        sessions = self.sessions.of_endpoint(endpoint)
        for session in sessions:
            self.abort(session, reason, reset=False)
        return len(sessions)

    def _crashed(self, session: Session, client: Socket) -> None:
        """The wall: called while an exception is handled. Nothing of this session may be left behind."""
        logger.exception("session %d failed", session.id)  # noqa: LOG004 - its callers are except clauses
        if client.fileno() != -1:
            refuse(client, reset=True)
            now = self._now()
            self._end_crashed(session, _outcome(session, EndReason.INTERNAL_ERROR, Phase.ROUTE, 0, now), now)

    def _end_crashed(self, session: Session, outcome: Outcome, now: float) -> None:
        """Whoever came with this session, in a batch of clients or of events, must not hear of a second defect either."""
        outcome.reason = EndReason.INTERNAL_ERROR
        try:
            self._end(session, outcome, now)
        except Exception:
            logger.exception("session %d failed again at its end", session.id)

    def _fail(self, session: Session, client: Socket, reason: EndReason, phase: Phase, error: int) -> None:
        refuse(client, reset=session.owner.reset_on_failure)
        now = self._now()
        self._end(session, _outcome(session, reason, phase, error, now), now)

    def _forget_dial(self, session: Session) -> None:
        if session.dialled_from is not None:
            self.own_dials[session.dialled_from] -= 1
            if not self.own_dials[session.dialled_from]:
                del self.own_dials[session.dialled_from]
            session.dialled_from = None

    def _end(self, session: Session, outcome: Outcome, now: float) -> None:
        if not self.sessions.remove(session):
            return  # the wall met a session that had ended before the defect
        session.move(_ENDED)
        # First, so that no defect below can keep the places.
        self._capacity.give_back()
        session.owner.session_ended()
        route = session.route
        if session.dialled_from is not None:
            self._forget_dial(session)
        route.ended[outcome.reason] += 1
        # Counted from the accept, not from the last submit.
        outcome.total_s = total_s = now - session.started
        route.duration.observe(total_s)
        lease = session.lease
        if lease is not None:
            lease.release()
        if self.log is not None:
            self.log(session, outcome, time.time())


def _outcome(session: Session, reason: EndReason, phase: Phase, error: int, now: float) -> Outcome:
    """The end of a session that the relay does not have."""
    return Outcome(session.id, reason, phase, 0, 0, None, None, now - session.started, error, None)
