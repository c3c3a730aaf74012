"""What an account may try against a Hub that runs as root beside it: X7, X11, X15 and X21 of the local backend."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import grp
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visahub.backends import local_processes as processes
from visahub.backends.local_accounts import is_system_group, unix_person
from visahub.backends.local_remove import remove_tree
from visahub.backends.local_runs import Record, Runs
from visahub.model.errors import Failed
from visahub.model.launch import Launch, Seen

from .conftest import IS_ROOT, LocalWorld
from .contract import started
from .local_world import as_ada, as_root, experiment, experiments, may_read, runnable, runtime, server_of, until

pytestmark = runnable


def as_account(local: LocalWorld, program: str, *words: str) -> subprocess.Popen[bytes]:
    """Runs a Python program as the account of the tests."""
    ids = [f"--reuid={local.ada.uid}", f"--regid={local.ada.gid}", "--clear-groups"] if IS_ROOT else []
    prefix = ["setpriv", *ids] if ids else []
    return subprocess.Popen([*prefix, local.python, "-S", "-c", program, *words], cwd="/")


async def prepared(local: LocalWorld) -> Launch:
    """Starts and stops once, so that account and home exist; gives the launch of the next start."""
    backend = local.backend()
    first = local.launch()
    await started(backend, first)
    await backend.stop(first.attempt, {})
    return local.launch(experiments=(experiment(local, "e1", "p1"),))


@as_root
async def test_x11_a_second_name_of_the_socket_planted_beforehand_is_never_followed(local: LocalWorld) -> None:
    """The proxy spells the socket "s:80". What the account puts there before the directory is taken must go."""
    launch, backend = local.launch("mute"), local.backend()
    task = asyncio.create_task(started(backend, launch))
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    web = runtime(local, launch).parent / "w"
    trap = local.root / "trap"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(trap))
        trap.chmod(0o777)
        other.listen()
        assert not as_ada(local, "ln", "-s", str(trap), str(web / "s:80"))
        server = as_account(local, ANSWERING, str(web / "s"))
        try:
            await task
            assert os.readlink(web / "s:80") == "s"
            assert (web / "s:80").lstat().st_uid == 0
        finally:
            server.kill()
            server.wait()


ANSWERING = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o600)
server.listen()
while True:
    client, _ = server.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}")
    client.close()
"""


@as_root
async def test_x11_a_filled_directory_in_the_place_of_the_second_name_is_refused(local: LocalWorld) -> None:
    launch, backend = local.launch("mute"), local.backend()
    task = asyncio.create_task(started(backend, launch))
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    web = runtime(local, launch).parent / "w"
    assert not as_ada(local, "mkdir", "-p", str(web / "s:80" / "x"))
    server = as_account(local, ANSWERING, str(web / "s"))
    try:
        with pytest.raises(Failed, match="not its own"):
            await task
        assert (await backend.look())[launch.attempt].seen is Seen.STARTING
        await backend.stop(launch.attempt, {})
        assert local.runs() == []
    finally:
        server.kill()
        server.wait()


@as_root
async def test_x11_a_hub_killed_while_it_took_the_directory_takes_it_whole_next_time(local: LocalWorld) -> None:
    launch, backend = local.launch(), local.backend()
    await started(backend, launch)
    web = runtime(local, launch).parent / "w"
    # As after the first of two steps: root's already, but with the mode that the account had given it.
    web.chmod(0o777)
    assert (await backend.look())[launch.attempt].seen is Seen.RUNNING
    assert stat.S_IMODE(web.stat().st_mode) == 0o711
    assert as_ada(local, "rm", "-f", str(web / "s")) != 0


