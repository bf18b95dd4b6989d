//! The drivers in jc-run/ci, against the protocols of GitLab Runner and the GitHub Actions runner.

#![cfg(target_os = "linux")]

use std::fs;

use jc_tests::image::{Image, Layout};
use jc_tests::roots::busybox_layer;
use jc_tests::{Cmd, Ran, Sandbox, require, sandbox, workspace_dir};
use serde_json::{Value, json};

fn image(s: &Sandbox) {
    let image = Image::new().layer(busybox_layer()).config(json!({"Env": ["PATH=/bin"]}));
    Layout::new(s.path("image")).image("x", &image);
    fs::create_dir(s.path("ci")).unwrap();
    for name in ["gitlab-executor", "github-hooks", "step", "bazel-run-under"] {
        fs::copy(workspace_dir().join("jc-run/ci").join(name), s.path("ci").join(name)).unwrap();
    }
}

/// A call of the runner, with the variables and exit codes of its documentation ("The Custom executor").
fn gitlab(s: &Sandbox, words: &[&str]) -> Cmd {
    s.cmd("sh")
        .arg(s.path("ci/gitlab-executor"))
        .args(words)
        .env("HOME", "/srv")
        .env("JC_CI_OPTIONS", "--network none")
        .env("CUSTOM_ENV_CI_JOB_IMAGE", "oci:/srv/image")
        .env("CUSTOM_ENV_CI_JOB_ID", "42")
        .env("CUSTOM_ENV_CI_PROJECT_ID", "7")
        .env("BUILD_FAILURE_EXIT_CODE", "11")
        .env("SYSTEM_FAILURE_EXIT_CODE", "12")
}

#[test]
fn a_job_of_gitlab_runs_in_a_container() {
    sandbox(|s| {
        image(s);
        let config = gitlab(s, &["config"]).run().code(0).out();
        let config: Value = serde_json::from_str(&config).unwrap();
        let builds = "/srv/jc-ci/builds/gitlab-0-7-42";
        assert_eq!(
            (&config["builds_dir"], &config["driver"]["name"]),
            (&json!(builds), &json!("jc"))
        );
        gitlab(s, &["prepare"]).run().code(0).stdout("");
        let script = |name: &str, text: &str| {
            fs::write(s.path(name), text).unwrap();
            format!("/srv/{name}")
        };
        let sources = script(
            "sources",
            &format!("echo text > {builds}/file; test -e /srv/ci && echo on the host\n"),
        );
        gitlab(s, &["run", &sources, "get_sources"]).run().code(0).stdout("on the host\n");
        let build = script(
            "build",
            &format!("cd {builds}; cat file; echo made > made; test -e /srv/ci || echo inside\n"),
        );
        gitlab(s, &["run", &build, "build_script"]).run().code(0).stdout("text\ninside\n");
        assert_eq!(fs::read_to_string(format!("{builds}/made")).unwrap(), "made\n");
        let failing = script("failing", "exit 3\n");
        gitlab(s, &["run", &failing, "step_test"]).run().code(11);
        s.sh("jc-rm -f gitlab-0-7-42").run().code(0);
        gitlab(s, &["run", &build, "after_script"]).run().code(12);
        gitlab(s, &["prepare"]).env("CUSTOM_ENV_CI_JOB_IMAGE", "oci:/srv/none").run().code(12);
        gitlab(s, &["prepare"])
            .env("CUSTOM_ENV_CI_JOB_SERVICES", "[{\"name\":\"db\"}]")
            .run()
            .code(12);
        gitlab(s, &["prepare"]).run().code(0);
        gitlab(s, &["cleanup"]).run().code(0);
        s.sh("jc-list -aq; ls jc-ci/builds").run().code(0).stdout("");
        s.wait_for_no_process();
    });
}

/// A command of the runner ("Container hooks"), with its response.
fn github(s: &Sandbox, command: &str, args: Value, state: Value) -> (Ran, Value) {
    let input =
        json!({"command": command, "responseFile": "/srv/response", "args": args, "state": state});
    fs::write(s.path("response"), "").unwrap();
    let hooks = s.cmd("sh").arg(s.path("ci/github-hooks")).env("JC_CI_OPTIONS", "--network none");
    let ran = hooks.input(input.to_string()).run();
    let response = fs::read_to_string(s.path("response")).unwrap();
    (ran, serde_json::from_str(&response).unwrap_or_default())
}

