/* See pretend.h. */
#define _GNU_SOURCE
#include "pretend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { ENDS = 256, FIRST_FD = 1000, FRAMES = 64, STREAMS = 4096 };

enum kind { CLOSED, SOCKET, PIPE_IN, PIPE_OUT, OTHER };

struct frame {
    uint32_t stream;
    uint64_t from, size;
};

struct end {
    enum kind kind;
    /* a socket */
    int peer; /* the session's other socket */
    bool of_unix, upstream, watched, edge, starved, linger, was_read;
    uint64_t data;
    uint32_t stream;                        /* of the bytes that arrive here */
    uint64_t planned, arrived, read, marked; /* marked: an urgent byte's offset, or none */
    bool fin, eof_read, reset;
    int error, connect_error;
    bool connecting, failed, selfish;
    uint64_t sent, acknowledged, room, first; /* first: bytes of our own, before the peer's stream */
    bool shut;
    bool corked;             /* what was written waits for what follows */
    bool ack_held, ack_due;  /* acknowledgements; due: the engine knows that it is connected */
    bool rude;     /* the peer ends with an RST */
    bool dialogue; /* request and answer: nobody goes on before he has everything that came before */
    /* a pipe */
    int twin;
    uint64_t capacity;
    struct frame frames[FRAMES];
    unsigned frame_count;
};

static struct end ends[ENDS];
static uint64_t clock_ns, generator;
static const uint8_t *input;
static size_t input_left;
static bool peaceful;
static uint32_t streams;
static uint64_t written[STREAMS]; /* of each stream, by the engine; outlives the descriptors */
static int open_count;
static void (*beside)(void);

void fail_now(const char *why)
{
    fprintf(stderr, "invariant broken: %s\n", why);
    abort();
}

static uint32_t generated(void)
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (uint32_t)(generator >> 16);
}

uint32_t choose(uint32_t below)
{
    if (input != NULL && input_left) {
        uint32_t found = *input++;
        if (--input_left && below > 256) {
            found |= (uint32_t)*input++ << 8;
            input_left--;
        }
        if (!input_left)
            peaceful = true;
        return found % below;
    }
    return generated() % below;
}

bool calm(void)
{
    return peaceful;
}

void pretend_calm(void)
{
    peaceful = true;
}

/* One in `odds`, and never in peace. */
static bool refused(uint32_t odds, int error)
{
    if (peaceful || choose(odds))
        return false;
    errno = error;
    return true;
}

static unsigned char noise[65536];

static unsigned char byte_of(uint32_t stream, uint64_t offset)
{
    return noise[(offset + (uint64_t)stream * 40503) % sizeof noise] ^ (unsigned char)stream;
}

static int end_new(enum kind kind)
{
    for (int at = 0; at < ENDS; at++)
        if (ends[at].kind == CLOSED) {
            ends[at] = (struct end){.kind = kind, .peer = -1, .twin = -1, .marked = UINT64_MAX};
            open_count++;
            return FIRST_FD + at;
        }
    fail_now("the pretended kernel is out of descriptors");
    return -1;
}

static struct end *end_of(int fd)
{
    if (fd < FIRST_FD || fd >= FIRST_FD + ENDS || ends[fd - FIRST_FD].kind == CLOSED)
        fail_now("a descriptor that is not open");
    return &ends[fd - FIRST_FD];
}

static struct end *socket_of(int fd)
{
    struct end *end = end_of(fd);
    if (end->kind != SOCKET)
        fail_now("not a socket");
    return end;
}

/* The session's other socket, though it may be closed by now; NULL if its descriptor is somebody else's already. */
static struct end *other_of(const struct end *end)
{
    if (end->peer < 0)
        return NULL;
    struct end *other = &ends[end->peer - FIRST_FD];
    return other->peer == FIRST_FD + (int)(end - ends) ? other : NULL;
}

static void edge(struct end *end)
{
    end->edge = true;
}

/* Peers */

static void end_reset_by_peer(struct end *end)
{
    end->reset = true;
    end->error = end->fin ? EPIPE : ECONNRESET;
    end->room = 0;
    edge(end);
}

