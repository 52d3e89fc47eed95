#!/usr/bin/env python3
"""Bytes of a document in Elasticsearch, after force-merge, and what the object `windrow` adds.

    python3 benches/document_size.py WINDROW URL [--traces 20000] [--spread] [--keep-fields]

Sends traces of 5 lines of about 100 bytes by HTTP; with --spread the lines of a trace come in five
chunks. URL is a store whose indices `size-*` may be deleted. Each index is written by Windrow's own
mapping; the copies lack a part of `windrow`, so that the differences are what the part costs.
"""
import argparse
import json
import os
import random
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PARTS = ["state", "fields", "levels", "services", "level", "last", "durationMs", "tags", "reason", "lines",
         "parts", "late"]
START = int(time.time() * 1000) - 10_000
STEPS = [("order received from the web shop", "order"),
         ("card charged, authorisation", "payment"),
         ("items reserved in warehouse", "stock"), ("parcel label printed for", "shipping"),
         ("request completed", "order")]


def call(method, url, body=None, kind="application/json"):
    data = body.encode() if isinstance(body, str) else body and json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SystemExit(f"{method} {url}: {error.read()[:500]}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def record(random, trace, step):
    text, service = STEPS[step]
    text = f"{text} order={random.randrange(10**6)} customer={random.randrange(10**5)}"
    text += f" region=eu-{random.randrange(4)} attempt={random.randrange(3)}"
    text += f" took={random.random():.4f}s"
    level = "error" if random.randrange(50) == 0 else "info"
    milliseconds = START + step * 40 + random.randrange(40)
    return {"traceId": trace, "level": level, "message": text.ljust(100, "."),
            "service_name": service, "status": 200, "time": milliseconds / 1000}


def send(port, traces, spread):
    """Chunks of 1,000 records. With `spread` each line of a trace is in another chunk."""
    source = random.Random(7)
    ids = [f"{source.getrandbits(128):032x}" for _ in range(traces)]
    for start in range(0, traces, 200 if not spread else 1000):
        block = ids[start:start + (200 if not spread else 1000)]
        if spread:
            chunks = [[record(source, trace, step) for trace in block] for step in range(5)]
        else:
            chunks = [[record(source, trace, step) for trace in block for step in range(5)]]
        for chunk in chunks:
            body = "\n".join(json.dumps(line) for line in chunk)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/app.shop", body.encode(),
                                             {"Content-Type": "application/x-ndjson"})
            urllib.request.urlopen(request, timeout=60).read()


def bytes_of(url, index):
    """Bytes per document with one segment, and by field."""
    for _ in range(2):
        call("POST", f"{url}/{index}/_refresh")
        call("POST", f"{url}/{index}/_forcemerge?max_num_segments=1")
        call("POST", f"{url}/{index}/_flush?force=true")
        time.sleep(1)
    stats = call("GET", f"{url}/{index}/_stats/docs,store")["_all"]["primaries"]
    documents = stats["docs"]["count"]
    usage = call("POST", f"{url}/{index}/_disk_usage?run_expensive_tasks=true") or {}
    fields = usage.get(index, {}).get("fields", {})
    return (stats["store"]["size_in_bytes"] / documents,
            {name: field["total_in_bytes"] / documents for name, field in fields.items()})


def documents(url, index):
    """All documents, a page at a time."""
    page = call("POST", f"{url}/{index}/_search?scroll=2m", {"size": 2000, "sort": ["_doc"]})
    while page["hits"]["hits"]:
        yield page["hits"]["hits"]
        page = call("POST", f"{url}/_search/scroll",
                    {"scroll": "2m", "scroll_id": page["_scroll_id"]})


def without(source, part):
    if part == "windrow":
        return {name: value for name, value in source.items() if name != "windrow"}
    kept = {name: value for name, value in source["windrow"].items() if name != part}
    return {**source, "windrow": kept}


def copy(url, mappings, source, target, part):
    """Copies an index without a part of `windrow`."""
    call("DELETE", f"{url}/{target}")
    call("PUT", f"{url}/{target}", {"settings": {"number_of_shards": 1, "number_of_replicas": 0},
                                    "mappings": mappings})
    for page in documents(url, source):
        lines = []
        for hit in page:
            document = without(hit["_source"], part) if part else hit["_source"]
            lines.append(json.dumps({"index": {"_id": hit["_id"]}}))
            lines.append(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        answer = call("POST", f"{url}/{target}/_bulk", "\n".join(lines) + "\n",
                      "application/x-ndjson")
        if answer["errors"]:
            raise SystemExit(f"refused: {answer['items'][0]}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("windrow")
    arguments.add_argument("url")
    arguments.add_argument("--traces", type=int, default=20_000)
    arguments.add_argument("--spread", action="store_true")
    arguments.add_argument("--keep-fields", action="store_true")
    options = arguments.parse_args()
    url, port = options.url.rstrip("/"), free_port()
    call("DELETE", f"{url}/size-main")
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, WINDROW_HTTP_TIME_KEY="time",
                           WINDROW_TRACE_KEEP_FIELDS=str(options.keep_fields).lower())
        server = subprocess.Popen(
            [options.windrow, "serve", "--data-dir", folder, "--output", "elasticsearch",
             "--elasticsearch-url", url, "--index", "size-main", "--linger", "200ms",
             "--listen", f"127.0.0.1:{free_port()}", "--admin", "none",
             "--http-listen", f"127.0.0.1:{port}"],
            env=dict(environment, WINDROW_ELASTICSEARCH_TEMPLATE_SHARDS="1",
                     WINDROW_ELASTICSEARCH_TEMPLATE_REPLICAS="0"))
        time.sleep(2)
        send(port, options.traces, options.spread)
        for _ in range(120):
            call("POST", f"{url}/size-main/_refresh")
            if (call("GET", f"{url}/size-main/_count") or {}).get("count") == options.traces:
                break
            time.sleep(1)
        else:
            raise SystemExit("the documents did not come")
        time.sleep(2)
        server.terminate()
        server.wait()
    mappings = call("GET", f"{url}/size-main/_mapping")["size-main"]["mappings"]
    one = call("GET", f"{url}/size-main/_search?size=1")["hits"]["hits"][0]["_source"]
    print(json.dumps(one))
    variants = [("same", None), ("none", "windrow")] + [(part.lower(), part) for part in PARTS]
    sizes = {}
    for name, part in variants:
        copy(url, mappings, "size-main", f"size-{name}", part)
        sizes[name], fields = bytes_of(url, f"size-{name}")
        if name == "same":
            for field, size in sorted(fields.items(), key=lambda pair: -pair[1]):
                if size >= 0.05:
                    print(f"  {field:32} {size:7.2f} bytes/document")
    same, none = sizes["same"], sizes["none"]
    print(f"whole {same:.1f}, without windrow {none:.1f} bytes/document: "
          f"windrow is {(same - none) / same * 100:.1f} % of the whole")
    for part in PARTS:
        print(f"  {part:12} {same - sizes[part.lower()]:6.2f} bytes/document")
    for name, _ in variants:
        call("DELETE", f"{url}/size-{name}")


if __name__ == "__main__":
    main()