#[test]
fn a_job_of_github_runs_in_a_container() {
    sandbox(|s| {
        require(s, "jq", "jq");
        image(s);
        fs::create_dir(s.path("work")).unwrap();
        fs::write(s.path("work/script"), "echo \"$A\"; pwd; echo made > made; exit $1\n").unwrap();
        let container = json!({"image": "oci:/srv/image", "workingDirectory": "/w",
            "environmentVariables": {"JOB": "a b"}, "createOptions": "--hostname box --ulimit nofile=99",
            "systemMountVolumes": [{"sourceVolumePath": "/srv/work", "targetVolumePath": "/w", "readOnly": false}]});
        let (ran, response) =
            github(s, "prepare_job", json!({"container": container}), Value::Null);
        ran.code(0);
        assert_eq!(response["isAlpine"], false);
        assert_eq!(response["context"]["container"]["id"], response["state"]["container"]);
        let step = |arguments: Value| {
            let args = json!({"entryPoint": "sh", "entryPointArgs": arguments, "workingDirectory": "/w",
                "prependPath": ["/w/it's"], "environmentVariables": {"A": "it's\ntwo $lines"}});
            github(s, "run_script_step", args, response["state"].clone()).0
        };
        step(json!(["/w/script", "0"])).code(0).stdout("it's\ntwo $lines\n/w\n");
        step(json!(["/w/script", "7"])).code(7);
        step(json!(["-c", "hostname; ulimit -n; echo $JOB; echo $PATH"]))
            .code(0)
            .stdout("box\n99\na b\n/w/it's:/bin\n");
        assert_eq!(fs::read_to_string(s.path("work/made")).unwrap(), "made\n");
        let action = json!({"image": "oci:/srv/image", "entryPoint": "echo", "entryPointArgs": ["$HOME", "x y"]});
        github(s, "run_container_step", action, Value::Null).0.code(0).stdout("$HOME x y\n");
        github(s, "cleanup_job", Value::Null, response["state"].clone()).0.code(0);
        s.sh("jc-list -aq").run().stdout("");
        let service = json!({"container": container, "services": [{"image": "redis"}]});
        let (ran, _) = github(s, "prepare_job", service, Value::Null);
        assert!(ran.code(1).err().contains("service redis: not supported"));
        let (ran, _) =
            github(s, "run_container_step", json!({"dockerfile": "Dockerfile"}), Value::Null);
        assert!(ran.code(1).err().contains("dockerfile: not supported"));
        s.wait_for_no_process();
    });
}

#[test]
fn a_step_has_the_working_directory_and_the_exit_code() {
    sandbox(|s| {
        image(s);
        let step = "JC_CI_OPTIONS='--network none' sh /srv/ci/step oci:/srv/image";
        s.sh(&format!("mkdir work; cd work; {step} sh -c 'pwd > out; exit 4'")).run().code(4);
        assert_eq!(fs::read_to_string(s.path("work/out")).unwrap(), "/srv/work\n");
        s.sh("sh /srv/ci/step oci:/srv/image")
            .run()
            .code(125)
            .stderr("usage: step IMAGE PROG [ARG...]\n");
        let test = "sh /srv/ci/bazel-run-under sh -c 'ip -o link | wc -l; echo $$; exit 3'";
        s.sh(test).run().code(3).stdout("1\n1\n");
    });
}

/// The runner's steps for a composite action ("Metadata syntax"): the expressions of `env` become inputs, and `shell: sh`
/// executes a file of `run` by `sh -e`.
#[test]
fn the_action_of_github_runs_a_script_in_a_container() {
    sandbox(|s| {
        image(s);
        let action = workspace_dir().join("jc-run/ci/github-action/action.yml");
        let action = fs::read_to_string(action).unwrap();
        let steps = action.split_once("steps:\n").unwrap().1;
        let value = |key: &str| {
            let key = format!("{key}: ");
            let line = steps
                .lines()
                .find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(&key));
            line.unwrap_or_else(|| panic!("no {key}in {steps}")).to_owned()
        };
        assert_eq!(value("shell"), "sh");
        fs::write(s.path("step"), value("run")).unwrap();
        let run = |script: &str, options: &str| {
            let mut step = s.cmd("sh").args(["-e", "/srv/step"]).env("JC_CI", "/srv/ci");
            for (input, given) in
                [("image", "oci:/srv/image"), ("run", script), ("options", options)]
            {
                let expression = format!(": ${{{{ inputs.{input} }}}}");
                let line = steps.lines().find(|line| line.ends_with(&expression)).unwrap();
                let name = line.trim().strip_suffix(&expression).unwrap();
                step = step.env(name, given);
            }
            step.run()
        };
        let script = "echo \"it's $(hostname)\"\necho made > made";
        run(script, "--network none --hostname box").code(0).stdout("it's box\n");
        assert_eq!(fs::read_to_string(s.path("made")).unwrap(), "made\n");
        run("hostname; false; echo never", "--network none --hostname box").code(1).stdout("box\n");
        // Each input of the action is one of its expressions.
        let inputs = action.split_once("inputs:\n").unwrap().1.split("runs:").next().unwrap();
        let names =
            inputs.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        assert_eq!(names.collect::<Vec<_>>(), ["  image:", "  run:", "  options:"]);
    });
}
