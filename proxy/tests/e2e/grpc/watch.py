"""Reads an endless stream through the proxy at argv[1]; says `begun`, and how it ended."""

import sys

import grpc

endless = grpc.insecure_channel(sys.argv[1]).unary_stream("/test.Test/Endless")
call = endless(b"", timeout=30)
next(call)
print("begun", flush=True)
try:
    for _ in call:
        pass
    print("ended as if all was well")
except grpc.RpcError as error:
    print(error.code(), error.details())
