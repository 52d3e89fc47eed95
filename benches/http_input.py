#!/usr/bin/env python3
"""CPU and memory of HTTP inputs: Windrow's, and Fluent Bit's in_http to null, in turns.

    python3 benches/http_input.py WINDROW FLUENT_BIT [--rounds 3] [--leak 50000]

CPU is that of the whole server, from /proc, per record. Windrow writes its journal and renders
documents (to /dev/null); Fluent Bit receives and forgets. --leak is a number of requests of 187 KB:
one server of each kind takes them over 3 and over 64 connections, kept alive and not, and bodies of
other kinds after that. Memory is what no file backs (RssAnon) of the idle server, first before any
request: the pages of the program itself are in the page cache, whoever uses them.
"""
import argparse
import gzip
import http.client
import json
import os
import random
import re
import socket
import subprocess
import tempfile
import threading
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def record(size, number):
    """A record of about this many bytes; five are one trace."""
    text = "request completed" if number % 5 == 4 else "handler finished a part of the request"
    fields = {
        "traceId": f"{number // 5:032x}", "message": text, "level": "info", "method": "GET",
        "path": f"/api/v1/orders/{number}", "status": 200, "latencyMs": 1.5 + number % 100,
        "service_name": "order-service", "context": {"user": number, "list": [True, None]},
    }
    words = random.Random(number)
    fill = []
    length = len(json.dumps(fields)) + 14
    while length < size:
        word = f"word{words.randrange(10**6)}"
        fill.append(word)
        length += len(word) + 1
    return {**fields, "payload": " ".join(fill)}


class Server:
    def __init__(self, kind, program):
        self.kind, self.port = kind, free_port()
        self.folder = tempfile.TemporaryDirectory()
        if kind == "windrow":
            command = [
                program, "serve", "--data-dir", self.folder.name + "/data", "--output", "stdout",
                "--listen", f"127.0.0.1:{free_port()}", "--admin", "none", "--linger", "200ms",
                "--http-listen", f"127.0.0.1:{self.port}",
            ]
        else:
            command = [
                program, "-q", "-i", "http", "-p", "listen=127.0.0.1", "-p", f"port={self.port}",
                "-p", "buffer_max_size=64M", "-o", "null", "-m", "*", "-f", "0.2",
            ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{kind} does not listen")

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

    def send(self, bodies, count, connections):
        def client(first):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            for number in range(first, count, connections):
                connection.request(
                    "POST", "/app", bodies[number % len(bodies)], {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 201), answer.status
            connection.close()

        threads = [threading.Thread(target=client, args=(n,)) for n in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def leak(kind, program, count):
    """Memory of an idle server after each kind of load."""
    large = json.dumps([record(935, n) for n in range(200)]).encode()
    huge = json.dumps([record(935, n) for n in range(5600)]).encode()
    packed = gzip.compress(large, 1)
    # Name, requests, connections, keep-alive, further headers, body, a pause within the body.
    loads = [
        ("187 KB, 3 connections", count, 3, True, "", large, 0),
        ("187 KB, 64 connections", count, 64, True, "", large, 0),
        ("187 KB, 3 workers, a connection each time", count, 3, False, "", large, 0),
        ("187 KB, 64 workers, a connection each time", count, 64, False, "", large, 0),
        ("187 KB of gzip, 3 connections", count // 5, 3, True, "Content-Encoding: gzip\r\n", packed, 0),
        ("records of 1 B, 64 connections", count, 64, True, "", b'{"a":"b"}', 0),
        ("5 MiB, 3 connections", count // 100, 3, True, "", huge, 0),
        ("187 KB, aborted halfway, 64 workers", count // 5, 64, None, "", large, 0),
        ("187 KB, slow, 64 connections", count // 500, 64, True, "", large, 0.5),
    ]
    server = Server(kind, program)
    time.sleep(2)
    start = server.memory()
    print(f"{kind}, before any request: {start} KiB")
    for name, requests, workers, keep_alive, headers, body, pause in loads:
        began, before = time.time(), server.memory()
        threads = [
            threading.Thread(
                target=raw, args=(server.port, requests // workers, keep_alive, headers, body, pause)
            )
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, busy = time.time() - began, server.memory()
        # Open traces are written after 30 s, and memory is collected 32 s after the last request.
        time.sleep(40)
        after = server.memory()
        print(
            f"  {name}: {requests} requests in {took:.0f} s, {busy} KiB at their end, {after} KiB idle:"
            f" {(after - start) / 1024:+.1f} MiB of the start, {(after - before) * 1024 / requests:.0f} B"
            " per request", flush=True,
        )
    server.end()


def raw(port, count, keep_alive, headers, body, pause):
    """Sends requests over a connection; keep_alive is None to go away in the middle of each."""
    head = (
        f"POST /app HTTP/1.1\r\nHost: x\r\nConnection: {'keep-alive' if keep_alive else 'close'}\r\n"
        f"Content-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    half = len(body) // 2
    connection = None
    for _ in range(count):
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head + body[:half])
        if keep_alive is not None:
            time.sleep(pause)
            connection.sendall(body[half:])
            answer = b""
            while b"\r\n\r\n" not in answer:
                more = connection.recv(4096)
                if not more:
                    break
                answer += more
            assert answer[9:12] in (b"200", b"201"), answer
            length = re.search(rb"(?i)content-length: *(\d+)", answer)
            rest = int(length[1]) if length else 0
            rest -= len(answer) - answer.index(b"\r\n\r\n") - 4
            while rest > 0:
                rest -= len(connection.recv(rest))
        if not keep_alive:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("windrow")
    arguments.add_argument("fluent_bit")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--leak", type=int, default=0)
    options = arguments.parse_args()
    programs = {"windrow": options.windrow, "fluent-bit": options.fluent_bit}
    cases = {
        "arrays of 500 records of 1 KB": (
            [json.dumps([record(1000, n) for n in range(b * 500, b * 500 + 500)]).encode() for b in range(8)],
            200, 500,
        ),
        "single records of 187 KB": ([json.dumps(record(187_000, n)).encode() for n in range(20)], 1000, 1),
    }
    for name, (bodies, count, records) in cases.items() if options.rounds else ():
        costs = {kind: [] for kind in programs}
        for _ in range(options.rounds):
            for kind, program in programs.items():
                server = Server(kind, program)
                server.send(bodies, len(bodies), 3)
                time.sleep(1.5)
                before = server.cpu()
                server.send(bodies, count, 3)
                time.sleep(2)
                costs[kind].append((server.cpu() - before) / count / records * 1e6)
                server.end()
        best = {kind: sorted(values)[len(values) // 2] for kind, values in costs.items()}
        print(
            f"{name}: windrow {best['windrow']:.2f} us, fluent-bit {best['fluent-bit']:.2f} us per record,"
            f" {best['windrow'] / best['fluent-bit']:.2f} x; rounds {costs}", flush=True,
        )
    if options.leak:
        for kind, program in programs.items():
            leak(kind, program, options.leak)


main()
