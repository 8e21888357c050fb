"""Calls of every kind through the proxy at argv[1]; fails with what is wrong."""

import queue
import sys
import time

import grpc

options = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
]
channel = grpc.insecure_channel(sys.argv[1], options=options)
unary = channel.unary_unary("/test.Test/Unary")
collect = channel.stream_unary("/test.Test/Collect")
repeat = channel.unary_stream("/test.Test/Repeat")
chat = channel.stream_stream("/test.Test/Chat")
endless = channel.unary_stream("/test.Test/Endless")
ended = channel.unary_unary("/test.Test/Ended")
nowhere = channel.unary_unary("/other.Service/Method")


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details(), dict(error.initial_metadata() or ())
    return None, None, None


# Unary, with trailing metadata of text and bytes.
answer, call = unary.with_call(b"hello", timeout=10)
assert answer == b"hello", answer
trailing = dict(call.trailing_metadata())
assert trailing["x-sum-bin"] == bytes(range(256)), trailing
assert trailing["x-text"] == "done", trailing
# Large messages, empty messages.
for size in (0, 1, 16_384, 100_000, 4 << 20):
    assert unary(b"x" * size, timeout=20) == b"x" * size, size
# Metadata of 8 KiB.
assert unary(b"", metadata=(("x-long", "m" * 8192),), timeout=10) == b"8192"
# Streams of all kinds.
assert collect(iter([b"ab"] * 1000), timeout=10) == b"2000"
assert [int(part) for part in repeat(b"1000", timeout=10)] == list(range(1000))
assert list(chat(iter([b"a", b"b", b"c"]), timeout=10)) == [b"a", b"b", b"c"]

# Each part is answered before the next one is sent.
parts = queue.Queue()
answers = chat(iter(parts.get, None), timeout=10)
for part in (b"one", b"two", b"three"):
    parts.put(part)
    assert next(answers) == part
parts.put(None)
assert list(answers) == []
# The server's own error.
code, details, _ = code_of(lambda: unary(b"", metadata=(("x-fail", "1"),), timeout=10))
assert code == grpc.StatusCode.FAILED_PRECONDITION and details == "caf\u00e9 100%", (code, details)
# A deadline is honoured, and passed on for what is left.
left = float(unary(b"", metadata=(("x-left", "1"),), timeout=5))
assert 3 < left <= 5.1, left  # the library rounds up
began = time.monotonic()
code, _, _ = code_of(lambda: unary(b"", metadata=(("x-sleep", "5"),), timeout=0.5))
assert code == grpc.StatusCode.DEADLINE_EXCEEDED, code
assert time.monotonic() - began < 3
# Cancelled calls end at the server.
before = int(ended(b"", timeout=10))
for _ in range(5):
    call = endless(b"", timeout=30)
    next(call)
    call.cancel()
end = time.monotonic() + 10
while int(ended(b"", timeout=10)) < before + 5:
    assert time.monotonic() < end, "the server still serves cancelled calls"
    time.sleep(0.02)
# A server that breaks a stream off says why, after what it had sent.
call = channel.unary_stream("/test.Test/Leave")(b"", timeout=10)
assert [next(call), next(call)] == [b"one", b"two"]
code, details, _ = code_of(lambda: next(call))
assert code == grpc.StatusCode.ABORTED and details == "in the middle", (code, details)
# What the proxy itself says.
code, details, metadata = code_of(lambda: nowhere(b"", timeout=10))
assert code == grpc.StatusCode.UNIMPLEMENTED, (code, details)
assert "no route" in details, details
# Many at once.
calls = [unary.future(str(number).encode(), timeout=20) for number in range(500)]
assert [int(call.result()) for call in calls] == list(range(500))
print("ok")
