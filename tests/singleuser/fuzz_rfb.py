"""Feeds the gate's parsers with what a fuzzer guided by coverage thinks up: `fuzz_rfb.py client|server|frames [...]`.

Further words are libFuzzer's. A crash, a leak of input from a viewer, or a stream that is judged differently when it
comes in other pieces ends it with another status than 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["visahub.singleuser"]):
    from visahub.singleuser import rfb, rfb_server, websocket

_LONGEST_PENDING = 8 * rfb.MAX_ENCODINGS
Result = tuple[str, bytes]


def through(stream: rfb.Filter, raw: bytes, size: int) -> Result:
    """Gives why a stream ended and what had passed of it."""
    out = b""
    try:
        for at in range(0, len(raw), size):
            out += stream.feed(raw[at : at + size])
            assert len(stream._pending) <= _LONGEST_PENDING, "too much is kept"
    except rfb.Violation as error:
        return str(error), b""
    return "", out


def check_client(raw: bytes) -> None:
    """A viewer's input never passes, and what passes of a controller's passes a second time unchanged."""
    inputs: list[int] = []
    for role in rfb.Role:
        results = {
            through(rfb.ClientFilter(role, lambda: inputs.append(1)), raw, size) for size in (1, 7, len(raw) + 1)
        }
        assert len(results) == 1, "pieces decide"
        if role is rfb.Role.VIEWER:
            assert not inputs, "a viewer's input was counted"
            ended, passed = results.pop()
            again = rfb.ClientFilter(rfb.Role.CONTROLLER, lambda: inputs.append(1))
            assert again.feed(passed) == passed
            assert not inputs, "a viewer's input passed"
        else:
            ended, passed = results.pop()
            assert ended or rfb.ClientFilter(role, lambda: None).feed(passed) == passed
        inputs.clear()


def check_server(raw: bytes) -> None:
    """What passes is a stream that passes a second time, and a viewer gets no clipboard."""
    for role in rfb.Role:
        results = {through(rfb_server.ServerFilter(role), raw, size) for size in (1, 7, len(raw) + 1)}
        assert len(results) == 1, "pieces decide"
        ended, passed = results.pop()
        if not ended:
            for other in rfb.Role:
                if other is role or role is rfb.Role.VIEWER:
                    assert rfb_server.ServerFilter(other).feed(passed) == passed


def check_frames(raw: bytes) -> None:
    """A websocket's frames: pieces decide nothing, and control frames stay short."""
    results = set()
    for size in (1, 7, len(raw) + 1):
        frames, out, ended = websocket.Frames(), b"", ""
        try:
            for at in range(0, len(raw), size):
                out += frames.feed(memoryview(raw)[at : at + size])
                assert len(frames._head) <= 14, "too long a head"
                assert len(frames._control) <= 125, "too long a control frame"
        except rfb.Violation as error:
            ended = str(error)
        results.add((ended, b"" if ended else out, frames.is_closed, b"".join(frames.pings) if not ended else b""))
    assert len(results) == 1, "pieces decide"


CHECKS: dict[str, Callable[[bytes], None]] = {"client": check_client, "server": check_server, "frames": check_frames}


def main() -> None:
    check = CHECKS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
