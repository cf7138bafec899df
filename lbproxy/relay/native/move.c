/* Moving one direction's bytes: by copying through the thread's buffer, or by splicing through a pipe once it proves bulky.
 *
 * Invariants:
 * - A direction reads only when everything it read before has been written, so it holds at most BUFFER_BYTES in memory or
 *   PIPE_BYTES in a pipe; once, when its sink refuses a pipe's bytes, these in memory.
 * - It stops as empty or blocked only when the kernel has said so in a way that a later event follows (all sockets are watched
 *   edge-triggered): EAGAIN; or, of a TCP source without urgent marks, errors or a hang-up, a read shorter than asked for.
 * - EAGAIN from a splice into the pipe means an empty source, because the pipe was empty. EAGAIN out of it means a full sink.
 * - 0 from splice is never taken for the end: at an urgent mark it says the same. A recv confirms it.
 * - Splice and recv both consume a pending socket error; whoever gets it reports it. It is never asked for twice.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

static void moved(struct thread *thread, struct session *session)
{
    atomic_store_explicit(&session->moved_at, thread->now, memory_order_relaxed);
}

static void wrote(struct half *half, uint64_t bytes)
{
    count_up(&half->count, bytes);
    count_up(half->counter, bytes);
}

static void copied(struct thread *thread, struct half *half, uint64_t bytes)
{
    wrote(half, bytes);
    count_up(&thread->copied, bytes);
}

static void spliced(struct thread *thread, struct half *half, uint64_t bytes)
{
    wrote(half, bytes);
    count_up(&thread->spliced, bytes);
}

static void held_less(struct thread *thread, uint64_t bytes)
{
    count_up(&thread->pending, (uint64_t)0 - bytes);
}

void half_drop(struct thread *thread, struct half *half)
{
    held_less(thread, half_holds(half));
    if (half->pending != NULL) {
        thread->calls->release(half->pending);
        half->pending = NULL;
    }
    half->left = half->own = 0;
    if (half->pipe != NULL) {
        pipe_give(thread, half->pipe);
        half->pipe = NULL;
    }
}

/* Keeps `size` bytes of the thread's buffer until the sink takes them. */
static bool keep(struct thread *thread, struct half *half, const char *from, size_t size)
{
    char *memory = thread->calls->allocate(size);
    if (memory == NULL)
        return false;
    memcpy(memory, from, size);
    half->pending = half->at = memory;
    half->left = (uint32_t)size;
    count_up(&thread->pending, size);
    return true;
}

static enum stop flush_memory(struct thread *thread, struct session *session, struct half *half)
{
    while (half->left) {
        ssize_t sent = thread->calls->send(half->sink, half->at, half->left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == -1) {
            if (errno == EINTR)
                continue;
            half->error = errno;
            return errno == EAGAIN ? STOP_BLOCKED : STOP_SINK_FAILED;
        }
        half->at += sent;
        half->left -= (uint32_t)sent;
        held_less(thread, (uint64_t)sent);
        moved(thread, session);
        uint32_t own = (uint32_t)sent < half->own ? (uint32_t)sent : half->own;
        half->own -= own;
        copied(thread, half, (uint64_t)sent - own);
    }
    thread->calls->release(half->pending);
    half->pending = NULL;
    return STOP_EMPTY;
}

static bool splice_is_refused(int error)
{
    return error == EINVAL || error == ENOSYS || error == ENOMEM || error == EOPNOTSUPP || error == ESPIPE;
}

/* The sink does not take pages: the pipe's bytes come back into memory, and the direction is copied from here on. */
static enum stop unpipe(struct thread *thread, struct half *half)
{
    struct pipe *pipe = half->pipe;
    size_t size = pipe->held, have = 0;
    char *memory = thread->calls->allocate(size);
    if (memory == NULL)
        return STOP_NO_MEMORY;
    while (have < size) {
        ssize_t got = thread->calls->read(pipe->out, memory + have, size - have);
        if (got == -1 && errno == EINTR)
            continue;
        if (got <= 0) {
            thread->calls->release(memory);
            return STOP_NO_MEMORY;
        }
        have += (size_t)got;
    }
    pipe->held = 0;
    pipe_give(thread, pipe);
    half->pipe = NULL;
    half->flags |= COPYING;
    half->pending = half->at = memory;
    half->left = (uint32_t)size;
    return STOP_EMPTY;
}

