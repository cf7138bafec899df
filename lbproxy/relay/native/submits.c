/* What Python hands over to the engine: sessions, by submit or through the doorway, and aborts. */
#include "binding.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Made before the submit, so that nothing can fail after it: the descriptors are the engine's then. */
static PyObject *next_handle(Engine *self)
{
    uint64_t handle;
    return engine_next_handle(self->engine, &handle) ? PyLong_FromUnsignedLongLong(handle) : raise_errno(ENOMEM);
}

/* Takes over `name`, the session's handle. */
static PyObject *submitted(Engine *self, const struct engine_submit *submit, PyObject *name)
{
    uint64_t handle;
    int error = engine_submit(self->engine, submit, &handle);
    if (!error)
        return name;
    Py_DECREF(name);
    return raise_errno(error);
}

PyObject *method_submit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    int64_t ends[5];
    static const uint64_t most[5] = {INT32_MAX, INT32_MAX, 1, 1, 1};
    if (!counted("submit", count, 7 + LIMITS))
        return NULL;
    uint64_t session = PyLong_AsUnsignedLongLong(args[0]);
    if (session == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    if (!numbers(args + 1, most, ends, 5))
        return NULL;
    char *first;
    Py_ssize_t first_size;
    if (PyBytes_AsStringAndSize(args[6], &first, &first_size) == -1)
        return NULL;
    struct engine_submit submit = {
        .session = session,
        .client = (int)ends[0],
        .upstream = (int)ends[1],
        .client_unix = ends[2],
        .upstream_unix = ends[3],
        .urgent_inline = ends[4],
        .first_bytes = first,
        .first_size = (size_t)first_size,
    };
    PyObject *name = limits(args + 7, &submit) ? next_handle((Engine *)object) : NULL;
    return name != NULL ? submitted((Engine *)object, &submit, name) : NULL;
}

/* The doorway */

#define PLAN "lbproxy.relay.native.plan"

/* All that is the same for every session between a listener and an endpoint. */
struct plan {
    struct engine_dial dial;
    struct engine_submit submit;
    struct engine_socket_option options[];
};

static void plan_free(PyObject *capsule)
{
    free(PyCapsule_GetPointer(capsule, PLAN));
}

PyObject *method_prepare(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    (void)object;
    char *address, *options;
    Py_ssize_t address_size, options_size;
    if (!counted("prepare", count, 4 + LIMITS))
        return NULL;
    int64_t family = number(args[0], UINT16_MAX), port = number(args[1], UINT16_MAX);
    if (family == -1 || port == -1 || PyBytes_AsStringAndSize(args[2], &address, &address_size) == -1 ||
        PyBytes_AsStringAndSize(args[3], &options, &options_size) == -1)
        return NULL;
    if ((size_t)address_size > sizeof(struct sockaddr_storage) ||
        (size_t)options_size % sizeof(struct engine_socket_option) != 0) {
        PyErr_SetString(PyExc_ValueError, "no socket address, or no socket options");
        return NULL;
    }
    struct plan *plan = calloc(1, sizeof *plan + (size_t)options_size);
    if (plan == NULL)
        return PyErr_NoMemory();
    memcpy(&plan->dial.address, address, (size_t)address_size);
    memcpy(plan->options, options, (size_t)options_size);
    plan->dial.family = (int)family;
    plan->dial.address_size = (socklen_t)address_size;
    plan->dial.option_count = (size_t)options_size / sizeof(struct engine_socket_option);
    plan->dial.options = plan->options;
    plan->submit.upstream_unix = family == AF_UNIX;
    plan->submit.urgent_inline = true;
    plan->submit.dial_port = (uint16_t)port;
    plan->submit.ack_held = !plan->submit.upstream_unix;
    PyObject *capsule = limits(args + 4, &plan->submit) ? PyCapsule_New(plan, PLAN, plan_free) : NULL;
    if (capsule == NULL)
        free(plan);
    return capsule;
}

