#!/bin/sh
# Makes a Debian package of the programs in TARGET/bin, as TARGET/jc_VERSION_ARCH.deb.
# Usage: tests/deb.sh TARGET
set -eu
target=$(realpath "$1")
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
arch=$(dpkg --print-architecture)
root=$target/deb
# The time is that of the last commit, so that the same tree makes the same package.
date=$(git log -1 --format=%cd --date=rfc 2>/dev/null || date -R)
SOURCE_DATE_EPOCH=$(date -d "$date" +%s)
export SOURCE_DATE_EPOCH

# The maintainer is that of dch(1), or the author of the last commit.
maintainer=$(git log -1 --format='%an <%ae>' 2>/dev/null)
[ -z "${DEBEMAIL-}" ] || maintainer="${DEBFULLNAME-jc} <$DEBEMAIL>"

rm -rf "$root"
make --no-print-directory -s install DESTDIR="$root" PREFIX=/usr zshdir=vendor-completions
find "$root" -name '*.[1-9]' -exec gzip -9n {} +
strip --remove-section=.comment "$root"/usr/bin/*

doc=$root/usr/share/doc/jc
mkdir -p "$doc" "$root/usr/share/lintian/overrides" "$root/DEBIAN"
{
	echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
	echo
	echo 'Files: *'
	sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
	echo 'License: Expat'
	sed '1,/^Copyright/d; /^$/{1d}; s/^$/./; s/^/ /' LICENSE | sed '1{/^ \.$/d}'
} >"$doc/copyright"
printf 'jc (%s) unstable; urgency=medium\n\n  * See the history of the sources.\n\n -- %s  %s\n' \
	"$version" "$maintainer" "$date" | gzip -9n >"$doc/changelog.gz"
# The programs need no libc of the host.
echo 'jc: statically-linked-binary [usr/bin/jc-*]' >"$root/usr/share/lintian/overrides/jc"

cat >"$root/DEBIAN/control" <<END
Package: jc
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude DEBIAN "$root" | cut -f1)
Recommends: nftables, passt, uidmap
Section: admin
Priority: optional
Description: containers from small tools
 Programs that each do one step of making a container: pull an image, enter
 namespaces, pivot into a root, apply a cgroup, wire a network. They compose
 in the shell, by argv and by pipe, and jc-run composes them. There is no
 daemon and no configuration file.
END
# AppArmor 3 cannot parse the profile, and restricts no user namespaces.
cat >"$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
profile=${DPKG_ROOT:-}/etc/apparmor.d/jc
if [ "$1" = configure ] && [ -e "${DPKG_ROOT:-}/etc/apparmor.d/abi/4.0" ]; then
	install -m 644 "${DPKG_ROOT:-}/usr/share/jc/apparmor" "$profile"
	if [ -z "${DPKG_ROOT:-}" ] && aa-enabled --quiet 2>/dev/null; then apparmor_parser -r "$profile"; fi
fi
END
cat >"$root/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
profile=${DPKG_ROOT:-}/etc/apparmor.d/jc
if { [ "$1" = remove ] || [ "$1" = purge ]; } && [ -e "$profile" ]; then
	if [ -z "${DPKG_ROOT:-}" ] && aa-enabled --quiet 2>/dev/null; then apparmor_parser -R "$profile"; fi
	rm "$profile"
fi
END
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
(cd "$root" && find usr -type f -exec md5sum {} + | sort -k 2) >"$root/DEBIAN/md5sums"
chmod -R u=rwX,go=rX "$root"
dpkg-deb --root-owner-group --build "$root" "$target/jc_${version}_$arch.deb"
