//! The table of options that people type for docker(1), podman(1), skopeo(1), bwrap(1), unshare(1), nsenter(1) and
//! cgexec(1), and the answer of each program: the option that means the same, or the line that does the same.

#[cfg(feature = "links")]
mod links;
mod pull;
mod row;
#[cfg(feature = "links")]
mod translate;

use crate::error::exists;
pub use row::{Answer, Habit, OPERAND};

/// The row of a spelling.
pub fn find(program: &str, spelling: &str) -> Option<&'static Habit> {
    let has = |list: &str, word: &str| list.split(' ').any(|listed| listed == word);
    rows().find(|row| has(row.programs, program) && has(row.spellings, spelling))
}

/// All spellings of a program.
pub fn spellings(program: &str) -> impl Iterator<Item = &'static str> {
    let is_its = move |row: &&Habit| row.programs.split(' ').any(|listed| listed == program);
    rows().filter(is_its).flat_map(|row| row.spellings.split(' '))
}

/// All rows that this program can need. jc-pull has no rows of the links, which are many bytes.
fn rows() -> impl Iterator<Item = &'static Habit> {
    #[cfg(feature = "links")]
    let links = links::ROWS;
    #[cfg(not(feature = "links"))]
    let links: &[Habit] = &[];
    pull::ROWS.iter().chain(links)
}

/// An option of `-v SRC:DST:OPTION` or `--tmpfs DST:OPTION` in the spelling of jc-rootfs; `None` if it changes nothing
/// here. The error is a text for the user.
pub fn mount_option(option: &str) -> Result<Option<&'static str>, String> {
    let has_selinux = || exists("/sys/fs/selinux/enforce").map_err(|error| error.to_string());
    Ok(match option {
        "z" | "Z" if has_selinux()? => {
            return Err(format!("{option}: chcon -Rt container_file_t SRC sets the label"));
        }
        "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" | "notmpcopyup" => None,
        "rprivate" => Some("private"),
        "rslave" => Some("slave"),
        "rshared" => Some("shared"),
        "rbind" => Some("rec"),
        "bind" => Some("norec"),
        "U" => return Err("U: chown -R UID:GID SRC, idmap as root, or --userns keep-id".to_owned()),
        "O" => return Err("O: jc-rootfs --layer SRC --upper tmpfs shows SRC as it is".to_owned()),
        _ if option.starts_with("uid=") || option.starts_with("gid=") => {
            return Err(format!(
                "{option}: a tmpfs belongs to root; mode=1777 lets every user write"
            ));
        }
        _ => return Err(format!("unknown option {option:?}")),
    })
}