/* The session's handle; as a negative number, the errno of a connect that failed. */
PyObject *method_launch(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Engine *self = (Engine *)object;
    if (!counted("launch", count, 4))
        return NULL;
    uint64_t session = PyLong_AsUnsignedLongLong(args[0]);
    if (session == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    int64_t client = number(args[1], INT32_MAX), client_unix = number(args[2], 1);
    const struct plan *plan = PyCapsule_GetPointer(args[3], PLAN);
    if (client == -1 || client_unix == -1 || plan == NULL)
        return NULL;
    PyObject *name = next_handle(self);
    if (name == NULL)
        return NULL;
    bool tried;
    int upstream = engine_dial(self->engine, &plan->dial, &tried);
    if (upstream == -1) {
        int error = errno;
        Py_DECREF(name);
        return tried ? PyLong_FromLong(-error) : raise_errno(error);
    }
    struct engine_submit submit = plan->submit;
    submit.session = session;
    submit.client = (int)client;
    submit.client_unix = client_unix;
    submit.upstream = upstream;
    PyObject *handle = submitted(self, &submit, name);
    if (handle == NULL)
        engine_hang_up(self->engine, upstream);
    return handle;
}

/* The client's address as text, without a zone, as Python's sockets tell it; "" for one on a unix socket. */
static PyObject *host_of(const struct engine_arrival *arrival)
{
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr *peer = (const struct sockaddr *)&arrival->peer;
    if (arrival->peer_size >= sizeof(struct sockaddr_in) && peer->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)&arrival->peer)->sin_addr, text, sizeof text);
    else if (arrival->peer_size >= sizeof(struct sockaddr_in6) && peer->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&arrival->peer)->sin6_addr, text, sizeof text);
    return PyUnicode_FromString(text);
}

static int port_of(const struct engine_arrival *arrival)
{
    switch (((const struct sockaddr *)&arrival->peer)->sa_family) {
    case AF_INET:
        return ntohs(((const struct sockaddr_in *)&arrival->peer)->sin_port);
    case AF_INET6:
        return ntohs(((const struct sockaddr_in6 *)&arrival->peer)->sin6_port);
    default:
        return 0;
    }
}

enum { ACCEPT_MOST = 64 };

PyObject *method_accept(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const struct engine *engine = ((Engine *)object)->engine;
    struct engine_arrival arrivals[ACCEPT_MOST];
    if (!counted("accept", count, 2))
        return NULL;
    int64_t listening = number(args[0], INT32_MAX), room = number(args[1], INT32_MAX);
    if (listening == -1 || room == -1)
        return NULL;
    int found = engine_accept(engine, (int)listening, arrivals, room < ACCEPT_MOST ? (int)room : ACCEPT_MOST);
    if (found == -1)
        return raise_errno(errno);
    PyObject *list = PyList_New(found);
    for (int at = 0; list != NULL && at < found; at++) {
        const struct engine_arrival *arrival = &arrivals[at];
        PyObject *fields[] = {
            PyLong_FromLong(arrival->fd), host_of(arrival), PyLong_FromLong(port_of(arrival)), PyLong_FromLong(arrival->error)};
        PyObject *tuple = tuple_of(fields, sizeof fields / sizeof *fields);
        if (tuple == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, at, tuple);
    }
    for (int at = 0; list == NULL && at < found; at++)
        engine_hang_up(engine, arrivals[at].fd); /* no memory to name them: nobody will ever serve them */
    return list;
}

PyObject *method_flush(PyObject *object, PyObject *unused)
{
    (void)unused;
    engine_flush(((Engine *)object)->engine);
    Py_RETURN_NONE;
}

PyObject *method_abort(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    if (!counted("abort", count, 3))
        return NULL;
    uint64_t handle = PyLong_AsUnsignedLongLong(args[0]);
    if (handle == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    int64_t reason = number(args[1], INT32_MAX - REASON_OF_ABORT);
    int64_t reset = number(args[2], 1);
    if (reason == -1 || reset == -1)
        return NULL;
    return PyBool_FromLong(engine_abort(((Engine *)object)->engine, handle, REASON_OF_ABORT + (int)reason, reset));
}
