//! The rows of jc-pull, jc-images and jc-rmi.

use super::row::Answer::{Instead, Nothing, Same, Words};
use super::row::{Habit, OPERAND, row};

/// `--arch ARCH`: a platform of Linux.
fn architecture(value: &str) -> Result<Vec<String>, String> {
    Ok(vec!["--platform".to_owned(), format!("linux/{value}")])
}

#[rustfmt::skip]
pub const ROWS: &[Habit] = &[
    row("jc-images", "-a --all", 0, Nothing),
    row("jc-images", "-q --quiet", 0, Instead("jc-images --json | jq -r .ref")),
    row("jc-images", "--digests --no-trunc", 0, Instead("jc-images --json | jq -r '[.ref, .target] | @tsv'")),
    row("jc-images", "-f --filter", 1, Instead("jc-images --json | jq 'select(.ref | contains(\"NAME\"))'")),
    row("jc-images", "--format", 1, Instead("jc-images --json | jq -r '[.ref, .size] | @tsv'")),
    row("jc-images", "--tree --sort --history", 0, Instead("jc-images --json | jq -r '[.ref, .layers[]] | @tsv'")),
    row("jc-images", OPERAND, 0, Instead("jc-images | grep {1}")),
    row("jc-rmi", "-f --force", 0, Instead("jc-rmi REF; jc-rm -f ID ends a container that uses the image")),
    row("jc-rmi", "-a --all", 0, Instead("jc-images --json | jq -r .ref | xargs -r jc-rmi")),
    row("jc-rmi", "-i --ignore", 0, Instead("jc-rmi REF || :")),
    row("jc-rmi", "--no-prune", 0, Nothing),
    row("jc-pull", "--tls-verify=false --src-tls-verify=false", 0, Same("--insecure")),
    row("jc-pull", "--tls-verify --src-tls-verify --disable-content-trust", 0, Nothing),
    row("jc-pull", "--pull", 1, Same("--policy")),
    row("jc-pull", "--arch --override-arch", 1, Words(architecture)),
    row("jc-pull", "--os --variant --override-os --override-variant", 1, Instead("--platform OS/ARCH/VARIANT")),
    row("jc-pull", "-a --all-tags", 0, Instead("jc-pull IMAGE:TAG for each tag, as skopeo list-tags prints them")),
    row("jc-pull", "--creds --src-creds", 1, Instead("jc-pull --username USER --password-stdin IMAGE < FILE")),
    row("jc-pull", "--retry-times", 1, Same("--retry")),
    row("jc-pull", "--dest-tls-verify=false", 0, Same("--insecure")),
    row("jc-pull", "--src-no-creds --no-creds", 0, Instead("--authfile FILE, with {} in FILE")),
    row("jc-pull", "--all-platforms --all", 0, Instead("jc-pull --platform OS/ARCH IMAGE for each platform")),
    row("jc-pull", "--remove-signatures --preserve-digests", 0, Nothing),
    row("jc-pull", "--cert-dir --src-cert-dir", 1, Instead("--ca {1}/ca.crt")),
];
