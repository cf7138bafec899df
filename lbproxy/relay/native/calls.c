/* The table of the real system calls. Nothing here decides anything: errno and short results are the callers' business. */
#define _GNU_SOURCE
#include "calls.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static ssize_t call_splice(int from, int to, size_t size, unsigned flags)
{
    return splice(from, NULL, to, NULL, size, flags);
}

static int call_pipe(int ends[2])
{
    return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
}

static int call_pipe_bytes(int fd)
{
    return fcntl(fd, F_GETPIPE_SZ);
}

static int call_resize_pipe(int fd, int bytes)
{
    return fcntl(fd, F_SETPIPE_SZ, bytes);
}

static int call_epoll_create(void)
{
    return epoll_create1(EPOLL_CLOEXEC);
}

static int call_eventfd(void)
{
    return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static int call_accept(int listening, struct sockaddr *peer, socklen_t *size)
{
    return accept4(listening, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static int call_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int call_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return connect(fd, address, size);
}

static int call_getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    return getsockname(fd, address, size);
}

static int call_getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
    return getpeername(fd, address, size);
}

static int call_queued(int fd, unsigned long question, int *bytes)
{
    return ioctl(fd, question, bytes);
}

static uint64_t call_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const struct calls kernel_calls = {
    .recv = recv,
    .send = send,
    .splice = call_splice,
    .read = read,
    .write = write,
    .pipe = call_pipe,
    .pipe_bytes = call_pipe_bytes,
    .resize_pipe = call_resize_pipe,
    .epoll_create = call_epoll_create,
    .epoll_ctl = epoll_ctl,
    .epoll_wait = epoll_wait,
    .eventfd = call_eventfd,
    .close = close,
    .accept = call_accept,
    .socket = call_socket,
    .connect = call_connect,
    .shutdown = shutdown,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .getsockname = call_getsockname,
    .getpeername = call_getpeername,
    .queued = call_queued,
    .now = call_now,
    .allocate = malloc,
    .release = free,
};
