/* The owner's side: what it hands over to the threads, what it is told, and what it looks at (engine.c has the rules).
 *
 * The memory of the sessions is here, too: it is the owner's while they are free. It grows by chunks, never moves and never shrinks.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

/* Sessions that are free */

/* The owner's: sees to it that there is a free session. */
static bool sessions_make(struct engine *engine)
{
    if (engine->free_sessions != NULL)
        return true;
    if (engine->chunks == SESSION_CHUNKS)
        return false;
    size_t size = SESSIONS_A_CHUNK * sizeof(struct session);
    void *memory = allocate_clear(engine->calls, size + CACHE_LINE);
    if (memory == NULL)
        return false;
    uintptr_t aligned = ((uintptr_t)memory + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1);
    struct session *sessions = (struct session *)aligned;
    for (uint32_t at = SESSIONS_A_CHUNK; at-- > 0;) {
        sessions[at].index = engine->chunks * SESSIONS_A_CHUNK + at;
        sessions[at].next_free = engine->free_sessions;
        engine->free_sessions = &sessions[at];
    }
    engine->chunk_memory[engine->chunks] = memory;
    engine->chunk[engine->chunks++] = sessions;
    return true;
}

/* The owner's: a free session, or NULL. */
static struct session *session_take(struct engine *engine)
{
    if (!sessions_make(engine))
        return NULL;
    struct session *session = engine->free_sessions;
    engine->free_sessions = session->next_free;
    return session;
}

static uint64_t handle_of(const struct session *session)
{
    return (uint64_t)session->generation << 32 | session->index;
}

static void session_free(struct engine *engine, struct session *session)
{
    session->state = STATE_FREE;
    session->generation++;
    session->next_free = engine->free_sessions;
    engine->free_sessions = session;
}

/* Handing over */

static void half_begin(struct half *half, int source, int sink, bool of_unix, _Atomic uint64_t *counter)
{
    half->source = source;
    half->sink = sink;
    half->flags = of_unix ? OF_UNIX | THOROUGH : 0;
    half->full = 0;
    half->error = 0;
    half->own = half->left = 0;
    half->pending = half->at = NULL;
    half->pipe = NULL;
    half->counter = counter;
    atomic_store_explicit(&half->count, 0, memory_order_relaxed);
}

static void session_begin(struct session *session, const struct engine_submit *submit, struct counter *counter, uint64_t now)
{
    half_begin(&session->half[UPWARD], submit->client, submit->upstream, submit->client_unix, &counter->sent);
    half_begin(&session->half[DOWNWARD], submit->upstream, submit->client, submit->upstream_unix, &counter->received);
    session->id = submit->session;
    session->first_eof = 0;
    session->connect_timeout_ms = submit->connect_timeout_ms;
    session->idle_timeout_ms = submit->idle_timeout_ms;
    session->half_close_timeout_ms = submit->half_close_timeout_ms;
    session->max_duration_ms = submit->max_duration_ms;
    session->slot = submit->slot;
    session->keepalive = submit->upstream_unix ? (struct engine_keepalive){0} : submit->keepalive;
    session->dial_port = submit->dial_port;
    session->ack_held = submit->ack_held;
    session->started_at = now;
    session->connected_at = session->half_closed_at = session->first_at = 0;
    atomic_store_explicit(&session->moved_at, now, memory_order_relaxed);
    atomic_store_explicit(&session->phase, PHASE_CONNECT, memory_order_relaxed);
    atomic_store_explicit(&session->claim, CLAIM_NONE, memory_order_relaxed);
    atomic_store_explicit(&session->looking, LOOK_NONE, memory_order_relaxed);
    link_clear(&session->running);
    link_clear(&session->armed);
    link_clear(&session->resetting);
    session->connected_notice = (struct notice){.session = session, .connected = true};
    session->outcome_notice = (struct notice){.session = session};
    session->given_back = -1;
    session->outcome_collected = false;
    session->state = STATE_SUBMITTED;
}

/* Urgent bytes stay in the stream. Set at once: when a second one arrives, the kernel drops a first that is not inline. */
static void keep_urgent(const struct calls *calls, int fd, bool of_unix)
{
    int one = 1;
    if (!of_unix)
        calls->setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
}

bool engine_next_handle(struct engine *engine, uint64_t *handle)
{
    if (!sessions_make(engine))
        return false;
    *handle = handle_of(engine->free_sessions);
    return true;
}

