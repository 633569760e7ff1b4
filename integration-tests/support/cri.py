"""Calls one method of a CRI runtime service, as the kubelet does.

    cri.py SOCKET SERVICE/METHOD PATH < MESSAGE

MESSAGE is the request as JSON: a list of pairs, a field's number and its value,
which is a list again where the field is a message. PATH says which field of the
answer is printed, as numbers with points between them; 0 prints nothing.
"""
import json
import sys

import grpc

CALL_SECONDS = 60


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def encode(message):
    out = b""
    for field, value in message:
        if isinstance(value, int):
            out += varint(field << 3) + varint(value)
        else:
            data = encode(value) if isinstance(value, list) else value.encode()
            out += varint(field << 3 | 2) + varint(len(data)) + data
    return out


def decode(data, wanted):
    """The value of the first field of this number; None where there is none."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            length = number()
            value = data[at : at + length]
            at += length
        if key >> 3 == wanted:
            return value
    return None


def main():
    socket, method, path = sys.argv[1:]
    channel = grpc.insecure_channel("unix://" + socket)
    call = channel.unary_unary("/" + method)
    try:
        answer = call(encode(json.load(sys.stdin)), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        sys.exit(f"{method}: {error.code().name}: {error.details()}")
    fields = [int(part) for part in path.split(".")]
    for field in fields if fields != [0] else []:
        # What is absent is zero, or empty.
        answer = decode(answer, field) if answer is not None else None
    if fields != [0]:
        print(answer.decode() if isinstance(answer, bytes) else answer or 0)


main()
