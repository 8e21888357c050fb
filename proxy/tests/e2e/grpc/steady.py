"""Unary calls through the proxy at argv[1] for argv[2] seconds, by eight threads; any error fails."""

import sys
import threading
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary("/test.Test/Unary")
end = time.monotonic() + float(sys.argv[2])
counts, errors = [], []


def work():
    done = 0
    while time.monotonic() < end and not errors:
        try:
            assert unary(b"x" * 100, timeout=10) == b"x" * 100
            done += 1
        except grpc.RpcError as error:
            errors.append((error.code(), error.details()))
    counts.append(done)


threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
print(sum(counts))
