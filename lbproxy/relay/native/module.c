/* The binding: one type, `Engine`, over engine.h, on the stable ABI. It translates and decides nothing; nothing here blocks but
 * `stop`, which lets go of the GIL. See _engine.pyi for the signatures.
 */
#include <Python.h>

#include "engine.h"

#include <errno.h>

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

static bool counted(const char *name, Py_ssize_t have, Py_ssize_t want)
{
    if (have == want)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, have);
    return false;
}

static PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"threads", "pipes", "first_port", "last_port", "connected_delay_ms", "beat_ms", "missed_beats", NULL};
    struct engine_options options = {.last_port = 65535, .beat_ms = 1000, .missed_beats = 10};
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "II|$HHIII", names, &options.threads, &options.pipes, &options.first_port, &options.last_port,
            &options.connected_delay_ms, &options.beat_ms, &options.missed_beats))
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

static PyObject *method_submit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Engine *self = (Engine *)object;
    int64_t numbers[9];
    static const uint64_t most[9] = {
        INT32_MAX, INT32_MAX, 1, 1, ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS, ENGINE_MAX_LIMIT_MS,
        UINT32_MAX};
    if (!counted("submit", count, 12))
        return NULL;
    uint64_t session = PyLong_AsUnsignedLongLong(args[0]);
    if (session == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    for (int at = 0; at < 9; at++) {
        numbers[at] = number(args[at + 1], most[at]);
        if (numbers[at] == -1)
            return NULL;
    }
    char *first;
    Py_ssize_t first_size;
    if (PyBytes_AsStringAndSize(args[10], &first, &first_size) == -1)
        return NULL;
    struct engine_submit submit = {
        .session = session,
        .client = (int)numbers[0],
        .upstream = (int)numbers[1],
        .client_unix = numbers[2],
        .upstream_unix = numbers[3],
        .connect_timeout_ms = (uint64_t)numbers[4],
        .idle_timeout_ms = (uint64_t)numbers[5],
        .half_close_timeout_ms = (uint64_t)numbers[6],
        .max_duration_ms = (uint64_t)numbers[7],
        .slot = (uint32_t)numbers[8],
        .first_bytes = first,
        .first_size = (size_t)first_size,
    };
    int urgent_inline = PyObject_IsTrue(args[11]);
    if (urgent_inline == -1)
        return NULL;
    submit.urgent_inline = urgent_inline;
    uint64_t handle;
    int error = engine_submit(self->engine, &submit, &handle);
    return error ? raise_errno(error) : PyLong_FromUnsignedLongLong(handle);
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
    if (event->connected)
        return Py_BuildValue("KN", event->session, seconds(event->connect_ns));
    return Py_BuildValue(
        "KiiKKNNNiii", event->session, event->reason, (int)event->phase, event->sent, event->received,
        seconds(event->connect_ns), seconds(event->first_byte_ns), seconds(event->total_ns), event->error, event->client,
        (int)event->upstream_unix);
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
    {"flush", method_flush, METH_NOARGS, NULL},
    {"abort", FAST(method_abort), METH_FASTCALL, NULL},
    {"fetch", method_fetch, METH_NOARGS, NULL},
    {"view", method_view, METH_O, NULL},
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
