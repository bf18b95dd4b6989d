//! The options of all programs that send requests to registries.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jc_unshare::{Context, Error, Result};

use crate::credentials::{Credentials, Login};
use crate::http::{self, Http};
use crate::progress::Style;
use jc_unshare::image::registries::Registries;

/// The most bytes of a password.
const MAX_PASSWORD: u64 = 64 << 10;

// A comment of documentation would become that of the programs.
#[derive(Args)]
pub struct RegistryArgs {
    /// Read logins from FILE only [default: $REGISTRY_AUTH_FILE, or podman's and Docker's]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Trust the certificate authorities in FILE (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,
    /// Allow plain HTTP and unverified certificates for remote registries
    #[arg(long)]
    pub insecure: bool,
    /// Ask at URL first for images of the registry HOST
    #[arg(long, value_name = "HOST=URL")]
    pub mirror: Vec<String>,
    /// Read the password for --username from the first line of stdin
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Show progress in this style
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    pub progress: Style,
    /// Print no progress, and no pause
    #[arg(short, long)]
    pub quiet: bool,
    /// Retry temporary failures N times
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub retry: u32,
    /// Wait at most this long for a connection, and for more bytes
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = seconds)]
    pub timeout: u64,
    /// Log in as USER
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    pub username: Option<String>,
}

/// Parses a number of jobs.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "not a positive number".to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|n| (1..=86_400).contains(n));
    seconds.ok_or_else(|| "not from 1 to 86400 seconds".to_owned())
}

impl RegistryArgs {
    /// The style of progress.
    pub fn style(&self) -> Style {
        if self.quiet { Style::None } else { self.progress }
    }

    /// The mirrors of the command line. The configuration is not loaded yet.
    pub fn mirrors(&self) -> Result<Registries> {
        let mut registries = Registries::default();
        self.mirror.iter().try_for_each(|mirror| registries.add_mirror(mirror))?;
        Ok(registries)
    }

    /// The means to send requests.
    pub fn http(&self) -> Http {
        Http::new(http::Options {
            timeout: Duration::from_secs(self.timeout),
            retries: self.retry,
            authorities: self.ca.clone(),
        })
    }

    /// The login of the command line.
    pub fn login(&self) -> Result<Option<Login>> {
        self.username.clone().map(login).transpose()
    }

    /// The logins of the files, and the `given` one for the registries that the command line names.
    pub fn credentials(&self, given: Option<Login>) -> Result<Credentials> {
        Credentials::load(self.authfile.as_deref(), given)
    }
}

/// Reads the password from the first line of stdin. On a command line, ps(1) would show the password.
fn login(user: String) -> Result<Login> {
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD).read_line(&mut line).op("read stdin")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        return Err(Error::usage("no password on stdin"));
    }
    Ok(Login::Password { user, password })
}
