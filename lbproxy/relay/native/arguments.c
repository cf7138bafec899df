/* Python's arguments as the engine takes them, and what results are made of. */
#include "binding.h"

#include <errno.h>

PyObject *raise_errno(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

int64_t number(PyObject *value, uint64_t most)
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

PyObject *tuple_of(PyObject **fields, Py_ssize_t count)
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

bool counted(const char *name, Py_ssize_t have, Py_ssize_t want)
{
    if (have == want)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, have);
    return false;
}

bool numbers(PyObject *const *args, const uint64_t *most, int64_t *found, int count)
{
    for (int at = 0; at < count; at++) {
        found[at] = number(args[at], most[at]);
        if (found[at] == -1)
            return false;
    }
    return true;
}

bool limits(PyObject *const *args, struct engine_submit *submit)
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
