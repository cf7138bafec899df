/* Loaded before the program: refuses system calls of the relay's threads, as a kernel without room does. One byte of the file that
 * LBPROXY_REFUSE names says which: 1 pipe2 (EMFILE), 2 epoll_ctl to add (ENOSPC); the next byte, to one call in how many.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile unsigned char *told;
static atomic_uint calls;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("LBPROXY_REFUSE");
    int fd = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return;
    void *memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    told = memory == MAP_FAILED ? NULL : memory;
    close(fd);
}

static int refused(unsigned char what)
{
    char name[16] = "";
    if (told == NULL || !(told[0] & what) || prctl(PR_GET_NAME, name) == -1 || strcmp(name, "relay") != 0)
        return 0;
    return atomic_fetch_add(&calls, 1) % (told[1] ? told[1] : 1u) == 0;
}

int pipe2(int ends[2], int flags)
{
    int (*real)(int[2], int) = (int (*)(int[2], int))dlsym(RTLD_NEXT, "pipe2");
    if (!refused(1))
        return real(ends, flags);
    errno = EMFILE;
    return -1;
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) =
        (int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");
    if (operation != EPOLL_CTL_ADD || !refused(2))
        return real(epoll, operation, fd, event);
    errno = ENOSPC;
    return -1;
}
