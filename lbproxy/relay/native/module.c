/* The binding: one type, `Engine`, over engine.h, on the stable ABI: its life, its counters, and its table of methods (arguments.c, submits.c and
 * events.c have the others). The binding translates and decides nothing; nothing in it blocks but `stop`, which lets go of the GIL. See
 * _engine.pyi for the signatures.
 */
#include "binding.h"

#include <errno.h>

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
    {"call_again", method_call_again, METH_NOARGS, NULL},
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
    {Py_tp_iter, events_begin},
    {Py_tp_iternext, events_next},
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
    for (int at = 0; at < REASONS; at++) {
        PyObject *name = PyUnicode_FromString(reason_names[at]);
        if (name == NULL) {
            Py_DECREF(names);
            return -1;
        }
        PyTuple_SetItem(names, at, name);
    }
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