/* Whether the peer waits for bytes that the engine owes him. */
static bool waits(const struct end *end, bool to_end)
{
    const struct end *other = other_of(end);
    if (!end->dialogue || other == NULL || end->shut)
        return false;
    if (end->upstream)
        return end->sent < end->first + other->planned;
    return to_end && end->sent < other->planned;
}

static const uint32_t chunks[] = {600, 600, 200000, 1500000};

static void peer_moves(struct end *end)
{
    if (end->kind != SOCKET || end->reset || end->failed)
        return;
    if (end->connecting) {
        if (choose(3))
            return;
        end->connecting = false;
        end->failed = end->connect_error != 0;
        end->error = end->connect_error;
        edge(end);
        return;
    }
    if (end->arrived < end->planned && choose(3) && !waits(end, false)) {
        uint64_t left = end->planned - end->arrived, more = 1 + choose(chunks[choose(4)]);
        end->arrived += more < left ? more : left;
        if (!peaceful && end->marked == UINT64_MAX && !end->of_unix && !choose(8))
            end->marked = end->arrived - 1;
        edge(end);
    }
    uint64_t unacknowledged = end->sent - end->acknowledged;
    if (unacknowledged && choose(4)) {
        uint64_t some = 1 + choose(chunks[choose(4)]);
        some = some < unacknowledged ? some : unacknowledged;
        end->acknowledged += some;
        end->room += some + (peaceful ? 600 : 0); /* a window of a few bytes would take for ever */
        if (end->starved) {
            end->starved = false;
            edge(end);
        }
    }
    if (end->arrived == end->planned && !end->fin && !choose(peaceful ? 2 : 5) && !waits(end, true)) {
        if (end->rude && !end->of_unix) {
            end_reset_by_peer(end);
        } else {
            end->fin = true;
            edge(end);
        }
    } else if (!peaceful && !end->of_unix && !choose(400)) {
        end_reset_by_peer(end);
    }
    if (end->shut && end->of_unix)
        end->acknowledged = end->sent;
}

static uint32_t mask_of(const struct end *end)
{
    uint32_t mask = 0;
    if (end->connecting)
        return 0;
    if (end->failed)
        return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | (end->error ? EPOLLERR : 0);
    if (end->reset)
        return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | (end->error ? EPOLLERR : 0);
    if (end->arrived > end->read || end->fin)
        mask |= EPOLLIN;
    if (end->fin)
        mask |= EPOLLRDHUP;
    if (end->fin && end->shut)
        mask |= EPOLLHUP;
    if (end->room)
        mask |= EPOLLOUT;
    if (end->marked != UINT64_MAX && end->marked >= end->read && end->marked < end->arrived)
        mask |= EPOLLPRI;
    return mask;
}

/* The calls */

static uint64_t readable_run(const struct end *end, bool past_mark)
{
    uint64_t until = end->arrived;
    if (end->marked != UINT64_MAX && end->marked < until) {
        if (end->read < end->marked)
            until = end->marked;
        else if (end->read == end->marked && !past_mark)
            until = end->read;
    }
    return until - end->read;
}

static void check_read(struct end *end)
{
    const struct end *other = other_of(end);
    if (!end->upstream && other != NULL && (other->connecting || other->failed))
        fail_now("read from the client before the upstream was connected");
    end->was_read = true;
}

/* The world does not stand still between an event and the call it leads to. */
static void meanwhile(struct end *end)
{
    if (!peaceful && !choose(20))
        peer_moves(end);
}

static ssize_t nothing_to_read(struct end *end)
{
    if (end->fin) {
        end->eof_read = true;
        return 0;
    }
    if (end->reset) {
        if (!end->error)
            return 0;
        errno = end->error;
        end->error = 0;
        return -1;
    }
    errno = EAGAIN;
    return -1;
}

