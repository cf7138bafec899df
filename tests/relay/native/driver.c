/* Drives the engine, one turn at a time, over the pretended kernel.
 *
 *   driver SEED COUNT     runs COUNT random histories from SEED on
 *   driver --pause        a long pause ends nobody whose bytes came in time
 *   driver --busy         a turn with very many sessions is no hang
 *   driver --slow         a thread that misses fewer beats than it may, again and again, is no hang
 *   driver --stall        a thread that hangs, from a line on stdin on, is reported and ends the process (with SIGABRT)
 *   driver --stopping     the same, while the engine is being stopped
 *   driver --ending       threads that have ended are no hang, while the engine waits for another one
 *   driver --stopped      a thread that hangs until a line comes on stdin: the process is stopped and continued meanwhile
 *   driver --pipes KIB    what pipes may hold, in KiB, where a user may enlarge his by so much in all
 *
 * Compiled with -DFUZZ it is a libFuzzer target (fuzz.sh): the input is the history's choices. Beside what pretend.h checks it holds the engine to
 * the contract: one Outcome a submit, at most one Connected before it, exact counts, limits never early, an abort that said
 * true ends with its reason, and after the end no descriptor and no session left.
 */
#define _GNU_SOURCE
#include "pretend.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef FUZZ
enum { SESSIONS = 8 }; /* a fuzzer wants many short histories */
#else
enum { SESSIONS = 40 };
#endif
enum { TURNS = 200000, SLOTS = 2 };

struct known {
    bool submitted, connected, ended;
    int aborted; /* the reason, or 0 */
    int reason;
    uint64_t handle;
    struct pair pair;
    struct engine_submit limits;
};

static struct known known[SESSIONS + 1];
static uint64_t sent_total[SLOTS], received_total[SLOTS];

static uint64_t some_limit(void)
{
    static const uint64_t limits[] = {0, UINT64_C(315360000000), 5, 100, 3000, 60000}; /* ten years is for ever here */
    return limits[choose(6)];
}

static void submit(struct engine *engine, unsigned number, struct pair pair, struct engine_submit *limits)
{
    struct known *session = &known[number];
    uint64_t announced;
    bool is_announced = engine_next_handle(engine, &announced);
    limits->session = number;
    limits->client = pair.client;
    limits->upstream = pair.upstream;
    limits->client_unix = pair.client_unix;
    limits->upstream_unix = pair.upstream_unix;
    limits->ack_held = limits->dial_port && !pair.upstream_unix; /* as the doorway's dials */
    if (limits->ack_held)
        pretend_hold_ack(pair.upstream);
    *session = (struct known){.submitted = true, .pair = pair, .limits = *limits};
    if (engine_submit(engine, limits, &session->handle)) {
        pretend_hang_up(pair.client);
        pretend_hang_up(pair.upstream);
        session->submitted = false;
        session->ended = true;
    } else if (is_announced && announced != session->handle) {
        fail_now("another handle than was announced");
    }
}

static void submit_new(struct engine *engine, unsigned number)
{
    static char first[3000];
    for (size_t at = 0; at < sizeof first; at++)
        first[at] = (char)('A' + at % 26);
    struct engine_submit limits = {
        .connect_timeout_ms = some_limit(),
        .idle_timeout_ms = some_limit(),
        .half_close_timeout_ms = some_limit(),
        .max_duration_ms = choose(4) ? 0 : some_limit(),
        .slot = choose(SLOTS),
        .first_bytes = first,
        .first_size = choose(4) ? 0 : choose(sizeof first),
        .keepalive = {.idle_s = 60, .interval_s = 10, .probes = choose(2) ? 6 : 0},
        .dial_port = choose(2) ? PRETEND_PORT : 0,
    };
    submit(engine, number, pretend_pair((uint32_t)limits.first_size), &limits);
}

