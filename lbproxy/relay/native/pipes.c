/* The pipes through which bulky directions are spliced: a fixed number a thread, taken on demand, given back empty.
 *
 * A pipe that still holds bytes is closed instead of kept: one connection's bytes in another would be the worst failure there is.
 * A refused pipe (no descriptors, no memory, a user's quota) is no failure: the direction is copied. After a refusal the thread
 * does not ask again for a while.
 *
 * A large pipe saves system calls and wake-ups, but a user's quota is not ours alone: only so many are large, and those are taken
 * first. What the ring of one takes in the kernel is 10 KiB a MiB; pages are the bytes' own.
 */
#include "state.h"

#define PAUSE_NS (1000 * MILLISECOND)

static size_t large_bytes(const struct pipe *pipe)
{
    return pipe->room > UNPROVEN_PIPE_BYTES ? pipe->room : 0;
}

static void pipe_close(struct thread *thread, struct pipe *pipe)
{
    const struct calls *calls = thread->calls;
    calls->close(pipe->in);
    calls->close(pipe->out);
    thread->large_pipes_bytes -= large_bytes(pipe);
    calls->release(pipe);
    thread->pipes--;
    atomic_store_explicit(&thread->pipes_open, thread->pipes, memory_order_relaxed);
}

/* Asks for as much as there may be, then for half as much, and so on. Above a user's quota the kernel refuses to enlarge a pipe; the
 * usual 64 KiB will do. Past his first 1,024 pipes he silently gets two pages. */
static void enlarge(const struct thread *thread, struct pipe *pipe)
{
    size_t share = LARGE_PIPES_BYTES / thread->engine->threads;
    for (size_t room = PIPE_BYTES; room > PIPE_LEAST_BYTES; room /= 2) {
        if (room > UNPROVEN_PIPE_BYTES && thread->large_pipes_bytes + room > share)
            continue;
        if (thread->calls->resize_pipe(pipe->in, (int)room) != -1) {
            pipe->room = room;
            return;
        }
    }
    int usual = thread->calls->pipe_bytes(pipe->in);
    pipe->room = usual < 0 ? 0 : (size_t)usual;
}

static struct pipe *pipe_open(struct thread *thread)
{
    const struct calls *calls = thread->calls;
    struct pipe *pipe = calls->allocate(sizeof *pipe);
    if (pipe == NULL)
        return NULL;
    int ends[2];
    if (calls->pipe(ends) == -1) {
        calls->release(pipe);
        return NULL;
    }
    *pipe = (struct pipe){.out = ends[0], .in = ends[1]};
    thread->pipes++;
    atomic_store_explicit(&thread->pipes_open, thread->pipes, memory_order_relaxed);
    enlarge(thread, pipe);
    if (pipe->room < PIPE_LEAST_BYTES) {
        pipe_close(thread, pipe);
        return NULL;
    }
    thread->large_pipes_bytes += large_bytes(pipe);
    return pipe;
}

struct pipe *pipe_take(struct thread *thread)
{
    struct pipe *pipe = thread->free_pipes;
    if (pipe != NULL) {
        thread->free_pipes = pipe->next;
    } else {
        if (thread->pipes >= thread->engine->options.pipes || thread->now < thread->pipe_pause_until)
            return NULL;
        pipe = pipe_open(thread);
        if (pipe == NULL) {
            thread->pipe_pause_until = thread->now + PAUSE_NS;
            count_up(&thread->pipes_refused, 1);
            return NULL;
        }
    }
    pipe->next = NULL;
    pipe->held = 0;
    thread->busy_pipes++;
    atomic_store_explicit(&thread->pipes_taken, thread->busy_pipes, memory_order_relaxed);
    return pipe;
}

void pipe_give(struct thread *thread, struct pipe *pipe)
{
    thread->busy_pipes--;
    atomic_store_explicit(&thread->pipes_taken, thread->busy_pipes, memory_order_relaxed);
    if (pipe->held) {
        pipe_close(thread, pipe);
        return;
    }
    struct pipe **place = &thread->free_pipes;
    while (*place != NULL && (*place)->room > pipe->room)
        place = &(*place)->next;
    pipe->next = *place;
    *place = pipe;
}

void pipes_close(struct thread *thread)
{
    while (thread->free_pipes != NULL) {
        struct pipe *pipe = thread->free_pipes;
        thread->free_pipes = pipe->next;
        pipe_close(thread, pipe);
    }
}