static ssize_t call_recv(int fd, void *to, size_t size, int flags)
{
    struct end *end = socket_of(fd);
    (void)flags;
    check_read(end);
    meanwhile(end);
    if (refused(40, EINTR))
        return -1;
    uint64_t run = readable_run(end, true);
    if (run == 0)
        return nothing_to_read(end);
    if (run > size)
        run = size;
    if (end->of_unix && !choose(4))
        run = 1 + choose((uint32_t)run);
    for (uint64_t at = 0; at < run; at++)
        ((unsigned char *)to)[at] = byte_of(end->stream, end->read + at);
    end->read += run;
    return (ssize_t)run;
}

static ssize_t refuse_write(struct end *end)
{
    if (end->reset || end->failed) {
        errno = end->error ? end->error : EPIPE;
        end->error = 0;
        return -1;
    }
    if (end->shut)
        fail_now("written after the FIN");
    if (end->connecting)
        fail_now("written before the connect");
    if (end->room == 0) {
        end->starved = true;
        errno = EAGAIN;
        return -1;
    }
    return 0;
}

static uint64_t accepted(struct end *end, uint64_t size)
{
    uint64_t some = size < end->room ? size : end->room;
    if (!peaceful && !choose(6))
        some = 1 + choose((uint32_t)some);
    if (some < size && some == end->room && choose(2))
        end->starved = true;
    return some;
}

static void took(struct end *end, uint64_t some)
{
    uint64_t own = end->sent < end->first ? end->first - end->sent : 0;
    written[other_of(end)->stream] += some > own ? some - own : 0;
    end->sent += some;
    end->room -= some;
    if (some)
        end->corked = false;
}

static ssize_t call_send(int fd, const void *from, size_t size, int flags)
{
    struct end *end = socket_of(fd);
    const struct end *source = other_of(end);
    if (!(flags & MSG_NOSIGNAL))
        fail_now("a send that may raise SIGPIPE");
    if (refused(40, EINTR) || refuse_write(end))
        return -1;
    uint64_t some = accepted(end, size);
    for (uint64_t at = 0; at < some; at++) {
        uint64_t offset = end->sent + at;
        unsigned char want =
            offset < end->first ? (unsigned char)('A' + offset % 26) : byte_of(source->stream, offset - end->first);
        if (((const unsigned char *)from)[at] != want)
            fail_now("a wrong byte was written");
    }
    if (end->sent + some > end->first + source->read)
        fail_now("more was written than was read");
    took(end, some);
    end->corked = flags & MSG_MORE && some == size; /* the kernel pushes what it had no room for */
    return (ssize_t)some;
}

static uint64_t held(const struct end *pipe)
{
    uint64_t sum = 0;
    for (unsigned at = 0; at < pipe->frame_count; at++)
        sum += pipe->frames[at].size;
    return sum;
}

/* What a reader must have taken before more than a modest amount at a time is read for him. */
enum { PROOF = 8 * 1024 * 1024, MODEST = 128 * 1024 };

static const int refusals[] = {EINVAL, ENOSYS, ENOMEM, EINTR};

static ssize_t splice_in(struct end *end, struct end *pipe, size_t size)
{
    check_read(end);
    meanwhile(end);
    if (refused(60, refusals[choose(4)]))
        return -1;
    uint64_t room = pipe->capacity - held(pipe), run = readable_run(end, false);
    if (size > MODEST && end->read < PROOF)
        fail_now("much is read for somebody who has not shown that he reads");
    if (pipe->frame_count == FRAMES)
        room = 0;
    if (run == 0) {
        if (end->fin)
            return 0; /* at an urgent mark, too */
        if (end->read < end->arrived) {
            errno = EAGAIN;
            return -1;
        }
        return nothing_to_read(end);
    }
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    run = run < room ? run : room;
    run = run < size ? run : size;
    if (!choose(3))
        run = 1 + choose((uint32_t)run);
    pipe->frames[pipe->frame_count++] = (struct frame){end->stream, end->read, run};
    end->read += run;
    return (ssize_t)run;
}