static void check_limit(const struct engine_event *event, const struct engine_submit *limits)
{
    uint64_t limit_ms = 0;
    if (event->reason == REASON_IDLE_TIMEOUT)
        limit_ms = limits->idle_timeout_ms;
    else if (event->reason == REASON_HALF_CLOSE_TIMEOUT)
        limit_ms = limits->half_close_timeout_ms;
    else if (event->reason == REASON_MAX_DURATION)
        limit_ms = limits->max_duration_ms;
    else if (event->reason == REASON_CONNECT_TIMEOUT)
        limit_ms = limits->connect_timeout_ms;
    else
        return;
    if (limit_ms == 0 || event->total_ns < (int64_t)limit_ms * 1000000)
        fail_now("a limit was applied early");
}

static void take_outcome(struct engine *engine, const struct engine_event *event)
{
    struct known *session = &known[event->session];
    if (session->ended)
        fail_now("a second outcome");
    session->ended = true;
    session->reason = event->reason;
    if (session->connected && event->connect_ns < 0)
        fail_now("connected, but without a connect time");
    session->connected = event->connect_ns >= 0; /* an outcome may stand for both */
    if (session->aborted && event->reason != session->aborted)
        fail_now("an abort said true, and the session ended otherwise");
    if (!session->aborted && event->reason >= REASON_OF_ABORT)
        fail_now("an abort nobody asked for");
    check_limit(event, &session->limits);
    if (event->sent != pretend_written(session->pair.client_stream) ||
        event->received != pretend_written(session->pair.upstream_stream))
        fail_now("the counts are not what was written");
    if (!pretend_gone(session->pair.upstream_stream) ||
        pretend_gone(session->pair.client_stream) != (event->client == -1))
        fail_now("an outcome before the descriptors were closed");
    sent_total[session->limits.slot] += event->sent;
    received_total[session->limits.slot] += event->received;
    if (event->client == -1)
        return;
    if (event->client != session->pair.client || session->connected || !pretend_untouched(event->client))
        fail_now("a client was given back that is not as it came");
    if (choose(2)) {
        struct engine_submit again = session->limits;
        again.first_size = 0;
        submit(engine, (unsigned)event->session, pretend_redial(event->client, 0), &again);
    } else {
        pretend_hang_up(event->client);
    }
}

/* The owner may have no memory for an event: it stays, and is the first again. */
static bool is_left(struct engine *engine, const struct engine_event *event)
{
    struct engine_event again;
    if (calm() || choose(30))
        return false;
    if (!engine_fetch(engine, &again) || again.session != event->session || again.connected != event->connected)
        fail_now("an event that was not taken is another one at the second look");
    if (!event->connected && engine_abort(engine, event->handle, REASON_OF_ABORT, true))
        fail_now("an ended session was aborted before its outcome was taken");
    engine_call_again(engine);
    return true;
}

static void take_events(struct engine *engine)
{
    struct engine_event event;
    engine_collect(engine);
    while (engine_fetch(engine, &event)) {
        if (is_left(engine, &event))
            return;
        engine_took(engine);
        if (event.session == 0 || event.session > SESSIONS || !known[event.session].submitted)
            fail_now("an event of an unknown session");
        if (!event.connected) {
            take_outcome(engine, &event);
            continue;
        }
        if (known[event.session].connected || known[event.session].ended)
            fail_now("connected twice, or after the end");
        known[event.session].connected = true;
    }
}

static void maybe_abort(struct engine *engine, unsigned begun)
{
    struct known *session = &known[1 + choose(begun)];
    if (!session->submitted || session->ended || session->aborted)
        return;
    int reason = REASON_OF_ABORT + (int)choose(5);
    if (engine_abort(engine, session->handle, reason, choose(2)))
        session->aborted = reason;
    else if (engine_abort(engine, session->handle, reason, true))
        fail_now("a second abort of an ended session said true");
}

static struct engine *looked_at;

static void turn_beside(void)
{
    engine_turn(looked_at, 0);
}

