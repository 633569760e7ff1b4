#!/usr/bin/env python3
"""A `criu swrk FD` that does what behaviour.json beside it says, and appends
what it was asked to requests.json, a line each. It speaks CRIU's protocol
(images/rpc.proto) without using any of the runtime's code."""

import ctypes
import json
import os
import signal
import socket
import struct
import sys
import threading

HERE = os.path.dirname(os.path.realpath(__file__))
DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURES, VERSION = 1, 2, 4, 6, 9, 10
CLONE_PARENT = 0x8000
NAMESPACES = {"mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
              "net": 0x40000000}
SYS_CLONE, SYS_CAPSET = {"x86_64": (56, 126), "aarch64": (220, 91)}[os.uname().machine]
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 24, 38, 47
LIBC = ctypes.CDLL(None, use_errno=True)
# CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE.
USUAL = 1 << 5 | 1 << 10 | 1 << 29

PAIR = {1: ("key", "text"), 2: ("val", "text")}
OPTIONS = {
    1: ("images_dir_fd", "int"), 2: ("pid", "int"), 3: ("leave_running", "int"), 4: ("ext_unix_sk", "int"),
    5: ("tcp_established", "int"), 6: ("evasive_devices", "int"), 7: ("shell_job", "int"), 8: ("file_locks", "int"),
    9: ("log_level", "int"), 10: ("log_file", "text"), 11: ("ps", {1: ("address", "text"), 2: ("port", "int")}),
    12: ("notify_scripts", "int"), 13: ("root", "text"), 14: ("parent_img", "text"), 15: ("track_mem", "int"),
    16: ("auto_dedup", "int"), 17: ("work_dir_fd", "int"), 18: ("link_remap", "int"), 23: ("ext_mnt", [PAIR]),
    24: ("manage_cgroups", "int"), 25: ("cg_root", [{1: ("ctrl", "text"), 2: ("path", "text")}]),
    26: ("rst_sibling", "int"), 27: ("inherit_fd", [{1: ("key", "text"), 2: ("fd", "int")}]),
    34: ("manage_cgroups_mode", "int"), 37: ("external", ["text"]), 38: ("empty_ns", "int"),
    39: ("join_ns", [{1: ("ns", "text"), 2: ("ns_file", "text")}]), 44: ("freeze_cgroup", "text"),
    46: ("tcp_skip_in_flight", "int"), 48: ("lazy_pages", "int"), 49: ("status_fd", "int"),
    50: ("orphan_pts_master", "int"), 51: ("config_file", "text"), 53: ("lsm_profile", "text"),
    63: ("lsm_mount_context", "text"),
}
REQUEST = {1: ("type", "int"), 2: ("opts", OPTIONS), 3: ("notify_success", "int"),
           5: ("features", {1: ("mem_track", "int"), 2: ("lazy_pages", "int")})}


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def decode(data, form):
    message, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        name, kind = form[key >> 3]
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        many = isinstance(kind, list)
        kind = kind[0] if many else kind
        if kind == "text":
            value = value.decode()
        elif isinstance(kind, dict):
            value = decode(value, kind)
        if many:
            message.setdefault(name, []).append(value)
        else:
            assert name not in message, name
            message[name] = value
    return message


def number(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def encode(*fields):
    out = b""
    for field, value in fields:
        if isinstance(value, bytes):
            out += number(field << 3 | 2) + number(len(value)) + value
        else:
            out += number(field << 3) + number(value)
    return out


class Gone(Exception):
    """The runtime has closed its side, or has not agreed."""


class Talk:
    def __init__(self, fd):
        self.peer = socket.socket(fileno=fd)

    def receive(self):
        data = self.peer.recv(65536)
        if not data:
            raise Gone("end of the talk")
        return decode(data, REQUEST)

    def notify(self, script, pid=None, descriptor=None):
        inner = [(1, script.encode())] + ([(2, pid)] if pid else [])
        packet = encode((1, NOTIFY), (2, 1), (5, encode(*inner)))
        if descriptor is None:
            self.peer.send(packet)
        else:
            socket.send_fds(self.peer, [packet], [descriptor])
        answer = self.receive()
        record(answer)
        if not answer.get("notify_success"):
            raise Gone("not acknowledged")

    def answer(self, kind, *fields):
        self.peer.send(encode((1, kind), (2, 1), *fields))


def record(what):
    with open(os.path.join(HERE, "requests.json"), "a") as file:
        file.write(json.dumps(what) + "\n")


def dump(talk, request, behaviour):
    for script in behaviour.get("notify", ["pre-dump", "network-lock", "post-dump"]):
        talk.notify(script)
    if request["type"] == DUMP and not request["opts"].get("leave_running"):
        os.kill(request["opts"]["pid"], signal.SIGKILL)
    talk.answer(request["type"])


def set_capabilities(*sets):
    """Effective, permitted, inheritable; of this thread."""
    halves = [one & 0xFFFFFFFF for one in sets] + [one >> 32 for one in sets]
    assert LIBC.syscall(SYS_CAPSET, struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *halves)) == 0