static void leave_pipe(struct end *pipe, uint64_t size)
{
    while (size) {
        struct frame *frame = &pipe->frames[0];
        uint64_t some = size < frame->size ? size : frame->size;
        frame->from += some;
        frame->size -= some;
        size -= some;
        if (frame->size == 0) {
            pipe->frame_count--;
            memmove(pipe->frames, pipe->frames + 1, pipe->frame_count * sizeof *frame);
        }
    }
}

static ssize_t splice_out(struct end *pipe, struct end *end, size_t size)
{
    const struct end *source = other_of(end);
    if (held(pipe) == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (refused(60, refusals[choose(4)]) || refuse_write(end))
        return -1;
    uint64_t most = held(pipe) < size ? held(pipe) : size, some = accepted(end, most), left = some, offset = end->sent;
    for (unsigned at = 0; at < pipe->frame_count && left; at++) {
        uint64_t part = left < pipe->frames[at].size ? left : pipe->frames[at].size;
        if (pipe->frames[at].stream != source->stream)
            fail_now("another connection's bytes came out of a pipe");
        if (pipe->frames[at].from != offset - end->first)
            fail_now("a pipe's bytes were written out of order");
        offset += part;
        left -= part;
    }
    leave_pipe(pipe, some);
    took(end, some);
    return (ssize_t)some;
}

static struct end *pipe_of(struct end *end)
{
    /* Both ends share the frames of the reading one. */
    return end->kind == PIPE_IN ? &ends[end->twin - FIRST_FD] : end;
}

static ssize_t call_splice(int from, int to, size_t size, unsigned flags)
{
    struct end *source = end_of(from), *sink = end_of(to);
    if (flags & SPLICE_F_MORE)
        fail_now("SPLICE_F_MORE corks the last bytes");
    if (source->kind == SOCKET && sink->kind == PIPE_IN)
        return splice_in(source, pipe_of(sink), size);
    if (source->kind == PIPE_OUT && sink->kind == SOCKET)
        return splice_out(source, sink, size);
    fail_now("spliced between the wrong ends");
    return -1;
}

static ssize_t call_read(int fd, void *to, size_t size)
{
    struct end *pipe = end_of(fd);
    if (pipe->kind == OTHER) {
        errno = EAGAIN;
        return -1;
    }
    if (pipe->kind != PIPE_OUT)
        fail_now("read from neither a pipe nor an eventfd");
    if (held(pipe) == 0) {
        errno = EAGAIN;
        return -1;
    }
    uint64_t some = pipe->frames[0].size < size ? pipe->frames[0].size : size;
    for (uint64_t at = 0; at < some; at++)
        ((unsigned char *)to)[at] = byte_of(pipe->frames[0].stream, pipe->frames[0].from + at);
    leave_pipe(pipe, some);
    return (ssize_t)some;
}

static ssize_t call_write(int fd, const void *from, size_t size)
{
    (void)from;
    if (end_of(fd)->kind != OTHER)
        fail_now("write is for eventfds");
    return (ssize_t)size;
}

static int call_pipe(int pair[2])
{
    if (refused(6, choose(2) ? EMFILE : ENFILE))
        return -1;
    static const uint64_t sizes[] = {4096, 65536, 65536, 65536};
    pair[0] = end_new(PIPE_OUT);
    pair[1] = end_new(PIPE_IN);
    end_of(pair[0])->twin = pair[1];
    end_of(pair[1])->twin = pair[0];
    end_of(pair[0])->capacity = sizes[peaceful ? 1 : choose(4)];
    return 0;
}

static int call_pipe_bytes(int fd)
{
    return (int)pipe_of(end_of(fd))->capacity;
}

static int call_resize_pipe(int fd, int bytes)
{
    struct end *pipe = pipe_of(end_of(fd));
    if (pipe->capacity < 65536 || refused(4, EPERM)) {
        errno = EPERM;
        return -1;
    }
    pipe->capacity = (uint64_t)bytes;
    return bytes;
}

static int call_other(void)
{
    return end_new(OTHER);
}

static int call_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    end_of(epoll);
    struct end *end = end_of(fd);
    if (end->kind == OTHER)
        return 0;
    if (operation == EPOLL_CTL_ADD) {
        if (end->watched)
            fail_now("watched twice");
        if (refused(50, choose(2) ? ENOSPC : ENOMEM))
            return -1;
        if (!(event->events & EPOLLET))
            fail_now("not edge-triggered");
        end->watched = true;
        end->data = event->data.u64;
        edge(end);
        return 0;
    }
    if (operation != EPOLL_CTL_DEL)
        fail_now("a registration was modified");
    if (!end->watched) {
        errno = ENOENT;
        return -1;
    }
    end->watched = end->edge = false;
    return 0;
}

