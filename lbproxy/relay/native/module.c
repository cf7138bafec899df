/* The binding: one type, `Engine`, over engine.h, on the stable ABI. It translates and decides nothing; nothing here blocks but
 * `stop`, which lets go of the GIL. See _engine.pyi for the signatures.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    struct engine *engine;
} Engine;

static const char *const reason_names[REASONS] = {
    [REASON_CLIENT_EOF] = "client_eof",
    [REASON_UPSTREAM_EOF] = "upstream_eof",
    [REASON_CLIENT_RESET] = "client_reset",
    [REASON_UPSTREAM_RESET] = "upstream_reset",
    [REASON_IDLE_TIMEOUT] = "idle_timeout",
    [REASON_HALF_CLOSE_TIMEOUT] = "half_close_timeout",
    [REASON_MAX_DURATION] = "max_duration",
    [REASON_CONNECT_TIMEOUT] = "connect_timeout",
    [REASON_CONNECT_FAILED] = "connect_failed",
    [REASON_LOCAL_FDS] = "local_fds",
    [REASON_CLIENT_GONE] = "client_gone",
    [REASON_KILLED] = "killed",
    [REASON_INTERNAL_ERROR] = "internal_error",
};

static PyObject *raise_errno(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* An argument of at most `most`, or -1 with an exception. */
static int64_t number(PyObject *value, uint64_t most)
{
    long long found = PyLong_AsLongLong(value);
    if (found == -1 && PyErr_Occurred())
        return -1;
    if (found < 0 || (uint64_t)found > most) {
        PyErr_Format(PyExc_ValueError, "%lld is not in 0..%llu", found, (unsigned long long)most);
        return -1;
    }
    return found;
}

/* Takes over the fields. Two for every session, so without Py_BuildValue, which reads a format each time. */
static PyObject *tuple_of(PyObject **fields, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    bool whole = tuple != NULL;
    for (Py_ssize_t at = 0; at < count; at++) {
        whole = whole && fields[at] != NULL;
        if (tuple == NULL)
            Py_XDECREF(fields[at]);
        else
            PyTuple_SetItem(tuple, at, fields[at]);
    }
    if (!whole)
        Py_CLEAR(tuple);
    return tuple;
}

