"""Logs the records of a JSON array on stdin with the OpenTelemetry SDK: http|grpc ENDPOINT."""
import json
import logging
import sys

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

kind, endpoint = sys.argv[1:]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=endpoint, insecure=True)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=endpoint, compression=Compression.Gzip)
resource = Resource.create({"service.name": "orders", "deployment.environment": "test"})
provider = LoggerProvider(resource=resource)
provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.addHandler(LoggingHandler(logger_provider=provider))
tracer = TracerProvider(resource=resource).get_tracer("shop")
for record in json.load(sys.stdin):
    with tracer.start_as_current_span(record["span"]) as span:
        context = span.get_span_context()
        for line in record["lines"]:
            log.warning(line, extra={"orderId": record["span"]})
        print(trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
provider.shutdown()
