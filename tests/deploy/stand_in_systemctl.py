"""In systemctl's place where no systemd runs: starts and stops what the units in $UNITS say, by their own lines.

Of a unit it does what the installation depends on: the user and the groups, the environment file, the folders,
waiting for READY=1, TERM for the main process only; and of the sandbox what a process can do to itself: no new
privileges, the filter of system calls, no memory that is both written and run. nginx is started with
$NGINX_FOLDER/nginx.conf.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 60.0
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65  # prctl(2)
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # seccomp_init(3): allow, and EPERM
STATE = Path(os.environ["STAND_IN_STATE"])


def main(arguments: list[str]) -> int:
    command, *names = [argument for argument in arguments if not argument.startswith("--")]
    if command == "daemon-reload":
        return 0
    actions = {"enable": [start], "start": [start], "stop": [stop], "restart": [stop, start]}
    if command == "is-active":
        for name in names:
            print("active" if running_pid(name) else "inactive")  # noqa: T201
        return 0
    for action in actions[command]:
        for name in names:
            action(name)
    return 0


def running_pid(name: str) -> int | None:
    try:
        pid = int((STATE / f"{name}.pid").read_text())
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if status == "Z" else pid


def start(name: str) -> None:
    if name == "nginx":
        folder = Path(os.environ["NGINX_FOLDER"])
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        (STATE / f"{name}.pid").write_text(str(process.pid))
        port = int(os.environ["HTTPS_PORT"])
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        return
    unit = (Path(os.environ["UNITS"]) / f"{name}.service").read_text()

    def line(key: str) -> str:
        [value] = re.findall(rf"^{key}=(.+)$", unit, re.MULTILINE) or [""]
        return str(value)

    account = pwd.getpwnam(line("User"))
    gid = grp.getgrnam(line("Group")).gr_gid
    more = [grp.getgrnam(group).gr_gid for group in line("SupplementaryGroups").split()]
    groups = sorted({*os.getgrouplist(account.pw_name, gid), *more})
    if runtime := line("RuntimeDirectory"):
        folder = Path(os.environ["PREFIX"]) / "run" / runtime
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(int(line("RuntimeDirectoryMode"), 8))
        os.chown(folder, account.pw_uid, gid)
    pairs = [row.partition("=") for row in Path(line("EnvironmentFile")).read_text().splitlines()]
    environment = {key: value for key, _, value in pairs}
    notify = STATE / f"{name}.notify"
    notify.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, (STATE / f"{name}.log").open("ab") as log:
        told.bind(str(notify))
        notify.chmod(0o666)
        told.settimeout(PATIENCE_SECONDS)
        libc, seccomp = ctypes.CDLL(None), system_call_filter(unit)
        refuses_run_memory = line("MemoryDenyWriteExecute") == "yes"

        def enter_sandbox() -> None:
            if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
                os._exit(126)
            if refuses_run_memory:
                libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3 and newer
            if seccomp is not None and seccomp[0].seccomp_load(seccomp[1]):
                os._exit(126)

        process = subprocess.Popen(
            shlex.split(line("ExecStart")),
            cwd=line("WorkingDirectory"),
            env={"PATH": "/usr/bin:/bin", "HOME": account.pw_dir, "NOTIFY_SOCKET": str(notify), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=account.pw_uid,
            group=gid,
            extra_groups=groups,
            umask=int(line("UMask"), 8),
            start_new_session=True,
            preexec_fn=enter_sandbox,
        )
        (STATE / f"{name}.pid").write_text(str(process.pid))
        while "READY=1" not in told.recv(4096).decode().splitlines():
            pass


def system_call_filter(unit: str) -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """The unit's SystemCallFilter= as systemd would build it; None where libseccomp or systemd-analyze is missing."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
        listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    groups: dict[str, list[str]] = {}
    for row in listed.stdout.splitlines():
        if row.startswith("@"):
            group = groups.setdefault(row.strip(), [])
        elif row.startswith(" ") and not row.strip().startswith("#"):
            group.append(row.strip())

    def calls(name: str) -> set[str]:
        return set().union(*map(calls, groups[name])) if name.startswith("@") else {name}

    rows = re.findall(r"^SystemCallFilter=(~?)(.+)$", unit, re.MULTILINE)
    is_allow_list = not rows[0][0]
    chosen = calls("@default") if is_allow_list else set()
    for sign, names in rows:
        for name in names.split():
            chosen = chosen - calls(name) if bool(sign) == is_allow_list else chosen | calls(name)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE if is_allow_list else ALLOW)))
    for name in sorted(chosen):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            action = ctypes.c_uint32(ALLOW if is_allow_list else REFUSE)
            assert library.seccomp_rule_add(context, action, number, 0) == 0, name
    return library, context


def stop(name: str) -> None:
    pid = running_pid(name)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: running_pid(name) is None)


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("the stand-in for systemctl waited in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
