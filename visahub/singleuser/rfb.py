"""What may pass between a viewer and the display server: RFB messages by allow-list, without any I/O. Used by the gate.

Both directions are followed message by message, so that nothing unknown passes and the next message is always found.
For that the gate fixes what decides the formats: RFB 3.8, 32 bits per pixel, and the encodings below.
Sizes and numbers: https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from enum import Enum, StrEnum
from functools import partial
from typing import Any

# The longest clipboard text, the longest name, the most encodings and screens, and the largest side of a screen.
MAX_CUT_TEXT = 1 << 20
MAX_NAME = 4096
MAX_ENCODINGS = 256
MAX_SCREENS = 16
MAX_SIDE = 16384
MAX_CURSOR = 512
MAX_FENCE = 64

COPY_RECT, RAW, TIGHT, ZRLE = 1, 0, 7, 16
DESKTOP_SIZE, LAST_RECT, CURSOR, QEMU_KEY, QEMU_LED = -223, -224, -239, -258, -261
DESKTOP_NAME, EXTENDED_DESKTOP_SIZE, FENCE, CONTINUOUS_UPDATES = -307, -308, -312, -313
EXTENDED_CLIPBOARD = 0xC0A1E5CE - (1 << 32)
_LEVELS = frozenset((*range(-32, -22), *range(-256, -246)))  # JPEG quality and compression
# Left out on purpose: xvp (it can shut the machine down), ExtendedMouseButtons (it changes the length of pointer
# events), and encodings whose data have no length of their own.
ENCODINGS = (
    frozenset(
        (
            RAW,
            COPY_RECT,
            TIGHT,
            ZRLE,
            DESKTOP_SIZE,
            LAST_RECT,
            CURSOR,
            QEMU_KEY,
            QEMU_LED,
            DESKTOP_NAME,
            EXTENDED_DESKTOP_SIZE,
            FENCE,
            CONTINUOUS_UPDATES,
            EXTENDED_CLIPBOARD,
        )
    )
    | _LEVELS
)
_VIEWER_ENCODINGS = ENCODINGS - {QEMU_KEY, EXTENDED_CLIPBOARD}

_PIXEL_FORMAT = struct.Struct(">BBBBHHHBBB3x")


class Role(StrEnum):
    """What a connection may do."""

    CONTROLLER = "controller"
    VIEWER = "viewer"


class Violation(Exception):
    """A message that is not allowed; the connection ends."""


class Op(Enum):
    """What a rule asks for: bytes to read, to let through unseen, or to take away."""

    READ = 1
    PASS = 2
    DROP = 3


Rules = Generator[tuple[Op, int], bytes, None]


class Filter:
    """One direction of one connection: `feed` takes what came, in any pieces, and gives what may go on.

    At most one message head is kept, everything longer streams through: memory stays flat.
    """

    def __init__(self, rules: Callable[[Any], Rules]) -> None:
        self._out: list[bytes | memoryview] = []
        self._pending = b""
        self._rules = rules(self)
        self._op, self._left = next(self._rules)

    def emit(self, data: bytes) -> None:
        """Lets a rule send what it has read."""
        self._out.append(data)

    def feed(self, data: bytes | memoryview) -> bytes:
        """Gives what may pass of the stream so far; raises Violation."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """Gives the same in pieces, of which the long ones are parts of `data` itself; raises Violation."""
        view = memoryview(self._pending + data if self._pending else data)
        at, end = 0, len(view)
        while True:
            if self._op is Op.READ:
                if end - at < self._left:
                    break
                chunk = bytes(view[at : at + self._left])
                at += self._left
            else:
                step = min(self._left, end - at)
                if step and self._op is Op.PASS:
                    self._out.append(view[at : at + step])
                at += step
                self._left -= step
                if self._left:
                    break
                chunk = b""
            self._op, self._left = self._rules.send(chunk)
        self._pending = bytes(view[at:])
        out, self._out = self._out, []
        return out


class ClientFilter(Filter):
    """From the browser to the display server. `role` may be changed at any time and holds from the next message on."""

    def __init__(self, role: Role, on_input: Callable[[], None]) -> None:
        self.role = role
        self._on_input = on_input
        super().__init__(_client_rules)

    @property
    def is_controller(self) -> bool:
        return self.role is Role.CONTROLLER

    def note_input(self) -> None:
        """Counts a key press or pointer movement that is let through."""
        self._on_input()


def check_pixel_format(raw: bytes) -> None:
    """Allows 24-bit colour in 32 bits only: then every later length can be told."""
    bits, depth, _big, true_colour, red, green, blue, *shifts = _PIXEL_FORMAT.unpack(raw)
    if (bits, depth, bool(true_colour), red, green, blue) != (32, 24, True, 255, 255, 255) or max(shifts) > 24:
        raise Violation("only 24-bit colour is allowed")


def limited(length: int, longest: int, what: str) -> int:
    """Gives the length; raises Violation when it is longer than what is reasonable."""
    if length > longest:
        raise Violation(f"{what} is too long: {length}")
    return length


def _client_rules(stream: ClientFilter) -> Rules:
    while True:
        kind = yield Op.READ, 1
        rule = _CLIENT_RULES.get(kind[0])
        if rule is None:
            raise Violation(f"unknown client message {kind[0]}")
        yield from rule(stream, kind)


def _set_pixel_format(stream: ClientFilter, kind: bytes) -> Rules:
    body = yield Op.READ, 19
    check_pixel_format(body[3:])
    stream.emit(kind + body)


def _set_encodings(stream: ClientFilter, kind: bytes) -> Rules:
    head = yield Op.READ, 3
    count = limited(int.from_bytes(head[1:], "big"), MAX_ENCODINGS, "list of encodings")
    body = yield Op.READ, 4 * count
    allowed = ENCODINGS if stream.is_controller else _VIEWER_ENCODINGS
    kept = [number for number in struct.unpack(f">{count}i", body) if number in allowed]
    stream.emit(kind + struct.pack(f">xH{len(kept)}i", len(kept), *kept))


def _input(stream: ClientFilter, kind: bytes, *, length: int) -> Rules:
    body = yield Op.READ, length
    if stream.is_controller:
        stream.note_input()
        stream.emit(kind + body)


def _plain(stream: ClientFilter, kind: bytes, *, length: int) -> Rules:
    stream.emit(kind + (yield Op.READ, length))


def _client_cut_text(stream: ClientFilter, kind: bytes) -> Rules:
    head = yield Op.READ, 7
    # A negative length marks the extended clipboard.
    length = limited(abs(int.from_bytes(head[3:], "big", signed=True)), MAX_CUT_TEXT, "clipboard text")
    if stream.is_controller:
        stream.emit(kind + head)
        yield Op.PASS, length
    else:
        yield Op.DROP, length


def pass_fence(stream: Filter, kind: bytes) -> Rules:
    """Lets a fence through, which both sides send."""
    head = yield Op.READ, 8
    stream.emit(kind + head)
    yield Op.PASS, limited(head[7], MAX_FENCE, "fence")


def _set_desktop_size(stream: ClientFilter, kind: bytes) -> Rules:
    head = yield Op.READ, 7
    width, height, screens = struct.unpack(">xHHBx", head)
    limited(max(width, height), MAX_SIDE, "screen")
    body = yield Op.READ, 16 * limited(screens, MAX_SCREENS, "list of screens")
    if stream.is_controller:
        stream.emit(kind + head + body)


def _xvp(stream: ClientFilter, kind: bytes) -> Rules:
    yield Op.DROP, 3


def _qemu(stream: ClientFilter, kind: bytes) -> Rules:
    sub = yield Op.READ, 1
    if sub != b"\0":
        raise Violation(f"unknown QEMU message {sub[0]}")
    body = yield Op.READ, 10
    if stream.is_controller:
        stream.note_input()
        stream.emit(kind + sub + body)


_CLIENT_RULES: dict[int, Callable[[ClientFilter, bytes], Rules]] = {
    0: _set_pixel_format,
    2: _set_encodings,
    3: partial(_plain, length=9),  # FramebufferUpdateRequest
    4: partial(_input, length=7),  # KeyEvent
    5: partial(_input, length=5),  # PointerEvent
    6: _client_cut_text,
    150: partial(_plain, length=9),  # EnableContinuousUpdates
    248: pass_fence,
    250: _xvp,
    251: _set_desktop_size,
    255: _qemu,
}
