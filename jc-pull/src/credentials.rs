//! Logins at registries: containers-auth.json(5), Docker's config.json, and credential helpers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jc_unshare::{Error, Result, path_variable, strerror};
use serde::Deserialize;

use jc_unshare::image::config_files;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Login {
    /// User and password, for basic authentication or a token service.
    Password {
        user: String,
        /// The password, or a token in its place.
        password: String,
    },
    /// An OAuth refresh token, for a token service.
    Identity(String),
}

/// The logins of the command line and of the configuration files.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The login of the command line, for the registries that the command line names.
    given: Option<Login>,
    files: Vec<AuthFile>,
}

#[derive(Debug)]
struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

impl Credentials {
    /// Reads `authfile` or `$REGISTRY_AUTH_FILE` alone, or else `$XDG_RUNTIME_DIR/containers/auth.json`
    /// and Docker's file. An absent file of the second kind is no error.
    pub fn load(authfile: Option<&Path>, given: Option<Login>) -> Result<Self> {
        let mut found = Vec::new();
        let named = || path_variable(config_files::AUTH_FILE);
        if let Some(path) = authfile.map(Path::to_owned).or_else(named) {
            found.push(AuthFile::parse(&config_files::read_named(&path)?, path)?);
            return Ok(Self { given, files: found });
        }
        for path in config_files::login_files() {
            if let Some(text) = config_files::read_found(&path)? {
                found.push(AuthFile::parse(&text, path)?);
            }
        }
        Ok(Self { given, files: found })
    }

    /// Reads the content of a file, for the fuzzer. Malformed JSON is an error.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Ok(Self { given: None, files: vec![AuthFile::parse(text, PathBuf::from("auth.json"))?] })
    }

    /// Whether a credential helper knows the registry.
    pub fn has_helper(&self, registry: &str) -> bool {
        self.files.iter().any(|file| {
            let content = &file.content;
            content.cred_helpers.contains_key(registry) || !content.creds_store.is_empty()
        })
    }

    /// The login for a repository. `is_named`: the command line names this registry, so its login belongs
    /// to the registry. Errors are those of credential helpers and of malformed entries.
    pub fn find(&self, registry: &str, repository: &str, named: bool) -> Result<Option<Login>> {
        if let Some(given) = self.given.as_ref().filter(|_| named) {
            return Ok(Some(given.clone()));
        }
        for file in &self.files {
            if let Some(login) = file.find(registry, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl AuthFile {
    fn parse(text: &[u8], path: PathBuf) -> Result<Self> {
        let content = serde_json::from_slice(text).map_err(|e| {
            // The message of serde_json ends with line and column.
            Error::new(format_args!("{}: {e}", path.display()))
        })?;
        Ok(Self { path, content })
    }

    fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>> {
        if let Some(helper) = self.content.cred_helpers.get(registry) {
            return ask_helper(helper, registry);
        }
        // The most specific entry counts: host/a/b, host/a, host.
        let full = format!("{registry}/{repository}");
        let mut key = full.as_str();
        loop {
            let entry = self.content.auths.iter().find(|(name, _)| registry_of(name) == key);
            if let Some((name, auth)) = entry
                && let Some(login) = auth.login(&self.path, name)?
            {
                return Ok(Some(login));
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => break,
            }
        }
        match self.content.creds_store.as_str() {
            "" => Ok(None),
            helper => ask_helper(helper, if registry == "docker.io" { HUB } else { registry }),
        }
    }
}

/// The key of Docker Hub in Docker's own files.
const HUB: &str = "https://index.docker.io/v1/";

/// The registry or repository of a key. Old keys are URLs.
fn registry_of(key: &str) -> &str {
    let url = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    let key = match url {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    if matches!(key, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { key }
}

impl Auth {
    /// The login in an entry. The result is `None` if the entry only refers to a helper.
    fn login(&self, path: &Path, name: &str) -> Result<Option<Login>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = STANDARD.decode(&self.auth).ok().and_then(|b| String::from_utf8(b).ok());
        let (user, password) = decoded
            .as_deref()
            // Some writers pad with NULs.
            .and_then(|text| text.trim_end_matches('\0').split_once(':'))
            .ok_or_else(|| {
                Error::new(format_args!("{}: {name}: auth is not user:password", path.display()))
            })?;
        Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }))
    }
}

/// The answer of a helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-HELPER get` (docker-credential-helpers).
fn ask_helper(helper: &str, registry: &str) -> Result<Option<Login>> {
    let program = format!("docker-credential-{helper}");
    let broken = |e: io::Error| Error::new(format_args!("run {program}: {}", strerror(&e)));
    if helper.contains('/') {
        return Err(Error::new(format_args!("credential helper {helper:?}: not a plain name")));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that needs no input may have closed its stdin.
        let _: io::Result<()> = stdin.write_all(registry.as_bytes());
    }
    let output = child.wait_with_output().map_err(broken)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::new(format_args!("{program} get {registry}: {}", text.trim())));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::new(format_args!("{program} get {registry}: {e}")))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::Identity(answer.secret),
        _ => Login::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let entry = |text: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(text));
        let text = format!(
            r#"{{"auths":{{"r.x":{},"r.x/a/b":{},"https://old.x/v1/":{},"{HUB}":{},
                "r.x/empty":{{}},"id.x":{{"auth":"","identitytoken":"tok"}}}}}}"#,
            entry("u:host"),
            entry("u:repo:with:colons"),
            entry("u:old"),
            entry("u:hub")
        );
        let file = AuthFile::parse(text.as_bytes(), "auth.json".into()).unwrap();
        for (registry, repository, login) in [
            ("r.x", "a", Some(password("u", "host"))),
            ("r.x", "a/b", Some(password("u", "repo:with:colons"))),
            ("r.x", "a/b/c", Some(password("u", "repo:with:colons"))),
            ("r.x", "a/bc", Some(password("u", "host"))),
            ("r.x", "empty", Some(password("u", "host"))),
            ("old.x", "a", Some(password("u", "old"))),
            ("docker.io", "library/a", Some(password("u", "hub"))),
            ("id.x", "a", Some(Login::Identity("tok".to_owned()))),
            ("r.x.y", "a", None),
            ("r.x:5000", "a", None),
        ] {
            assert_eq!(file.find(registry, repository).unwrap(), login, "{registry}/{repository}");
        }
    }

    #[test]
    fn bad_files_say_where() {
        let bad = AuthFile::parse(b"{\n\"auths\": 3}", "f".into()).unwrap_err().to_string();
        assert!(bad.starts_with("f: invalid type") && bad.contains("line 2"), "{bad}");
        let file = AuthFile::parse(br#"{"auths":{"r.x":{"auth":"!"}}}"#, "f".into()).unwrap();
        let bad = file.find("r.x", "a").unwrap_err().to_string();
        assert_eq!(bad, "f: r.x: auth is not user:password");
    }
}
