/* One session's doors between the files it is made of: session.c, connecting.c, limits.c, ending.c. */
#ifndef LBPROXY_SESSION_H
#define LBPROXY_SESSION_H

#include "state.h"

#include <errno.h>

static inline int take_error(const struct thread *thread, int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (thread->calls->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == -1)
        return errno;
    return error;
}

static inline int queued(const struct thread *thread, int fd, unsigned long question)
{
    int bytes = 0;
    return thread->calls->queued(fd, question, &bytes) == -1 || bytes < 0 ? 0 : bytes;
}

static inline void half_note(struct half *half, uint32_t flags)
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

/* session.c: `session_advance` moves one direction as far as it goes. `session_fail`: the source of this direction was reset, or timed
 * out; what it had sent is delivered first. */
void session_advance(struct thread *thread, struct session *session, int side);
/* The upstream is acknowledged now, if it waits for that, and at once from now on, until the kernel finds that bytes go both ways. */
void session_acknowledge(const struct thread *thread, const struct session *session);
void session_fail(struct thread *thread, struct session *session, int side, int error);

/* connecting.c */
void session_upstream_answered(struct thread *thread, struct session *session, uint32_t flags);
void session_client_spoke(struct thread *thread, struct session *session, uint32_t flags);

/* limits.c: judges the session once `limit_ms` have passed since `from`, or earlier; 0 means no limit. */
void session_look_at(struct thread *thread, struct session *session, uint64_t from, uint64_t limit_ms);

/* ending.c: ends the session. `give_back`: the client lives on, unless an abort has claimed the session. */
void session_finish(struct thread *thread, struct session *session, int reason, int error, bool reset, bool give_back);

static inline void session_end(struct thread *thread, struct session *session, int reason, int error, bool reset)
{
    session_finish(thread, session, reason, error, reset, false);
}

/* Whether a FIN now would make a truncated stream look whole. */
bool session_has_undelivered(const struct thread *thread, const struct session *session);

#endif