/* The session may end while its legs are looked at: its descriptors must stay open until both were. */
static void maybe_look(struct engine *engine, unsigned begun)
{
    struct known *session = &known[1 + choose(begun)];
    struct engine_view view;
    if (!session->submitted || session->ended)
        return;
    looked_at = engine;
    pretend_beside(turn_beside);
    bool here = engine_look(engine, session->handle, &view);
    pretend_beside(NULL);
    if (!here)
        return;
    if (view.client.known && (session->pair.client_unix || view.client.retransmits != (uint32_t)session->pair.client))
        fail_now("a look at another client's connection");
    if (view.upstream.known && (session->pair.upstream_unix || view.upstream.retransmits != (uint32_t)session->pair.upstream))
        fail_now("a look at another upstream's connection");
}

static bool all_ended(unsigned begun)
{
    for (unsigned number = 1; number <= begun; number++)
        if (!known[number].ended)
            return false;
    return true;
}

static void check_slots(struct engine *engine)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        uint64_t sent, received;
        engine_read_slot(engine, slot, &sent, &received);
        if (sent != sent_total[slot] || received != received_total[slot])
            fail_now("a slot's counters are not the sum of its sessions");
    }
}

static void history(uint64_t seed, const uint8_t *data, size_t size)
{
    struct engine_options options = {.pipes = 3, .last_port = 65535};
    struct engine_totals totals;
    unsigned begun = 0, wanted;
    pretend_start(seed, data, size);
    memset(known, 0, sizeof known);
    memset(sent_total, 0, sizeof sent_total);
    memset(received_total, 0, sizeof received_total);
    wanted = 1 + choose(SESSIONS);
    bool stop_early = !choose(6);
    options.connected_delay_ms = choose(2) * 5;
    options.keepalive_after_ms = choose(3) * 100;
    struct engine *engine = engine_start(&options, &pretend_calls);
    if (engine == NULL)
        goto ended;
    for (uint32_t slot, at = 0; at < SLOTS; at++)
        if (engine_open_slot(engine, &slot)) {
            engine_free(engine);
            goto ended;
        }
    for (unsigned turn = 0; begun < wanted || !all_ended(begun); turn++) {
        if (turn == TURNS)
            fail_now("a session never ends: a wake-up was lost");
        if (turn == TURNS / 20)
            pretend_calm();
        while (begun < wanted && (calm() || !choose(3)))
            submit_new(engine, ++begun);
        if (!calm() && begun && !choose(25))
            maybe_abort(engine, begun);
        if (!calm() && begun && !choose(12))
            maybe_look(engine, begun);
        if (stop_early && !calm() && !choose(60))
            break;
        engine_turn(engine, -1);
        take_events(engine);
    }
    engine_stop(engine);
    pretend_calm();
    take_events(engine);
    if (!all_ended(begun))
        fail_now("stopped without an outcome");
    engine_totals(engine, 0, &totals);
    if (totals.pending || totals.pipes_busy || totals.pipes_open)
        fail_now("bytes or pipes without a session");
    if (totals.ended != engine_submitted(engine))
        fail_now("submits and outcomes do not balance");
    if (totals.copied + totals.spliced != sent_total[0] + received_total[0] + sent_total[1] + received_total[1])
        fail_now("bytes were moved neither by copying nor by splicing");
    check_slots(engine);
    engine_free(engine);
ended:
    if (pretend_open())
        fail_now("descriptors are left open");
}

#ifndef FUZZ

/* A pause much longer than every limit, in which bytes came: the poll before the judging must see them. */
static void pause_case(void)
{
    struct engine_options options = {.pipes = 1, .last_port = 65535};
    struct engine_submit limits = {.idle_timeout_ms = 1000};
    uint32_t slot, heard = 0;
    for (uint64_t seed = 1; seed < 200; seed++) {
        pretend_start(seed, (const uint8_t *)"", 0);
        memset(known, 0, sizeof known);
        struct engine *engine = engine_start(&options, &pretend_calls);
        engine_open_slot(engine, &slot);
        submit(engine, 1, pretend_pair(0), &limits);
        for (int turn = 0; turn < 20 && !known[1].connected && !known[1].ended; turn++) {
            engine_turn(engine, 0);
            take_events(engine);
        }
        if (known[1].connected && !known[1].ended) {
            pretend_skip(UINT64_C(5000000000));
            bool spoken = pretend_speak(known[1].pair.client, 100);
            engine_turn(engine, 0);
            take_events(engine);
            if (spoken && known[1].ended && known[1].reason == REASON_IDLE_TIMEOUT)
                fail_now("ended for idleness with bytes that had come in time");
            heard += spoken;
        }
        engine_stop(engine);
        take_events(engine);
        engine_free(engine);
    }
    printf("%u pauses\n", heard);
}