@as_root
async def test_x11_a_link_to_a_socket_of_another_account_is_not_taken(local: LocalWorld) -> None:
    """A hard link to somebody else's socket, or to one of the account's own that another program serves."""
    launch, backend = local.launch("mute"), local.backend()
    task = asyncio.create_task(started(backend, launch))
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    web, shared = runtime(local, launch).parent / "w", local.root / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    server = as_account(local, ANSWERING, str(shared / "own"))
    try:
        await until(lambda: (shared / "own").exists())
        assert not as_ada(local, "ln", str(shared / "own"), str(web / "s"))
        await asyncio.sleep(0.3)
        assert not task.done()
        assert (await backend.look())[launch.attempt].seen is Seen.STARTING
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.kill()
        server.wait()


PLANTED = """
import json, os, sys
folder, what = sys.argv[1:]
path = os.path.join(folder, ".visahub-links.json")
os.unlink(path)
if what == "pipe":
    os.mkfifo(path)
elif what == "zero":
    os.symlink("/dev/zero", path)
elif what == "deep":
    open(path, "w").write("[" * 900_000)
elif what == "names":
    open(path, "w").write(json.dumps({"../../secret": "/x", "..": "/x", "a/b": "/x", "\\0": "\\udcff", "ok": 5}))
"""


@pytest.mark.parametrize("what", ["pipe", "zero", "deep", "names"])
async def test_x11_what_stands_in_place_of_the_list_of_links_holds_nobody_up(local: LocalWorld, what: str) -> None:
    launch = await prepared(local)
    folder = local.home() / "experiments"
    planter = as_account(local, PLANTED, str(folder), what)
    assert planter.wait(30) == 0
    began = time.monotonic()
    await started(local.backend(), launch)
    # 30 s is how long a home may be silent.
    assert time.monotonic() - began < 25
    assert experiments(local, launch)[0]["link"] == "experiments/p1"


SWAPPING = """
import os, sys
home, secret = sys.argv[1:]
folder, link = os.path.join(home, "experiments"), os.path.join(home, "link")
os.symlink(secret, link)
while True:
    for target in (folder, link):
        try:
            os.rename(folder, folder + ".own")
            os.rename(link, folder)
            os.rename(folder, link)
            os.rename(folder + ".own", folder)
        except OSError:
            pass
"""


@as_root
async def test_x11_a_folder_swapped_for_a_link_while_links_are_made_leads_nowhere(local: LocalWorld) -> None:
    launch = await prepared(local)
    secret = local.root / "secret"
    secret.mkdir(mode=0o700)
    (secret / "p1").write_text("precious")
    swapper = as_account(local, SWAPPING, str(local.home()), str(secret))
    try:
        for _ in range(6):
            with contextlib.suppress(Failed):
                backend = local.backend()
                await started(backend, launch)
                await backend.stop(launch.attempt, {})
            launch = local.launch(experiments=launch.experiments)
    finally:
        swapper.kill()
        swapper.wait()
    assert [path.name for path in secret.iterdir()] == ["p1"]
    assert (secret / "p1").read_text() == "precious"
    assert secret.stat().st_uid == 0


