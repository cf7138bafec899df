/* The end of a session, whoever ends it: its descriptors closed or given back, and its one Outcome on its way. */
#include "session.h"

#include <sys/ioctl.h>

/* Whether a FIN now would make a truncated stream look whole. */
bool session_has_undelivered(const struct thread *thread, const struct session *session)
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

void session_finish(struct thread *thread, struct session *session, int reason, int error, bool reset, bool give_back)
{
    const struct calls *calls = thread->calls;
    unsigned char none = CLAIM_NONE;
    bool aborted = !atomic_compare_exchange_strong_explicit(
        &session->claim, &none, CLAIM_ENDED, memory_order_acq_rel, memory_order_acquire);
    if (aborted) {
        reason = session->abort_reason;
        error = 0;
        reset = reset || session->abort_reset || session_has_undelivered(thread, session);
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
        session_finish(thread, session, session->abort_reason, 0, session->abort_reset, false);
    count_up(&thread->ended, 1);
    thread_post(thread, &session->outcome_notice);
}

void session_kill(struct thread *thread, struct session *session)
{
    if (session->state != STATE_ENDED && session->state != STATE_FREE)
        session_end(thread, session, REASON_KILLED, 0, true);
}
