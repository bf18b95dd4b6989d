#!/bin/sh
# Checks the types for macOS with rustup's standard library of that system. Nothing is linked, so C code of
# dependencies is not compiled.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-apple-darwin

if ! rustup --quiet target add "$target"; then
	echo "${0##*/}: rustup has no standard library for $target" >&2
	[ "${JC_MUST_RUN-}" != 1 ]
	exit
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-macos.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cat >"$dir/cc" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
	[ "$1" != -o ] || : >"$2"
	shift
done
END
chmod +x "$dir/cc"

# Without RUSTFLAGS, so that programs of the build are shared with those of other checks.
CC_aarch64_apple_darwin=$dir/cc AR_aarch64_apple_darwin=true \
	cargo check --quiet --locked --workspace --target "$target" 2>"$dir/said" || { cat "$dir/said" >&2; exit 1; }
if [ -s "$dir/said" ]; then
	cat "$dir/said" >&2
	exit 1
fi
