//! Programs behind `jc-egress`: curl, git, apt, pip, cargo, npm and ssh reach the host of a rule, with a certificate
//! authority of the test's own, and fail at once at another host.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;

use jc_tests::internet::{CALLERS, Internet, PYTHON};
use jc_tests::{Ran, Running, Sandbox, require, sandbox};
use rustix::process::Signal;

const EGRESS: &str = "jc-egress --allow good.example:8443:tls --allow good.example:8080:http \
                      --allow tcp.example:2222 --log /srv/log --";

/// An authority, a certificate of good.example, and a directory with what the programs ask for.
const FILES: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 \
    -subj /CN=authority
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out request -subj /CN=x
printf 'subjectAltName=DNS:good.example\n' >ext
openssl x509 -req -in request -CA ca.pem -CAkey ca.key -out cert.pem -days 2 -extfile ext
mkdir www && cd www && echo hello >index.html

export HOME=/srv GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x
git init -q ../work && echo text >../work/file && git -C ../work add file && git -C ../work commit -qm first
git clone -q --bare ../work repo.git && git -C repo.git update-server-info

mkdir -p deb one/DEBIAN cargo/on/ed crates onedep-1.0.0/src npm tgz package simple/onewheel onewheel-1.0.dist-info
printf 'Package: one\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n' >one/DEBIAN/control
dpkg-deb -b one deb/one.deb
{ cat one/DEBIAN/control
  echo "Filename: ./one.deb"
  echo "Size: $(stat -c %s deb/one.deb)"
  echo "SHA256: $(sha256sum <deb/one.deb | cut -d' ' -f1)"; } >deb/Packages

printf '[package]\nname = "onedep"\nversion = "1.0.0"\nedition = "2021"\n' >onedep-1.0.0/Cargo.toml
echo 'pub fn one() {}' >onedep-1.0.0/src/lib.rs
tar -czf crates/onedep-1.0.0.crate onedep-1.0.0
echo '{"dl":"https://good.example:8443/crates/{crate}-{version}.crate"}' >cargo/config.json
printf '{"name":"onedep","vers":"1.0.0","deps":[],"cksum":"%s","features":{},"yanked":false}\n' \
    "$(sha256sum <crates/onedep-1.0.0.crate | cut -d' ' -f1)" >cargo/on/ed/onedep

echo '{"name":"onepackage","version":"1.0.0"}' >package/package.json
tar -czf tgz/onepackage-1.0.0.tgz package
printf '{"name":"onepackage","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"onepackage","version":"1.0.0",
    "dist":{"tarball":"https://good.example:8443/tgz/onepackage-1.0.0.tgz","integrity":"sha512-%s"}}}}' \
    "$(openssl dgst -sha512 -binary tgz/onepackage-1.0.0.tgz | base64 -w0)" >npm/onepackage

printf 'Metadata-Version: 2.1\nName: onewheel\nVersion: 1.0\n' >onewheel-1.0.dist-info/METADATA
printf 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >onewheel-1.0.dist-info/WHEEL
touch onewheel-1.0.dist-info/RECORD
/usr/bin/python3 -m zipfile -c simple/onewheel/onewheel-1.0-py3-none-any.whl onewheel-1.0.dist-info
echo '<a href="onewheel-1.0-py3-none-any.whl">onewheel-1.0-py3-none-any.whl</a>' >simple/onewheel/index.html
cd .. && touch log && chmod 666 log
"#;

/// A home of a caller in which each program knows the authority and the server.
const HOME: &str = r#"
export HOME=/tmp/home$N GIT_SSL_CAINFO=/srv/ca.pem CURL_CA_BUNDLE=/srv/ca.pem
export REQUESTS_CA_BUNDLE=/srv/ca.pem PIP_CONFIG_FILE=/dev/null
export CARGO_HTTP_CAINFO=/srv/ca.pem CARGO_NET_RETRY=0 CARGO_HOME=$HOME/cargo
export npm_config_cafile=/srv/ca.pem npm_config_fetch_retries=0 npm_config_update_notifier=false
mkdir -p $HOME/project/src $HOME/lists/partial $HOME/archives/partial && cd $HOME/project
printf '[package]\nname = "x"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\nonedep = "1"\n' >Cargo.toml
touch src/lib.rs
"#;

