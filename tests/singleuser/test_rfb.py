"""Properties of the RFB filters: nothing unknown passes, in any fragments, and a viewer is only a viewer."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visahub.singleuser import rfb
from visahub.singleuser.rfb import ClientFilter, Filter, Role, Violation
from visahub.singleuser.rfb_server import ServerFilter

from . import rfb_client as client

u16 = st.integers(0, 65535)
INPUT = [
    client.key(0x61, down=True),
    client.pointer(10, 20, 1),
    client.qemu_key(0x61, 0x1E, down=True),
]
CONTROL = [*INPUT, client.cut_text(b"secret"), client.set_desktop_size(800, 600)]
NEUTRAL = [
    client.update_request(),
    b"\0\0\0\0" + client.PIXEL_FORMAT,
    struct.pack(">BBHHHH", 150, 1, 0, 0, 640, 480),
    struct.pack(">BxxxIB", 248, 1, 4) + b"echo",
]


def through(stream: Filter, pieces: Iterable[bytes]) -> bytes:
    return b"".join(stream.feed(piece) for piece in pieces)


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def client_filter(role: Role, inputs: list[int] | None = None) -> ClientFilter:
    return ClientFilter(role, lambda: None if inputs is None else inputs.append(1))


messages = st.lists(st.sampled_from([*CONTROL, *NEUTRAL, b"\xfa\0\x01\x02"]), max_size=12)


@given(messages, st.lists(st.integers(0, 30), max_size=40))
def test_a_viewer_changes_nothing_however_it_is_cut(sent: list[bytes], sizes: list[int]) -> None:
    inputs: list[int] = []
    seen = through(client_filter(Role.VIEWER, inputs), split(b"".join(sent), sizes))
    assert seen == b"".join(message for message in sent if message in NEUTRAL)
    assert inputs == []


@given(messages)
def test_a_controller_gets_everything_through_byte_by_byte(sent: list[bytes]) -> None:
    inputs: list[int] = []
    raw = b"".join(sent)
    seen = through(client_filter(Role.CONTROLLER, inputs), [raw[at : at + 1] for at in range(len(raw))])
    assert seen == b"".join(message for message in sent if message[0] != 250)
    assert len(inputs) == sum(message in INPUT for message in sent)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=60))
def test_only_known_encodings_pass(numbers: list[int]) -> None:
    for role in Role:
        seen = client_filter(role).feed(client.set_encodings(*numbers))
        count = struct.unpack(">H", seen[2:4])[0]
        kept = struct.unpack(f">{count}i", seen[4:])
        assert set(kept) <= rfb.ENCODINGS
        if role is Role.VIEWER:
            assert rfb.EXTENDED_CLIPBOARD not in kept
        else:
            assert list(kept) == [number for number in numbers if number in rfb.ENCODINGS]


@given(st.binary(max_size=400), st.sampled_from(list(Role)), st.lists(st.integers(0, 20), max_size=20))
@settings(max_examples=300)
def test_hostile_clients_are_followed_or_closed(raw: bytes, role: Role, sizes: list[int]) -> None:
    assert same_in_pieces(lambda: client_filter(role), raw, sizes)


@given(st.binary(max_size=400), st.sampled_from(list(Role)), st.lists(st.integers(0, 20), max_size=20))
@settings(max_examples=300)
def test_hostile_servers_are_followed_or_closed(raw: bytes, role: Role, sizes: list[int]) -> None:
    assert same_in_pieces(lambda: ServerFilter(role), raw, sizes)


def same_in_pieces(make: object, raw: bytes, sizes: list[int]) -> bool:
    """Cuts must not change what is decided, and little is kept."""
    results = []
    for pieces in ([raw], split(raw, sizes), [raw[at : at + 1] for at in range(len(raw))]):
        stream, out, ended = make(), b"", ""  # type: ignore[operator]
        try:
            for piece in pieces:
                out += stream.feed(piece)
        except Violation as error:
            ended = str(error)
        assert len(stream._pending) <= 8 * rfb.MAX_ENCODINGS
        results.append((ended, b"" if ended else out))
    return results[0] == results[1] == results[2]


@st.composite
def rectangles(draw: st.DrawFn) -> bytes:
    """One rectangle of an encoding that the gate allows."""
    width, height = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    kind = draw(
        st.sampled_from([rfb.RAW, rfb.COPY_RECT, rfb.ZRLE, rfb.CURSOR, rfb.DESKTOP_NAME, rfb.QEMU_LED, "tight"])
    )
    if kind == "tight":
        body, number = draw(tight(width, height)), rfb.TIGHT
    else:
        number = int(kind)
        body = {
            rfb.RAW: bytes(width * height * 4),
            rfb.COPY_RECT: bytes(4),
            rfb.ZRLE: struct.pack(">I", 7) + bytes(7),
            rfb.CURSOR: bytes(width * height * 4 + (width + 7) // 8 * height),
            rfb.DESKTOP_NAME: struct.pack(">I", 3) + b"abc",
            rfb.QEMU_LED: b"\1",
        }[number]
    return struct.pack(">HHHHi", draw(u16), draw(u16), width, height, number) + body


@st.composite
def tight(draw: st.DrawFn, width: int, height: int) -> bytes:
    kind = draw(st.sampled_from(["fill", "jpeg", "copy", "palette", "gradient"]))
    data = draw(st.binary(min_size=12, max_size=300))
    if kind == "fill":
        return b"\x80abc"
    if kind == "jpeg":
        return b"\x90" + compact(len(data)) + data
    if kind == "palette":
        colours = draw(st.integers(1, 256))
        size = ((width + 7) // 8 if colours <= 2 else width) * height
        head = b"\x40\x01" + bytes([colours - 1]) + bytes(3 * colours)
    else:
        size = width * height * 3
        head = b"\x00" if kind == "copy" else b"\x40\x02"
    return head + (bytes(size) if size < 12 else compact(len(data)) + data)


def compact(length: int) -> bytes:
    if length < 128:
        return bytes([length])
    if length < 16384:
        return bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])


@st.composite
def server_messages(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["update", "last", "bell", "fence", "end"]))
    if kind == "bell":
        return b"\2"
    if kind == "end":
        return b"\x96"
    if kind == "fence":
        return struct.pack(">BxxxIB", 248, 1, 3) + b"abc"
    rects = draw(st.lists(rectangles(), max_size=5))
    if kind == "last":
        return struct.pack(">BxH", 0, 65535) + b"".join(rects) + struct.pack(">HHHHi", 0, 0, 0, 0, rfb.LAST_RECT)
    return struct.pack(">BxH", 0, len(rects)) + b"".join(rects)


@given(st.lists(server_messages(), max_size=6), st.lists(st.integers(0, 50), max_size=40))
def test_what_a_server_says_arrives_unchanged(sent: list[bytes], sizes: list[int]) -> None:
    raw = b"".join(sent)
    assert through(ServerFilter(Role.VIEWER), split(raw, sizes)) == raw


def test_a_viewer_gets_no_clipboard() -> None:
    text = struct.pack(">Bxxxi", 3, 6) + b"secret"
    extended = struct.pack(">Bxxxi", 3, -8) + bytes(8)
    assert ServerFilter(Role.VIEWER).feed(text + extended + b"\2") == b"\2"
    assert ServerFilter(Role.CONTROLLER).feed(text + extended + b"\2") == text + extended + b"\2"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x07",
        b"\xff\x01",
        struct.pack(">Bxxxi", 6, rfb.MAX_CUT_TEXT + 1),
        struct.pack(">Bxxxi", 6, -(2**31)),
        struct.pack(">BxH", 2, rfb.MAX_ENCODINGS + 1),
        struct.pack(">BxxxIB", 248, 0, rfb.MAX_FENCE + 1),
        b"\0\0\0\0" + struct.pack(">BBBBHHHBBB3x", 8, 8, 0, 0, 7, 7, 3, 0, 3, 6),
        struct.pack(">BxHHBx", 251, 100, 100, rfb.MAX_SCREENS + 1),
        struct.pack(">BxHHBx", 251, 60000, 100, 1),
    ],
    ids=["unknown", "qemu audio", "long text", "longest text", "encodings", "fence", "colours", "screens", "size"],
)
def test_what_is_not_allowed_closes(raw: bytes) -> None:
    for role in Role:
        with pytest.raises(Violation):
            client_filter(role).feed(raw)


@pytest.mark.parametrize("number", [2, 5, 6, 21, 50, -260, -309, -316, 0x574D5664])
def test_rectangles_of_unknown_length_close(number: int) -> None:
    with pytest.raises(Violation):
        ServerFilter(Role.CONTROLLER).feed(struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, number))


def test_a_changed_role_holds_from_the_next_message_on() -> None:
    stream = client_filter(Role.CONTROLLER)
    press = client.key(0x61, down=True)
    assert stream.feed(press) == press
    stream.role = Role.VIEWER
    assert stream.feed(press) == b""
