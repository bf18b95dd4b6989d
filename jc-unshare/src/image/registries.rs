//! The endpoints of registries: containers-registries.conf(5), version 2, and `--mirror`.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::file::{Mirror, MirrorUse, Registry};
use super::config_files;
use super::name::Name;
use super::reference::{Reference, has_registry};
use crate::error::{Error, Result};
use crate::tool::path_variable;

/// The variable that names another file in place of all of containers-registries.conf(5).
const REGISTRIES_CONF: &str = "CONTAINERS_REGISTRIES_CONF";

/// The directories of containers-registries.conf(5): that of the user, if there is one, and that of the system.
fn directories() -> [Option<PathBuf>; 2] {
    [config_files::user_directory(), Some("/etc/containers".into())]
}

/// A registry or mirror for one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// The host, and its port unless that is the default one.
    pub authority: String,
    /// The repository in this registry or mirror.
    pub repository: String,
    /// The scheme, if only one is allowed.
    pub scheme: Option<&'static str>,
    /// Whether plain http and unknown certificates are allowed.
    pub insecure: bool,
    /// Whether this is a mirror, which may lack the image.
    pub mirror: bool,
}

/// The configuration of registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    registries: Vec<Registry>,
    aliases: BTreeMap<String, String>,
    /// The mirrors of the command line, by registry.
    mirrors: Vec<(String, Mirror)>,
}

/// Whether a variable names a file that may be read once, such as a FIFO.
pub fn is_read_once() -> bool {
    path_variable(REGISTRIES_CONF).is_some_and(|path| !path.is_file())
}

/// Parses the name of an image. A short name may be an alias of the configuration, which other names do not need.
pub fn parse_name(text: &str) -> Result<Name> {
    let name = Name::parse(text)?;
    if has_registry(text) || !matches!(name, Name::Registry(_)) {
        return Ok(name);
    }
    let mut registries = Registries::default();
    registries.load()?;
    Name::parse(&registries.expand(text))
}

impl Registries {
    /// Reads `$CONTAINERS_REGISTRIES_CONF`, or else the user's file or the system's and the files of
    /// `registries.conf.d`, the user's last. As in containers/image, a user with a file has nothing of the system. Absent
    /// default files are no errors.
    pub fn load(&mut self) -> Result<()> {
        if let Some(path) = path_variable(REGISTRIES_CONF) {
            let bytes = config_files::read_named(&path)?;
            return self.add(&config_files::text(bytes, &path)?, &path);
        }
        let [user, system] = directories();
        let has_file =
            |all: &mut Self, directory: &PathBuf| all.add_file(&directory.join("registries.conf"));
        let is_users = user.as_ref().map_or(Ok(false), |directory| has_file(self, directory))?;
        let system = system.filter(|_| !is_users);
        system.as_ref().map_or(Ok(false), |directory| has_file(self, directory))?;
        for directory in system.iter().chain(&user) {
            self.add_directory(&directory.join("registries.conf.d"))?;
        }
        Ok(())
    }

    /// Adds a mirror of the command line. Every error is a usage error.
    pub fn add_mirror(&mut self, text: &str) -> Result<()> {
        let bad = || Error::usage(format_args!("mirror {text:?}: not HOST=URL"));
        let (host, url) = text.split_once('=').ok_or_else(bad)?;
        let (scheme, location) = match url.split_once("://") {
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some(_) => return Err(bad()),
            None => (None, url),
        };
        let location = location.trim_end_matches('/').to_owned();
        if host.is_empty() || location.is_empty() {
            return Err(bad());
        }
        // A mirror with http:// is insecure by the caller's choice.
        let insecure = scheme == Some("http");
        let mirror = Mirror { location, scheme, insecure, pull_from_mirror: MirrorUse::All };
        self.mirrors.push((host.to_owned(), mirror));
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<bool> {
        let Some(bytes) = config_files::read_found(path)? else { return Ok(false) };
        self.add(&config_files::text(bytes, path)?, path).map(|()| true)
    }

    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let mut paths = config_files::list(directory)?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "conf"));
        paths.iter().try_for_each(|path| self.add_file(path).map(drop))
    }

    /// Reads the content of a file, for the fuzzer. Malformed TOML is an error.
    pub fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        all.add(text, Path::new("registries.conf")).map(|()| all)
    }

    /// Adds a file. Its prefixes and aliases replace those of earlier files.
    fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        let (registries, aliases) = file::parse(text, path)?;
        for registry in registries {
            self.registries.retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        self.aliases.extend(aliases);
        Ok(())
    }

    /// Replaces a name without a registry by its alias.
    pub fn expand(&self, name: &str) -> String {
        let end = name.find('@').unwrap_or(name.len());
        let path = name.get(..end).unwrap_or(name);
        let colon = path.rfind(':').filter(|at| !path.get(*at..).unwrap_or_default().contains('/'));
        let (short, rest) = name.split_at(colon.unwrap_or(end));
        match self.aliases.get(short).filter(|target| !target.is_empty()) {
            Some(target) if !has_registry(name) => format!("{target}{rest}"),
            _ => name.to_owned(),
        }
    }

    /// The registries and mirrors to try for an image, in their order. The registry itself is the last. A
    /// registry that the configuration blocks is an error.
    pub fn locate(&self, reference: &Reference, insecure: bool) -> Result<Vec<Location>> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let matching = |r: &&Registry| match_prefix(&r.prefix, &name).is_some();
        let found = self.registries.iter().filter(matching).max_by_key(|r| r.prefix.len());
        let by_digest = reference.digest.is_some();
        let mut all = Vec::new();
        for (host, mirror) in &self.mirrors {
            if *host == reference.registry {
                all.push(mirror.at(&reference.repository));
            }
        }
        if let Some(registry) = found {
            if registry.blocked {
                let file = registry.file.display();
                return Err(Error::new(format_args!("{}: blocked by {file}", registry.prefix)));
            }
            let rest = match_prefix(&registry.prefix, &name).unwrap_or_default();
            for mirror in &registry.mirrors {
                let asked = match mirror.pull_from_mirror {
                    MirrorUse::All => by_digest || !registry.mirror_by_digest_only,
                    MirrorUse::DigestOnly => by_digest,
                    MirrorUse::TagOnly => !by_digest,
                };
                if asked {
                    all.push(mirror.at(rest));
                }
            }
            if let Some(location) = &registry.location {
                let own = Mirror {
                    location: location.clone(),
                    scheme: None,
                    insecure: registry.insecure,
                    pull_from_mirror: MirrorUse::All,
                };
                all.push(Location { mirror: false, ..own.at(rest) });
            }
        }
        if all.last().is_none_or(|last| last.mirror) {
            let insecure = found.is_some_and(|registry| registry.insecure);
            let (authority, repository) =
                (reference.registry.clone(), reference.repository.clone());
            let scheme = None;
            all.push(Location { authority, repository, scheme, insecure, mirror: false });
        }
        for location in &mut all {
            location.insecure |= insecure;
        }
        Ok(all)
    }
}

