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
 * - Each descriptor is closed once: in `finish`, or by the owner if it looks at them in that moment (`engine_look`); no system call of
 *   this thread uses them after. One that is given back has left the epoll before.
 * - Exactly one Outcome is posted. Who ends the session, its thread or an abort, is decided by one exchange of `claim`.
 * - Every event is an edge. Whoever leaves something unread or unwritten has either been told EAGAIN, or stands in the run queue,
 *   or (resetting) in the list that is looked at every few milliseconds.
 */
#include "state.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>

#define WATCHED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
#define ODD (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)

static void fail(struct thread *thread, struct session *session, int side, int error);
static void advance(struct thread *thread, struct session *session, int side);

/* Questions to the kernel */

static int take_error(const struct thread *thread, int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (thread->calls->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == -1)
        return errno;
    return error;
}

static int queued(const struct thread *thread, int fd, unsigned long question)
{
    int bytes = 0;
    return thread->calls->queued(fd, question, &bytes) == -1 || bytes < 0 ? 0 : bytes;
}

static bool is_connected(const struct thread *thread, int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return thread->calls->getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
    return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
}

/* Whether the kernel may have taken this port for the dial itself. */
static bool may_be_own(const struct thread *thread, uint16_t port)
{
    return port >= thread->engine->options.first_port && port <= thread->engine->options.last_port;
}

/* Whether a dial to a dead local port was answered by its own SYN. It can be only if the kernel may have taken that port for
 * the dial itself, so a dial to a known port is cleared by no call or one, others by one or two. */
static bool is_connected_to_itself(const struct thread *thread, const struct session *session)
{
    int fd = session->half[DOWNWARD].source;
    struct sockaddr_storage peer, own;
    socklen_t peer_size = sizeof peer, own_size = sizeof own;
    memset(&peer, 0, sizeof peer);
    memset(&own, 0, sizeof own);
    if (session->half[DOWNWARD].flags & OF_UNIX)
        return false;
    if (session->dial_port) {
        if (!may_be_own(thread, session->dial_port))
            return false;
        if (thread->calls->getsockname(fd, (struct sockaddr *)&own, &own_size) == -1 || port_of(&own) != session->dial_port)
            return false;
        own_size = sizeof own;
    }
    if (thread->calls->getpeername(fd, (struct sockaddr *)&peer, &peer_size) == -1 || !may_be_own(thread, port_of(&peer)))
        return false;
    if (thread->calls->getsockname(fd, (struct sockaddr *)&own, &own_size) == -1)
        return false;
    if (own_size != peer_size || port_of(&own) != port_of(&peer))
        return false;
    if (own.ss_family == AF_INET)
        return ((struct sockaddr_in *)&own)->sin_addr.s_addr == ((struct sockaddr_in *)&peer)->sin_addr.s_addr;
    return memcmp(&((struct sockaddr_in6 *)&own)->sin6_addr, &((struct sockaddr_in6 *)&peer)->sin6_addr, 16) == 0;
}

/* Whether a FIN now would make a truncated stream look whole. */
static bool has_undelivered(const struct thread *thread, const struct session *session)
{
    if (session->state == STATE_RESETTING)
        return true;
    for (int side = 0; side < 2; side++) {
        const struct half *half = &session->half[side];
        if (half_holds(half) || queued(thread, half->source, FIONREAD))
            return true;
    }
    return false;
}

/* The end */

