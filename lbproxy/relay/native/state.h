/* What the engine's parts share: the session, the thread it lives on, and the parts' doors. Nothing outside includes this. */
#ifndef LBPROXY_STATE_H
#define LBPROXY_STATE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#include "engine.h"

enum {
    CACHE_LINE = 64,
    /* The thread's buffer, and the most a direction reads into memory of its own. */
    BUFFER_BYTES = 64 * 1024,
    /* The most a direction keeps in a pipe: before its reader has taken PROVEN_BYTES, and from then on. */
    UNPROVEN_PIPE_BYTES = 128 * 1024,
    PIPE_BYTES = 1024 * 1024,
    /* What pipes above UNPROVEN_PIPE_BYTES may hold together, of all threads. An unprivileged user has 64 MiB for everything he
     * runs, and from there on gets pipes of two pages; with the smaller ones this is at most 54. */
    LARGE_PIPES_BYTES = 24 * 1024 * 1024,
    /* A pipe below this is what the kernel gives a user who has too many: two pages are not worth a system call. */
    PIPE_LEAST_BYTES = 64 * 1024,
    /* Full buffers in a row after which a direction is bulky, and what a burst must have moved for it to stay so. */
    BULKY_AFTER = 3,
    BULKY_BURST_BYTES = 32 * 1024,
    /* Unsent bytes in the sink of a bulky direction, until its reader has taken PROVEN_BYTES. */
    UNPROVEN_BYTES = 256 * 1024,
    PROVEN_BYTES = 8 * 1024 * 1024,
    /* After so much the others have their turn; the last splice of it may bring PIPE_BYTES. */
    TURN_BYTES = 512 * 1024,
    TURN_EVENTS = 256,
    /* Deadlines judged in one turn, so that a long pause is not followed by one long turn of ends. */
    TURN_DEADLINES = 256,
    SESSIONS_A_CHUNK = 256,
    SESSION_CHUNKS = 4096,
    SLOTS_A_CHUNK = 256,
    SLOT_CHUNKS = 1024
};

#define MILLISECOND UINT64_C(1000000)
#define NEVER UINT64_MAX
/* How long the delivery of what a reset side had sent may make no progress, and how often it is looked at: no event says
 * that the peer has acknowledged everything. */
#define RESET_STALL_NS (1000 * MILLISECOND)
#define RESET_LOOK_MS 10

struct link {
    struct link *before, *after;
};

static inline void link_clear(struct link *link)
{
    link->before = link->after = link;
}

static inline bool link_alone(const struct link *link)
{
    return link->after == link;
}

static inline void link_out(struct link *link)
{
    link->before->after = link->after;
    link->after->before = link->before;
    link_clear(link);
}

/* At the end of the list of `head`. */
static inline void link_in(struct link *head, struct link *link)
{
    link->before = head->before;
    link->after = head;
    head->before->after = link;
    head->before = link;
}

#define OWNER_OF(link, type, field) ((type *)(void *)((char *)(link) - offsetof(type, field)))