/// The rest of `name` behind a prefix of whole components. `*.` stands for all subdomains.
fn match_prefix<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let (host, rest) = name.split_once('/')?;
        let host = host.split(':').next().unwrap_or_default();
        return host.ends_with(domain).then_some(rest);
    }
    match name.strip_prefix(prefix)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

impl Mirror {
    fn at(&self, rest: &str) -> Location {
        let (authority, path) = self.location.split_once('/').unwrap_or((&self.location, ""));
        let parts = [path, rest].into_iter().filter(|part| !part.is_empty());
        Location {
            authority: authority.to_owned(),
            repository: parts.collect::<Vec<_>>().join("/"),
            scheme: self.scheme,
            insecure: self.insecure,
            mirror: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Result<Registries> {
        Registries::parse(text)
    }

    fn places(all: &Registries, name: &str) -> Vec<String> {
        let reference = Reference::parse(&all.expand(name)).unwrap();
        let show = |l: Location| {
            let scheme = l.scheme.map_or(String::new(), |s| format!("{s}://"));
            let mark = if l.insecure { "!" } else { "" };
            format!("{mark}{scheme}{}/{}", l.authority, l.repository)
        };
        all.locate(&reference, false).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn the_longest_prefix_says_where() {
        let mut all = registries(
            r#"
            unqualified-search-registries = ["x.y"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.x:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.x"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "a.x/team"
            location = "b.x/other/team"
            [[registry]]
            location = "a.x"
            insecure = true
            [[registry]]
            prefix = "*.wild.x"
            insecure = true
            [aliases]
            short = "s.x/long/name"
            gone = ""
            "#,
        )
        .unwrap();
        for (name, expected) in [
            ("alpine:3", vec!["!mirror.x:5000/hub/library/alpine", "docker.io/library/alpine"]),
            ("a.x/team/app", vec!["b.x/other/team/app"]),
            ("a.x/teams/app", vec!["!a.x/teams/app"]),
            ("c.wild.x:99/a", vec!["!c.wild.x:99/a"]),
            ("wild.x/a", vec!["wild.x/a"]),
            ("short:1", vec!["s.x/long/name"]),
            ("other.x/short", vec!["other.x/short"]),
            ("gone", vec!["!mirror.x:5000/hub/library/gone", "docker.io/library/gone"]),
        ] {
            assert_eq!(places(&all, name), expected, "{name}");
        }
        let digest = format!("alpine@sha256:{}", "0".repeat(64));
        assert_eq!(places(&all, &digest)[1], "digests.x/library/alpine");
        assert_eq!(all.expand("short:1@sha256:00"), "s.x/long/name:1@sha256:00");
        all.add_mirror("other.x=http://m.x:1/cache/").unwrap();
        assert_eq!(places(&all, "other.x/a"), ["!http://m.x:1/cache/a", "other.x/a"]);
        for bad in ["x", "=http://y", "x=", "x=ftp://y"] {
            assert!(all.add_mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_files_say_file_and_line() {
        for (text, message) in [
            ("a = \n", "line 1: "),
            ("\n[[registry]]\nlocation = 3\n", "line 3: invalid type"),
            ("\n\n[[registry]]\ninsecure = true\n", "line 3: a registry with neither"),
            ("[registries.search]\nregistries = []\n", "line 1: version 1"),
            ("[[registry]]\nlocation = \"http://x\"\n", "line 1: a prefix or location is no URL"),
            ("[aliases]\na = \"b\"\n", "line 2: an alias must name a registry"),
            (
                "[[registry]]\nlocation='x'\n[[registry.mirror]]\npull-from-mirror='no'\n\
                 location='y'\n",
                "line 4: unknown variant",
            ),
        ] {
            let error = registries(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("registries.conf: {message}")), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_blocked_registry_is_an_error() {
        let all = registries("[[registry]]\nprefix='bad.x'\nblocked=true\n").unwrap();
        let reference = Reference::parse("bad.x/a").unwrap();
        let error = all.locate(&reference, false).unwrap_err().to_string();
        assert_eq!(error, "bad.x: blocked by registries.conf");
    }
}