int engine_submit(struct engine *engine, const struct engine_submit *submit, uint64_t *handle)
{
    if (engine->stopped)
        return ESHUTDOWN;
    if (submit->client < 0 || submit->upstream < 0)
        return EBADF;
    if (submit->slot >= engine->slots || submit->first_size > UINT32_MAX)
        return EINVAL;
    struct thread *thread = engine->thread[engine->next_thread];
    struct counter *counters =
        atomic_load_explicit(&thread->counters[submit->slot / SLOTS_A_CHUNK], memory_order_relaxed);
    char *first = NULL;
    if (submit->first_size) {
        first = engine->calls->allocate(submit->first_size);
        if (first == NULL)
            return ENOMEM;
        memcpy(first, submit->first_bytes, submit->first_size);
    }
    struct session *session = session_take(engine);
    if (session == NULL) {
        if (first != NULL)
            engine->calls->release(first);
        return ENOMEM;
    }
    if (!submit->urgent_inline) {
        keep_urgent(engine->calls, submit->client, submit->client_unix);
        keep_urgent(engine->calls, submit->upstream, submit->upstream_unix);
    }
    engine->next_thread = (engine->next_thread + 1) % engine->threads;
    session_begin(session, submit, &counters[submit->slot % SLOTS_A_CHUNK], engine->calls->now());
    session->thread = thread;
    session->first_bytes = first;
    session->first_size = (uint32_t)submit->first_size;
    *handle = handle_of(session);
    engine->submitted++;
    struct session *head = atomic_load_explicit(&thread->submitted, memory_order_relaxed);
    do
        session->next_submitted = head;
    while (!atomic_compare_exchange_weak_explicit(
        &thread->submitted, &head, session, memory_order_seq_cst, memory_order_relaxed));
    engine->to_wake[thread->number] = true;
    return 0;
}

void engine_flush(struct engine *engine)
{
    for (unsigned at = 0; at < engine->threads; at++) {
        if (!engine->to_wake[at])
            continue;
        engine->to_wake[at] = false;
        thread_wake(engine->thread[at]);
    }
}

static struct session *session_of(const struct engine *engine, uint64_t handle)
{
    struct session *session = session_at(engine, (uint32_t)handle);
    return session != NULL && session->generation == (uint32_t)(handle >> 32) ? session : NULL;
}

bool engine_abort(struct engine *engine, uint64_t handle, int reason, bool reset)
{
    struct session *session = session_of(engine, handle);
    unsigned char none = CLAIM_NONE;
    if (session == NULL || engine->stopped || atomic_load(&session->claim) != CLAIM_NONE)
        return false;
    session->abort_reason = reason;
    session->abort_reset = reset;
    if (!atomic_compare_exchange_strong(&session->claim, &none, CLAIM_ABORTED))
        return false;
    struct thread *thread = session->thread;
    struct session *head = atomic_load_explicit(&thread->aborted, memory_order_relaxed);
    do
        session->next_aborted = head;
    while (!atomic_compare_exchange_weak_explicit(
        &thread->aborted, &head, session, memory_order_seq_cst, memory_order_relaxed));
    thread_wake(thread);
    return true;
}

/* Being told */

void engine_collect(struct engine *engine)
{
    if (!engine->stopped) {
        uint64_t count;
        ssize_t got = engine->calls->read(engine->wake, &count, sizeof count);
        (void)got; /* EAGAIN: nobody has called, and there may be notices all the same */
    }
    /* An exchange and no store: it meets what was pushed before it was true, so whoever found it so need not have called. */
    atomic_exchange(&engine->signalled, false);
    struct notice *last = engine->collected;
    while (last != NULL && last->next != NULL)
        last = last->next;
    for (unsigned at = 0; at < engine->threads; at++) {
        struct notice *list = atomic_exchange_explicit(&engine->thread[at]->notices, NULL, memory_order_acquire);
        struct notice *turned = NULL, *newest = list;
        while (list != NULL) {
            struct notice *next = list->next;
            if (!list->connected)
                list->session->outcome_collected = true;
            list->next = turned;
            turned = list;
            list = next;
        }
        if (turned == NULL)
            continue;
        if (last == NULL)
            engine->collected = turned;
        else
            last->next = turned;
        last = newest;
    }
}

