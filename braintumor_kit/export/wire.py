"""How many parts a protobuf message has, told from its bytes before it is parsed: an empty part is two bytes in a file
and a hundred in memory."""

from typing import Any

MAX_DEPTH = 32
"""Of messages in messages; those of a classifier have six."""

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def has_more_parts(content: bytes, kind: Any, most: int) -> bool:
    """Whether a message has more fields than that, those of messages within it counted in.

    Bytes that are no such message end the count: whoever parses them says so.

    Args:
        kind: descriptor of the message, such as `onnx.ModelProto.DESCRIPTOR`.
        most: more than that is too many.
    """
    waiting = [(0, len(content), kind, 0)]
    count = 0
    try:
        while waiting:
            at, end, message, depth = waiting.pop()
            if depth > MAX_DEPTH:
                return True
            while at < end:
                count += 1
                if count > most:
                    return True
                tag, at = _varint(content, at)
                if tag & 7 == _LENGTH:
                    length, at = _varint(content, at)
                    field = message.fields_by_number.get(tag >> 3)
                    if field is not None and field.message_type is not None:
                        waiting.append((at, min(at + length, end), field.message_type, depth + 1))
                    at += length
                else:
                    at = _skipped(content, at, tag & 7)
    except (IndexError, ValueError):
        pass
    return False


def _skipped(content: bytes, at: int, wire: int) -> int:
    """Where a number ends."""
    if wire == _VARINT:
        return _varint(content, at)[1]
    if wire not in (_EIGHT_BYTES, _FOUR_BYTES):
        raise ValueError("a group, which no file of today has")
    return at + (8 if wire == _EIGHT_BYTES else 4)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