static size_t pipe_quota;

static int resize_within_quota(int fd, int bytes)
{
    if (pipe_quota < (size_t)bytes)
        return -1;
    pipe_quota -= (size_t)bytes;
    return pretend_calls.resize_pipe(fd, bytes);
}

/* Prints the room of 30 pipes as they are opened, and of the same as they are taken again. */
static void pipes_case(size_t quota)
{
    enum { PIPES = 30 };
    struct engine_options options = {.pipes = PIPES, .last_port = 65535};
    struct calls calls = pretend_calls;
    struct pipe *taken[PIPES];
    calls.resize_pipe = resize_within_quota;
    pretend_start(1, (const uint8_t *)"", 0);
    pipe_quota = quota;
    struct engine *engine = engine_start(&options, &calls);
    struct thread *thread = engine->thread[0];
    for (int time = 0; time < 2; time++) {
        for (int at = 0; at < PIPES; at++) {
            taken[at] = pipe_take(thread);
            printf("%zu%c", taken[at]->room / 1024, at == PIPES - 1 ? '\n' : ' ');
        }
        if (pipe_take(thread) != NULL)
            fail_now("more pipes than there may be");
        for (int at = 0; at < PIPES; at++)
            pipe_give(thread, taken[at]);
    }
    /* One that is closed, because it holds bytes, leaves room for another large one. */
    struct pipe *pipe = pipe_take(thread);
    size_t room = pipe->room;
    pipe->held = 1;
    pipe_quota += room;
    pipe_give(thread, pipe);
    for (int at = 0; at < PIPES; at++)
        taken[at] = pipe_take(thread);
    if (taken[PIPES - 1]->room != room)
        fail_now("what a closed pipe held is not free again");
    for (int at = 0; at < PIPES; at++)
        pipe_give(thread, taken[at]);
    engine_free(engine);
    if (pretend_open())
        fail_now("pipes are left open");
}

static ssize_t endless_recv(int fd, void *to, size_t size, int flags)
{
    (void)fd, (void)to, (void)size, (void)flags;
    while (pause() == -1)
        continue;
    return -1;
}

static ssize_t told_recv(int fd, void *to, size_t size, int flags)
{
    static bool told;
    if (!told) {
        puts("hangs");
        fflush(stdout);
        getchar();
        told = true;
    }
    return recv(fd, to, size, flags);
}

static struct timespec slowness;

static ssize_t slow_recv(int fd, void *to, size_t size, int flags)
{
    nanosleep(&slowness, NULL);
    return recv(fd, to, size, flags);
}

/* The clients of the last thread's sessions have said a byte, the others are silent. The engine is stopped after `pause_ms`. */
static void busy_case(unsigned threads, int sessions, long slowness_ms, unsigned beat_ms, long pause_ms)
{
    struct calls calls = kernel_calls;
    struct engine_options options = {.threads = threads, .last_port = 65535, .beat_ms = beat_ms, .missed_beats = 5};
    struct timespec pause = {.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000};
    struct engine_submit limits = {.client_unix = true, .upstream_unix = true};
    uint64_t handle;
    slowness.tv_nsec = slowness_ms * 1000000;
    calls.recv = slow_recv;
    struct engine *engine = engine_start(&options, &calls);
    if (engine == NULL || engine_open_slot(engine, &limits.slot))
        exit(3);
    for (int number = 0; number < sessions; number++) {
        int client[2], upstream[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, client) || socketpair(AF_UNIX, SOCK_STREAM, 0, upstream) ||
            (number % (int)threads == (int)threads - 1 && write(client[1], "x", 1) != 1))
            exit(3);
        limits.client = client[0];
        limits.upstream = upstream[0];
        engine_submit(engine, &limits, &handle);
    }
    engine_flush(engine);
    nanosleep(&pause, NULL);
    engine_free(engine);
}

