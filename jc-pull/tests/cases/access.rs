//! Who one is, whom one trusts, and where registries are.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::common::{Image, Layer, MANIFEST, Store, Tar, failure, root};
use crate::registry::{Answer, Registry};

fn image() -> Image {
    Image::new(&[Layer::gzip(&Tar::new().directory("./", 0o755).file("x", "x").finish())])
}

/// Everything of the image needs that `Authorization`.
fn protect(registry: &Registry, image: &Image, wanted: &str, challenge: &str) {
    registry.push("team/x", "latest", image, MANIFEST);
    let blobs = image.blobs.keys().map(|digest| format!("/v2/team/x/blobs/{digest}"));
    let manifests = ["latest", &image.manifest].map(|t| format!("/v2/team/x/manifests/{t}"));
    for path in blobs.chain(manifests) {
        let needs = Some((wanted.to_owned(), challenge.to_owned()));
        registry.change(&path, |answer| answer.needs = needs);
    }
}

const BASIC: &str = r#"Basic realm="here""#;
/// alice:wonder
const ALICE: &str = "YWxpY2U6d29uZGVy";

fn write(store: &Store, name: &str, text: &str) -> PathBuf {
    let path = store.beside(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn logins_are_found_where_podman_and_docker_keep_them() {
    if !root() {
        return;
    }
    let (registry, image) = (Registry::start(), image());
    protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
    let host = &registry.host;
    let name = &format!("{host}/team/x");
    let auths = format!(r#"{{"auths":{{"{host}/team":{{"auth":"{ALICE}"}}}}}}"#);
    let store = Store::new();
    let file = write(&store, "auth.json", &auths);
    let file = file.to_str().unwrap();
    success(&store.run(&["-q", "--authfile", file, name]));
    success(&store.command(&["-q", name]).env("REGISTRY_AUTH_FILE", file).output().unwrap());
    for (variable, path) in [
        ("XDG_RUNTIME_DIR", "run/containers/auth.json"),
        ("XDG_CONFIG_HOME", "config/containers/auth.json"),
        ("DOCKER_CONFIG", "docker/config.json"),
        ("HOME", "home2/.docker/config.json"),
    ] {
        let store = Store::new();
        write(&store, path, &auths);
        let directory = store.beside(path.split('/').next().unwrap());
        success(&store.command(&["-q", name]).env(variable, directory).output().unwrap());
    }
    // Who has none is told.
    let store = Store::new();
    let output = store.run(&["-q", name]);
    assert!(failure(&output, 1).contains("401 Unauthorized"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: the image does not exist, or"));
    let missing = store.fail(1, &["-q", "--authfile", "/no/file", name]);
    assert_eq!(missing, "jc-pull: read /no/file: No such file or directory");
    let bad = write(&store, "bad.json", "{\n  \"auths\": [}");
    let message = store.fail(1, &["-q", "--authfile", bad.to_str().unwrap(), name]);
    assert!(message.contains("bad.json: ") && message.contains("line 2"), "{message}");
}

#[test]
fn a_file_of_another_user_is_used_only_if_it_is_named() {
    if !root() {
        return;
    }
    let (registry, image) = (Registry::start(), image());
    registry.push("team/x", "latest", &image, MANIFEST);
    let name = &format!("{}/team/x", registry.host);
    for file in ["docker/config.json", "conf/containers/registries.conf"] {
        let store = Store::new();
        let path = write(&store, file, if file.ends_with("json") { "{}" } else { "" });
        let run = |variable: &str, value: PathBuf| {
            let mut command = store.command(&["-q", name]);
            command.env("DOCKER_CONFIG", store.beside("docker"));
            command.env("XDG_CONFIG_HOME", store.beside("conf"));
            command.env_remove("CONTAINERS_REGISTRIES_CONF");
            command.env(variable, value).output().unwrap()
        };
        success(&run("UNUSED", PathBuf::new()));
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        let message = failure(&run("UNUSED", PathBuf::new()), 1);
        assert!(message.contains("the file belongs to user 65534, not to"), "{message}");
        match file.ends_with("json") {
            true => success(&run("REGISTRY_AUTH_FILE", path.clone())),
            false => success(&run("CONTAINERS_REGISTRIES_CONF", path.clone())),
        }
        std::fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        let message = failure(&run("UNUSED", PathBuf::new()), 1);
        assert!(message.ends_with(": not a regular file"), "{message}");
    }
}

#[test]
fn a_password_is_read_from_stdin_and_goes_to_the_named_registry_only() {
    if !root() {
        return;
    }
    let (registry, mirror, image) = (Registry::start(), Registry::start(), image());
    protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
    mirror.set(
        "/v2/team/x/manifests/latest",
        Answer { needs: Some(("x".to_owned(), BASIC.to_owned())), ..Answer::status(200) },
    );
    let name = format!("{}/team/x", registry.host);
    let run = |arguments: &[&str], input: &str| {
        let store = Store::new();
        let mut command = store.command(arguments);
        let command = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A usage error does not read.
        let _: std::io::Result<()> = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let login = ["-q", "--username", "alice", "--password-stdin"];
    success(&run(&[&login[..], &[&name]].concat(), "wonder\nmore\n"));
    let through = format!("{}=http://{}", registry.host, mirror.host);
    success(&run(&[&login[..], &["--mirror", &through, &name]].concat(), "wonder"));
    assert!(mirror.take_seen().iter().all(|r| r.authorization.is_none()));
    let wrong = run(&[&login[..], &[&name]].concat(), "wrong\n");
    assert!(failure(&wrong, 1).contains("401 Unauthorized"));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("this login has no access to it"));
    assert_eq!(
        failure(&run(&[&login[..], &[&name]].concat(), ""), 2),
        "jc-pull: no password on stdin"
    );
    failure(&run(&["--username", "alice", &name], ""), 2);
}

#[test]
fn tokens_are_got_with_a_login_and_again_when_they_expire() {
    if !root() {
        return;
    }
    let (registry, image) = (Registry::start(), image());
    let host = registry.host.clone();
    let challenge = format!(
        r#"Bearer realm="http://{host}/token",service="s",scope="repository:team/x:pull,push repository:*:*""#
    );
    protect(&registry, &image, "Bearer first", &challenge);
    let path = "/token?service=s&scope=repository%3Ateam%2Fx%3Apull";
    let token = Answer::ok(br#"{"access_token":"first"}"#, "application/json");
    let needs = Some((format!("Basic {ALICE}"), BASIC.to_owned()));
    registry.set(path, Answer { needs, ..token });
    let store = Store::new();
    let auths = format!(r#"{{"auths":{{"{host}":{{"auth":"{ALICE}"}}}}}}"#);
    let file = write(&store, "auth.json", &auths);
    success(&store.run(&["-q", "--authfile", file.to_str().unwrap(), &format!("{host}/team/x")]));
    let output = store.run(&["-q", &format!("{host}/team/x")]);
    assert!(failure(&output, 1).contains("/token: 401"));

    // An identity token is a refresh token of OAuth; and a token that the registry takes no more is
    // replaced.
    let tokens = Answer::ok(br#"{"access_token":"second"}"#, "application/json");
    registry.set("/token", tokens);
    for layer in &image.layers {
        let needs = Some(("Bearer second".to_owned(), challenge.clone()));
        registry.change(&format!("/v2/team/x/blobs/{layer}"), |a| a.needs = needs);
    }
    registry.set("/token", Answer::ok(br#"{"access_token":"first"}"#, "application/json"));
    let auths = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"refresh me"}}}}}}"#);
    let file = write(&store, "identity.json", &auths);
    let other = Store::new();
    registry.take_seen();
    let output =
        other.run(&["-q", "--authfile", file.to_str().unwrap(), &format!("{host}/team/x")]);
    // The service goes on giving the first one here, which the layer does not take.
    assert!(failure(&output, 1).contains("401 Unauthorized"));
    let posts: Vec<_> = registry.take_seen().into_iter().filter(|r| r.path == "/token").collect();
    assert_eq!(posts.len(), 2, "one at first, one when it was taken no more");
    assert!(posts.iter().all(|r| r.method == "POST"
        && r.body == "service=s&scope=repository%3Ateam%2Fx%3Apull&grant_type=refresh_token&client_id=jc-pull&refresh_token=refresh+me"));
    registry.set("/token", Answer::ok(br#"{"access_token":"second"}"#, "application/json"));
    let second = Some(("Bearer second".to_owned(), challenge));
    for digest in image.blobs.keys() {
        registry.change(&format!("/v2/team/x/blobs/{digest}"), |a| a.needs.clone_from(&second));
    }
    for tag in ["latest", &image.manifest] {
        registry.change(&format!("/v2/team/x/manifests/{tag}"), |a| a.needs.clone_from(&second));
    }
    success(&other.run(&["-q", "--authfile", file.to_str().unwrap(), &format!("{host}/team/x")]));
}

#[test]
fn helpers_are_asked() {
    if !root() {
        return;
    }
    let (registry, image) = (Registry::start(), image());
    protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
    let (host, store) = (registry.host.clone(), Store::new());
    let name = &format!("{host}/team/x");
    let helper = write(
        &store,
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r host || [ -n \"$host\" ]\n[ \"$1\" = get ] || exit 3\n\
         case $host in\n*nobody*) echo 'credentials not found in native keychain'; exit 1;;\n\
         *broken*) echo locked; exit 1;;\n\
         *) echo '{\"ServerURL\":\"'$host'\",\"Username\":\"alice\",\"Secret\":\"wonder\"}';;\nesac\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", store.beside("bin").display());
    let run = |config: &str, name: &str| {
        let file = write(&store, "config.json", config);
        let arguments = ["-q", "--authfile", file.to_str().unwrap(), name];
        store.command(&arguments).env("PATH", &path).output().unwrap()
    };
    success(&run(&format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#), name));
    success(&run(r#"{"credsStore":"test"}"#, name));
    let missing = run(r#"{"credsStore":"absent"}"#, name);
    assert!(failure(&missing, 1).contains("run docker-credential-absent: No such file"));
    let path_in_name = run(r#"{"credsStore":"../x"}"#, name);
    assert!(failure(&path_in_name, 1).contains("not a plain name"));
    // A registry that the helper does not know, and one about which it fails.
    std::fs::write(&helper, "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n")
        .unwrap();
    assert!(failure(&run(r#"{"credsStore":"test"}"#, name), 1).contains("401"));
    std::fs::write(&helper, "#!/bin/sh\necho 'it is locked'; exit 1\n").unwrap();
    let locked = failure(&run(r#"{"credsStore":"test"}"#, name), 1);
    assert!(locked.ends_with(&format!("docker-credential-test get {host}: it is locked")));
    std::fs::write(&helper, "#!/bin/sh\necho no json\n").unwrap();
    assert!(failure(&run(r#"{"credsStore":"test"}"#, name), 1).contains("expected ident"));
}

#[test]
fn registries_are_where_their_configuration_says() {
    if !root() {
        return;
    }
    let (registry, mirror, image) = (Registry::start(), Registry::start(), image());
    registry.push("team/x", "latest", &image, MANIFEST);
    let store = Store::new();
    let run = |text: &str, arguments: &[&str]| {
        let file = write(&store, "registries.conf", text);
        let mut command = store.command(arguments);
        command.env("CONTAINERS_REGISTRIES_CONF", file).output().unwrap()
    };
    let location = format!(
        "[[registry]]\nprefix='far.example'\nlocation='{}'\n[aliases]\nshort='far.example/team/x'\n",
        registry.host
    );
    for name in ["far.example/team/x", "short"] {
        let output = run(&location, &["-q", name]);
        success(&output);
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(record["ref"], "far.example/team/x:latest");
    }
    // A mirror that has nothing is passed over, and one that has it is enough.
    let mirrored = format!(
        "[[registry]]\nlocation='far.example'\n[[registry.mirror]]\nlocation='{}'\n\
         [[registry.mirror]]\nlocation='{}'\n",
        mirror.host, registry.host
    );
    success(&run(&mirrored, &["-q", "far.example/team/x"]));
    assert!(!mirror.take_seen().is_empty());
    let output = run("[[registry]]\nlocation='far.example'\nblocked=true\n", &["far.example/x"]);
    assert!(failure(&output, 1).contains("far.example: blocked by"));
    let output = run("[[registry]]\n\nlocation=3\n", &["x"]);
    assert!(failure(&output, 1).contains("registries.conf: line 3: invalid type"));
    // The user's own directory is read too.
    write(&store, "home/.config/containers/registries.conf.d/1.conf", &location);
    let mut command = store.command(&["-q", "short"]);
    success(&command.env_remove("CONTAINERS_REGISTRIES_CONF").output().unwrap());
    // From the command line, with a path in front.
    registry.push("cache/team/x", "latest", &image, MANIFEST);
    let through = format!("far.example=http://{}/cache", registry.host);
    success(&store.run(&["-q", "--mirror", &through, "far.example/team/x"]));
    store.fail(2, &["--mirror", "nonsense", "x"]);
}

#[test]
fn proxies_are_for_other_hosts_than_this_one() {
    if !root() {
        return;
    }
    let (registry, proxy, image) = (Registry::start(), Registry::start(), image());
    registry.push("team/x", "latest", &image, MANIFEST);
    let store = Store::new();
    let name = format!("{}/team/x", registry.host);
    let proxy_url = format!("http://{}", proxy.host);
    let run = |arguments: &[&str]| {
        let mut command = store.command(arguments);
        command.env("http_proxy", &proxy_url).env("https_proxy", &proxy_url).output().unwrap()
    };
    success(&run(&["-q", &name]));
    assert_eq!(proxy.take_seen(), []);
    let output = run(&["-q", "--retry", "0", "far.example/x"]);
    assert!(
        failure(&output, 1).contains("get https://far.example/v2/x")
            || output.status.code() == Some(1)
    );
    let seen = proxy.take_seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("CONNECT", "far.example:443"));

    // Of plain http the proxy is asked for the whole URL; but not of hosts that are excepted.
    let serve =
        |path: &str, answer: Answer| proxy.set(&format!("http://far.example{path}"), answer);
    for (digest, bytes) in &image.blobs {
        serve(&format!("/v2/x/blobs/{digest}"), Answer::ok(bytes, ""));
    }
    for tag in ["latest", &image.manifest] {
        serve(
            &format!("/v2/x/manifests/{tag}"),
            Answer::ok(&image.blobs[&image.manifest], MANIFEST),
        );
    }
    let mirror =
        ["-q", "--retry", "0", "--mirror", "far.example=http://far.example", "far.example/x"];
    success(&run(&mirror));
    assert!(!proxy.take_seen().is_empty());
    let mut command = store.command(&mirror);
    let output =
        command.env("http_proxy", &proxy_url).env("no_proxy", "far.example").output().unwrap();
    assert!(failure(&output, 1).contains("resolve far.example"));
    assert_eq!(proxy.take_seen(), []);
}
