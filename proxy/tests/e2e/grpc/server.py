"""A gRPC server for tests: bytes in, bytes out, no generated code. Prints its port.

argv[1], if given: milliseconds after which a connection is told to leave.
"""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    if "x-sleep" in metadata:
        end = time.monotonic() + float(metadata["x-sleep"])
        while time.monotonic() < end and context.is_active():
            time.sleep(0.01)
    if "x-left" in metadata:
        return str(context.time_remaining()).encode()
    if "x-long" in metadata:
        return str(len(metadata["x-long"])).encode()
    if "x-fail" in metadata:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "caf\u00e9 100%")
    context.set_trailing_metadata((("x-sum-bin", bytes(range(256))), ("x-text", "done")))
    return request


def collect(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def repeat(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def chat(requests, context):
    for request in requests:
        yield request


def endless(request, context):
    context.add_callback(lambda: ended.append(1))
    while context.is_active():
        yield b"tick"
        time.sleep(0.01)


ended = []


def leave(request, context):
    for part in (b"one", b"two"):
        yield part
    context.abort(grpc.StatusCode.ABORTED, "in the middle")


def check(request, context):
    """grpc.health.v1: all is well, the service `ill` is not, `none` does not exist."""
    service = request[2:].decode()
    if service == "none":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return b"\x08\x02" if service == "ill" else b"\x08\x01"


def count(request, context):
    return str(len(ended)).encode()


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Ended": grpc.unary_unary_rpc_method_handler(count),
    "Leave": grpc.unary_stream_rpc_method_handler(leave),
}
options = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
]
if len(sys.argv) > 1:
    options.append(("grpc.max_connection_age_ms", int(sys.argv[1])))
    options.append(("grpc.max_connection_age_grace_ms", 5000))
health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),)
)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(0)