/* A single writer's counter that others may read: no locked instruction. */
static inline void count_up(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

static inline uint64_t count_of(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit((_Atomic uint64_t *)counter, memory_order_relaxed);
}

struct pipe {
    struct pipe *next;
    int in, out;
    size_t room, held;
};

/* What is known about a direction's source and where its bytes are. */
enum {
    READABLE = 1 << 0, /* the source may hold bytes that were not read yet */
    THOROUGH = 1 << 1, /* only EAGAIN proves the source empty (unix sockets, urgent marks, errors, hang-ups) */
    HUNG = 1 << 2,     /* the kernel has seen the source's FIN: after a short read comes the end */
    URGENT = 1 << 3,   /* an urgent mark was seen: splice may stop before it */
    FINISHED = 1 << 4, /* the end was read, though not everything before it is written */
    DONE = 1 << 5,     /* nothing will be moved any more */
    QUEUED = 1 << 6,   /* waits in the run queue for its next turn */
    BULKY = 1 << 7,    /* worth a pipe */
    COPYING = 1 << 8,  /* splice was refused: never again here */
    OF_UNIX = 1 << 9,  /* the source is a unix socket */
    CAPPED = 1 << 10   /* the sink may hold UNPROVEN_BYTES unsent, until PROVEN_BYTES were moved */
};

/* One direction: bytes from `source` to `sink`. `pending` or `pipe` hold what was read and not yet written, never both. */
struct half {
    int source, sink;
    uint16_t flags;
    uint8_t full; /* full buffers in a row */
    int error;    /* the errno behind STOP_SOURCE_FAILED and STOP_SINK_FAILED */
    uint32_t own; /* of `left`: not the client's bytes, not counted */
    uint32_t left;
    char *pending; /* the allocation, `left` bytes from `at` on are still to be written */
    char *at;
    struct pipe *pipe;
    _Atomic uint64_t *counter;
    _Atomic uint64_t count;
};

enum { UPWARD, DOWNWARD }; /* client -> upstream, upstream -> client; as a side: the client's, the upstream's */

enum state { STATE_FREE, STATE_SUBMITTED, STATE_CONNECTING, STATE_RELAYING, STATE_RESETTING, STATE_ENDED };

/* Who ends a session: its thread by itself, or an abort. Decided by one exchange, so `engine_abort` never lies. */
enum claim { CLAIM_NONE, CLAIM_ENDED, CLAIM_ABORTED };

/* Who may use the descriptors beside the session's thread: nobody; the owner, who looks; nobody ever again (`engine_look`). */
enum looking { LOOK_NONE, LOOK_BEGUN, LOOK_OVER };

struct notice {
    struct notice *next;
    struct session *session;
    bool connected;
};

struct counter {
    _Atomic uint64_t sent, received;
};

struct session {
    struct half half[2];
    uint64_t id;
    uint32_t index, generation;
    uint8_t state;
    uint8_t first_eof;
    bool abort_reset;
    bool ack_held; /* acknowledgements wait for the client's first bytes */
    atomic_uchar claim;
    atomic_uchar looking;
    atomic_uchar phase;
    uint64_t connect_timeout_ms, idle_timeout_ms, half_close_timeout_ms, max_duration_ms;
    uint32_t slot, first_size;
    struct engine_keepalive keepalive; /* no probes any more once it is set */
    uint16_t dial_port;
    char *first_bytes;
    struct thread *thread;
    uint64_t started_at, connected_at, half_closed_at, first_at, ended_at;
    _Atomic uint64_t moved_at; /* the last byte; before that the connect; before that the submit */
    struct link running, armed;
    uint64_t armed_tick;
    struct session *next_submitted, *next_aborted, *next_free;
    struct notice connected_notice, outcome_notice;
    /* STATE_RESETTING */
    struct link resetting;
    uint64_t reset_progress_at, reset_until, reset_left;
    int reset_error;
    uint8_t reset_side; /* the direction that is still delivered: its source was reset */
    uint8_t reset_reason;
    /* The Outcome */
    int reason, error, given_back;
    int abort_reason;
    bool outcome_collected; /* the owner's */
};

enum { WHEEL_SLOTS = 256, WHEEL_WORDS = WHEEL_SLOTS / 64, TICK_SHIFT = 24 }; /* a tick is 16.8 ms */

/* Two wheels: ticks, and rounds of 256 ticks. A session stands in at most one bucket. */
struct wheel {
    uint64_t tick; /* every bucket up to and with this one was taken */
    struct link near[WHEEL_SLOTS], far[WHEEL_SLOTS];
    uint64_t near_map[WHEEL_WORDS], far_map[WHEEL_WORDS];
    struct link due; /* taken out and not yet judged */
};

struct thread {
    struct engine *engine;
    const struct calls *calls;
    int epoll, wake;
    unsigned number;
    uint64_t now;
    char *buffer;
    struct pipe *free_pipes;
    unsigned pipes, busy_pipes;
    size_t large_pipes_bytes;
    uint64_t pipe_pause_until; /* after a refused pipe: not every session asks again at once */
    struct link running, resetting;
    struct wheel wheel;
    struct notice *posted, *posted_first; /* of this turn, the newest first */
    bool outcome_posted;
    unsigned live, unjudged; /* sessions here; turns with a full batch since deadlines were judged */
    uint64_t resets_due;
    uint64_t connected_due;
    struct session *current; /* for the watchdog's report */
    pthread_t id;
    atomic_int tid;   /* as the kernel numbers it */
    atomic_bool over; /* it has ended, and misses no beats while others end */
    bool started;
    /* Written by both sides */
    alignas(CACHE_LINE) _Atomic(struct session *) submitted;
    _Atomic(struct session *) aborted;
    _Atomic(struct notice *) notices;
    alignas(CACHE_LINE) atomic_bool asleep;
    /* Written by the thread, read by all */
    alignas(CACHE_LINE) _Atomic uint64_t turns, beats; /* a beat is a turn begun, or a session looked after in it */
    _Atomic uint64_t connected, ended, pending, yields, pipes_open, pipes_taken, pipes_refused, spliced, copied;
    _Atomic(struct counter *) counters[SLOT_CHUNKS];
};

struct engine {
    struct engine_options options;
    const struct calls *calls;
    int wake;
    atomic_bool stopping;
    pid_t process; /* whose threads these are: a forked child has none of them */
    bool stopped;
    unsigned threads; /* at least one, started or not */
    unsigned next_thread;
    uint64_t submitted;
    struct thread *thread[ENGINE_MAX_THREADS];
    bool to_wake[ENGINE_MAX_THREADS];
    struct session *chunk[SESSION_CHUNKS];
    void *chunk_memory[SESSION_CHUNKS];
    uint32_t chunks;
    struct session *free_sessions;
    uint32_t slots;
    uint32_t *free_slots;
    uint32_t free_slot_count, free_slot_room;
    struct notice *collected;
    alignas(CACHE_LINE) atomic_bool signalled;
    struct watchdog *watchdog;
};

static inline void *allocate_clear(const struct calls *calls, size_t size)
{
    void *memory = calls->allocate(size);
    if (memory != NULL)
        memset(memory, 0, size);
    return memory;
}

static inline struct session *session_at(const struct engine *engine, uint32_t index)
{
    uint32_t chunk = index / SESSIONS_A_CHUNK;
    if (chunk >= SESSION_CHUNKS || engine->chunk[chunk] == NULL)
        return NULL;
    return &engine->chunk[chunk][index % SESSIONS_A_CHUNK];
}

/* pipes.c: `pipe_take` gives an empty pipe or NULL; `pipe_give` keeps it if it is empty, else closes it. */
struct pipe *pipe_take(struct thread *thread);
void pipe_give(struct thread *thread, struct pipe *pipe);
void pipes_close(struct thread *thread);

/* deadlines.c: `at` is when to judge the session, or earlier. */
void wheel_start(struct wheel *wheel, uint64_t now);
void wheel_add(struct wheel *wheel, struct session *session, uint64_t at);
void wheel_remove(struct wheel *wheel, struct session *session);
struct session *wheel_due(struct wheel *wheel, uint64_t now);
uint64_t wheel_next(const struct wheel *wheel);

/* move.c */
enum stop {
    STOP_EMPTY,   /* the source has nothing more now; an event will tell */
    STOP_BLOCKED, /* the sink takes nothing more now; an event will tell */
    STOP_BUDGET,  /* both could go on */
    STOP_EOF,     /* the source has ended and every byte was written */
    STOP_SOURCE_FAILED,
    STOP_SINK_FAILED,
    STOP_NO_MEMORY
};
enum stop half_move(struct thread *thread, struct session *session, struct half *half);
void half_drop(struct thread *thread, struct half *half);

static inline size_t half_holds(const struct half *half)
{
    return half->left + (half->pipe ? half->pipe->held : 0);
}

/* session.c, connecting.c, limits.c, ending.c */
void session_adopt(struct thread *thread, struct session *session);
void session_event(struct thread *thread, struct session *session, int side, uint32_t flags);
void session_run(struct thread *thread, struct session *session);
void session_judge(struct thread *thread, struct session *session);
void session_deliver(struct thread *thread, struct session *session);
void session_aborted(struct thread *thread, struct session *session);
void session_kill(struct thread *thread, struct session *session);

/* Closes what `session_finish` had to leave open because the owner was looking. */
void session_close(const struct calls *calls, const struct session *session);

/* engine.c: `thread_post` puts a Connected or an Outcome into this turn's batch; `thread_wake` is the owner's, who has pushed something;
 * `owner_wake` is a thread's, who has, and makes the owner's descriptor readable. */
void owner_wake(struct engine *engine);
void *thread_run(void *thread);
void thread_take_orders(struct thread *thread);
void thread_publish(struct thread *thread);

/* What the epoll says of a thread's own `wake`: of no session, for no index is as large. */
#define WAKE_EVENT UINT64_MAX
void thread_post(struct thread *thread, struct notice *notice);
void thread_wake(struct thread *thread);

/* watchdog.c */
int watchdog_start(struct engine *engine);
void watchdog_stop(struct engine *engine);

#endif