def confine(has):
    """Gives this thread the capabilities that it is to be met with; by default
    those of the bundles, and no way to more."""
    with open("/proc/thread-self/status") as file:
        all = [int(line.split()[1], 16) for line in file if line.startswith("CapPrm")][0]
    # What is not in the bounding set could not be made inheritable.
    inheritable = has.get("inheritable", 0)
    set_capabilities(all, all, inheritable)
    if has.get("seccomp"):
        allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)))
        assert LIBC.prctl(PR_SET_SECCOMP, 2, program, 0, 0) == 0
    for capability in range(64):
        if not has.get("bounding", USUAL) >> capability & 1:
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    permitted = has.get("permitted", USUAL)
    set_capabilities(has.get("effective", permitted), permitted, inheritable)
    for capability in range(64):
        if has.get("ambient", 0) >> capability & 1:
            assert LIBC.prctl(PR_CAP_AMBIENT, 2, capability, 0, 0) == 0
    if has.get("no_new_privs", True):
        assert LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0


def descendant(has):
    """A process that has this and sleeps, or that has ended and is not reaped."""
    ready, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        if has == "zombie":
            os._exit(0)
        confine(has)
        os.write(report, b"x")
        signal.pause()
    if has == "zombie":
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    else:
        assert os.read(ready, 1) == b"x"


def mount(*words):
    """source, target, type, flags, options, as mount(2) has them."""
    source, target, kind, flags, options = [word.encode() if isinstance(word, str) else word for word in words]
    assert LIBC.mount(source, target, kind, flags, options) == 0, (words, ctypes.get_errno())


def go_inside(options, behaviour):
    """Mounts what the request names on the root that it names, and goes there."""
    root = options["root"]
    mount(None, "/", None, MS_PRIVATE | MS_REC, None)
    mount(root, root, None, MS_BIND | MS_REC, None)
    for external in options.get("ext_mnt", []):
        if os.path.exists(root + external["key"]) and external["key"] != "/dev/null":
            mount(external["val"], root + external["key"], None, MS_BIND, None)
    mount("proc", root + "/proc", "proc", 0, None)
    for added in behaviour.get("mounts", []):
        mount(added[0], root + added[1], *added[2:])
    os.chdir(root)
    pivot = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    assert LIBC.syscall(pivot, b".", b".") == 0
    assert LIBC.umount2(b".", MNT_DETACH) == 0
    os.chdir("/")


def restored_process(options, behaviour):
    """A sibling of this process that runs the script once it is resumed."""
    wait, resume = os.pipe()
    ready, report = os.pipe()
    made = sum(flag for name, flag in NAMESPACES.items() if name in behaviour.get("makes", "mnt uts ipc pid net"))
    pid = LIBC.syscall(SYS_CLONE, made | CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os.close(resume)
        os.setsid()
        if "mnt" in behaviour.get("makes", "mnt"):
            go_inside(options, behaviour)
        for has in behaviour.get("descendants", []):
            descendant(has)
        if "thread" in behaviour:
            there = threading.Event()
            threading.Thread(target=lambda: (confine(behaviour["thread"]), there.set(), signal.pause())).start()
            there.wait()
        confine(behaviour.get("has", {}))
        # By a pipe: a file just written would keep its mount from being made read-only.
        os.write(report, b"x")
        os.read(wait, 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execv("/bin/sh", ["sh", "-c", behaviour.get("script", "exec sleep 1000")])
    os.close(wait)
    os.close(report)
    assert os.read(ready, 1) == b"x"
    return pid, resume


def restore(talk, options, behaviour):
    pid, resume = restored_process(options, behaviour)
    try:
        talk.notify("pre-restore")
        talk.notify("setup-namespaces", pid)
        talk.notify("post-setup-namespaces")
        if behaviour.get("terminal"):
            master, _ = os.openpty()
            talk.notify("orphan-pts-master", descriptor=master)
        talk.notify("post-restore", pid)
    except Gone:
        os.kill(pid, signal.SIGKILL)
        raise
    try:
        if behaviour.get("says_when", True):
            talk.notify("pre-resume", pid)
    except Gone:
        # As with CRIU: from here on it takes no refusal.
        pass
    os.write(resume, b"x")
    talk.answer(RESTORE, (4, encode((1, pid))))


def main():
    assert sys.argv[1] == "swrk", sys.argv
    with open(os.path.join(HERE, "behaviour.json")) as file:
        behaviour = json.load(file)
    talk = Talk(int(sys.argv[2]))
    request = talk.receive()
    kind = request["type"]
    if kind == VERSION:
        if "dies" in behaviour:
            sys.exit("Error (kerndat.c:1): " + behaviour["dies"])
        major, minor, sub = behaviour.get("version", [3, 17, 1])
        talk.answer(kind, (10, encode((1, major), (2, minor), (4, sub))))
    elif kind == FEATURES:
        has = int(behaviour.get("features", True))
        talk.answer(kind, (8, encode((1, has), (2, has))))
    else:
        with open("/proc/self/status") as file:
            request["blocked"] = [line.split()[1] for line in file if line.startswith("SigBlk")][0]
        request["descriptors"] = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
        record(request)
        if "fails" in behaviour:
            folder = os.open(f"/proc/{os.getppid()}/fd/{request['opts'].get('work_dir_fd', request['opts']['images_dir_fd'])}", 0)
            log = os.open(request["opts"]["log_file"], os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder)
            os.write(log, b"(0.1) fine\n(0.2) Error (x.c:1): deep reason\n")
            talk.peer.send(encode((1, kind), (2, 0), (7, 22), (9, behaviour["fails"].encode())))
        elif kind == RESTORE:
            restore(talk, request["opts"], behaviour)
        else:
            dump(talk, request, behaviour)
    while talk.peer.recv(65536):
        pass


try:
    main()
except Gone as gone:
    sys.exit(str(gone))
