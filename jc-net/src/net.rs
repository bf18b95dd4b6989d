//! What the tool does on Linux.

use jc_unshare::namespaces::unshare;
use jc_unshare::sys::clone;
use jc_unshare::{Error, Result, exec};

use crate::netlink::Route;
use crate::{Args, Network};

/// Makes the network that the arguments ask for, then becomes the program. Returns only an error.
pub fn enter(args: &Args) -> Error {
    match make(args.network) {
        Ok(()) => exec::exec(&args.program),
        Err(error) => error,
    }
}

fn make(network: Network) -> Result<()> {
    match network {
        Network::Host => Ok(()),
        Network::None => {
            unshare(clone::NEWNET)?;
            Route::open()?.loopback_up()
        }
    }
}
