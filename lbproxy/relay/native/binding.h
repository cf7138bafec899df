/* What the binding's files share: the object, and how arguments and results are made. Nothing outside includes this. */
#ifndef LBPROXY_BINDING_H
#define LBPROXY_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

typedef struct {
    PyObject_HEAD
    struct engine *engine;
    bool told; /* the oldest event was given to the iteration that is under way */
} Engine;

/* arguments.c. `number` and `numbers`: at most as large as they may be, else -1 or false with an exception. `tuple_of` takes over
 * the fields; it is for what every session has, so without Py_BuildValue, which reads a format each time. */
PyObject *raise_errno(int error);
bool counted(const char *name, Py_ssize_t have, Py_ssize_t want);
int64_t number(PyObject *value, uint64_t most);
bool numbers(PyObject *const *args, const uint64_t *most, int64_t *found, int count);
PyObject *tuple_of(PyObject **fields, Py_ssize_t count);

enum { LIMITS = 8 };

/* What holds for a session: four limits, a slot, three numbers of its keepalive. */
bool limits(PyObject *const *args, struct engine_submit *submit);

/* submits.c */
PyObject *method_submit(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *method_accept(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *method_prepare(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *method_launch(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *method_flush(PyObject *object, PyObject *unused);
PyObject *method_abort(PyObject *object, PyObject *const *args, Py_ssize_t count);

/* events.c */
PyObject *events_begin(PyObject *object);
PyObject *events_next(PyObject *object);
PyObject *method_call_again(PyObject *object, PyObject *unused);
PyObject *method_view(PyObject *object, PyObject *argument);
PyObject *method_look(PyObject *object, PyObject *argument);

#endif
