#!/bin/sh
# A worker of pytest for sanitized.sh, which tells how it ended if that was no ordinary end: its status says what killed it (128 and a
# signal's number; 66, a report of the sanitizer), and nobody else asks for it.
#
#   WORKER_PYTHON=... WORKER_PRELOAD=... worker.sh PYTHON'S ARGUMENTS
status=0
LD_PRELOAD=$WORKER_PRELOAD "$WORKER_PYTHON" -X faulthandler "$@" || status=$?
[ $status = 0 ] || echo "a worker ended with status $status" >&2
exit $status