/* One session whose client has said a byte: the thread hangs in its recv. */
static void hang(struct engine *engine, int upstream[2])
{
    struct engine_submit limits = {.session = 7, .client_unix = true, .upstream_unix = true};
    uint64_t handle;
    int client[2];
    if (engine_open_slot(engine, &limits.slot) || socketpair(AF_UNIX, SOCK_STREAM, 0, client) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, upstream))
        exit(3);
    limits.client = client[0];
    limits.upstream = upstream[0];
    if (engine_submit(engine, &limits, &handle) || write(client[1], "x", 1) != 1)
        exit(3);
    engine_flush(engine);
}

static void stall_case(void)
{
    struct calls calls = kernel_calls;
    struct engine_options options = {.threads = 1, .last_port = 65535, .beat_ms = 50, .missed_beats = 5};
    struct timespec pause = {.tv_nsec = 300000000};
    int upstream[2];
    calls.recv = endless_recv;
    struct engine *engine = engine_start(&options, &calls);
    if (engine == NULL)
        exit(3);
    nanosleep(&pause, NULL); /* asleep is no stall */
    puts("idle and alive");
    fflush(stdout);
    getchar();
    hang(engine, upstream);
    sleep(50);
    exit(4);
}

static atomic_bool in_recv;

static ssize_t signalled_recv(int fd, void *to, size_t size, int flags)
{
    atomic_store(&in_recv, true);
    return endless_recv(fd, to, size, flags);
}

static void stopping_case(void)
{
    struct calls calls = kernel_calls;
    struct engine_options options = {.threads = 1, .last_port = 65535, .beat_ms = 50, .missed_beats = 5};
    int upstream[2];
    calls.recv = signalled_recv;
    struct engine *engine = engine_start(&options, &calls);
    if (engine == NULL)
        exit(3);
    hang(engine, upstream);
    while (!atomic_load(&in_recv))
        continue;
    engine_stop(engine);
    exit(4);
}

static void stopped_case(void)
{
    struct calls calls = kernel_calls;
    struct engine_options options = {.threads = 1, .last_port = 65535, .beat_ms = 500, .missed_beats = 3};
    int upstream[2];
    char byte;
    calls.recv = told_recv;
    struct engine *engine = engine_start(&options, &calls);
    if (engine == NULL)
        exit(3);
    hang(engine, upstream);
    if (read(upstream[1], &byte, 1) != 1)
        exit(3);
    printf("goes on\n");
    exit(0);
}

#endif

#ifdef FUZZ
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    history(size, data, size);
    return 0;
}
#else
int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "--stall") == 0)
        stall_case();
    if (count == 2 && strcmp(arguments[1], "--stopping") == 0)
        stopping_case();
    if (count == 2 && strcmp(arguments[1], "--stopped") == 0)
        stopped_case();
    if (count == 2 && (strcmp(arguments[1], "--busy") == 0 || strcmp(arguments[1], "--slow") == 0 || strcmp(arguments[1], "--ending") == 0)) {
        if (arguments[1][2] == 'b')
            busy_case(1, 60, 10, 50, 800);
        else if (arguments[1][2] == 'e')
            busy_case(2, 60, 10, 50, 100); /* 0.6 s of one turn, when the other thread has ended */
        else
            busy_case(1, 4, 280, 200, 2200); /* two reads a session: three looks */
        return 0;
    }
    if (count == 2 && strcmp(arguments[1], "--pause") == 0) {
        pause_case();
        return 0;
    }
    if (count != 3)
        return 2;
    if (strcmp(arguments[1], "--pipes") == 0) {
        pipes_case(strtoull(arguments[2], NULL, 10) * 1024);
        return 0;
    }
    uint64_t first = strtoull(arguments[1], NULL, 10), runs = strtoull(arguments[2], NULL, 10);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        if (getenv("LBPROXY_SEEDS") != NULL)
            fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        history(seed, NULL, 0);
    }
    printf("%llu histories\n", (unsigned long long)runs);
    return 0;
}
#endif
