"""Sends the records of a JSON array on stdin with the official Python logger: HOST PORT TAG OPTIONS CLASS."""
import json
import logging
import sys
import time

from fluent import asynchandler, asyncsender, handler, sender

host, port, tag, options, kind = sys.argv[1:]
options = {"host": host, "port": int(port), **json.loads(options)}
records = json.load(sys.stdin)
if kind.endswith("handler"):
    module = {"handler": handler, "asynchandler": asynchandler}[kind]
    out = module.FluentHandler(tag, **options)
    out.setFormatter(handler.FluentRecordFormatter())
    for record in records:
        created = record.pop("_time", time.time())
        out.handle(logging.makeLogRecord({"name": tag, "module": "send", "created": created, "msg": record}))
    out.close()
else:
    module = {"sender": sender, "asyncsender": asyncsender}[kind]
    out = module.FluentSender(tag, **options)
    for record in records:
        at = record.pop("_time", None)
        if at is None:
            sent = out.emit(None, record)
        else:
            at = sender.EventTime(at) if options.get("nanosecond_precision") else at
            sent = out.emit_with_time(None, at, record)
        if not sent:
            sys.exit(f"not sent: {out.last_error}")
    out.close()