static void linger_none(const struct thread *thread, const struct session *session, int side)
{
    const struct half *half = &session->half[side];
    struct linger none = {.l_onoff = 1};
    if (!(half->flags & OF_UNIX))
        thread->calls->setsockopt(half->source, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void session_close(const struct calls *calls, const struct session *session)
{
    calls->close(session->half[DOWNWARD].source);
    if (session->given_back == -1)
        calls->close(session->half[UPWARD].source);
}

static void unwatch(const struct thread *thread, int fd)
{
    thread->calls->epoll_ctl(thread->epoll, EPOLL_CTL_DEL, fd, &(struct epoll_event){0});
}

/* The thread's last step with the descriptors. While the owner looks they stay open, and are the owner's to close once this says that
 * the session is over; before it does, they leave the epoll, or a later turn would hear of a session that is free by then. */
static void let_go(const struct thread *thread, struct session *session)
{
    unsigned char expected = LOOK_NONE;
    if (!atomic_compare_exchange_strong_explicit(
            &session->looking, &expected, LOOK_OVER, memory_order_acq_rel, memory_order_acquire)) {
        unwatch(thread, session->half[UPWARD].source);
        unwatch(thread, session->half[DOWNWARD].source);
        if (atomic_exchange_explicit(&session->looking, LOOK_OVER, memory_order_acq_rel) == LOOK_BEGUN)
            return;
    }
    session_close(thread->calls, session);
}

/* Ends the session. `give_back`: the client lives on, unless an abort has claimed the session. */
static void finish(struct thread *thread, struct session *session, int reason, int error, bool reset, bool give_back)
{
    const struct calls *calls = thread->calls;
    unsigned char none = CLAIM_NONE;
    bool aborted = !atomic_compare_exchange_strong_explicit(
        &session->claim, &none, CLAIM_ENDED, memory_order_acq_rel, memory_order_acquire);
    if (aborted) {
        reason = session->abort_reason;
        error = 0;
        reset = reset || session->abort_reset || has_undelivered(thread, session);
        give_back = false;
    }
    if (!link_alone(&session->armed))
        wheel_remove(&thread->wheel, session);
    link_out(&session->running);
    link_out(&session->resetting);
    int client = session->half[UPWARD].source;
    if (reset) {
        linger_none(thread, session, UPWARD);
        linger_none(thread, session, DOWNWARD);
    }
    half_drop(thread, &session->half[UPWARD]);
    half_drop(thread, &session->half[DOWNWARD]);
    if (session->first_bytes != NULL) {
        calls->release(session->first_bytes);
        session->first_bytes = NULL;
    }
    if (give_back)
        unwatch(thread, client);
    thread->live--;
    session->state = STATE_ENDED;
    session->reason = reason;
    session->error = error;
    session->given_back = give_back ? client : -1;
    let_go(thread, session);
    /* Submitted and ended within one turn, it is younger than the turn's clock. */
    session->ended_at = thread->now > session->started_at ? thread->now : session->started_at;
    if (aborted)
        return; /* `session_aborted` posts it: until then the session stands in the list of aborts */
    count_up(&thread->ended, 1);
    thread_post(thread, &session->outcome_notice);
}

/* An abort that has claimed the session arrives. If the session has ended meanwhile, its Outcome waits for this. */
void session_aborted(struct thread *thread, struct session *session)
{
    if (session->state != STATE_ENDED)
        finish(thread, session, session->abort_reason, 0, session->abort_reset, false);
    count_up(&thread->ended, 1);
    thread_post(thread, &session->outcome_notice);
}

static void end(struct thread *thread, struct session *session, int reason, int error, bool reset)
{
    finish(thread, session, reason, error, reset, false);
}

void session_kill(struct thread *thread, struct session *session)
{
    if (session->state != STATE_ENDED && session->state != STATE_FREE)
        end(thread, session, REASON_KILLED, 0, true);
}

/* Limits */

static void look_at(struct thread *thread, struct session *session, uint64_t from, uint64_t limit_ms)
{
    if (limit_ms)
        wheel_add(&thread->wheel, session, from + limit_ms * MILLISECOND);
}

static void sooner(uint64_t *least, int *reason, uint64_t from, uint64_t limit_ms, int limit_reason)
{
    if (limit_ms && from + limit_ms * MILLISECOND < *least) {
        *least = from + limit_ms * MILLISECOND;
        *reason = limit_reason;
    }
}

static void keep_alive(const struct thread *thread, struct session *session)
{
    const struct calls *calls = thread->calls;
    int fd = session->half[DOWNWARD].source, on = 1;
    int idle_s = session->keepalive.idle_s, interval_s = session->keepalive.interval_s, probes = session->keepalive.probes;
    session->keepalive.probes = 0;
    calls->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    calls->setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    calls->setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    calls->setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

/* When the upstream's keepalive is due, NEVER without one; sets it if that is now. */
static uint64_t keepalive_due(const struct thread *thread, struct session *session)
{
    if (session->state != STATE_RELAYING || !session->keepalive.probes)
        return NEVER;
    uint64_t due = session->connected_at + thread->engine->options.keepalive_after_ms * MILLISECOND;
    if (thread->now < due)
        return due;
    keep_alive(thread, session);
    return NEVER;
}

/* The session stands in no bucket now: it ends, or is looked at again when its limit is due. */
void session_judge(struct thread *thread, struct session *session)
{
    uint64_t at = NEVER, moved_at = count_of(&session->moved_at), look = keepalive_due(thread, session);
    int reason = REASON_MAX_DURATION;
    sooner(&at, &reason, session->started_at, session->max_duration_ms, REASON_MAX_DURATION);
    if (session->state == STATE_CONNECTING) {
        sooner(&at, &reason, session->started_at, session->connect_timeout_ms, REASON_CONNECT_TIMEOUT);
    } else if (session->state == STATE_RELAYING) {
        uint64_t since = session->half_closed_at > moved_at ? session->half_closed_at : moved_at;
        sooner(&at, &reason, moved_at, session->idle_timeout_ms, REASON_IDLE_TIMEOUT);
        if (session->half_closed_at)
            sooner(&at, &reason, since, session->half_close_timeout_ms, REASON_HALF_CLOSE_TIMEOUT);
    }
    if (at > thread->now) {
        if (at < look)
            look = at;
        if (look != NEVER)
            wheel_add(&thread->wheel, session, look);
    } else if (reason == REASON_CONNECT_TIMEOUT) {
        finish(thread, session, reason, 0, false, true);
    } else {
        end(thread, session, reason, 0, has_undelivered(thread, session));
    }
}

/* Connecting */

static bool watch(struct thread *thread, struct session *session, int side)
{
    struct epoll_event event = {
        .events = WATCHED,
        .data.u64 = (uint64_t)session->generation << 32 | session->index << 1 | (uint32_t)side,
    };
    return thread->calls->epoll_ctl(thread->epoll, EPOLL_CTL_ADD, session->half[side].source, &event) == 0;
}

void session_adopt(struct thread *thread, struct session *session)
{
    session->state = STATE_CONNECTING;
    if (!watch(thread, session, UPWARD) || !watch(thread, session, DOWNWARD)) {
        finish(thread, session, REASON_LOCAL_FDS, errno, false, true);
        return;
    }
    look_at(thread, session, session->started_at, session->connect_timeout_ms);
    look_at(thread, session, session->started_at, session->max_duration_ms);
}

static void connected(struct thread *thread, struct session *session)
{
    struct half *upward = &session->half[UPWARD];
    session->state = STATE_RELAYING;
    session->connected_at = thread->now;
    atomic_store_explicit(&session->moved_at, thread->now, memory_order_relaxed);
    atomic_store_explicit(&session->phase, PHASE_RELAY, memory_order_relaxed);
    count_up(&thread->connected, 1);
    thread_post(thread, &session->connected_notice);
    if (session->first_bytes != NULL) {
        upward->pending = upward->at = session->first_bytes;
        upward->left = upward->own = session->first_size;
        session->first_bytes = NULL;
        count_up(&thread->pending, upward->left);
    }
    look_at(thread, session, thread->now, session->idle_timeout_ms);
    if (session->keepalive.probes)
        wheel_add(&thread->wheel, session, thread->now + thread->engine->options.keepalive_after_ms * MILLISECOND);
}

static void note(struct half *half, uint32_t flags)
{
    if (flags & EPOLLRDHUP)
        half->flags |= HUNG;
    if (flags & EPOLLERR)
        half->flags |= THOROUGH;
    if (flags & EPOLLPRI)
        half->flags |= THOROUGH | URGENT;
    if (flags & ~(uint32_t)EPOLLOUT)
        half->flags |= READABLE;
}

static void connect_failed(struct thread *thread, struct session *session, int error)
{
    finish(thread, session, REASON_CONNECT_FAILED, error, false, true);
}

/* The client's first bytes should have carried it to the upstream, but there were none: who waits for the upstream to speak must not wait
 * for the kernel's timer. */
static void release_ack(const struct thread *thread, const struct session *session)
{
    const struct half *upward = &session->half[UPWARD];
    int on = 1;
    if (session->state == STATE_RELAYING && session->ack_held && !(upward->flags & DONE) && !count_of(&upward->count))
        thread->calls->setsockopt(upward->sink, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void upstream_answered(struct thread *thread, struct session *session, uint32_t flags)
{
    struct half *downward = &session->half[DOWNWARD];
    int error = 0;
    if (flags & (EPOLLERR | EPOLLHUP)) {
        error = take_error(thread, downward->source);
        /* A reset behind bytes is no failed connect: the bytes are delivered, then the reset. */
        if (error && !(error == ECONNRESET && queued(thread, downward->source, FIONREAD))) {
            connect_failed(thread, session, error);
            return;
        }
        if (!error && !is_connected(thread, downward->source)) {
            connect_failed(thread, session, ENOTCONN);
            return;
        }
    } else if (!(flags & EPOLLOUT)) {
        return;
    } else if (is_connected_to_itself(thread, session)) {
        connect_failed(thread, session, ECONNREFUSED);
        return;
    }
    connected(thread, session);
    if (error) {
        fail(thread, session, DOWNWARD, error);
        return;
    }
    note(downward, flags);
    if (half_holds(&session->half[UPWARD]) || session->half[UPWARD].flags & READABLE)
        advance(thread, session, UPWARD);
    release_ack(thread, session);
    if (session->state == STATE_RELAYING && downward->flags & READABLE)
        advance(thread, session, DOWNWARD);
}

/* A unix client that wrote and closed hangs up without an error: what it wrote can still be read. */
static void client_spoke(struct thread *thread, struct session *session, uint32_t flags)
{
    struct half *upward = &session->half[UPWARD];
    int error = flags & (EPOLLERR | EPOLLHUP) ? take_error(thread, upward->source) : 0;
    if (error || (flags & (EPOLLERR | EPOLLHUP) && !(upward->flags & OF_UNIX)))
        end(thread, session, REASON_CLIENT_GONE, error, true);
    else
        note(upward, flags);
}

/* Relaying */

/* The direction has read its end and written every byte before it: the FIN goes across. */
static void close_half(struct thread *thread, struct session *session, int side)
{
    struct half *half = &session->half[side];
    half->flags |= DONE;
    if (session->half[!side].flags & DONE) {
        end(thread, session, session->first_eof, 0, false);
        return;
    }
    if (thread->calls->shutdown(half->sink, SHUT_WR) == -1) {
        /* ENOTCONN: the sink is closed already, without having sent a FIN that we read. That is a reset. */
        int failure = errno, error = take_error(thread, half->sink);
        fail(thread, session, !side, error ? error : failure);
        return;
    }
    session->half_closed_at = thread->now;
    atomic_store_explicit(&session->phase, PHASE_HALF_CLOSED, memory_order_relaxed);
    session->first_eof = side == UPWARD ? REASON_CLIENT_EOF : REASON_UPSTREAM_EOF;
    look_at(thread, session, thread->now, session->half_close_timeout_ms);
}

static void end_reset(struct thread *thread, struct session *session)
{
    end(thread, session, session->reset_reason, session->reset_error, true);
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
            fail(thread, session, side, half->error);
        break;
    case STOP_SINK_FAILED:
        if (resetting)
            end_reset(thread, session);
        else
            fail(thread, session, !side, half->error);
        break;
    case STOP_NO_MEMORY:
        end(thread, session, REASON_INTERNAL_ERROR, ENOMEM, true);
        break;
    }
}

/* Moves one direction as far as it goes. */
static void advance(struct thread *thread, struct session *session, int side)
{
    struct half *half = &session->half[side];
    if (!(half->flags & DONE))
        stopped(thread, session, side, half_move(thread, session, half));
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
            advance(thread, session, side);
        else if (session->state == STATE_RESETTING)
            session_deliver(thread, session);
        if (session->state == STATE_ENDED)
            return;
    }
}

/* One side was reset */

/* The source of this direction was reset, or timed out. What it had sent is delivered first. */
static void fail(struct thread *thread, struct session *session, int side, int error)
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
        advance(thread, session, session->reset_side);
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
            fail(thread, session, side, error);
            return;
        }
    }
    note(source, flags);
    if (half_holds(sink) && flags & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        advance(thread, session, !side);
        if (session->state != STATE_RELAYING)
            return;
    }
    if ((source->flags & (READABLE | DONE | QUEUED)) == READABLE && !half_holds(source))
        advance(thread, session, side);
}

void session_event(struct thread *thread, struct session *session, int side, uint32_t flags)
{
    switch (session->state) {
    case STATE_CONNECTING:
        if (side == DOWNWARD)
            upstream_answered(thread, session, flags);
        else
            client_spoke(thread, session, flags);
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
