/* The relay engine's outside: what its binding, its tests and its fuzzers call.
 *
 * All functions are called by one thread, the owner's (the event loop's). None of them blocks, but `engine_stop`, which waits for
 * the engine's threads to end their turn. Times are nanoseconds of CLOCK_MONOTONIC, limits milliseconds, 0 means none.
 */
#ifndef LBPROXY_ENGINE_H
#define LBPROXY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calls.h"

enum { ENGINE_MAX_THREADS = 64 };

/* The longest limit: 292 years, so that the nanoseconds of one never wrap. */
#define ENGINE_MAX_LIMIT_MS (UINT64_C(9223372036854775807) / 1000000)

/* Why a session ended. An abort brings its caller's own number, REASON_OF_ABORT or more. */
enum reason {
    REASON_CLIENT_EOF,
    REASON_UPSTREAM_EOF,
    REASON_CLIENT_RESET,
    REASON_UPSTREAM_RESET,
    REASON_IDLE_TIMEOUT,
    REASON_HALF_CLOSE_TIMEOUT,
    REASON_MAX_DURATION,
    REASON_CONNECT_TIMEOUT,
    REASON_CONNECT_FAILED, /* what it means is in the errno */
    REASON_LOCAL_FDS,      /* the sockets could not be watched */
    REASON_CLIENT_GONE,
    REASON_KILLED,
    REASON_INTERNAL_ERROR, /* no memory for bytes that were read already */
    REASONS,
    REASON_OF_ABORT = 64
};

enum phase { PHASE_CONNECT, PHASE_RELAY, PHASE_HALF_CLOSED };

struct engine_options {
    unsigned threads;         /* 0: none is started, the owner calls `engine_turn` (tests) */
    unsigned pipes;           /* how many splice pipes a thread may keep; 0: bytes are copied */
    uint16_t first_port;      /* the range from which the kernel takes local ports: only a dial to one of */
    uint16_t last_port;       /*   these can be answered by itself. 0..65535 is always right. */
    unsigned connected_delay_ms; /* how long a mere Connected waits for other events before it wakes the owner */
    unsigned keepalive_after_ms; /* how long an upstream has been connected when its keepalive is set */
    unsigned beat_ms;         /* how often the watchdog looks; 0: no watchdog */
    unsigned missed_beats;    /* how many looks in a row a thread may show no progress */
};

/* In the kernel's bounds; `probes` 0 means none. */
struct engine_keepalive {
    uint16_t idle_s, interval_s;
    uint8_t probes;
};

struct engine_submit {
    uint64_t session;
    int client, upstream;
    bool client_unix, upstream_unix;
    uint64_t connect_timeout_ms, idle_timeout_ms, half_close_timeout_ms, max_duration_ms; /* at most ENGINE_MAX_LIMIT_MS */
    uint32_t slot;
    const void *first_bytes;
    size_t first_size;
    bool urgent_inline; /* SO_OOBINLINE is set already */
    struct engine_keepalive keepalive; /* of the upstream */
    uint16_t dial_port; /* the upstream's, if it is known: 0 means that it is not */
    bool ack_held; /* the upstream is from `engine_dial`, on TCP */
};

/* A client that was accepted. `error` is what is pending on it: it may have gone while it waited. */
struct engine_arrival {
    int fd, error;
    struct sockaddr_storage peer;
    socklen_t peer_size;
};

struct engine_socket_option {
    int level, name, value;
};

/* Where to connect a new socket, and what to set on it before. */
struct engine_dial {
    int family;
    struct sockaddr_storage address;
    socklen_t address_size;
    size_t option_count;
    const struct engine_socket_option *options;
};

struct engine_event {
    bool connected; /* Connected (only session, handle and connect_ns count) or Outcome */
    uint64_t session;
    uint64_t handle;
    int reason;
    enum phase phase;
    uint64_t sent, received;
    int64_t connect_ns;    /* -1: never connected */
    int64_t first_byte_ns; /* -1: no byte from the upstream */
    int64_t total_ns;
    int error;
    int client; /* the descriptor given back, or -1 */
    bool upstream_unix;
};

