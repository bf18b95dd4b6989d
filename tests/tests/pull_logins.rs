//! Logins, credential helpers, and the configuration of registries.

#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jc_tests::http::{Answer, Registry};
use jc_tests::image::{Built, Packed};
use jc_tests::layer::Layer;
use jc_tests::pulled::{Store, failure};
use jc_tests::{Ran, sandbox};
use serde_json::Value;

fn image() -> Built {
    Built::of(&[Packed::gzip(&Layer::new().directory("./", 0o755).file("x", "x").into_tar())])
}

/// Lets all requests for the image need this `Authorization`.
fn protect(registry: &Registry, image: &Built, wanted: &str, challenge: &str) {
    registry.push("team/x", "latest", image);
    let blobs = image.blobs.keys().map(|digest| format!("/v2/team/x/blobs/{digest}"));
    let manifests = ["latest", image.digest()].map(|t| format!("/v2/team/x/manifests/{t}"));
    for path in blobs.chain(manifests) {
        let needs = Some((wanted.to_owned(), challenge.to_owned()));
        registry.change(&path, |answer| answer.needs = needs);
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BASIC: &str = r#"Basic realm="here""#;
/// `alice:wonder` in base64.
const ALICE: &str = "YWxpY2U6d29uZGVy";

#[track_caller]
fn success(ran: &Ran) {
    assert!(ran.status().success(), "{ran}");
}

#[test]
fn logins_are_found_where_podman_and_docker_keep_them() {
    sandbox(|s| {
        let (registry, image) = (Registry::start(), image());
        protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
        let host = &registry.host;
        let name = &format!("{host}/team/x");
        let auths = format!(r#"{{"auths":{{"{host}/team":{{"auth":"{ALICE}"}}}}}}"#);
        let store = Store::new(s);
        let file = store.write("auth.json", &auths);
        let file = file.to_str().unwrap();
        success(&store.run(&["-q", "--authfile", file, name]));
        success(&store.command(&["-q", name]).env("REGISTRY_AUTH_FILE", file).run());
        for (variable, path) in [
            ("XDG_RUNTIME_DIR", "run/containers/auth.json"),
            ("XDG_CONFIG_HOME", "config/containers/auth.json"),
            ("DOCKER_CONFIG", "docker/config.json"),
            ("HOME", "home2/.docker/config.json"),
        ] {
            let store = Store::new(s);
            store.write(path, &auths);
            let directory = store.beside(path.split('/').next().unwrap());
            success(&store.command(&["-q", name]).env(variable, directory).run());
        }
        // Without a login, the hint names the options.
        let store = Store::new(s);
        let output = store.run(&["-q", name]);
        assert!(failure(&output, 1).contains("401 Unauthorized"));
        assert!(output.err().contains("hint: the image does not exist, or"));
        let missing = store.fail(1, &["-q", "--authfile", "/no/file", name]);
        assert_eq!(missing, "jc-pull: read /no/file: No such file or directory");
        let bad = store.write("bad.json", "{\n  \"auths\": [}");
        let message = store.fail(1, &["-q", "--authfile", bad.to_str().unwrap(), name]);
        assert!(message.contains("bad.json: ") && message.contains("line 2"), "{message}");
    });
}

#[test]
fn a_file_of_another_user_is_used_only_if_it_is_named() {
    sandbox(|s| {
        let (registry, image) = (Registry::start(), image());
        registry.push("team/x", "latest", &image);
        let name = &format!("{}/team/x", registry.host);
        for file in ["docker/config.json", "conf/containers/registries.conf"] {
            let store = Store::new(s);
            let path = store.write(file, if file.ends_with("json") { "{}" } else { "" });
            let run = |variable: &str, value: PathBuf| {
                let command =
                    store.command(&["-q", name]).env("DOCKER_CONFIG", store.beside("docker"));
                let command = command.env("XDG_CONFIG_HOME", store.beside("conf"));
                command.env_remove("CONTAINERS_REGISTRIES_CONF").env(variable, value).run()
            };
            success(&run("UNUSED", PathBuf::new()));
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
            let message = failure(&run("UNUSED", PathBuf::new()), 1);
            assert!(message.contains("the file belongs to user 65534, not to"), "{message}");
            if file.ends_with("json") {
                success(&run("REGISTRY_AUTH_FILE", path.clone()))
            } else {
                success(&run("CONTAINERS_REGISTRIES_CONF", path.clone()))
            }
            std::fs::remove_file(&path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
            let message = failure(&run("UNUSED", PathBuf::new()), 1);
            assert!(message.ends_with(": not a regular file"), "{message}");
        }
    });
}

#[test]
fn a_password_is_read_from_stdin_and_goes_to_the_named_registry_only() {
    sandbox(|s| {
        let (registry, mirror, image) = (Registry::start(), Registry::start(), image());
        protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
        mirror.set(
            "/v2/team/x/manifests/latest",
            Answer { needs: Some(("x".to_owned(), BASIC.to_owned())), ..Answer::status(200) },
        );
        let name = format!("{}/team/x", registry.host);
        let run =
            |arguments: &[&str], input: &str| Store::new(s).command(arguments).input(input).run();
        let login = ["-q", "--username", "alice", "--password-stdin"];
        success(&run(&[&login[..], &[&name]].concat(), "wonder\nmore\n"));
        let through = format!("{}=http://{}", registry.host, mirror.host);
        success(&run(&[&login[..], &["--mirror", &through, &name]].concat(), "wonder"));
        assert!(mirror.take_seen().iter().all(|r| r.authorization.is_none()));
        let wrong = run(&[&login[..], &[&name]].concat(), "wrong\n");
        assert!(failure(&wrong, 1).contains("401 Unauthorized"));
        assert!(wrong.err().contains("this login has no access to it"));
        assert_eq!(
            failure(&run(&[&login[..], &[&name]].concat(), ""), 2),
            "jc-pull: no password on stdin"
        );
        failure(&run(&["--username", "alice", &name], ""), 2);
    });
}

#[test]
fn tokens_are_got_with_a_login_and_again_when_they_expire() {
    sandbox(|s| {
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
        let store = Store::new(s);
        let auths = format!(r#"{{"auths":{{"{host}":{{"auth":"{ALICE}"}}}}}}"#);
        let file = store.write("auth.json", &auths);
        success(&store.run(&[
            "-q",
            "--authfile",
            file.to_str().unwrap(),
            &format!("{host}/team/x"),
        ]));
        let output = store.run(&["-q", &format!("{host}/team/x")]);
        assert!(failure(&output, 1).contains("/token: 401"));

        // An identity token is a refresh token of OAuth. An expired token is replaced.
        let tokens = Answer::ok(br#"{"access_token":"second"}"#, "application/json");
        registry.set("/token", tokens);
        for layer in image.layers.iter().map(|l| l["digest"].as_str().unwrap()) {
            let needs = Some(("Bearer second".to_owned(), challenge.clone()));
            registry.change(&format!("/v2/team/x/blobs/{layer}"), |a| a.needs = needs);
        }
        registry.set("/token", Answer::ok(br#"{"access_token":"first"}"#, "application/json"));
        let auths = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"refresh me"}}}}}}"#);
        let file = store.write("identity.json", &auths);
        let other = Store::new(s);
        registry.take_seen();
        let output =
            other.run(&["-q", "--authfile", file.to_str().unwrap(), &format!("{host}/team/x")]);
        // The service returns the first token again, which the layer does not accept.
        assert!(failure(&output, 1).contains("401 Unauthorized"));
        let posts: Vec<_> =
            registry.take_seen().into_iter().filter(|r| r.path == "/token").collect();
        assert_eq!(posts.len(), 2, "one at first, one when it was taken no more");
        assert!(posts.iter().all(|r| r.method == "POST"
        && r.body == "service=s&scope=repository%3Ateam%2Fx%3Apull&grant_type=refresh_token&client_id=jc-pull&refresh_token=refresh+me"));
        registry.set("/token", Answer::ok(br#"{"access_token":"second"}"#, "application/json"));
        let second = Some(("Bearer second".to_owned(), challenge));
        for digest in image.blobs.keys() {
            registry.change(&format!("/v2/team/x/blobs/{digest}"), |a| a.needs.clone_from(&second));
        }
        for tag in ["latest", image.digest()] {
            registry
                .change(&format!("/v2/team/x/manifests/{tag}"), |a| a.needs.clone_from(&second));
        }
        success(&other.run(&[
            "-q",
            "--authfile",
            file.to_str().unwrap(),
            &format!("{host}/team/x"),
        ]));
    });
}

#[test]
fn helpers_are_asked() {
    sandbox(|s| {
        let (registry, image) = (Registry::start(), image());
        protect(&registry, &image, &format!("Basic {ALICE}"), BASIC);
        let (host, store) = (registry.host.clone(), Store::new(s));
        let name = &format!("{host}/team/x");
        let helper = store.write("bin/docker-credential-test",
            "#!/bin/sh\nread -r host || [ -n \"$host\" ]\n[ \"$1\" = get ] || exit 3\n\
         case $host in\n*nobody*) echo 'credentials not found in native keychain'; exit 1;;\n\
         *broken*) echo locked; exit 1;;\n\
         *) echo '{\"ServerURL\":\"'$host'\",\"Username\":\"alice\",\"Secret\":\"wonder\"}';;\nesac\n",
        );
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", store.beside("bin").display());
        let run = |config: &str, name: &str| {
            let file = store.write("config.json", config);
            let arguments = ["-q", "--authfile", file.to_str().unwrap(), name];
            store.command(&arguments).env("PATH", &path).run()
        };
        success(&run(&format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#), name));
        success(&run(r#"{"credsStore":"test"}"#, name));
        let missing = run(r#"{"credsStore":"absent"}"#, name);
        assert!(failure(&missing, 1).contains("run docker-credential-absent: No such file"));
        let path_in_name = run(r#"{"credsStore":"../x"}"#, name);
        assert!(failure(&path_in_name, 1).contains("not a plain name"));
        // A registry without an entry in the helper, and one for which the helper fails.
        std::fs::write(
            &helper,
            "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n",
        )
        .unwrap();
        assert!(failure(&run(r#"{"credsStore":"test"}"#, name), 1).contains("401"));
        std::fs::write(&helper, "#!/bin/sh\necho 'it is locked'; exit 1\n").unwrap();
        let locked = failure(&run(r#"{"credsStore":"test"}"#, name), 1);
        assert!(locked.ends_with(&format!("docker-credential-test get {host}: it is locked")));
        std::fs::write(&helper, "#!/bin/sh\necho no json\n").unwrap();
        assert!(failure(&run(r#"{"credsStore":"test"}"#, name), 1).contains("expected ident"));
    });
}

#[test]
fn registries_are_where_their_configuration_says() {
    sandbox(|s| {
        let (registry, mirror, image) = (Registry::start(), Registry::start(), image());
        registry.push("team/x", "latest", &image);
        let store = Store::new(s);
        let run = |text: &str, arguments: &[&str]| {
            let file = store.write("registries.conf", text);
            store.command(arguments).env("CONTAINERS_REGISTRIES_CONF", file).run()
        };
        let location = format!(
            "[[registry]]\nprefix='far.example'\nlocation='{}'\n[aliases]\nshort='far.example/team/x'\n",
            registry.host
        );
        for name in ["far.example/team/x", "short"] {
            let output = run(&location, &["-q", name]);
            success(&output);
            let record: Value = serde_json::from_slice(output.out_bytes()).unwrap();
            assert_eq!(record["ref"], "far.example/team/x:latest");
        }
        // A mirror without the image is passed over, and a mirror with the image is enough.
        let mirrored = format!(
            "[[registry]]\nlocation='far.example'\n[[registry.mirror]]\nlocation='{}'\n\
         [[registry.mirror]]\nlocation='{}'\n",
            mirror.host, registry.host
        );
        success(&run(&mirrored, &["-q", "far.example/team/x"]));
        assert!(!mirror.take_seen().is_empty());
        let output =
            run("[[registry]]\nlocation='far.example'\nblocked=true\n", &["far.example/x"]);
        assert!(failure(&output, 1).contains("far.example: blocked by"));
        let output = run("[[registry]]\n\nlocation=3\n", &["x"]);
        assert!(failure(&output, 1).contains("registries.conf: line 3: invalid type"));
        // The directory of the user is read too.
        store.write("home/.config/containers/registries.conf.d/1.conf", &location);
        let command = store.command(&["-q", "short"]);
        success(&command.env_remove("CONTAINERS_REGISTRIES_CONF").run());
        // A mirror on the command line, with a path.
        registry.push("cache/team/x", "latest", &image);
        let through = format!("far.example=http://{}/cache", registry.host);
        success(&store.run(&["-q", "--mirror", &through, "far.example/team/x"]));
        store.fail(2, &["--mirror", "nonsense", "x"]);
    });
}

#[test]
fn proxies_are_for_other_hosts_than_this_one() {
    sandbox(|s| {
        let (registry, proxy, image) = (Registry::start(), Registry::start(), image());
        registry.push("team/x", "latest", &image);
        let store = Store::new(s);
        let name = format!("{}/team/x", registry.host);
        let proxy_url = format!("http://{}", proxy.host);
        let run = |arguments: &[&str]| {
            let command = store.command(arguments);
            command.env("http_proxy", &proxy_url).env("https_proxy", &proxy_url).run()
        };
        success(&run(&["-q", &name]));
        assert_eq!(proxy.take_seen(), []);
        let output = run(&["-q", "--retry", "0", "far.example/x"]);
        assert!(
            failure(&output, 1).contains("get https://far.example/v2/x")
                || output.status().code() == Some(1)
        );
        let seen = proxy.take_seen();
        assert_eq!(
            (seen[0].method.as_str(), seen[0].path.as_str()),
            ("CONNECT", "far.example:443")
        );

        // A request by plain http sends the whole URL to the proxy. Requests for hosts in no_proxy bypass the proxy.
        let serve =
            |path: &str, answer: Answer| proxy.set(&format!("http://far.example{path}"), answer);
        for (digest, bytes) in &image.blobs {
            serve(&format!("/v2/x/blobs/{digest}"), Answer::ok(bytes, ""));
        }
        for tag in ["latest", image.digest()] {
            serve(&format!("/v2/x/manifests/{tag}"), Answer::ok(image.manifest(), MANIFEST));
        }
        let mirror =
            ["-q", "--retry", "0", "--mirror", "far.example=http://far.example", "far.example/x"];
        success(&run(&mirror));
        assert!(!proxy.take_seen().is_empty());
        let command = store.command(&mirror);
        let output = command.env("http_proxy", &proxy_url).env("no_proxy", "far.example").run();
        assert!(failure(&output, 1).contains("resolve far.example"));
        assert_eq!(proxy.take_seen(), []);
    });
}
