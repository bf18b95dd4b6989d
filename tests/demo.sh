#!/bin/bash
# Shows jc at work with an image made from busybox. The demo needs no registry and no network, and leaves nothing
# behind. Usage: tests/demo.sh BIN_DIR
set -euo pipefail
# The language of the user must not change the messages of the payloads.
export LC_ALL=C
bin=$(realpath "$1")
here=$(dirname "$(realpath "$0")")

if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "demo: needs root: memory limits and mounts belong to it here" >&2
		exit 1
	fi
	exec sudo -- "$0" "$bin"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-demo.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$dir"
export PATH=$bin:$PATH

. "$here/busybox-image.sh"

# expect CODE WHY COMMAND: shows a command, runs it, and stops the demo if its exit code is another.
expect() {
	local code=0
	printf '\n# %s\n$ %s\n' "$2" "$3"
	bash -e -o pipefail -c "$3" </dev/null || code=$?
	[ "$code" -eq 0 ] || echo "(exit code $code)"
	if [ "$code" -ne "$1" ]; then
		echo "demo: exit code $code, and not $1" >&2
		exit 1
	fi
}

# Whether a memory controller is usable: mounted writable (version 1), or offered by the root of version 2.
memory_controller() {
	local mount kind options
	while read -r _ mount kind options _; do
		case $kind,$options in
		cgroup,rw,*memory*) return 0 ;;
		cgroup2,rw,*) ! grep -qw memory "$mount/cgroup.controllers" || return 0 ;;
		esac
	done </proc/self/mounts
	return 1
}

make_image
echo "An OCI image is in $dir/busybox: $(du -sk busybox | cut -f1) KiB."

expect 0 'Pull it into a store. What to run, the record, is one line on stdout.' \
	'jc-pull --store store oci:busybox >record; cut -c 1-150 record'
expect 0 'Run it: its own entry point, command, environment and working directory.' \
	'jc-pull --store store oci:busybox | jc-run --network none'
expect 0 'The host is called one thing, the container another.' \
	'hostname; jc-run --network none <record -- hostname; jc-run --network none --hostname demo <record -- hostname'
expect 0 'The payload is PID 1, and sees no process of the host.' \
	"jc-run --network none <record -- sh -c 'echo I am PID \$\$; ps'"
expect 0 'The root is the image and nothing else.' \
	"jc-run --network none <record -- sh -c 'ls /; cat /etc/os-release'"
expect 0 'The network is its own: loopback here, by default a bridge.' \
	"jc-run --network none <record -- ip -o addr"
expect 0 'Bytes after the record are the payload'\''s.' \
	"(cat record; printf 'a\nb\n') | jc-run --network none -- wc -l"
expect 42 'Its exit code is passed on.' \
	"jc-run --network none <record -- sh -c 'exit 42'"
if memory_controller; then
	expect 137 '200 MiB do not fit into a limit of 64 MiB: the kernel kills it, which is 128+9.' \
		"jc-run --network none -m 64M <record -- dd if=/dev/zero of=/dev/null bs=200M count=1"
else
	expect 125 'This host has no memory controller to use, and a limit that is none is an error.' \
		'jc-run --network none -m 64M <record -- true'
fi
expect 0 'jc-run only composes. This is the chain; each link works alone.' \
	'jc-run --network none --print <record -- hostname'

cat <<'END'

On a machine with a network, try:
    jc-pull alpine | jc-run -- sh -c 'echo hello from $(hostname)'
END