/* What the kernel knows about one TCP leg. */
struct engine_leg {
    bool known;           /* false: a unix socket, or the session is ending */
    uint32_t rtt_us;      /* smoothed; 0: not measured yet */
    uint32_t retransmits; /* segments sent again since the connect began */
};

struct engine_view {
    enum phase phase;
    uint64_t sent, received;
    int64_t age_ns, idle_ns;
    struct engine_leg client, upstream; /* of `engine_look` */
};

/* Totals of one thread. `pending` is now, the rest since start. */
struct engine_totals {
    uint64_t connected, ended, pending, turns, yields;
    uint64_t pipes_open, pipes_busy, pipes_refused, spliced, copied;
};

struct engine;

/* NULL and errno. `calls` lives as long as the engine. */
struct engine *engine_start(const struct engine_options *options, const struct calls *calls);

/* Ends the threads, then every session (reset, REASON_KILLED), and closes every descriptor but those given back. What is left is
 * memory: events can still be fetched, counters and totals read. Idempotent. In a forked child it
 * only refuses further work: threads and descriptors are the parent's. */
void engine_stop(struct engine *engine);

/* Frees everything; stops first. Nothing in a forked child. */
void engine_free(struct engine *engine);

/* The descriptor that becomes readable when there are events. */
int engine_wake_fd(const struct engine *engine);

/* Takes over both descriptors and returns 0, or leaves them alone and returns an errno. `handle` names the session until
 * its Outcome was fetched. */
int engine_submit(struct engine *engine, const struct engine_submit *submit, uint64_t *handle);

/* The handle that the next submit will give, for a caller that keeps it in memory of its own: what can fail of that comes before the
 * submit. False: no memory. */
bool engine_next_handle(struct engine *engine, uint64_t *handle);

/* doorway.c: what the owner does before a submit. They are the caller's descriptors until then.
 *
 * Accepts at most `room` clients that wait: how many there were, or -1 and errno if the first accept failed (0 if nobody waits). */
int engine_accept(const struct engine *engine, int listening, struct engine_arrival *arrivals, int room);

/* A socket on its way, or -1 and errno. `tried`: the connect failed, not what comes before it. On TCP the last acknowledgement of the
 * handshake is held back (by the kernel, for 200 ms at most), so that the client's first bytes carry it: a segment less for both sides. */
int engine_dial(const struct engine *engine, const struct engine_dial *dial, bool *tried);

void engine_hang_up(const struct engine *engine, int fd);

/* Wakes the threads that have something submitted and sleep: once for many submits. */
void engine_flush(struct engine *engine);

/* True if the session will end with this reason, false if it has ended by itself. */
bool engine_abort(struct engine *engine, uint64_t handle, int reason, bool reset);

/* The oldest event, or false. It stays the oldest until `engine_took` says that the owner has it, so one that he has no memory for is lost
 * to nobody; an Outcome's handle is void from then on. `engine_collect` first, once for many; of a session whose Connected is still here when
 * its Outcome is collected only the Outcome is told, which stands for both. Who leaves some for later has himself called again. */
void engine_collect(struct engine *engine);
bool engine_fetch(struct engine *engine, struct engine_event *event);
void engine_took(struct engine *engine);
void engine_call_again(struct engine *engine);

/* `engine_look` asks the kernel about both legs, too (two system calls). */
bool engine_view(struct engine *engine, uint64_t handle, struct engine_view *view);
bool engine_look(struct engine *engine, uint64_t handle, struct engine_view *view);
unsigned engine_threads(const struct engine *engine);
void engine_totals(const struct engine *engine, unsigned thread, struct engine_totals *totals);
uint64_t engine_submitted(const struct engine *engine);

/* Counter slots. `engine_open_slot` returns an errno. */
int engine_open_slot(struct engine *engine, uint32_t *slot);
void engine_close_slot(struct engine *engine, uint32_t slot);
bool engine_read_slot(const struct engine *engine, uint32_t slot, uint64_t *sent, uint64_t *received);

/* One turn of the only thread of an engine without started threads; never sleeps longer than `timeout_ms` (-1: as long as
 * it likes). */
void engine_turn(struct engine *engine, int timeout_ms);

#endif