static enum stop flush_pipe(struct thread *thread, struct session *session, struct half *half)
{
    struct pipe *pipe = half->pipe;
    while (pipe->held) {
        ssize_t sent = thread->calls->splice(pipe->out, half->sink, pipe->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (sent <= 0) {
            if (sent == -1 && errno == EINTR)
                continue;
            if (sent == 0 || splice_is_refused(errno)) {
                enum stop stop = unpipe(thread, half);
                return stop == STOP_EMPTY ? flush_memory(thread, session, half) : stop;
            }
            half->error = errno;
            return errno == EAGAIN ? STOP_BLOCKED : STOP_SINK_FAILED;
        }
        pipe->held -= (size_t)sent;
        held_less(thread, (uint64_t)sent);
        moved(thread, session);
        spliced(thread, half, (uint64_t)sent);
    }
    return STOP_EMPTY;
}

static enum stop flush(struct thread *thread, struct session *session, struct half *half)
{
    if (half->pending != NULL)
        return flush_memory(thread, session, half);
    if (half->pipe != NULL)
        return flush_pipe(thread, session, half);
    return STOP_EMPTY;
}

static void read_some(struct thread *thread, struct session *session, const struct half *half)
{
    moved(thread, session);
    if (session->first_at == 0 && half == &session->half[DOWNWARD])
        session->first_at = thread->now;
}

static void give_pipe_back(struct thread *thread, struct half *half)
{
    pipe_give(thread, half->pipe);
    half->pipe = NULL;
}

/* A bulky direction fills the kernel's buffers at once, and the kernel enlarges a buffer that is emptied fast: beside a reader who does
 * not read, ten times as much would lie there as he needs. So what is unsent is capped until he has taken enough to show that he
 * reads; from there on the cap would only cost wake-ups (a seventh more CPU a GB). A cap that the caller has set stays. */
static void set_unsent(struct thread *thread, struct half *half, int bytes)
{
    thread->calls->setsockopt(half->sink, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

static void cap(struct thread *thread, struct half *half)
{
    int bytes = 0;
    socklen_t size = sizeof bytes;
    if (half->flags & (CAPPED | BULKY) || count_of(&half->count) >= PROVEN_BYTES)
        return;
    if (thread->calls->getsockopt(half->sink, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, &size) == -1 || bytes != 0)
        return;
    set_unsent(thread, half, UNPROVEN_BYTES);
    half->flags |= CAPPED;
}

static void uncap(struct thread *thread, struct half *half)
{
    set_unsent(thread, half, 0);
    half->flags &= (uint16_t)~CAPPED;
}

/* The more a splice brings, the fewer are there to wake both peers. But all of it is left lying when the reader stops.
 *
 * Splices until the source is empty, the sink is full or the budget is spent. `*copy` says that a recv must have a look: splice
 * gave nothing, and does not say why. */
static enum stop splice_on(struct thread *thread, struct session *session, struct half *half, int64_t *budget, bool *copy)
{
    size_t burst = 0, most = count_of(&half->count) < PROVEN_BYTES ? UNPROVEN_PIPE_BYTES : PIPE_BYTES;
    while (*budget > 0) {
        ssize_t got = thread->calls->splice(half->source, half->pipe->in, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (got == -1 && errno == EINTR)
            continue;
        if (got <= 0) {
            int error = got == -1 ? errno : 0;
            give_pipe_back(thread, half);
            if (burst < BULKY_BURST_BYTES)
                half->flags &= (uint16_t)~BULKY;
            if (error == EAGAIN && burst != 0 && !(half->flags & URGENT)) {
                half->flags &= (uint16_t)~READABLE;
                return STOP_EMPTY;
            }
            if (error == 0 || error == EAGAIN) {
                *copy = true;
                return STOP_EMPTY;
            }
            if (splice_is_refused(error)) {
                half->flags |= COPYING;
                *copy = true;
                return STOP_EMPTY;
            }
            half->error = error;
            return STOP_SOURCE_FAILED;
        }
        burst += (size_t)got;
        *budget -= got;
        half->pipe->held = (size_t)got;
        count_up(&thread->pending, (uint64_t)got);
        read_some(thread, session, half);
        enum stop stop = flush_pipe(thread, session, half);
        if (stop != STOP_EMPTY)
            return stop;
        if (half->pipe == NULL) { /* splicing out was refused */
            *copy = true;
            return STOP_EMPTY;
        }
    }
    give_pipe_back(thread, half);
    return STOP_BUDGET;
}

/* One recv and its send. STOP_BUDGET: there may be more. */
static enum stop copy_once(struct thread *thread, struct session *session, struct half *half, int64_t *budget)
{
    char *buffer = thread->buffer;
    ssize_t got;
    do
        got = thread->calls->recv(half->source, buffer, BUFFER_BYTES, MSG_DONTWAIT);
    while (got == -1 && errno == EINTR);
    if (got == -1) {
        half->error = errno;
        if (errno != EAGAIN)
            return STOP_SOURCE_FAILED;
        half->flags &= (uint16_t)~(READABLE | URGENT);
        return STOP_EMPTY;
    }
    if (got == 0) {
        half->flags = (half->flags & (uint16_t)~READABLE) | FINISHED;
        return STOP_EOF;
    }
    read_some(thread, session, half);
    *budget -= got;
    ssize_t sent;
    /* Nothing comes after these but the end, which is written in the same turn: the kernel may keep them for so long, and the FIN needs no
     * segment of its own. */
    bool last = got < BUFFER_BYTES && (half->flags & (THOROUGH | HUNG)) == HUNG;
    do
        sent = thread->calls->send(half->sink, buffer, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT | (last ? MSG_MORE : 0));
    while (sent == -1 && errno == EINTR);
    if (sent == -1) {
        if (errno != EAGAIN) {
            half->error = errno;
            return STOP_SINK_FAILED;
        }
        sent = 0;
    }
    copied(thread, half, (uint64_t)sent);
    if (got == BUFFER_BYTES) {
        if (half->full < BULKY_AFTER) {
            half->full++;
        } else {
            cap(thread, half);
            half->flags |= BULKY;
        }
    } else {
        half->full = 0;
        if (!(half->flags & THOROUGH))
            half->flags &= (uint16_t)~READABLE;
        if (last)
            half->flags |= FINISHED;
    }
    if (sent < got) {
        if (!keep(thread, half, buffer + sent, (size_t)(got - sent)))
            return STOP_NO_MEMORY;
        enum stop stop = sent == 0 ? STOP_BLOCKED : flush_memory(thread, session, half);
        if (stop != STOP_EMPTY)
            return stop;
    }
    if (half->flags & FINISHED)
        return STOP_EOF;
    return half->flags & READABLE ? STOP_BUDGET : STOP_EMPTY;
}

enum stop half_move(struct thread *thread, struct session *session, struct half *half)
{
    enum stop stop = flush(thread, session, half);
    if (stop != STOP_EMPTY)
        return stop;
    if (half->pipe != NULL && !(half->flags & READABLE))
        give_pipe_back(thread, half);
    if (half->flags & CAPPED && count_of(&half->count) >= PROVEN_BYTES)
        uncap(thread, half);
    int64_t budget = TURN_BYTES;
    bool copy = false;
    while (half->flags & READABLE) {
        if (budget <= 0) {
            if (half->pipe != NULL)
                give_pipe_back(thread, half);
            return STOP_BUDGET;
        }
        if (half->pipe == NULL && !copy && (half->flags & (BULKY | COPYING)) == BULKY)
            half->pipe = pipe_take(thread);
        if (half->pipe != NULL) {
            stop = splice_on(thread, session, half, &budget, &copy);
            if (stop != STOP_EMPTY)
                return stop;
            continue;
        }
        stop = copy_once(thread, session, half, &budget);
        copy = false;
        if (stop != STOP_BUDGET)
            return stop;
    }
    return half->flags & FINISHED ? STOP_EOF : STOP_EMPTY;
}