static bool counted(const char *name, Py_ssize_t have, Py_ssize_t want)
{
    if (have == want)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, have);
    return false;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "threads", "pipes", "first_port", "last_port", "connected_delay_ms", "keepalive_after_ms", "beat_ms", "missed_beats", NULL};
    struct engine_options options = {.last_port = 65535, .beat_ms = 1000, .missed_beats = 10};
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "II|$HHIIII", names, &options.threads, &options.pipes, &options.first_port, &options.last_port,
            &options.connected_delay_ms, &options.keepalive_after_ms, &options.beat_ms, &options.missed_beats))
        return NULL;
    if (options.threads == 0) {
        PyErr_SetString(PyExc_ValueError, "an engine needs a thread");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Engine *self = (Engine *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->engine = engine_start(&options, &kernel_calls);
    if (self->engine == NULL) {
        int error = errno;
        Py_DECREF(self);
        return raise_errno(error);
    }
    return (PyObject *)self;
}

static void stop(struct engine *engine)
{
    Py_BEGIN_ALLOW_THREADS
    engine_stop(engine);
    Py_END_ALLOW_THREADS
}

static void engine_dealloc(PyObject *object)
{
    Engine *self = (Engine *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->engine != NULL) {
        stop(self->engine);
        engine_free(self->engine);
    }
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Arguments in order, each at most as large as it may be. */
static bool numbers(PyObject *const *args, const uint64_t *most, int64_t *found, int count)
{
    for (int at = 0; at < count; at++) {
        found[at] = number(args[at], most[at]);
        if (found[at] == -1)
            return false;
    }
    return true;
}

enum { LIMITS = 8 };

/* What holds for a session: four limits, a slot, three numbers of its keepalive. */
static bool limits(PyObject *const *args, struct engine_submit *submit)
{
    static const uint64_t most[LIMITS] = {
        ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS, UINT32_MAX, INT16_MAX, INT16_MAX,
        INT8_MAX};
    int64_t found[LIMITS];
    if (!numbers(args, most, found, LIMITS))
        return false;
    submit->connect_timeout_ms = (uint64_t)found[0];
    submit->idle_timeout_ms = (uint64_t)found[1];
    submit->half_close_timeout_ms = (uint64_t)found[2];
    submit->max_duration_ms = (uint64_t)found[3];
    submit->slot = (uint32_t)found[4];
    submit->keepalive = (struct engine_keepalive){(uint16_t)found[5], (uint16_t)found[6], (uint8_t)found[7]};
    return true;
}

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

static PyObject *method_submit(PyObject *object, PyObject *const *args, Py_ssize_t count)
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

static PyObject *method_prepare(PyObject *object, PyObject *const *args, Py_ssize_t count)
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
static PyObject *method_launch(PyObject *object, PyObject *const *args, Py_ssize_t count)
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

static PyObject *method_accept(PyObject *object, PyObject *const *args, Py_ssize_t count)
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

static PyObject *method_flush(PyObject *object, PyObject *unused)
{
    (void)unused;
    engine_flush(((Engine *)object)->engine);
    Py_RETURN_NONE;
}

static PyObject *method_abort(PyObject *object, PyObject *const *args, Py_ssize_t count)
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

/* Seconds, or None for -1. */
static PyObject *seconds(int64_t ns)
{
    if (ns == -1)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ns / 1e9);
}

static PyObject *event_tuple(const struct engine_event *event)
{
    PyObject *fields[] = {
        PyLong_FromUnsignedLongLong(event->session), seconds(event->connect_ns), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    if (event->connected)
        return tuple_of(fields, 2);
    fields[5] = fields[1];
    fields[1] = PyLong_FromLong(event->reason);
    fields[2] = PyLong_FromLong((long)event->phase);
    fields[3] = PyLong_FromUnsignedLongLong(event->sent);
    fields[4] = PyLong_FromUnsignedLongLong(event->received);
    fields[6] = seconds(event->first_byte_ns);
    fields[7] = seconds(event->total_ns);
    fields[8] = PyLong_FromLong(event->error);
    fields[9] = PyLong_FromLong(event->client);
    fields[10] = PyLong_FromLong(event->upstream_unix);
    return tuple_of(fields, sizeof fields / sizeof *fields);
}

static PyObject *method_fetch(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct engine *engine = ((Engine *)object)->engine;
    struct engine_event event;
    PyObject *events = PyList_New(0);
    if (events == NULL)
        return NULL;
    engine_collect(engine);
    while (engine_fetch(engine, &event)) {
        PyObject *tuple = event_tuple(&event);
        if (tuple != NULL && event.place < PyList_Size(events)) {
            PyList_SetItem(events, event.place, tuple);
            continue;
        }
        if (tuple == NULL || PyList_Append(events, tuple) == -1) {
            Py_XDECREF(tuple);
            Py_DECREF(events);
            return NULL;
        }
        Py_DECREF(tuple);
    }
    return events;
}

static PyObject *method_view(PyObject *object, PyObject *argument)
{
    struct engine_view view;
    uint64_t handle = PyLong_AsUnsignedLongLong(argument);
    if (handle == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    if (!engine_view(((Engine *)object)->engine, handle, &view))
        Py_RETURN_NONE;
    return Py_BuildValue(
        "iKKNN", (int)view.phase, view.sent, view.received, seconds(view.age_ns), seconds(view.idle_ns));
}

/* Round-trip time in seconds or None, and retransmits; None for what is no TCP leg. */
static PyObject *leg_tuple(const struct engine_leg *leg)
{
    if (!leg->known)
        Py_RETURN_NONE;
    return Py_BuildValue("NI", seconds(leg->rtt_us ? (int64_t)leg->rtt_us * 1000 : -1), (unsigned)leg->retransmits);
}

static PyObject *method_look(PyObject *object, PyObject *argument)
{
    struct engine_view view;
    uint64_t handle = PyLong_AsUnsignedLongLong(argument);
    if (handle == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    if (!engine_look(((Engine *)object)->engine, handle, &view))
        Py_RETURN_NONE;
    return Py_BuildValue(
        "iKKNNNN", (int)view.phase, view.sent, view.received, seconds(view.age_ns), seconds(view.idle_ns),
        leg_tuple(&view.client), leg_tuple(&view.upstream));
}

static PyObject *method_submitted(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(engine_submitted(((Engine *)object)->engine));
}

static PyObject *method_totals(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct engine *engine = ((Engine *)object)->engine;
    PyObject *list = PyList_New(0);
    for (unsigned at = 0; list != NULL && at < engine_threads(engine); at++) {
        struct engine_totals totals;
        engine_totals(engine, at, &totals);
        PyObject *found = Py_BuildValue(
            "{sKsKsKsKsKsKsKsKsKsK}", "connected", totals.connected, "ended", totals.ended, "pending", totals.pending,
            "turns", totals.turns, "yields", totals.yields, "pipes_open", totals.pipes_open, "pipes_busy",
            totals.pipes_busy, "pipes_refused", totals.pipes_refused, "spliced", totals.spliced, "copied", totals.copied);
        if (found == NULL || PyList_Append(list, found) == -1)
            Py_CLEAR(list);
        Py_XDECREF(found);
    }
    return list;
}

static PyObject *method_open_slot(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint32_t slot;
    int error = engine_open_slot(((Engine *)object)->engine, &slot);
    return error ? raise_errno(error) : PyLong_FromUnsignedLong(slot);
}

static PyObject *method_close_slot(PyObject *object, PyObject *argument)
{
    int64_t slot = number(argument, UINT32_MAX);
    if (slot == -1)
        return NULL;
    engine_close_slot(((Engine *)object)->engine, (uint32_t)slot);
    Py_RETURN_NONE;
}

static PyObject *method_read_slot(PyObject *object, PyObject *argument)
{
    uint64_t sent, received;
    int64_t slot = number(argument, UINT32_MAX);
    if (slot == -1)
        return NULL;
    if (!engine_read_slot(((Engine *)object)->engine, (uint32_t)slot, &sent, &received)) {
        PyErr_Format(PyExc_ValueError, "no counter slot %lld", (long long)slot);
        return NULL;
    }
    return Py_BuildValue("KK", sent, received);
}

static PyObject *method_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(engine_wake_fd(((Engine *)object)->engine));
}

static PyObject *method_stop(PyObject *object, PyObject *unused)
{
    (void)unused;
    stop(((Engine *)object)->engine);
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef engine_methods[] = {
    {"submit", FAST(method_submit), METH_FASTCALL, NULL},
    {"accept", FAST(method_accept), METH_FASTCALL, NULL},
    {"prepare", FAST(method_prepare), METH_FASTCALL, NULL},
    {"launch", FAST(method_launch), METH_FASTCALL, NULL},
    {"flush", method_flush, METH_NOARGS, NULL},
    {"abort", FAST(method_abort), METH_FASTCALL, NULL},
    {"fetch", method_fetch, METH_NOARGS, NULL},
    {"view", method_view, METH_O, NULL},
    {"look", method_look, METH_O, NULL},
    {"submitted", method_submitted, METH_NOARGS, NULL},
    {"totals", method_totals, METH_NOARGS, NULL},
    {"open_slot", method_open_slot, METH_NOARGS, NULL},
    {"close_slot", method_close_slot, METH_O, NULL},
    {"read_slot", method_read_slot, METH_O, NULL},
    {"fileno", method_fileno, METH_NOARGS, NULL},
    {"stop", method_stop, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_methods, engine_methods},
    {Py_tp_doc, "Threads that move bytes between pairs of sockets. All methods belong to one thread."},
    {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = "lbproxy.relay.native._engine.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = engine_slots,
};

static int module_exec(PyObject *module)
{
    PyObject *names = PyTuple_New(REASONS);
    if (names == NULL)
        return -1;
    for (int at = 0; at < REASONS; at++)
        PyTuple_SetItem(names, at, PyUnicode_FromString(reason_names[at]));
    if (PyModule_AddObjectRef(module, "REASONS", names) == -1) {
        Py_DECREF(names);
        return -1;
    }
    Py_DECREF(names);
    if (PyModule_AddIntConstant(module, "REASON_OF_ABORT", REASON_OF_ABORT) == -1 ||
        PyModule_AddIntConstant(module, "MAX_THREADS", ENGINE_MAX_THREADS) == -1)
        return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &engine_spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddObjectRef(module, "Engine", type);
    Py_DECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_engine",
    .m_doc = "The relay engine's binding; lbproxy.relay.native.relay is the relay.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__engine(void)
{
    return PyModuleDef_Init(&definition);
}
