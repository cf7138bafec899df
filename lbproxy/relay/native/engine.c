/* The relay engine: threads that move bytes between pairs of sockets, each with its own epoll and its own sessions.
 *
 * A session lives on one thread, from `session_adopt` to `session_finish` (session.c has its states). The owner (the event loop's thread) and
 * the engine's threads share nothing but four lists and a few counters; no lock is ever taken:
 *
 *   submitted   owner -> thread    sessions to adopt             a stack; the taker takes all of it and turns it round
 *   aborted     owner -> thread    sessions to abort             the same
 *   notices     thread -> owner    Connected and Outcome         the same; one push a turn
 *   counters    thread -> owner    bytes a slot and thread       one writer each, relaxed
 *
 * The links are fields of the session, so none of them can fail or grow.
 *
 * Who owns what, and when:
 * - A session's memory is the owner's while it is free and from the fetch of its Outcome on, and the thread's in between; the owner
 *   then reads only what is atomic, or was written before the submit.
 * - The thread publishes its notices at the end of its turn. So no event of the turn's batch can meet a reused session, and the
 *   generation in the event's data proves it.
 * - The owner uses a live session's descriptors in one place only, `engine_look`, which says why that is safe.
 * - Both descriptors are registered once, edge-triggered, and never modified. close() takes them out of the epoll; only one that is
 *   given back is taken out by hand.
 *
 * Sleep and wake: a thread says that it is asleep, looks at its lists once more, and waits. Whoever pushes and finds it asleep
 * wakes it, once for many pushes (`engine_flush`). The wake descriptors are edge-triggered, too: they are never read. The owner's
 * is read by the owner, who then clears `signalled` before he takes the notices.
 *
 * A turn: wait; sockets; run queue; resets; deadlines; submits and aborts; notices. The clock is read once, after the wait. Before
 * deadlines are judged the epoll must have been emptied: after a pause of the process, bytes may wait that came in time.
 *
 * Kernel offload, if it comes, is one more way of moving beside move.c: a direction in the kernel is BULKY's sibling, entered only with
 * nothing held, and left before its FIN is forwarded.
 */
#define _GNU_SOURCE
#include "state.h"

#include <unistd.h>

/* Notices */

void thread_post(struct thread *thread, struct notice *notice)
{
    notice->next = thread->posted;
    if (thread->posted == NULL)
        thread->posted_first = notice;
    thread->posted = notice;
    if (!notice->connected)
        thread->outcome_posted = true;
}

void owner_wake(struct engine *engine)
{
    if (atomic_exchange(&engine->signalled, true))
        return;
    uint64_t one = 1;
    /* It cannot fail: the counter is far from full, and non-blocking. */
    ssize_t written = engine->calls->write(engine->wake, &one, sizeof one);
    (void)written;
}

void thread_wake(struct thread *thread)
{
    uint64_t one = 1;
    if (atomic_exchange(&thread->asleep, false)) {
        ssize_t written = thread->calls->write(thread->wake, &one, sizeof one);
        (void)written;
    }
}

/* A Connected alone is in no hurry: it may wait a moment for its Outcome, and the owner is woken once instead of twice. */
void thread_publish(struct thread *thread)
{
    if (thread->posted != NULL) {
        struct notice *head = atomic_load_explicit(&thread->notices, memory_order_relaxed);
        do
            thread->posted_first->next = head;
        while (!atomic_compare_exchange_weak_explicit(
            &thread->notices, &head, thread->posted, memory_order_release, memory_order_relaxed));
        thread->posted = thread->posted_first = NULL;
        if (thread->connected_due == NEVER)
            thread->connected_due = thread->now + thread->engine->options.connected_delay_ms * MILLISECOND;
    }
    if (!thread->outcome_posted && (thread->connected_due == NEVER || thread->now < thread->connected_due))
        return;
    thread->outcome_posted = false;
    thread->connected_due = NEVER;
    owner_wake(thread->engine);
}

/* A turn */

/* A beat each: a turn may have very many sessions to look after, and is no hang for that. */
static void enter(struct thread *thread, struct session *session)
{
    thread->current = session;
    count_up(&thread->beats, 1);
}

static struct session *turned_round(struct session *list, size_t next)
{
    struct session *turned = NULL;
    while (list != NULL) {
        struct session **link = (struct session **)(void *)((char *)list + next), *following = *link;
        *link = turned;
        turned = list;
        list = following;
    }
    return turned;
}

static struct session *taken(_Atomic(struct session *) *list, size_t next)
{
    if (atomic_load_explicit(list, memory_order_relaxed) == NULL)
        return NULL;
    return turned_round(atomic_exchange_explicit(list, NULL, memory_order_acquire), next);
}