bool engine_fetch(struct engine *engine, struct engine_event *event)
{
    struct notice *notice = engine->collected;
    while (notice != NULL && notice->connected && notice->session->outcome_collected)
        notice = engine->collected = notice->next;
    if (notice == NULL)
        return false;
    const struct session *session = notice->session;
    event->connected = notice->connected;
    event->session = session->id;
    event->handle = handle_of(session);
    if (notice->connected) {
        event->connect_ns = (int64_t)(session->connected_at - session->started_at);
        return true;
    }
    event->reason = session->reason;
    event->phase = atomic_load_explicit(&session->phase, memory_order_relaxed);
    event->sent = count_of(&session->half[UPWARD].count);
    event->received = count_of(&session->half[DOWNWARD].count);
    event->connect_ns = session->connected_at ? (int64_t)(session->connected_at - session->started_at) : -1;
    event->first_byte_ns = session->first_at ? (int64_t)(session->first_at - session->started_at) : -1;
    event->total_ns = (int64_t)(session->ended_at - session->started_at);
    event->error = session->error;
    event->client = session->given_back;
    event->upstream_unix = session->half[DOWNWARD].flags & OF_UNIX;
    return true;
}

void engine_took(struct engine *engine)
{
    const struct notice *notice = engine->collected;
    engine->collected = notice->next;
    if (!notice->connected)
        session_free(engine, notice->session);
}

void engine_call_again(struct engine *engine)
{
    if (!engine->stopped)
        owner_wake(engine);
}

/* Looking */

bool engine_view(struct engine *engine, uint64_t handle, struct engine_view *view)
{
    struct session *session = session_of(engine, handle);
    if (session == NULL || atomic_load_explicit(&session->claim, memory_order_relaxed) == CLAIM_ENDED)
        return false;
    view->client = view->upstream = (struct engine_leg){0};
    uint64_t now = engine->calls->now(), moved_at = count_of(&session->moved_at);
    view->phase = atomic_load_explicit(&session->phase, memory_order_relaxed);
    view->sent = count_of(&session->half[UPWARD].count);
    view->received = count_of(&session->half[DOWNWARD].count);
    view->age_ns = (int64_t)(now - session->started_at);
    view->idle_ns = now > moved_at ? (int64_t)(now - moved_at) : 0;
    return true;
}

static struct engine_leg leg_of(const struct calls *calls, int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (calls->getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == -1)
        return (struct engine_leg){0};
    return (struct engine_leg){.known = true, .rtt_us = info.tcpi_rtt, .retransmits = info.tcpi_total_retrans};
}

/* The thread may end the session at any moment, and a descriptor that it has closed may be somebody else's socket at the next. So the
 * owner says that it looks, by one exchange of `looking`; the thread says that it is done with the descriptors by another, its
 * last step with them (`let_go`). Whoever comes second knows of the first: a look that comes after the end asks nothing, and an end
 * that comes during a look leaves both descriptors open, to be closed here. Nobody waits. The Outcome cannot overtake this: the
 * owner alone fetches it. */
bool engine_look(struct engine *engine, uint64_t handle, struct engine_view *view)
{
    struct session *session = session_of(engine, handle);
    if (!engine_view(engine, handle, view))
        return false;
    unsigned char expected = LOOK_NONE;
    if (!atomic_compare_exchange_strong_explicit(
            &session->looking, &expected, LOOK_BEGUN, memory_order_acq_rel, memory_order_acquire))
        return true;
    view->client = leg_of(engine->calls, session->half[UPWARD].source);
    view->upstream = leg_of(engine->calls, session->half[DOWNWARD].source);
    expected = LOOK_BEGUN;
    if (!atomic_compare_exchange_strong_explicit(
            &session->looking, &expected, LOOK_NONE, memory_order_acq_rel, memory_order_acquire))
        session_close(engine->calls, session);
    return true;
}

unsigned engine_threads(const struct engine *engine)
{
    return engine->threads;
}

uint64_t engine_submitted(const struct engine *engine)
{
    return engine->submitted;
}

void engine_totals(const struct engine *engine, unsigned number, struct engine_totals *totals)
{
    const struct thread *thread = engine->thread[number];
    *totals = (struct engine_totals){
        .connected = count_of(&thread->connected),
        .ended = count_of(&thread->ended),
        .pending = count_of(&thread->pending),
        .turns = count_of(&thread->turns),
        .yields = count_of(&thread->yields),
        .pipes_open = count_of(&thread->pipes_open),
        .pipes_busy = count_of(&thread->pipes_taken),
        .pipes_refused = count_of(&thread->pipes_refused),
        .spliced = count_of(&thread->spliced),
        .copied = count_of(&thread->copied),
    };
}
