/* What the engine tells Python: events, and a look at one session. */
#include "binding.h"

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

/* To iterate over an engine is to take its events. Each is taken when the next one is asked for, so one for which there was no memory, here or
 * in the loop's body, is the first of the next iteration. */
PyObject *events_begin(PyObject *object)
{
    Engine *self = (Engine *)object;
    self->told = false;
    engine_collect(self->engine);
    Py_INCREF(object);
    return object;
}

PyObject *events_next(PyObject *object)
{
    Engine *self = (Engine *)object;
    struct engine_event event;
    if (self->told)
        engine_took(self->engine);
    self->told = false;
    if (!engine_fetch(self->engine, &event))
        return NULL;
    PyObject *tuple = event_tuple(&event);
    self->told = tuple != NULL;
    return tuple;
}

PyObject *method_call_again(PyObject *object, PyObject *unused)
{
    (void)unused;
    engine_call_again(((Engine *)object)->engine);
    Py_RETURN_NONE;
}

PyObject *method_view(PyObject *object, PyObject *argument)
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

PyObject *method_look(PyObject *object, PyObject *argument)
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
