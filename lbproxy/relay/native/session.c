/* One session: its two directions, and the decisions about them.
 *
 *   state       what happens                                                   leaves for
 *   SUBMITTED   on its way to its thread                                       CONNECTING; ENDED (cannot be watched, killed)
 *   CONNECTING  nothing is read; the upstream's connect is awaited             RELAYING; ENDED (failed, timed out, aborted)
 *   RELAYING    both directions move; an end goes across as a FIN and          RESETTING; ENDED (both done, a limit, aborted)
 *               ends its direction
 *   RESETTING   one side was reset: what it had sent is delivered, then the    ENDED
 *               other side is reset, too
 *   ENDED       the Outcome is on its way; the descriptors are closed or
 *               given back
 *
 * Invariants:
 * - Nothing is read from the client before RELAYING.
 * - A FIN is written once a direction, and only after every byte of it was. The last FIN is the close itself: both receive queues
 *   were read to their ends, so the kernel sends a FIN and what is before it, not an RST.
 * - Each descriptor is closed once: in `session_finish`, or by the owner if it looks at them in that moment (`engine_look`); no system call of
 *   this thread uses them after. One that is given back has left the epoll before.
 * - Exactly one Outcome is posted. Who ends the session, its thread or an abort, is decided by one exchange of `claim`.
 * - Every event is an edge. Whoever leaves something unread or unwritten has either been told EAGAIN, or stands in the run queue,
 *   or (resetting) in the list that is looked at every few milliseconds.
 */
#include "session.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

/* The direction has read its end and written every byte before it: the FIN goes across. */
static void close_half(struct thread *thread, struct session *session, int side)
{
    struct half *half = &session->half[side];
    half->flags |= DONE;
    if (session->half[!side].flags & DONE) {
        session_end(thread, session, session->first_eof, 0, false);
        return;
    }
    if (thread->calls->shutdown(half->sink, SHUT_WR) == -1) {
        /* ENOTCONN: the sink is closed already, without having sent a FIN that we read. That is a reset. */
        int failure = errno, error = take_error(thread, half->sink);
        session_fail(thread, session, !side, error ? error : failure);
        return;
    }
    session->half_closed_at = thread->now;
    atomic_store_explicit(&session->phase, PHASE_HALF_CLOSED, memory_order_relaxed);
    session->first_eof = side == UPWARD ? REASON_CLIENT_EOF : REASON_UPSTREAM_EOF;
    session_look_at(thread, session, thread->now, session->half_close_timeout_ms);
}

static void end_reset(struct thread *thread, struct session *session)
{
    session_end(thread, session, session->reset_reason, session->reset_error, true);
}

static void stopped(struct thread *thread, struct session *session, int side, enum stop stop)
{
    struct half *half = &session->half[side];
    bool resetting = session->state == STATE_RESETTING;
    switch (stop) {
    case STOP_BLOCKED:
        break;
    case STOP_EMPTY:
        if (resetting)
            half->flags |= DONE;
        break;
    case STOP_BUDGET:
        count_up(&thread->yields, 1);
        half->flags |= QUEUED;
        if (link_alone(&session->running))
            link_in(&thread->running, &session->running);
        break;
    case STOP_EOF:
        if (resetting)
            half->flags |= DONE;
        else
            close_half(thread, session, side);
        break;
    case STOP_SOURCE_FAILED:
        if (resetting)
            half->flags |= DONE;
        else
            session_fail(thread, session, side, half->error);
        break;
    case STOP_SINK_FAILED:
        if (resetting)
            end_reset(thread, session);
        else
            session_fail(thread, session, !side, half->error);
        break;
    case STOP_NO_MEMORY:
        session_end(thread, session, REASON_INTERNAL_ERROR, ENOMEM, true);
        break;
    }
}

