//! Images out as a user types it: a package becomes an image that a registry has, an image is copied, and a run on the host
//! is undone or kept.

#![cfg(target_os = "linux")]

use std::time::Duration;

use jc_tests::registry::Registry;
use jc_tests::{Ann, Cmd, require, sandbox_for};

/// A package `curl` in the directory of a mirror, with the list for apt-get(8).
const MIRROR: &str = r#"
mkdir -p deb/DEBIAN deb/usr/bin files/mirror files/etc/apt
printf 'Package: curl\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.invalid>\nDescription: x\n' >deb/DEBIAN/control
printf '#!/bin/sh\necho "curl 1 $1"\n' >deb/usr/bin/curl; chmod 755 deb/usr/bin/curl
chmod 755 deb deb/DEBIAN files files/mirror files/etc files/etc/apt
dpkg-deb -b --root-owner-group deb files/mirror/curl.deb >/dev/null
cd files/mirror
{ dpkg-deb -f curl.deb; printf 'Filename: ./curl.deb\nSize: %s\nSHA256: %s\n\n' \
    $(stat -c %s curl.deb) $(sha256sum curl.deb | cut -d ' ' -f 1); } >Packages
echo 'deb [trusted=yes] file:/mirror ./' >../etc/apt/sources.list
"#;

/// Runs the example of jc-changes(1), jc-commit(1) and jc-push(1).
fn out(sh: &dyn Fn(&str) -> Cmd, network: &str, to: &str) {
    let run = |script: &str| {
        sh(&format!("set -e; {script}")).timeout(Duration::from_secs(120)).run().code(0)
    };
    run(&format!(
        "jc-pull -q 127.0.0.1:5000/debian | jc-commit --dir /srv/files >mirror
         jc-run {network} --keep --name a <mirror -- apt-get -qq update
         jc-commit --changes a <mirror >base; jc-rm a"
    ));
    run(&format!(
        "jc-run {network} --keep --name b <base -- apt-get install -y --no-install-recommends curl"
    ));
    let changes = run("jc-changes b").stderr("").out();
    for line in ["A usr/bin/curl", "A var/lib/dpkg/info/curl.list", "M var/lib/dpkg/status"] {
        assert!(changes.lines().any(|found| found == line), "{line}\n{changes}");
    }
    run("jc-commit --changes b --cmd '[\"curl\"]' <base >new; jc-rm b");
    run(&format!("jc-run {network} <new -- curl --version")).stdout("curl 1 --version\n");
    run(&format!("jc-push -q {to} <new"));
    run(&format!("jc-run {network} --image {to}")).stdout("curl 1 \n");
    let digest = "jq -r .digest";
    run(&format!(
        "jc-pull -q 127.0.0.1:5000/busybox | jc-push -q oci-archive:alpine.tar:3
         jc-pull -q --no-layers oci-archive:alpine.tar:3 | {digest} >copy
         jc-pull -q 127.0.0.1:5000/busybox | {digest} | cmp - copy"
    ));
    // The payload works in the directory of its caller, which has the changes only when they are applied.
    let listed = run(
        "mkdir -p work u; cd work; jc-rootfs --upper ../u / -- sh -c 'mkdir modules; echo x >modules/new'
         ls; jc-changes ../u | sed 's|.*/work/||'; jc-changes --apply / ../u; cat modules/new
         jc-changes --discard ../u; ls -A ../u",
    );
    listed.stdout("modules\nmodules/new\nx\n").stderr("");
}

#[test]
fn a_package_becomes_an_image_of_a_registry() {
    sandbox_for(Duration::from_secs(300), |s| {
        require(s, "dpkg-deb", "dpkg");
        let from = Registry::prepared(s);
        let to = Registry::empty(s);
        s.sh(MIRROR).run().code(0);
        out(&|script| s.sh(script), "", &format!("{}/team/curl:1", to.address()));
        let ann = Ann::with_range(s);
        let sh = |script: &str| ann.sh(script);
        out(&sh, "--network none", &format!("{}/ann/curl:1", to.address()));
        drop((from, to));
        s.wait_for_no_process();
    });
}
