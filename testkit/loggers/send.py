"""Sends the records of a JSON array on stdin with the official Python logger: HOST PORT TAG NANOSECONDS."""
import json
import sys

from fluent import sender

host, port, tag, nanoseconds = sys.argv[1:]
logger = sender.FluentSender(tag, host=host, port=int(port), nanosecond_precision=nanoseconds == "true")
for record in json.load(sys.stdin):
    time = record.pop("_time", None)
    if time is None:
        sent = logger.emit(None, record)
    else:
        sent = logger.emit_with_time(None, time, record)
    if not sent:
        sys.exit(f"not sent: {logger.last_error}")
logger.close()