/* The aborts are taken first and carried out last: whatever is aborted has been submitted before, so it is adopted by then. */
void thread_take_orders(struct thread *thread)
{
    struct session *aborted = taken(&thread->aborted, offsetof(struct session, next_aborted)), *next;
    struct session *submitted = taken(&thread->submitted, offsetof(struct session, next_submitted));
    for (struct session *session = submitted; session != NULL; session = next) {
        next = session->next_submitted;
        enter(thread, session);
        thread->live++;
        session_adopt(thread, session);
    }
    for (struct session *session = aborted; session != NULL; session = next) {
        next = session->next_aborted;
        enter(thread, session);
        session_aborted(thread, session);
    }
}

static void take_events(struct thread *thread, const struct epoll_event *events, int count)
{
    for (int at = 0; at < count; at++) {
        uint64_t data = events[at].data.u64;
        if (data == WAKE_EVENT)
            continue;
        struct session *session = session_at(thread->engine, (uint32_t)data >> 1);
        if (session == NULL || session->generation != (uint32_t)(data >> 32))
            continue;
        enter(thread, session);
        session_event(thread, session, (int)(data & 1), events[at].events);
    }
}

/* Each that stands in the queue now gets one turn; who comes back stands behind the others, in the next one. */
static void run_queued(struct thread *thread)
{
    struct link turn = thread->running;
    if (link_alone(&thread->running))
        return;
    turn.before->after = &turn;
    turn.after->before = &turn;
    link_clear(&thread->running);
    while (!link_alone(&turn)) {
        struct session *session = OWNER_OF(turn.after, struct session, running);
        link_out(&session->running);
        enter(thread, session);
        session_run(thread, session);
    }
}

static void look_at_resets(struct thread *thread)
{
    struct link *next;
    if (link_alone(&thread->resetting) || thread->now < thread->resets_due)
        return;
    thread->resets_due = thread->now + RESET_LOOK_MS * MILLISECOND;
    for (struct link *at = thread->resetting.after; at != &thread->resetting; at = next) {
        next = at->after;
        struct session *session = OWNER_OF(at, struct session, resetting);
        enter(thread, session);
        session_deliver(thread, session);
    }
}

/* `full`: the batch was, so there is more to hear before anybody is judged. Busy sockets come again and again, so patience ends. */
static void judge(struct thread *thread, bool full)
{
    if (full && thread->unjudged < 1 + 2 * thread->live / TURN_EVENTS) {
        thread->unjudged++;
        return;
    }
    thread->unjudged = 0;
    for (int left = TURN_DEADLINES; left > 0; left--) {
        struct session *session = wheel_due(&thread->wheel, thread->now);
        if (session == NULL)
            return;
        enter(thread, session);
        session_judge(thread, session);
    }
}

static int milliseconds_until(const struct thread *thread, uint64_t at)
{
    if (at <= thread->now)
        return 0;
    uint64_t ms = (at - thread->now + MILLISECOND - 1) / MILLISECOND;
    return ms > 60000 ? 60000 : (int)ms;
}

static int time_to_sleep(const struct thread *thread, int most)
{
    int timeout = most;
    uint64_t next = wheel_next(&thread->wheel);
    if (!link_alone(&thread->running))
        return 0;
    if (thread->connected_due < next)
        next = thread->connected_due;
    if (next != NEVER) {
        int until = milliseconds_until(thread, next);
        if (timeout < 0 || until < timeout)
            timeout = until;
    }
    if (!link_alone(&thread->resetting) && (timeout < 0 || timeout > RESET_LOOK_MS))
        timeout = RESET_LOOK_MS;
    return timeout;
}

static bool has_work(struct thread *thread)
{
    return atomic_load(&thread->submitted) != NULL || atomic_load(&thread->aborted) != NULL ||
           atomic_load(&thread->engine->stopping);
}

static int wait_for_events(struct thread *thread, struct epoll_event *events, int most)
{
    int timeout = time_to_sleep(thread, most);
    if (timeout != 0) {
        atomic_store(&thread->asleep, true);
        if (has_work(thread)) {
            atomic_store_explicit(&thread->asleep, false, memory_order_relaxed);
            timeout = 0;
        }
    }
    int count = thread->calls->epoll_wait(thread->epoll, events, TURN_EVENTS, timeout);
    if (timeout != 0)
        atomic_store_explicit(&thread->asleep, false, memory_order_relaxed);
    return count < 0 ? 0 : count;
}

static void turn(struct thread *thread, int most)
{
    struct epoll_event events[TURN_EVENTS];
    int count = wait_for_events(thread, events, most);
    thread->now = thread->calls->now();
    count_up(&thread->turns, 1);
    count_up(&thread->beats, 1);
    take_events(thread, events, count);
    run_queued(thread);
    look_at_resets(thread);
    judge(thread, count == TURN_EVENTS);
    thread_take_orders(thread);
    thread->current = NULL;
    thread_publish(thread);
}

void *thread_run(void *argument)
{
    struct thread *thread = argument;
    atomic_store(&thread->tid, gettid());
    while (!atomic_load_explicit(&thread->engine->stopping, memory_order_acquire))
        turn(thread, -1);
    atomic_store(&thread->over, true);
    return NULL;
}

void engine_turn(struct engine *engine, int timeout_ms)
{
    turn(engine->thread[0], timeout_ms);
}
