#!/bin/sh
# Checks the types of what is to work on macOS, with Debian's compiler, which has the standard library
# as source. Nothing is linked, so what packages bring in C need not be compiled.
set -eu
cd "$(dirname "$0")/.."

rustc=/usr/bin/rustc
cargo=/usr/share/cargo/bin/cargo
needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
version=$("$rustc" --version 2>/dev/null | cut -d' ' -f2) || version=
library=$("$rustc" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library
if [ -z "$version" ] || [ ! -x "$cargo" ] || [ ! -d "$library" ] ||
	! printf '%s\n' "$needed" "$version" | sort -C -V; then
	echo "${0##*/}: needs Debian's rustc-web, cargo-web and rust-web-src, $needed or newer" >&2
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

RUSTC_BOOTSTRAP=1 RUSTC=$rustc RUSTFLAGS='-D warnings' \
	CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/macos \
	CC_aarch64_apple_darwin=$dir/cc AR_aarch64_apple_darwin=true \
	"$cargo" check --quiet --locked --workspace \
	-Zbuild-std=std,panic_abort --target aarch64-apple-darwin
