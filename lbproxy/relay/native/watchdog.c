/* A thread that looks after the relay threads. It counts, it does not time: a look finds a thread asleep, or its beats grown, or else
 * a beat missed. So a pause of the whole process (a suspended machine) misses one beat at most, however long it was; and a look that
 * comes late itself counts nothing, so many short pauses miss none. Nor does one at a thread that a debugger holds.
 * A thread that missed too many in a row hangs in one session for ever, and with it all the others it serves: what is known is
 * written to stderr and the process ends, in that thread, for its supervisor to start it anew and for the core to show where.
 *
 * Nothing on that way may wait, or the process would hang with its thread: no memory is allocated (the thread may hold the
 * allocator's lock), and stderr is written only as far as it takes the report at once.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct watchdog {
    pthread_t id;
    pthread_mutex_t mutex;
    pthread_cond_t stop;
    bool stopping;
    struct engine *engine;
    uint64_t beats[ENGINE_MAX_THREADS];
    unsigned missed[ENGINE_MAX_THREADS];
};

static int64_t milliseconds_after(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - then->tv_sec) * 1000 + (now.tv_nsec - then->tv_nsec) / 1000000;
}

/* Asked of the thread, not of the process: a debugger may hold one of its threads alone. */
static bool is_traced(const struct thread *thread)
{
    static const char field[] = "\nTracerPid:\t";
    char path[64], status[1024];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", atomic_load(&thread->tid));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return false;
    ssize_t size = thread->calls->read(fd, status, sizeof status - 1);
    thread->calls->close(fd);
    status[size > 0 ? size : 0] = 0;
    const char *found = strstr(status, field);
    return found != NULL && found[sizeof field - 1] != '0';
}

/* A socket takes it or not; so does a pipe or a terminal that is opened anew, without waiting; what cannot be opened anew (a file of
 * another user) does not make anybody wait. The process may share its stderr with others: its own flags stay as they are. */
static void say(const struct calls *calls, const char *text, size_t size)
{
    if (calls->send(2, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) != -1 || errno != ENOTSOCK)
        return;
    int fd = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct pollfd ready = {.fd = 2, .events = POLLOUT};
    if (fd == -1 && poll(&ready, 1, 0) == 1 && ready.revents == POLLOUT)
        fd = 2;
    if (fd != -1) {
        ssize_t written = calls->write(fd, text, size);
        (void)written;
    }
}

static const char *const state_names[] = {"free", "submitted", "connecting", "relaying", "resetting", "ended"};

/* Reads what the stuck thread owns, without asking: it does not move any more. */
static void report(const struct thread *thread, unsigned missed)
{
    char text[512];
    const struct session *session = thread->current;
    int size = snprintf(
        text, sizeof text,
        "lbproxy: relay thread %u missed %u beats in turn %llu: %llu connected, %llu ended, %llu bytes pending, %u pipes\n",
        thread->number, missed, (unsigned long long)count_of(&thread->turns),
        (unsigned long long)count_of(&thread->connected), (unsigned long long)count_of(&thread->ended),
        (unsigned long long)count_of(&thread->pending), thread->pipes);
    if (session != NULL && size > 0 && (size_t)size < sizeof text)
        size += snprintf(
            text + size, sizeof text - (size_t)size,
            "lbproxy: it hangs in session %llu (%s, client fd %d flags %#x, upstream fd %d flags %#x)\n",
            (unsigned long long)session->id, state_names[session->state % 6], session->half[UPWARD].source,
            session->half[UPWARD].flags, session->half[DOWNWARD].source, session->half[DOWNWARD].flags);
    if (size > 0)
        say(thread->calls, text, (size_t)size < sizeof text ? (size_t)size : sizeof text - 1);
}

/* `paused`: this look is late itself, so the process stood still. */
static void look(struct watchdog *watchdog, bool paused)
{
    struct engine *engine = watchdog->engine;
    for (unsigned at = 0; at < engine->threads; at++) {
        struct thread *thread = engine->thread[at];
        uint64_t beats = count_of(&thread->beats);
        bool asleep = atomic_load(&thread->asleep) || atomic_load(&thread->over);
        bool alive = paused || asleep || beats != watchdog->beats[at] || is_traced(thread);
        watchdog->beats[at] = beats;
        watchdog->missed[at] = alive ? 0 : watchdog->missed[at] + 1;
        if (watchdog->missed[at] < engine->options.missed_beats)
            continue;
        report(thread, watchdog->missed[at]);
        pthread_kill(thread->id, SIGABRT);
        /* A second chance to die, if that thread cannot take its signal. */
        struct timespec second = {.tv_sec = 1};
        nanosleep(&second, NULL);
        abort();
    }
}

static void *watch(void *argument)
{
    struct watchdog *watchdog = argument;
    unsigned beat_ms = watchdog->engine->options.beat_ms;
    pthread_mutex_lock(&watchdog->mutex);
    while (!watchdog->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += beat_ms / 1000;
        until.tv_nsec += beat_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        if (pthread_cond_timedwait(&watchdog->stop, &watchdog->mutex, &until) == ETIMEDOUT)
            look(watchdog, milliseconds_after(&until) > beat_ms / 2);
    }
    pthread_mutex_unlock(&watchdog->mutex);
    return NULL;
}

int watchdog_start(struct engine *engine)
{
    struct watchdog *watchdog = calloc(1, sizeof *watchdog);
    pthread_condattr_t attributes;
    sigset_t all, before;
    if (watchdog == NULL)
        return ENOMEM;
    watchdog->engine = engine;
    pthread_mutex_init(&watchdog->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog->stop, &attributes);
    pthread_condattr_destroy(&attributes);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&watchdog->id, NULL, watch, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(watchdog);
        return error;
    }
    pthread_setname_np(watchdog->id, "relay-watchdog");
    engine->watchdog = watchdog;
    return 0;
}

void watchdog_stop(struct engine *engine)
{
    struct watchdog *watchdog = engine->watchdog;
    if (watchdog == NULL)
        return;
    engine->watchdog = NULL;
    pthread_mutex_lock(&watchdog->mutex);
    watchdog->stopping = true;
    pthread_cond_signal(&watchdog->stop);
    pthread_mutex_unlock(&watchdog->mutex);
    pthread_join(watchdog->id, NULL);
    pthread_cond_destroy(&watchdog->stop);
    pthread_mutex_destroy(&watchdog->mutex);
    free(watchdog);
}
