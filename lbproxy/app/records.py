"""From an ended session to an access log record."""

from __future__ import annotations

from lbproxy.accesslog.record import Record
from lbproxy.accesslog.writer import AccessLog
from lbproxy.proxy.dialing import SessionLog
from lbproxy.proxy.sessions import Session
from lbproxy.relay.contract import Outcome


def recorder(log: AccessLog) -> SessionLog:
    """What the dialer calls for each ended session: builds the record, and nothing more, on the loop."""

    def record(session: Session, outcome: Outcome, ended_at: float) -> None:
        route = session.route
        log.log(
            Record(
                ended_at,
                session.id,
                route.listener,
                session.client_host,
                session.client_port,
                route.upstream,
                session.last_endpoint,
                session.attempts,
                outcome.sent_bytes,
                outcome.received_bytes,
                outcome.connect_s,
                outcome.first_byte_s,
                outcome.total_s,
                outcome.reason,
                outcome.phase,
                outcome.errno,
            )
        )

    return record
