/* The engine's start and stop: threads, descriptors and memory, made and taken down again. */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_once(const struct calls *calls, int *fd)
{
    if (*fd != -1)
        calls->close(*fd);
    *fd = -1;
}

static void thread_close(struct thread *thread)
{
    pipes_close(thread);
    close_once(thread->calls, &thread->epoll);
    close_once(thread->calls, &thread->wake);
}

static void thread_free(struct thread *thread)
{
    const struct calls *calls = thread->calls;
    thread_close(thread);
    if (thread->buffer != NULL)
        calls->release(thread->buffer);
    for (int at = 0; at < SLOT_CHUNKS; at++) {
        struct counter *chunk = atomic_load_explicit(&thread->counters[at], memory_order_relaxed);
        if (chunk != NULL)
            calls->release(chunk);
    }
    free(thread);
}

static struct thread *thread_make(struct engine *engine, unsigned number)
{
    struct thread *thread = aligned_alloc(CACHE_LINE, sizeof *thread);
    if (thread == NULL)
        return NULL;
    const struct calls *calls = engine->calls;
    memset(thread, 0, sizeof *thread);
    thread->engine = engine;
    thread->calls = calls;
    thread->number = number;
    thread->now = calls->now();
    thread->connected_due = NEVER;
    link_clear(&thread->running);
    link_clear(&thread->resetting);
    wheel_start(&thread->wheel, thread->now);
    thread->wake = -1;
    thread->epoll = calls->epoll_create();
    if (thread->epoll != -1)
        thread->wake = calls->eventfd();
    thread->buffer = calls->allocate(BUFFER_BYTES);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKE_EVENT};
    if (thread->epoll == -1 || thread->wake == -1 || thread->buffer == NULL ||
        calls->epoll_ctl(thread->epoll, EPOLL_CTL_ADD, thread->wake, &event) == -1) {
        int error = errno;
        thread_free(thread);
        errno = error;
        return NULL;
    }
    return thread;
}

/* Signals are the process's other threads' business. SIGPIPE is blocked with them: splice has no MSG_NOSIGNAL. */
static int thread_begin(struct thread *thread)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(&thread->id, &attributes, thread_run, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    thread->started = error == 0;
    if (thread->started)
        pthread_setname_np(thread->id, "relay");
    return error;
}

struct engine *engine_start(const struct engine_options *options, const struct calls *calls)
{
    if (options->threads > ENGINE_MAX_THREADS) {
        errno = EINVAL;
        return NULL;
    }
    struct engine *engine = aligned_alloc(CACHE_LINE, sizeof *engine);
    if (engine == NULL)
        return NULL;
    memset(engine, 0, sizeof *engine);
    engine->options = *options;
    engine->calls = calls;
    engine->process = getpid();
    engine->wake = calls->eventfd();
    int error = engine->wake == -1 ? errno : 0;
    while (!error && engine->threads < (options->threads ? options->threads : 1)) {
        struct thread *thread = thread_make(engine, engine->threads);
        if (thread == NULL)
            error = errno ? errno : ENOMEM;
        else
            engine->thread[engine->threads++] = thread;
    }
    for (unsigned at = 0; !error && at < options->threads; at++)
        error = thread_begin(engine->thread[at]);
    if (!error && options->threads && options->beat_ms)
        error = watchdog_start(engine);
    if (error) {
        engine_free(engine);
        errno = error;
        return NULL;
    }
    return engine;
}

void engine_stop(struct engine *engine)
{
    if (engine->stopped)
        return;
    engine->stopped = true;
    if (engine->process != getpid())
        return;
    atomic_store(&engine->stopping, true);
    for (unsigned at = 0; at < engine->threads; at++)
        if (engine->thread[at]->started)
            thread_wake(engine->thread[at]);
    for (unsigned at = 0; at < engine->threads; at++)
        if (engine->thread[at]->started)
            pthread_join(engine->thread[at]->id, NULL);
    watchdog_stop(engine); /* not before: whoever hangs now keeps the owner waiting, too */
    /* From here on everything is the owner's. */
    for (unsigned at = 0; at < engine->threads; at++) {
        struct thread *thread = engine->thread[at];
        thread->now = thread->calls->now();
        thread_take_orders(thread);
    }
    for (uint32_t index = 0; index < engine->chunks * SESSIONS_A_CHUNK; index++) {
        struct session *session = session_at(engine, index);
        if (session->state != STATE_FREE)
            session_kill(session->thread, session);
    }
    for (unsigned at = 0; at < engine->threads; at++) {
        thread_publish(engine->thread[at]);
        thread_close(engine->thread[at]);
    }
    close_once(engine->calls, &engine->wake);
}

void engine_free(struct engine *engine)
{
    engine_stop(engine);
    if (engine->process != getpid())
        return; /* the memory is as the threads left it at the fork; the descriptors are the parent's, too */
    for (unsigned at = 0; at < engine->threads; at++)
        thread_free(engine->thread[at]);
    for (uint32_t at = 0; at < engine->chunks; at++)
        engine->calls->release(engine->chunk_memory[at]);
    if (engine->free_slots != NULL)
        engine->calls->release(engine->free_slots);
    free(engine);
}

int engine_wake_fd(const struct engine *engine)
{
    return engine->wake;
}
