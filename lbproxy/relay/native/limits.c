/* A session's limits, and the keepalive of its upstream: what is due when nothing happens. */
#include "session.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

void session_look_at(struct thread *thread, struct session *session, uint64_t from, uint64_t limit_ms)
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
        session_finish(thread, session, reason, 0, false, true);
    } else {
        session_end(thread, session, reason, 0, session_has_undelivered(thread, session));
    }
}
