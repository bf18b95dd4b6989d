#!/bin/bash
# Compares the time of a parallel build of 200 C files alone with that under jc-trace, and of a build of 20 files with that
# under strace and perf trace, which take many times as long. All take turns in each round, and the tables have medians.
# Usage: tests/bench-trace.sh BIN. ROUNDS and FILES make it longer, and WAYS selects rows of the first table.
set -euo pipefail
bin=$(cd "$1" && pwd)
rounds=${ROUNDS:-5}
dir=$(mktemp -d "${TMPDIR:-/dev/shm}/jc-trace.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cp "$bin/jc-trace" "$dir/"
export PATH=$dir:$PATH
cd "$dir"

files=${FILES:-200}
for number in $(seq "$files"); do
	cat >"f$number.c" <<C
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int f$number(int x) { char b[64]; snprintf(b, 64, "%d", x); return strlen(b) + abs(x); }
C
done
printf 'O := $(patsubst %%,f%%.o,$(shell seq $(FILES)))\nlib.a: $(O)\n\tar rc $@ $(O)\n' >Makefile

alone() { "$@"; }
files() { jc-trace --report report -- "$@"; }
links() { jc-trace --links --report report -- "$@"; }
calls() { jc-trace --calls --report report -- "$@"; }
all() { jc-trace --all --report report -- "$@"; }
strace_files() { strace -f -qqq --seccomp-bpf -e trace=%file,%process -o report "$@"; }
strace_calls() { strace -f -qqq -o report "$@"; }
perf_calls() { perf trace -o report "$@"; }
declare -A names=([alone]="alone" [files]="jc-trace" [links]="jc-trace --links" [calls]="jc-trace --calls"
	[all]="jc-trace --all" [strace_files]="strace, files and processes (seccomp-bpf)" [strace_calls]="strace, all calls"
	[perf_calls]="perf trace")

median() { sort -n "$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# compare FILES WAY... prints the table of a build. The first way is the build alone.
compare() {
	local count=$1 way from to base took
	shift
	rm -f time.*
	for _ in $(seq "$rounds"); do
		for way in "$@"; do
			rm -f ./*.o lib.a
			from=$EPOCHREALTIME
			"$way" make -s -j"$(nproc)" CFLAGS=-O1 FILES="$count" >/dev/null
			to=$EPOCHREALTIME
			echo $((${to/./} - ${from/./})) >>"time.$way"
		done
	done
	base=$(median "time.$1")
	echo "| build of $count files | seconds | ratio |"
	echo "| --- | --- | --- |"
	for way in "$@"; do
		took=$(median "time.$way")
		awk -v name="${names[$way]}" -v took="$took" -v base="$base" \
			'BEGIN { printf "| %s | %.2f | %.2f |\n", name, took / 1e6, took / base }'
	done
}

read -ra ways <<<"${WAYS:-alone files links calls all}"
compare "$files" "${ways[@]}"
[ -z "${WAYS:-}" ] || exit 0
others=(alone files)
! type -P strace >/dev/null || others+=(strace_files strace_calls)
! perf trace -o report true >/dev/null 2>&1 || others+=(perf_calls)
echo
compare $(((files + 9) / 10)) "${others[@]}"