/* Between two turns. */
static void check_waiting(const struct end *end)
{
    if (end->kind != SOCKET || end->reset)
        return;
    if (end->corked)
        fail_now("the last bytes wait for a FIN that was not sent");
    const struct end *client = other_of(end);
    if (end->ack_held && end->ack_due && !(client != NULL && client->reset))
        fail_now("acknowledgements that stay held");
}

static int call_epoll_wait(int epoll, struct epoll_event *events, int room, int timeout_ms)
{
    int count = 0;
    end_of(epoll);
    for (int at = 0; at < ENDS; at++)
        check_waiting(&ends[at]);
    for (int at = 0; at < ENDS; at++)
        peer_moves(&ends[at]);
    unsigned start = choose(ENDS);
    for (unsigned step = 0; step < ENDS && count < room; step++) {
        struct end *end = &ends[(start + step) % ENDS];
        if (end->kind != SOCKET || !end->watched)
            continue;
        bool spurious = !peaceful && !choose(30);
        if (!end->edge && !spurious)
            continue;
        if (end->edge && !peaceful && !choose(4))
            continue; /* another time */
        uint32_t mask = mask_of(end);
        end->edge = false;
        if (mask & EPOLLOUT && !(mask & (EPOLLERR | EPOLLHUP)) && !end->connecting)
            end->ack_due = true;
        if (mask)
            events[count++] = (struct epoll_event){.events = mask, .data.u64 = end->data};
    }
    clock_ns += 1000 * (uint64_t)choose(2000);
    if (count == 0 && timeout_ms > 0 && !choose(8))
        clock_ns += (uint64_t)timeout_ms * 1000000;
    if (refused(60, EINTR))
        return count ? count : -1;
    return count;
}

/* A dial that was given up before its answer was heard: it owes its peer nothing. */
static bool given_up(const struct end *end, const struct end *source)
{
    return end->upstream && !end->was_read && end->sent == 0 && (source == NULL || !source->was_read);
}

static void check_fin(const struct end *end)
{
    const struct end *source = other_of(end);
    if (source == NULL || end->connecting || end->failed || end->reset || source->failed || source->connecting || end->of_unix)
        return;
    if (given_up(end, source) || (given_up(source, end) && source->arrived == 0))
        return;
    if (end->sent < end->first && source->read)
        fail_now("FIN before the bytes to send first");
    if (end->sent - (end->sent < end->first ? end->sent : end->first) != source->arrived)
        fail_now("FIN before the bytes that had arrived");
    if (source->reset && !source->fin && source->error == 0)
        fail_now("FIN where the other side was known to be reset");
}

static int call_close(int fd)
{
    struct end *end = end_of(fd);
    if (end->kind == SOCKET) {
        const struct end *other = other_of(end);
        if (!end->linger && !end->shut)
            check_fin(end);
        if (!end->linger && !end->reset && !end->failed && !end->of_unix && end->arrived > end->read)
            if (!(other == NULL || other->connecting || other->failed || given_up(end, other)))
                fail_now("closed with unread bytes, which is an RST by accident");
    }
    if (end->kind == PIPE_IN)
        pipe_of(end)->twin = -1;
    end->kind = CLOSED;
    open_count--;
    return 0;
}

