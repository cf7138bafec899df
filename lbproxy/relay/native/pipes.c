/* The pipes through which bulky directions are spliced: a fixed number a thread, taken on demand, given back empty.
 *
 * A pipe that still holds bytes is closed instead of kept: one connection's bytes in another would be the worst failure there is.
 * A refused pipe (no descriptors, no memory, a user's quota) is no failure: the direction is copied. After a refusal the thread
 * does not ask again for a while.
 */
#include "state.h"

#define PAUSE_NS (1000 * MILLISECOND)

static void pipe_close(struct thread *thread, struct pipe *pipe)
{
    const struct calls *calls = thread->calls;
    calls->close(pipe->in);
    calls->close(pipe->out);
    calls->release(pipe);
    thread->pipes--;
    atomic_store_explicit(&thread->pipes_open, thread->pipes, memory_order_relaxed);
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
    /* Refused above the user's quota; the usual size will do. Past his first 1,024 pipes he silently gets two pages. */
    if (calls->resize_pipe(pipe->in, PIPE_BYTES) == -1 && calls->pipe_bytes(pipe->in) < PIPE_LEAST_BYTES) {
        pipe_close(thread, pipe);
        return NULL;
    }
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
    pipe->next = thread->free_pipes;
    thread->free_pipes = pipe;
}

void pipes_close(struct thread *thread)
{
    while (thread->free_pipes != NULL) {
        struct pipe *pipe = thread->free_pipes;
        thread->free_pipes = pipe->next;
        pipe_close(thread, pipe);
    }
}
