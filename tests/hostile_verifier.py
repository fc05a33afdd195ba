"""A verifier function that misbehaves as its answer tells it; run by path in the workers of the tests."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
import time

kept = []


def say(data):
    """Write to every socket this process has."""
    for fd in range(3, 100):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, data)
        except OSError:
            pass


def note(path, pid):
    with open(path, "a") as file:
        file.write(f"{pid} ")


def keeper():
    with open(f"/proc/{os.getppid()}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def f(answer, gold):
    """Does what the answer says."""
    what, _, rest = answer.partition(" ")
    while what == "loop":
        pass
    if what == "sleep":
        time.sleep(float(rest))
    if what == "bytes":
        bytearray(int(rest) << 20)
    if what == "swallow":
        try:
            bytearray(int(rest) << 20)
        except MemoryError:
            return 0.0
    if what == "shared":
        mmap.mmap(-1, int(rest) << 20)
    if what == "keep":
        kept.append(bytearray(int(rest) << 20))
    if what == "child":
        subprocess.run([sys.executable, "-c", f"bytearray({rest} << 20)"], check=True)
    if what == "file":
        with open(rest, "wb") as file:
            file.seek(1 << 31)
            file.write(b"x")
    if what == "print":
        for _ in range(int(rest)):
            sys.stdout.write("y" * 1_000_000)
            sys.stderr.write("z" * 1_000_000)
    if what == "print_ever":
        while True:
            os.write(1, b"y" * 65536)
    if what == "surrogate":
        sys.stdout.write(chr(0xD800) + "\n")
    if what == "session":
        note(rest, subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
        while True:
            time.sleep(1)
    if what in ("daemon", "daemon_hang"):
        if os.fork() == 0:
            os.setsid()
            daemon = os.fork()
            if daemon == 0:
                os.closerange(0, 100)
                while True:
                    time.sleep(1)
            note(rest, daemon)
            os._exit(0)
        os.wait()
        while what == "daemon_hang":
            pass
    if what == "fork_and_exit" and os.fork() == 0:
        note(rest, os.getpid())
        sys.exit(0)
    if what == "fork_and_return" and os.fork() == 0:
        note(rest, os.getpid())
        return 7
    if what == "swap" and os.fork():
        os._exit(0)
    replies = {
        "garbage": bytes([255, 0]) + b" garbage",
        "partial": b'{"score":',
        "list": b"[1, 2]",
        "number": b"7",
        "deep": b"[" * 60_000,
        "lie": b'{"score": 7.0, "spent": false}',
        "null": b"null",
        "newline": b"",
        "other": b'{"score": 7.0, "spent": false, "nonce": "0123456789abcdef"}',
    }
    if what in replies:
        say(replies[what] + b"\n")
    while what == "flood":
        say(b"x" * 60_000)
    if what == "later":
        threading.Timer(0.05, say, [replies["other"] + b"\n"]).start()
    if what == "close":
        os.closerange(0, 1000)
    if what == "patch":
        json.dumps = None
    if what == "kill_loader":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(5)
    if what == "kill_keeper":
        os.kill(keeper(), signal.SIGKILL)
        time.sleep(5)
    if what == "kill_keeper_later":
        threading.Timer(0.05, os.kill, [keeper(), signal.SIGKILL]).start()
    if what == "segv":
        ctypes.string_at(0)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(5)
    if what == "pid":
        return os.getpid()
    return 1.0