static int call_shutdown(int fd, int how)
{
    struct end *end = socket_of(fd);
    const struct end *source = other_of(end);
    if (how != SHUT_WR || end->shut)
        fail_now("a second FIN");
    if (end->reset) {
        errno = ENOTCONN;
        return -1;
    }
    if (!source->fin || source->read != source->planned)
        fail_now("FIN before the source's own");
    if (end->sent != end->first + source->planned)
        fail_now("FIN before every byte was written");
    end->shut = true;
    end->corked = false;
    if (end->fin)
        edge(end);
    return 0;
}

static int call_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    struct end *end = socket_of(fd);
    (void)size;
    if (level == IPPROTO_TCP && option == TCP_NOTSENT_LOWAT) {
        *(int *)value = 0;
        errno = EOPNOTSUPP;
        return end->of_unix ? -1 : 0;
    }
    if (level == IPPROTO_TCP && option == TCP_INFO) {
        void (*step)(void) = beside;
        if (step != NULL && !choose(2)) {
            beside = NULL; /* once: what arrives between the engine's last look at a queue and its close is bad luck */
            step();
        }
        if (socket_of(fd)->of_unix) {
            errno = EOPNOTSUPP;
            return -1;
        }
        *(struct tcp_info *)value = (struct tcp_info){.tcpi_rtt = 1000 + (uint32_t)fd, .tcpi_total_retrans = (uint32_t)fd};
        return 0;
    }
    if (level != SOL_SOCKET || option != SO_ERROR)
        fail_now("an unknown question");
    *(int *)value = end->error;
    end->error = 0;
    return 0;
}

static bool tcp_option(int option)
{
    return option == TCP_NOTSENT_LOWAT || option == TCP_KEEPIDLE || option == TCP_KEEPINTVL || option == TCP_KEEPCNT ||
           option == TCP_QUICKACK;
}

static int call_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    struct end *end = socket_of(fd);
    (void)size;
    if (level == SOL_SOCKET && option == SO_LINGER)
        end->linger = ((const struct linger *)value)->l_onoff && ((const struct linger *)value)->l_linger == 0;
    else if (level == IPPROTO_TCP ? !tcp_option(option) || end->of_unix : option != SO_OOBINLINE && option != SO_KEEPALIVE)
        fail_now("an unknown option");
    else if (option == SO_KEEPALIVE && level == SOL_SOCKET && (end->of_unix || end->connecting))
        fail_now("kept alive before it is connected");
    else if (option == TCP_QUICKACK && level == IPPROTO_TCP)
        end->ack_held = !*(const int *)value;
    return 0;
}

static int address(struct sockaddr *to, socklen_t *size, uint16_t port)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(to, &own, sizeof own);
    *size = sizeof own;
    return 0;
}

static int call_getsockname(int fd, struct sockaddr *to, socklen_t *size)
{
    return address(to, size, socket_of(fd)->selfish ? PRETEND_PORT : (uint16_t)(5000 + choose(1000)));
}

static int call_getpeername(int fd, struct sockaddr *to, socklen_t *size)
{
    const struct end *end = socket_of(fd);
    if (end->connecting || end->failed || end->reset) {
        errno = ENOTCONN;
        return -1;
    }
    return address(to, size, PRETEND_PORT);
}

static int call_queued(int fd, unsigned long question, int *bytes)
{
    const struct end *end = socket_of(fd);
    *bytes = (int)(question == FIONREAD ? end->arrived - end->read : end->sent - end->acknowledged);
    return 0;
}

static uint64_t call_now(void)
{
    return clock_ns;
}

static void *call_allocate(size_t size)
{
    return refused(300, ENOMEM) ? NULL : malloc(size);
}

const struct calls pretend_calls = {
    .recv = call_recv,
    .send = call_send,
    .splice = call_splice,
    .read = call_read,
    .write = call_write,
    .pipe = call_pipe,
    .pipe_bytes = call_pipe_bytes,
    .resize_pipe = call_resize_pipe,
    .epoll_create = call_other,
    .epoll_ctl = call_epoll_ctl,
    .epoll_wait = call_epoll_wait,
    .eventfd = call_other,
    .close = call_close,
    .shutdown = call_shutdown,
    .getsockopt = call_getsockopt,
    .setsockopt = call_setsockopt,
    .getsockname = call_getsockname,
    .getpeername = call_getpeername,
    .queued = call_queued,
    .now = call_now,
    .allocate = call_allocate,
    .release = free,
};

