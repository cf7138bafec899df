/* A session until its upstream has answered: it is watched, its connect is awaited, and nothing is read from its client. */
#include "session.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>

#define WATCHED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

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
        session_finish(thread, session, REASON_LOCAL_FDS, errno, false, true);
        return;
    }
    session_look_at(thread, session, session->started_at, session->connect_timeout_ms);
    session_look_at(thread, session, session->started_at, session->max_duration_ms);
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
    session_look_at(thread, session, thread->now, session->idle_timeout_ms);
    if (session->keepalive.probes)
        wheel_add(&thread->wheel, session, thread->now + thread->engine->options.keepalive_after_ms * MILLISECOND);
}

static void connect_failed(struct thread *thread, struct session *session, int error)
{
    session_finish(thread, session, REASON_CONNECT_FAILED, error, false, true);
}

void session_upstream_answered(struct thread *thread, struct session *session, uint32_t flags)
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
        session_fail(thread, session, DOWNWARD, error);
        return;
    }
    half_note(downward, flags);
    if (half_holds(&session->half[UPWARD]) || session->half[UPWARD].flags & READABLE)
        session_advance(thread, session, UPWARD);
    /* The client's first bytes should have carried it to the upstream, but there were none: who waits for the upstream to speak must not
     * wait for the kernel's timer. */
    if (session->state == STATE_RELAYING && session->ack_held)
        session_acknowledge(thread, session);
    if (session->state == STATE_RELAYING && downward->flags & READABLE)
        session_advance(thread, session, DOWNWARD);
}

/* A unix client that wrote and closed hangs up without an error: what it wrote can still be read. */
void session_client_spoke(struct thread *thread, struct session *session, uint32_t flags)
{
    struct half *upward = &session->half[UPWARD];
    int error = flags & (EPOLLERR | EPOLLHUP) ? take_error(thread, upward->source) : 0;
    if (error || (flags & (EPOLLERR | EPOLLHUP) && !(upward->flags & OF_UNIX)))
        session_end(thread, session, REASON_CLIENT_GONE, error, true);
    else
        half_note(upward, flags);
}
