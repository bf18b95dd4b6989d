#!/bin/bash
# Runs every test of the workspace, the end-to-end tests with the programs in BIN_DIR, and prints the counts. Usage:
# tests/test.sh BIN_DIR [FILE...], with FILE for the tests of these files only. JC_LINT=1 lints with clippy in the
# same build. JC_TEST_HOSTILE=1 starts the tests in hostile surroundings, and a sample of them in plain ones too.
set -euo pipefail
bin=$(realpath "$1")
cd "$(dirname "$0")/.."

# The directory lies beside the programs of the tests, since a sandbox hides /tmp.
target=$(realpath "${CARGO_TARGET_DIR:-target}")
dir=$(mktemp -d "$target/test.XXXXXX")
trap 'rm -rf "$dir"' EXIT
# The programs are copied to a directory that every user can enter, since a test installs the programs again while
# others run.
JC_BIN_DIR=$dir/bin
mkdir -m 755 "$JC_BIN_DIR"
install -m 755 "$bin"/* "$JC_BIN_DIR"
# libtest does not count skipped tests, so each skipped test writes a line to this file.
JC_SKIP_LOG=$dir/skipped
: >"$JC_SKIP_LOG"
JC_FIXTURES=$target/fixtures
# Two tests of each file and more files than CPUs at a time, since many tests wait.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
export JC_BIN_DIR JC_SKIP_LOG JC_FIXTURES RUST_TEST_THREADS dir

if [ "$(id -u)" -eq 0 ] && ! tests/fixtures.sh "$JC_FIXTURES"; then
	echo "${0##*/}: no Debian image could be made: what needs it will be skipped" >&2
fi

if ! tests/kernel.sh "$JC_FIXTURES/kernel"; then
	echo "${0##*/}: no kernel for a virtual machine: what needs it will be skipped" >&2
fi

# clippy-driver is a compiler that lints: a build of its own would take a minute.
tests=(env)
if [ "${JC_LINT-}" = 1 ]; then
	tests+=(RUSTC_WORKSPACE_WRAPPER=clippy-driver
		CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__)
fi
tests+=(cargo test --locked --workspace)
"${tests[@]}" --no-run --message-format=json-render-diagnostics >"$dir/messages"
jq -r 'select(.executable and .profile.test) | [.target.name, .manifest_path, .executable] | @tsv' \
	"$dir/messages" >"$dir/all"
if [ $# -gt 1 ]; then
	only=${*:2}
	grep -E "^(${only// /|})	" "$dir/all" >"$dir/programs"
else
	mv "$dir/all" "$dir/programs"
fi

# start HOW NAME MANIFEST PROGRAM: runs the tests of a file, and shows their output in one piece.
start() (
	out=$dir/out.$1.$2.${4##*-}
	cd "${3%/*}"
	run=()
	if [ "$1" = hostile ]; then
		umask 077
		ulimit -Sn 1024
		unset TERM LANG LC_ALL
		trap '' INT QUIT HUP XFSZ USR1
		run=(setsid --wait nice -n 5)
		exec <&-
	fi
	"${run[@]}" "$4" >"$out" 2>&1 || echo "$2" >>"$dir/failed"
	flock "$dir" printf '\n     Running %s\n%s\n' "$2" "$(<"$out")"
)
export -f start

# Files that take long come first.
long='vm|engines|pull_bombs|install|pull_power|pull_exact|pull_registry|rootfs_hostile|faults|faults_images|faults_oci|run_traced'
# These tests run one after the other, since a group of one test looks like a remaining group to another, or since all
# see the same hierarchy.
alone='jc_tests|cgroup|cgroup_hostile|cgroup_limits|cgroup_many'
sample='harness|unshare|unshare_jobs|run_exec|run_terminal|pull|rootfs'
hostile=plain
[ "${JC_TEST_HOSTILE-}" != 1 ] || hostile=hostile

# listed HOW PATTERN [grep's options]: lines for `start`.
listed() {
	grep -E "${@:3}" "^($2)	" "$dir/programs" | sed "s/^/$1	/" || true
}
{
	listed "$hostile" "$long"
	listed "$hostile" "$long|$alone" -v
	[ "$hostile" = plain ] || listed plain "$sample"
} | xargs -r -d '\n' -P "$(($(nproc) + 1))" -I{} bash -c 'IFS=$'"'\t'"'; start $1' _ {}
listed "$hostile" "$alone" | RUST_TEST_THREADS=1 xargs -r -d '\n' -I{} bash -c 'IFS=$'"'\t'"'; start $1' _ {}
"${tests[@]}" --doc >"$dir/out.doc" 2>&1 || echo doc >>"$dir/failed"
cat "$dir/out.doc"

if [ -s "$JC_SKIP_LOG" ]; then
	printf 'skipped:\n'
	sort "$JC_SKIP_LOG" | sed 's/^/    /'
fi
cat "$dir"/out.* | awk -v skips="$(wc -l <"$JC_SKIP_LOG")" '
	/^test result: / { passed += $4; failed += $6; ignored += $8 }
	END { printf "%d passed, %d failed, %d skipped\n", passed - skips, failed, ignored + skips }'
if [ -s "$dir/failed" ]; then
	echo "failed: $(sort -u "$dir/failed" | tr '\n' ' ')" >&2
	exit 1
fi
