# What every probe of rows.txt can use. R is the runtime, the container is $C,
# its cgroup $CG; the bundle's rootfs is busybox.
R() { "$RUNTIME" --root "$STATE" "$@"; }
not_here() { exit 77; }
need() { command -v "$1" >/dev/null || not_here; }
v1() { [ -d /sys/fs/cgroup/memory ]; }
eq() { [ "$1" = "$2" ] || { echo "got \"$1\", not \"$2\"" >&2; exit 1; }; }
# The configuration changed by a jq filter, its program a shell script.
config() { jq --arg script "$1" ".process.args = [\"/bin/sh\", \"-c\", \$script] | (${2:-.})" base.json >bundle/config.json; }
inside() { config "$@"; R run -b bundle "$C" </dev/null; }
# A container that waits: created with these flags, or running.
made() { config "exec sleep 1000" "${filter:-.}"; R create -b bundle "$@" "$C" </dev/null >out 2>&1 || { cat out >&2; exit 1; }; }
up() { filter="${1:-.}" made; R start "$C"; }
# The same with streams that CRIU can save: files of its own.
apart() {
    config 'exec </dev/null >/dev/null 2>&1; exec sleep 1000'
    R run -d -b bundle "$C" </dev/null >out 2>&1 || { cat out >&2; exit 1; }
    until_true 'grep -q sleep "/proc/$(R state "$C" | jq .pid)/comm"'
}
gone() { R delete -f "$C"; }
enter() { R exec "$C" /bin/sh -c "$1" </dev/null; }
status() { R state "$C" | jq -r .status; }
until_true() { for _ in $(seq 200); do eval "$1" && return; sleep 0.05; done; echo "never: $1" >&2; exit 1; }
until_is() { until_true "[ \"\$(status)\" = $1 ]"; }
# A file of the container's cgroup: controller and name in version 1, name in version 2.
cg() { if v1; then cat "/sys/fs/cgroup/$1$CG/$2"; else cat "/sys/fs/cgroup$CG/$3"; fi; }
has() { v1 && [ -e "/sys/fs/cgroup/$1" ] || not_here; }
# Receives a descriptor over a socket and says what it is.
receive() {
    need python3
    python3 -c '
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); open("listening", "w").close()
c, _ = s.accept(); m, a, _, _ = c.recvmsg(65536, 64)
print(os.readlink("/proc/self/fd/%d" % array.array("i", a[0][2])[0]))' "$1" >received 2>/dev/null &
    receiver=$!
    until_true '[ -e listening ]'
}
received() { wait "$receiver"; grep "$1" received; }
# On a terminal.
terminal() { need script; script -qec "$1" /dev/null </dev/null; }
# What the probe has started ends with it, all but containers.
trap 'status=$?; trap "" TERM; kill 0; exit $status' EXIT
rm -f listening
