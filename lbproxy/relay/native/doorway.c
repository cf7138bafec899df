/* What the owner does before a submit: accepting clients and dialling upstreams, in as few system calls as it takes. */
#include "state.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static int pending_error(const struct calls *calls, int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    return calls->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == -1 ? errno : error;
}

int engine_accept(const struct engine *engine, int listening, struct engine_arrival *arrivals, int room)
{
    const struct calls *calls = engine->calls;
    for (int count = 0; count < room; count++) {
        struct engine_arrival *arrival = &arrivals[count];
        arrival->peer_size = sizeof arrival->peer;
        arrival->fd = calls->accept(listening, (struct sockaddr *)&arrival->peer, &arrival->peer_size);
        if (arrival->fd == -1)
            return count || errno == EAGAIN ? count : -1; /* after some, the next call meets it again */
        arrival->error = pending_error(calls, arrival->fd);
    }
    return room;
}

/* Best effort: where it is refused, the acknowledgement goes at once. */
static void hold_ack(const struct calls *calls, int fd)
{
    int off = 0;
    calls->setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
}

int engine_dial(const struct engine *engine, const struct engine_dial *dial, bool *tried)
{
    const struct calls *calls = engine->calls;
    *tried = false;
    int fd = calls->socket(dial->family);
    if (fd == -1)
        return -1;
    bool failed = false;
    for (size_t at = 0; at < dial->option_count && !failed; at++) {
        const struct engine_socket_option *option = &dial->options[at];
        failed = calls->setsockopt(fd, option->level, option->name, &option->value, sizeof option->value) == -1;
    }
    if (dial->family != AF_UNIX)
        hold_ack(calls, fd);
    if (!failed) {
        *tried = true;
        failed = calls->connect(fd, (const struct sockaddr *)&dial->address, dial->address_size) == -1 && errno != EINPROGRESS;
    }
    if (failed) {
        int error = errno;
        calls->close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void engine_hang_up(const struct engine *engine, int fd)
{
    engine->calls->close(fd);
}
