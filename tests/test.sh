#!/bin/bash
# Runs every test of the workspace, the end-to-end ones against the programs in BIN_DIR, and counts.
# Usage: tests/test.sh BIN_DIR
set -euo pipefail
JC_BIN_DIR=$(realpath "$1")
cd "$(dirname "$0")/.."

dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-test.XXXXXX")
trap 'rm -rf "$dir"' EXIT
# libtest cannot count a test that could not run, so each leaves a line here.
JC_SKIP_LOG=$dir/skipped
: >"$JC_SKIP_LOG"
JC_FIXTURES=${CARGO_TARGET_DIR:-$PWD/target}/fixtures
export JC_BIN_DIR JC_SKIP_LOG JC_FIXTURES

if [ "$(id -u)" -eq 0 ] && ! tests/fixtures.sh "$JC_FIXTURES"; then
	echo "${0##*/}: no Debian image could be made: what needs it will be skipped" >&2
fi

if ! tests/kernel.sh "$JC_FIXTURES/kernel"; then
	echo "${0##*/}: no kernel for a virtual machine: what needs it will be skipped" >&2
fi

status=0
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$dir/log" || status=$?

if [ -s "$JC_SKIP_LOG" ]; then
	printf 'skipped:\n'
	sort "$JC_SKIP_LOG" | sed 's/^/    /'
fi
awk -v skips="$(wc -l <"$JC_SKIP_LOG")" '
	/^test result: / { passed += $4; failed += $6; ignored += $8 }
	END {
		printf "%d passed, %d failed, %d skipped\n", passed - skips, failed, ignored + skips
		exit failed > 0
	}' "$dir/log" || status=1
exit "$status"