void session_acknowledge(const struct thread *thread, const struct session *session)
{
    int on = 1;
    thread->calls->setsockopt(session->half[UPWARD].sink, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

/* Moves one direction as far as it goes. Once a client's first bytes are written, the upstream's are to be acknowledged at once, as on other
 * new connections: the kernel would go on to delay that after the handshake, and an upstream that answers in two writes, with Nagle's
 * algorithm on, would keep the second one back for 40 ms. */
void session_advance(struct thread *thread, struct session *session, int side)
{
    struct half *half = &session->half[side];
    if (half->flags & DONE)
        return;
    enum stop stop = half_move(thread, session, half);
    if (side == UPWARD && session->ack_held && count_of(&half->count)) {
        session->ack_held = false;
        session_acknowledge(thread, session);
    }
    stopped(thread, session, side, stop);
}

/* A direction that used up its budget goes on. */
void session_run(struct thread *thread, struct session *session)
{
    for (int side = 0; side < 2; side++) {
        struct half *half = &session->half[side];
        if (!(half->flags & QUEUED))
            continue;
        half->flags &= (uint16_t)~QUEUED;
        if (session->state == STATE_RELAYING)
            session_advance(thread, session, side);
        else if (session->state == STATE_RESETTING)
            session_deliver(thread, session);
        if (session->state == STATE_ENDED)
            return;
    }
}

/* One side was reset */

/* The source of this direction was reset, or timed out. What it had sent is delivered first. */
void session_fail(struct thread *thread, struct session *session, int side, int error)
{
    struct half *half = &session->half[side], *lost = &session->half[!side];
    session->state = STATE_RESETTING;
    lost->flags = (lost->flags | DONE) & (uint16_t)~QUEUED;
    half_drop(thread, lost);
    session->reset_side = (uint8_t)side;
    session->reset_reason = side == UPWARD ? REASON_CLIENT_RESET : REASON_UPSTREAM_RESET;
    session->reset_error = error;
    session->reset_progress_at = thread->now;
    session->reset_left = UINT64_MAX;
    uint64_t limit_ms = session->half_close_timeout_ms;
    session->reset_until = limit_ms ? thread->now + limit_ms * MILLISECOND : NEVER;
    half->flags |= THOROUGH | (half->flags & FINISHED ? 0 : READABLE);
    session_deliver(thread, session);
    if (session->state == STATE_RESETTING)
        link_in(&thread->resetting, &session->resetting);
}

/* Goes on with a reset: delivers, waits until the other side has acknowledged it all, then resets that side. */
void session_deliver(struct thread *thread, struct session *session)
{
    struct half *half = &session->half[session->reset_side];
    if (!(half->flags & QUEUED)) {
        session_advance(thread, session, session->reset_side);
        if (session->state != STATE_RESETTING)
            return;
    }
    uint64_t left = half_holds(half);
    if (!(session->half[!session->reset_side].flags & OF_UNIX))
        left += (uint64_t)queued(thread, half->sink, SIOCOUTQ);
    if (!(half->flags & DONE)) {
        left += (uint64_t)queued(thread, half->source, FIONREAD);
    } else if (left == 0) {
        end_reset(thread, session);
        return;
    }
    if (left < session->reset_left) {
        session->reset_left = left;
        session->reset_progress_at = thread->now;
    }
    if (thread->now - session->reset_progress_at >= RESET_STALL_NS || thread->now >= session->reset_until)
        end_reset(thread, session);
}

/* What the sockets say */

static void react(struct thread *thread, struct session *session, int side, uint32_t flags)
{
    struct half *source = &session->half[side], *sink = &session->half[!side];
    if (flags & EPOLLERR) {
        int error = take_error(thread, source->source);
        if (error) {
            session_fail(thread, session, side, error);
            return;
        }
    }
    half_note(source, flags);
    if (half_holds(sink) && flags & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        session_advance(thread, session, !side);
        if (session->state != STATE_RELAYING)
            return;
    }
    if ((source->flags & (READABLE | DONE | QUEUED)) == READABLE && !half_holds(source))
        session_advance(thread, session, side);
}

void session_event(struct thread *thread, struct session *session, int side, uint32_t flags)
{
    switch (session->state) {
    case STATE_CONNECTING:
        if (side == DOWNWARD)
            session_upstream_answered(thread, session, flags);
        else
            session_client_spoke(thread, session, flags);
        break;
    case STATE_RELAYING:
        react(thread, session, side, flags);
        break;
    case STATE_RESETTING:
        if (side == session->reset_side)
            break; /* it is dead, and is read to its end anyway */
        if (flags & EPOLLERR && take_error(thread, session->half[side].source))
            end_reset(thread, session);
        else
            session_deliver(thread, session);
        break;
    default:
        break;
    }
}