/// The caller's programs behind jc-egress.
struct Caller<'a> {
    sandbox: &'a Sandbox,
    number: usize,
}

impl Caller<'_> {
    fn run(&self, what: &str) -> Ran {
        let (number, caller) = (self.number, CALLERS[self.number]);
        let script = format!("N={number}\n{HOME}\nexec {EGRESS} {what}");
        fs::write("/srv/script", script).unwrap();
        self.sandbox.sh(&format!("{caller} sh -e /srv/script")).run()
    }

    fn passes(&self, what: &str, file: &str) {
        let ran = self.run(what).code(0);
        let path = format!("/tmp/home{}/project/{file}", self.number);
        assert!(Path::new(&path).exists(), "{file} is missing: {ran}");
    }

    fn fails(&self, what: &str, why: &str) {
        let ran = self.run(what);
        assert_ne!(ran.status().code(), Some(0), "{ran}");
        assert!(format!("{ran}").contains(why), "{why}: {ran}");
    }
}

/// Runs the test for each caller, beside a server of the files.
fn with_server(s: &Sandbox, test: impl Fn(&Caller<'_>)) {
    let programs = ["curl", "git", "openssl", "dpkg-deb", "apt-get", "npm"];
    programs.into_iter().for_each(|program| require(s, program, program));
    require(s, "node", "nodejs");
    let internet = Internet::start(s);
    s.sh(FILES).run().code(0);
    fs::write("/srv/server.js", include_str!("egress_support/server.js")).unwrap();
    let server = s
        .sh("cd www && exec node ../server.js 203.0.113.10 8080 8443 ../cert.pem ../key.pem")
        .spawn();
    end_after(server, || {
        (0..CALLERS.len()).for_each(|number| test(&Caller { sandbox: s, number }));
    });
    s.sh("rm -r /tmp/home*").run().code(0);
    let log = fs::read_to_string("/srv/log").unwrap();
    assert!(log.contains(r#""sni":"good.example""#), "{log}");
    drop(internet);
}

fn end_after(mut server: Running, act: impl FnOnce()) {
    server.wait_for("ready\n");
    act();
    server.signal(Signal::KILL);
    server.wait();
}

#[test]
fn curl_and_git_get_through_and_fail_at_once_elsewhere() {
    sandbox(|s| {
        with_server(s, |caller| {
            let shows = "-w '%{http_version}\n'";
            let plain = caller.run(&format!("curl -sS {shows} http://good.example:8080/"));
            plain.code(0).stdout("hello\n1.1\n");
            let run = |options: &str| {
                caller
                    .run(&format!("curl -sS {options} {shows} https://good.example:8443/"))
                    .code(0)
            };
            run("--http1.1").stdout("hello\n1.1\n");
            run("--http2").stdout("hello\n2\n");
            caller.passes("git clone -q https://good.example:8443/repo.git", "repo/file");
            let why = "Could not resolve host";
            caller.fails("curl -sS https://evil.example:8443/", why);
            caller.fails("git clone -q https://evil.example:8443/repo.git other", why);
            let address = "--resolve good.example:8443:203.0.113.10";
            caller.fails(&format!("curl -sS {address} https://good.example:8443/"), "curl: (");
        })
    });
}

#[test]
fn apt_and_pip_get_through_and_fail_at_once_elsewhere() {
    sandbox(|s| {
        with_server(s, |caller| {
            let apt = |host: &str| {
                let options = "-o Dir::Etc::sourcelist=$HOME/sources -o Dir::Etc::sourceparts=- \
                 -o Dir::State::lists=$HOME/lists -o Dir::Cache=$HOME/cache -o Dir::State::status=/dev/null \
                 -o Dir::Cache::archives=$HOME/archives -o APT::Sandbox::User=root \
                 -o APT::Update::Error-Mode=any -o Debug::NoLocking=true -o Dir::Log=$HOME";
                let source = format!("deb [trusted=yes] http://{host}:8080/deb/ ./");
                let get = format!("apt-get -q {options}");
                format!(
                    "sh -ec 'mkdir -p $HOME/cache; echo \"{source}\" >$HOME/sources; {get} update; {get} download one'"
                )
            };
            caller.passes(&apt("good.example"), "one_1_all.deb");
            caller.fails(&apt("evil.example"), "Could not resolve 'evil.example'");
            let pip = |host: &str| {
                format!(
                    "{PYTHON} -m pip download --isolated --cert /srv/ca.pem --retries 0 --disable-pip-version-check -q --no-deps -d got -i https://{host}:8443/simple/ onewheel"
                )
            };
            caller.passes(&pip("good.example"), "got/onewheel-1.0-py3-none-any.whl");
            caller.fails(&pip("evil.example"), "No matching distribution found");
        })
    });
}

#[test]
fn cargo_and_npm_get_through_and_fail_at_once_elsewhere() {
    sandbox(|s| {
        with_server(s, |caller| {
            // The toolchain of another user may be in a directory that this one does not see.
            fs::copy(env!("CARGO"), "/srv/cargo").unwrap();
            let cargo = |host: &str| {
                let source =
                    |key: &str, value: &str| format!("--config 'source.{key}=\"{value}\"'");
                let replaced = source("crates-io.replace-with", "own");
                let own = source("own.registry", &format!("sparse+https://{host}:8443/cargo/"));
                format!("/srv/cargo vendor -q --respect-source-config {replaced} {own}")
            };
            caller.fails(&cargo("evil.example"), "Could not resolve host");
            caller.passes(&cargo("good.example"), "vendor/onedep/src/lib.rs");
            let npm = |host: &str| {
                let options = "--no-audit --no-fund --ignore-scripts";
                format!("npm install {options} --registry https://{host}:8443/npm/ onepackage")
            };
            caller.passes(&npm("good.example"), "node_modules/onepackage/package.json");
            caller.fails(&npm("evil.example").replace("onepackage", "another"), "ENOTFOUND");
        })
    });
}

/// A server of ssh in which the owner of a key may log in as root.
const SSHD: &str = "
    mkdir -p /run/sshd && chmod 755 /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f key && chmod 644 key
    printf '%s\n' 'Port 2222' 'ListenAddress 203.0.113.30' 'HostKey /srv/host' 'PidFile none' 'StrictModes no' \
        'AuthorizedKeysFile /srv/key.pub' 'PermitRootLogin yes' 'UsePAM no' >sshd_config
    sh -c 'until ssh-keyscan -p 2222 203.0.113.30 >known 2>/dev/null && [ -s known ]; do sleep 0.05; done; echo ready' &
    exec /usr/sbin/sshd -D -f /srv/sshd_config";

#[test]
fn ssh_gets_through_by_a_rule_for_tcp_and_fails_at_once_elsewhere() {
    sandbox(|s| {
        require(s, "sshd", "openssh-server");
        let internet = Internet::start(s);
        s.sh("touch log && chmod 666 log").run().code(0);
        end_after(s.sh(SSHD).spawn(), || {
            for number in 0..CALLERS.len() {
                let caller = Caller { sandbox: s, number };
                let ssh = |host: &str| {
                    let options = "-o UserKnownHostsFile=/srv/known -o HostKeyAlias=[203.0.113.30]:2222 -o BatchMode=yes";
                    format!(
                        "sh -ec 'umask 77; cat /srv/key >$HOME/key; ssh -F none -i $HOME/key {options} -p 2222 root@{host} echo in'"
                    )
                };
                caller.run(&ssh("tcp.example")).code(0).stdout("in\n");
                caller.fails(&ssh("evil.example"), "Could not resolve hostname evil.example");
                caller.fails(&ssh("203.0.113.30"), "Connection reset by");
            }
        });
        s.sh("rm -r /tmp/home* /run/sshd").run().code(0);
        drop(internet);
    });
}