@as_root
async def test_x11_nothing_that_root_writes_lies_where_the_account_may_write(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    run = runtime(local, launch).parent
    for name in ("record.json", "log", "pid"):
        seen = (run / name).lstat()
        assert (seen.st_uid, stat.S_IMODE(seen.st_mode)) == (0, 0o600), name
        for command in (["rm", "-f"], ["ln", "-sf", "/etc/passwd"], ["tee"], ["ln", str(run / name)]):
            words = [*command, str(run / name)] if command[0] != "ln" or len(command) == 3 else [*command, "/tmp/x"]
            assert as_ada(local, *words) != 0, words
    for path in (run, run.parent, run.parent.parent):
        assert path.lstat().st_uid == 0
        assert not path.lstat().st_mode & 0o022
        # Others pass and list nothing.
        assert as_ada(local, "ls", str(path)) != 0


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_x11_a_run_root_that_somebody_else_could_replace_is_refused(local: LocalWorld, mode: int) -> None:
    """Theirs above, ours below: they could rename ours and put their own there, after the check."""
    above = local.root / "above"
    above.mkdir()
    os.chown(above, local.ada.uid if mode == 0o755 else 0, 0)
    above.chmod(mode)
    runs = Runs(above / "run", "d")
    with pytest.raises(Failed, match="others could replace it"):
        runs.make(Record(attempt="abc", instance_id="i", uid=local.ada.uid, gid=local.ada.gid, home="/"))


@as_root
def test_x11_a_run_directory_that_somebody_else_made_is_none(local: LocalWorld) -> None:
    """Made before the Hub's own, for example in /tmp: what it says is not believed, and never removed."""
    base = local.root / "run" / local.deployment / "abcdefghijkl"
    base.mkdir(parents=True)
    record = {"attempt": "abcdefghijklmnop", "instance_id": "i", "uid": 0, "gid": 0, "home": "/root"}
    (base / "record.json").write_text(json.dumps(record))
    runs = Runs(local.root / "run", local.deployment)
    assert runs.get("abcdefghijklmnop") is not None
    for path in (base, base / "record.json"):
        os.chown(path, local.ada.uid, local.ada.gid)
        assert runs.get("abcdefghijklmnop") is None
        assert list(runs.all()) == []
        os.chown(path, 0, 0)
    (base / "record.json").rename(base / "other")
    (base / "record.json").symlink_to("other")
    with pytest.raises(OSError, match="symbolic"):
        runs.get("abcdefghijklmnop")
    (base / "record.json").unlink()


# --- the removal of what an account has filled ---


def nested(folder: Path, depth: int) -> None:
    """Makes a tree that is too deep for any path."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("leaf").write_text("x")
    finally:
        os.fchdir(before)
        os.close(before)


def test_x11_a_tree_of_any_depth_is_removed_with_few_open_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nested(tree, 3000)
    (tree / "closed").mkdir()
    (tree / "closed" / "file").write_text("x")
    (tree / "closed").chmod(0)
    os.mkfifo(tree / "pipe")
    (tree / "link").symlink_to(tmp_path)
    (tmp_path / "precious").write_text("42")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 64, hard))
    try:
        remove_tree(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(tmp_path) == ["precious"]
    remove_tree(tree)


@as_root
def test_x11_every_directory_is_taken_before_it_is_looked_into(
    local: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever still has it open could fill it for ever, or put another one in its place."""
    tree = local.root / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    for path in (tree / "a" / "b" / "leaf", tree / "leaf"):
        path.write_text("x")
    for path in (tree, tree / "a", tree / "a" / "b"):
        os.chown(path, local.ada.uid, local.ada.gid)
        path.chmod(0o777)
    seen = []
    real = os.scandir

    def looking(directory: int) -> object:
        at = os.fstat(directory)
        seen.append((at.st_uid, stat.S_IMODE(at.st_mode)))
        return real(directory)

    monkeypatch.setattr("visahub.backends.local_remove.os.scandir", looking)
    remove_tree(tree)
    assert not tree.exists()
    assert len(seen) >= 3
    assert set(seen) == {(0, 0o700)}


@as_root
async def test_x11_a_disk_mounted_in_the_run_directory_is_let_go_and_not_emptied(local: LocalWorld) -> None:
    """As `gvfs`, `sshfs` and others do below XDG_RUNTIME_DIR: their files are not the instance's."""
    launch, backend = local.launch(), local.backend()
    await started(backend, launch)
    disk, place = local.root / "disk", runtime(local, launch) / "deep" / "gvfs"
    disk.mkdir()
    place.mkdir(parents=True)
    if not mounted("-t", "tmpfs", "none", str(disk)):
        pytest.skip("nothing can be mounted here")
    (disk / "data").write_text("42")
    try:
        assert mounted("--bind", str(disk), str(place))
        await backend.stop(launch.attempt, {})
        assert local.runs() == []
        assert not list((local.root / "run" / local.deployment).glob(".gone-*"))
        assert (disk / "data").read_text() == "42"
    finally:
        for path in (place, disk):
            ctypes.CDLL(None).umount2(os.fsencode(path), 2)


def mounted(*words: str) -> bool:
    return subprocess.run(["mount", *words], check=False).returncode == 0


FILLING = """
import itertools, os, sys
os.chdir(sys.argv[1])
for number in itertools.count():
    try:
        os.makedirs(f"a/{number % 50}/b")
        open(f"a/{number % 50}/b/{number}", "w").close()
    except OSError:
        if not os.path.isdir("a"):
            try:
                os.mkdir("a")
            except OSError:
                pass
"""


@as_root
async def test_x11_a_directory_that_is_filled_meanwhile_is_removed_all_the_same(local: LocalWorld) -> None:
    """By a process of the account that does not belong to the instance, such as another instance of theirs."""
    launch, backend = local.launch(), local.backend()
    await started(backend, launch)
    filler = as_account(local, FILLING, str(runtime(local, launch)))
    try:
        await until(lambda: len(list(runtime(local, launch).glob("a/*"))) > 10)
        await asyncio.wait_for(backend.stop(launch.attempt, {}), 60)
        assert filler.poll() is None
        assert local.runs() == []
        assert not list((local.root / "run" / local.deployment).glob(".gone-*"))
        assert launch.attempt not in await backend.look()
    finally:
        filler.kill()
        filler.wait()


async def test_x11_what_could_not_be_removed_holds_nobody_up_and_goes_later(
    local: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, backend = local.launch(), local.backend()
    await started(backend, launch)
    with monkeypatch.context() as patch:
        patch.setattr("visahub.backends.local_runs.remove_tree", _busy)
        await backend.stop(launch.attempt, {})
    left = list((local.root / "run" / local.deployment).glob(".gone-*"))
    assert len(left) == 1
    assert local.runs() == []
    assert launch.attempt not in await backend.look()
    # The Hub after its next start.
    assert await local.backend().look() == {}
    assert not left[0].exists()


def _busy(path: Path) -> None:
    raise OSError(16, "Device or resource busy", str(path))


# --- hostile servers and processes ---


ENDLESS = """
import os, socket, sys
kind = sys.argv[2]
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o600)
server.listen()
while True:
    client, _ = server.accept()
    try:
        client.recv(65536)
        if kind == "body":
            client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            while True:
                client.sendall(bytes(1 << 20))
        client.sendall(b"HTTP/1.1 200 OK\\r\\n")
        while True:
            client.sendall(b"X-More: " + b"y" * 8000 + b"\\r\\n")
    except OSError:
        client.close()
"""


@pytest.mark.parametrize("kind", ["body", "headers"])
async def test_x21_an_answer_without_end_fills_no_memory_of_the_hub(local: LocalWorld, kind: str) -> None:
    """The account may put another program in its server's place: its home is read by Python at the start."""
    launch, backend = local.launch("mute"), local.backend()
    task = asyncio.create_task(started(backend, launch))
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    server = as_account(local, ENDLESS, str(runtime(local, launch).parent / "w" / "s"), kind)
    before = resident()
    try:
        if kind == "body":
            assert (await asyncio.wait_for(task, 30))[-1].percent == 95
        else:
            await asyncio.sleep(3)
            assert not task.done()
        assert resident() - before < 50 * 1024
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.kill()
        server.wait()


def resident() -> int:
    """Gives the memory of this process in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


@as_root
def test_x14_an_account_with_the_name_of_the_proxys_group_does_not_become_it(local: LocalWorld) -> None:
    """With an account comes a group of its name, which could be the one that may open everybody's sockets."""
    person = unix_person(local.ada, local.root / "home")
    assert grp.getgrnam(local.ada.username).gr_gid == person.gid
    assert not is_system_group(local.ada.username)
    assert not is_system_group("visahub-no-such-group")
    assert is_system_group("daemon")


@as_root
async def test_x15_nobody_else_reads_anything_of_an_instance(local: LocalWorld) -> None:
    """As another account: command lines, environments, the keeper's orders, sockets, files and directories."""
    launch = local.launch()
    await started(local.backend(), launch)
    run, other = runtime(local, launch).parent, 65_533
    assert may_read(Path("/proc/self/stat"), other), "the question itself works"
    members = [p.pid for p in processes.scan().values() if p.uid == local.ada.uid]
    assert len(members) >= 2
    for pid in members:
        for name in ("environ", "mem", "maps", "fd/0", "cwd", "root"):
            assert as_other("cat", f"/proc/{pid}/{name}").returncode != 0, name
        words = as_other("cat", f"/proc/{pid}/cmdline").stdout
        assert b"s3cret-token" not in words
        assert launch.attempt.encode() not in words
    assert b"s3cret-token" not in as_other("ps", "-eo", "args", "e", "ww").stdout
    for path in (run / "u", run / "record.json", run / "log", run / "pid", run, run.parent, local.home()):
        assert not may_read(path, other), path
    for name in ("s", "s:80"):
        probe = as_other(local.python, "-S", "-c", CONNECTING, str(run / "w" / name))
        assert probe.returncode == 13, name


def as_other(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as an account that has nothing to do with the instance."""
    return subprocess.run(["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", *words], capture_output=True)


CONNECTING = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    sys.exit(13)
"""


@as_root
async def test_x15_not_even_the_account_reads_the_keepers_memory(local: LocalWorld) -> None:
    """It was root's process: its orders hold the token, and its log is the Hub's file."""
    launch = local.launch()
    await started(local.backend(), launch)
    keeper = json.loads((runtime(local, launch).parent / "pid").read_text())["pid"]
    for name in ("mem", "environ", "fd/1", "fd/2"):
        assert as_ada(local, "cat", f"/proc/{keeper}/{name}") != 0, name
    # Its own server's environment is the account's to read.
    assert as_ada(local, "cat", f"/proc/{server_of(launch)}/environ") == 0


def test_x11_a_number_that_was_given_to_another_process_is_not_killed() -> None:
    """An account that starts many processes makes the kernel use its numbers again, between the look and the kill."""
    victim = subprocess.Popen(["sleep", "1000"])
    answers = iter([{victim.pid: 1}, {}])
    processes.end(lambda: next(answers), lambda: None, None)
    assert victim.poll() is None
    start = processes.scan()[victim.pid].started
    answers = iter([{victim.pid: start}, {}])
    processes.end(lambda: next(answers), lambda: None, None)
    assert victim.wait(10) == -signal.SIGKILL


def test_x21_huge_environments_of_processes_are_not_read_whole() -> None:
    program = shutil.which("sleep") or "/bin/sleep"
    filler = {f"A{number}": "x" * 100_000 for number in range(10)}
    process = subprocess.Popen([program, "1000"], env={**filler, "VISAHUB_ATTEMPT": "hidden"})
    try:
        asyncio.run(until(lambda: len(Path(f"/proc/{process.pid}/environ").read_bytes()) > 900_000))
        assert processes.scan()[process.pid].attempt == ""
    finally:
        process.kill()
        process.wait()


async def test_x7_last_words_obey_nobody(local: LocalWorld) -> None:
    """The last line of a log is shown on pages and kept in the database; a terminal must not obey it either."""
    words = "<script>alert(1)</script> \x1b[2J\x00\u202eabc\x9b31m"
    backend = local.backend(commands={"plain": [sys.executable if not IS_ROOT else local.python, "-S", "-c", SAYING]})
    launch = local.launch()
    assert words.encode()
    with pytest.raises(Failed) as raised:
        await started(backend, launch)
    for character in "\x1b\x00\u202e\x9b":
        assert character not in raised.value.log
    assert "<script>alert(1)</script> \ufffd[2J\ufffd\ufffdabc\ufffd31m" in raised.value.log
    sentence = (await backend.look())[launch.attempt].sentence
    assert sentence.isprintable()
    assert len(sentence) < 300


SAYING = r"""
import sys
sys.stdout.buffer.write("<script>alert(1)</script> \x1b[2J\x00\u202eabc\x9b31m\n".encode())
"""
