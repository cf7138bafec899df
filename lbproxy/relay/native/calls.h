/* Every system call the engine makes, as a table: tests and fuzzers put their own functions in. */
#ifndef LBPROXY_CALLS_H
#define LBPROXY_CALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

struct calls {
    ssize_t (*recv)(int fd, void *to, size_t size, int flags);
    ssize_t (*send)(int fd, const void *from, size_t size, int flags);
    ssize_t (*splice)(int from, int to, size_t size, unsigned flags);
    ssize_t (*read)(int fd, void *to, size_t size);
    ssize_t (*write)(int fd, const void *from, size_t size);
    int (*pipe)(int ends[2]);                /* pipe2, non-blocking and close-on-exec */
    int (*pipe_bytes)(int fd);               /* F_GETPIPE_SZ */
    int (*resize_pipe)(int fd, int bytes);   /* F_SETPIPE_SZ */
    int (*epoll_create)(void);
    int (*epoll_ctl)(int epoll, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epoll, struct epoll_event *events, int room, int timeout_ms);
    int (*eventfd)(void);                    /* non-blocking and close-on-exec */
    int (*close)(int fd);
    int (*accept)(int listening, struct sockaddr *peer, socklen_t *size); /* accept4, non-blocking and close-on-exec */
    int (*socket)(int family);               /* a stream, non-blocking and close-on-exec */
    int (*connect)(int fd, const struct sockaddr *address, socklen_t size);
    int (*shutdown)(int fd, int how);
    int (*getsockopt)(int fd, int level, int option, void *value, socklen_t *size);
    int (*setsockopt)(int fd, int level, int option, const void *value, socklen_t size);
    int (*getsockname)(int fd, struct sockaddr *address, socklen_t *size);
    int (*getpeername)(int fd, struct sockaddr *address, socklen_t *size);
    int (*queued)(int fd, unsigned long question, int *bytes); /* ioctl: FIONREAD, SIOCOUTQ */
    uint64_t (*now)(void);                   /* CLOCK_MONOTONIC, nanoseconds */
    void *(*allocate)(size_t size);          /* memory may be refused like any other resource */
    void (*release)(void *memory);
};

/* The kernel's own. */
extern const struct calls kernel_calls;

#endif
