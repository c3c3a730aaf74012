"""What the display server may send to a viewer: updates in encodings whose lengths are known. Used by the gate."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .rfb import (
    COPY_RECT,
    CURSOR,
    DESKTOP_NAME,
    DESKTOP_SIZE,
    EXTENDED_DESKTOP_SIZE,
    LAST_RECT,
    MAX_CURSOR,
    MAX_CUT_TEXT,
    MAX_NAME,
    QEMU_KEY,
    QEMU_LED,
    RAW,
    TIGHT,
    ZRLE,
    Filter,
    Op,
    Role,
    Rules,
    Violation,
    limited,
    pass_fence,
)


class ServerFilter(Filter):
    """From the display server to the browser. A viewer does not get the clipboard."""

    def __init__(self, role: Role) -> None:
        self.role = role
        super().__init__(_server_rules)


def _server_rules(stream: ServerFilter) -> Rules:
    while True:
        kind = yield Op.READ, 1
        rule = _SERVER_RULES.get(kind[0])
        if rule is None:
            raise Violation(f"unknown server message {kind[0]}")
        yield from rule(stream, kind)


def _bare(stream: ServerFilter, kind: bytes) -> Rules:
    stream.emit(kind)
    yield Op.PASS, 0


def _server_cut_text(stream: ServerFilter, kind: bytes) -> Rules:
    head = yield Op.READ, 7
    length = limited(abs(int.from_bytes(head[3:], "big", signed=True)), MAX_CUT_TEXT, "clipboard text")
    if stream.role is Role.CONTROLLER:
        stream.emit(kind + head)
        yield Op.PASS, length
    else:
        yield Op.DROP, length


def _update(stream: ServerFilter, kind: bytes) -> Rules:
    head = yield Op.READ, 3
    stream.emit(kind + head)
    count = int.from_bytes(head[1:], "big")
    # With LastRect the server writes 65535 and ends the list itself.
    while count > 0:
        rect = yield Op.READ, 12
        width, height, encoding = struct.unpack(">4xHHi", rect)
        stream.emit(rect)
        if encoding == LAST_RECT:
            return
        rule = _RECTANGLES.get(encoding)
        if rule is None:
            raise Violation(f"unknown encoding {encoding}")
        yield from rule(stream, width, height)
        count -= 1


def _raw(stream: ServerFilter, width: int, height: int) -> Rules:
    yield Op.PASS, width * height * 4


def _copy_rect(stream: ServerFilter, width: int, height: int) -> Rules:
    yield Op.PASS, 4


def _nothing(stream: ServerFilter, width: int, height: int) -> Rules:
    yield Op.PASS, 0


def _one_byte(stream: ServerFilter, width: int, height: int) -> Rules:
    yield Op.PASS, 1


def _zrle(stream: ServerFilter, width: int, height: int) -> Rules:
    head = yield Op.READ, 4
    stream.emit(head)
    # zlib adds at most a few bytes to data that it cannot pack.
    longest = width * height * 4 + width * height // 64 + 65536
    yield Op.PASS, limited(int.from_bytes(head, "big"), longest, "ZRLE data")


def _cursor(stream: ServerFilter, width: int, height: int) -> Rules:
    limited(max(width, height), MAX_CURSOR, "pointer picture")
    yield Op.PASS, width * height * 4 + (width + 7) // 8 * height


def _desktop_name(stream: ServerFilter, width: int, height: int) -> Rules:
    head = yield Op.READ, 4
    stream.emit(head)
    yield Op.PASS, limited(int.from_bytes(head, "big"), MAX_NAME, "name of the desktop")


def _extended_desktop_size(stream: ServerFilter, width: int, height: int) -> Rules:
    head = yield Op.READ, 4
    stream.emit(head)
    yield Op.PASS, 16 * head[0]


def _tight(stream: ServerFilter, width: int, height: int) -> Rules:
    control = yield Op.READ, 1
    stream.emit(control)
    kind = control[0] >> 4
    if kind == 0x8:  # one colour
        yield Op.PASS, 3
    elif kind == 0x9:  # JPEG
        yield from _tight_data(stream, width * height * 4 + 65536)
    elif kind < 0x8:
        yield from _tight_basic(stream, width, height, has_filter=bool(kind & 0x4))
    else:
        raise Violation(f"unknown Tight control {control[0]}")


def _tight_basic(stream: ServerFilter, width: int, height: int, *, has_filter: bool) -> Rules:
    number = 0
    if has_filter:
        chosen = yield Op.READ, 1
        stream.emit(chosen)
        number = chosen[0]
    if number == 1:  # palette
        count = yield Op.READ, 1
        stream.emit(count)
        colours = count[0] + 1
        yield Op.PASS, 3 * colours
        size = ((width + 7) // 8 if colours <= 2 else width) * height
    elif number in {0, 2}:  # copy, gradient
        size = width * height * 3
    else:
        raise Violation(f"unknown Tight filter {number}")
    if size < 12:
        yield Op.PASS, size
    else:
        yield from _tight_data(stream, size + size // 64 + 65536)


def _tight_data(stream: ServerFilter, longest: int) -> Rules:
    length = shift = 0
    for last in (False, False, True):
        part = yield Op.READ, 1
        stream.emit(part)
        length |= (part[0] if last else part[0] & 0x7F) << shift
        shift += 7
        if not part[0] & 0x80:
            break
    yield Op.PASS, limited(length, longest, "Tight data")


_SERVER_RULES: dict[int, Callable[[ServerFilter, bytes], Rules]] = {
    0: _update,
    2: _bare,  # Bell
    3: _server_cut_text,
    150: _bare,  # EndOfContinuousUpdates
    248: pass_fence,
}
_RECTANGLES: dict[int, Callable[[ServerFilter, int, int], Rules]] = {
    RAW: _raw,
    COPY_RECT: _copy_rect,
    TIGHT: _tight,
    ZRLE: _zrle,
    CURSOR: _cursor,
    DESKTOP_SIZE: _nothing,
    QEMU_KEY: _nothing,
    QEMU_LED: _one_byte,
    DESKTOP_NAME: _desktop_name,
    EXTENDED_DESKTOP_SIZE: _extended_desktop_size,
}