/* What the driver asks for */

void pretend_start(uint64_t seed, const uint8_t *data, size_t size)
{
    generator = 88172645463325252u;
    for (size_t at = 0; at < sizeof noise; at++)
        noise[at] = (unsigned char)generated();
    memset(ends, 0, sizeof ends);
    generator = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    clock_ns = UINT64_C(1) << 40;
    input = data;
    input_left = size;
    peaceful = data != NULL && size == 0;
    streams = 0;
    memset(written, 0, sizeof written);
    open_count = 0;
    beside = NULL;
}

void pretend_beside(void (*step)(void))
{
    beside = step;
}

static void speaker(struct end *end)
{
    const uint32_t most[] = {1, 300, 70000, input == NULL ? 2000000 : 600000};
    end->kind = SOCKET;
    end->stream = ++streams;
    if (streams == STREAMS)
        fail_now("the pretended kernel is out of streams");
    end->planned = choose(100) ? choose(most[choose(4)]) : PROOF + choose(PROOF);
    end->room = 1 + choose(chunks[choose(4)]);
    end->rude = !choose(4);
    end->of_unix = !choose(5);
    if (!choose(3)) {
        end->arrived = choose((uint32_t)end->planned + 1);
        end->fin = end->arrived == end->planned && !choose(3);
    }
}

static struct pair pair_of(int client, uint32_t first_bytes)
{
    static const int errors[] = {ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ECONNRESET};
    int upstream = end_new(SOCKET);
    struct end *end = end_of(upstream), *other = end_of(client);
    speaker(end);
    end->upstream = end->connecting = true;
    end->arrived = 0;
    end->fin = false;
    end->first = first_bytes;
    end->peer = client;
    other->peer = upstream;
    end->selfish = !end->of_unix && !choose(40);
    if (!end->selfish && !choose(8))
        end->connect_error = errors[choose(4)];
    if (end->selfish)
        end->planned = 0;
    /* A long stream gets through a window in which it ends before the driver's turns do. */
    end->room += other->planned < PROOF ? 0 : PROOF / 64;
    other->room += end->planned < PROOF ? 0 : PROOF / 64;
    if (choose(2) && !other->fin)
        end->dialogue = other->dialogue = true;
    return (struct pair){client, upstream, other->of_unix, end->of_unix, other->stream, end->stream};
}

struct pair pretend_pair(uint32_t first_bytes)
{
    int client = end_new(SOCKET);
    speaker(end_of(client));
    return pair_of(client, first_bytes);
}

struct pair pretend_redial(int client, uint32_t first_bytes)
{
    return pair_of(client, first_bytes);
}

void pretend_hold_ack(int upstream)
{
    socket_of(upstream)->ack_held = true;
}

uint64_t pretend_written(uint32_t stream)
{
    return written[stream];
}

bool pretend_untouched(int client)
{
    const struct end *end = socket_of(client);
    return !end->was_read && !end->watched && end->sent == 0 && !end->shut && !end->linger;
}

void pretend_hang_up(int fd)
{
    end_of(fd)->kind = CLOSED;
    open_count--;
}

int pretend_open(void)
{
    return open_count;
}

bool pretend_gone(uint32_t stream)
{
    for (int at = 0; at < ENDS; at++)
        if (ends[at].kind == SOCKET && ends[at].stream == stream)
            return false;
    return true;
}

void pretend_skip(uint64_t ns)
{
    clock_ns += ns;
}

bool pretend_speak(int client, uint32_t bytes)
{
    struct end *end = socket_of(client);
    const struct end *other = other_of(end);
    if (end->fin || end->reset || other->reset || other->room < end->arrived - end->read + bytes)
        return false;
    end->planned += bytes;
    end->arrived += bytes;
    edge(end);
    return true;
}
