/* A kernel that is only pretended: sockets whose peers send, read, close and reset at random, edge-triggered epoll as strict as the
 * real one, and every refusal a system call may give. Bytes have no storage: a stream's byte at an offset is computed, so every byte
 * that the engine writes is checked where it is written.
 *
 * What it holds the engine to (each breach ends the program):
 * - a byte written is the next one of the stream it belongs to: bytes out are a prefix of bytes in, and nobody else's
 * - a FIN (shutdown, or close without linger 0) only after every byte that arrived before was written
 * - nothing is read from a client before its upstream is connected
 * - bytes that the kernel may keep for what follows (MSG_MORE) are followed in the same turn, and no acknowledgement is held beyond the turn
 *   in which the connect was seen to have succeeded
 * - a descriptor is used while it is open, closed once, and none is left at the end
 */
#ifndef PRETEND_H
#define PRETEND_H

#include "calls.h"

#include <stdbool.h>

/* Where every upstream listens. */
enum { PRETEND_PORT = 4000 };

extern const struct calls pretend_calls;

struct pair {
    int client, upstream;
    bool client_unix, upstream_unix;
    uint32_t client_stream, upstream_stream;
};

/* `data` gives the choices; past its end they come from a generator and nothing is refused any more. With `data` NULL they all come
 * from the generator, refusals included, until `pretend_calm`. */
void pretend_start(uint64_t seed, const uint8_t *data, size_t size);
uint32_t choose(uint32_t below);
bool calm(void);
void pretend_calm(void); /* no refusals any more; peers finish what they began */

struct pair pretend_pair(uint32_t first_bytes);
/* The pair's client again with a new upstream, after a failed dial. */
struct pair pretend_redial(int client, uint32_t first_bytes);
void pretend_hold_ack(int upstream);
bool pretend_untouched(int client); /* given back: open, not watched, nothing read */
void pretend_hang_up(int fd);       /* the caller closes a descriptor of his own */
int pretend_open(void);             /* descriptors open now */
bool pretend_gone(uint32_t stream); /* the socket where this stream arrived is closed */
uint64_t pretend_written(uint32_t stream); /* bytes of it that the other side got */
void pretend_skip(uint64_t ns);
/* What happens beside the owner while he asks the kernel about a connection (TCP_INFO): in life, the engine's thread goes on. */
void pretend_beside(void (*step)(void));
bool pretend_speak(int client, uint32_t bytes); /* false: the client has ended, or the upstream has no room for them */
void fail_now(const char *why);

#endif
