//! The recorder in front of the chain, outside of the limits and of the freezer of jc-cgroup.

use crate::link::{Link, Opt};
use crate::options::{LimitOptions, Options};

/// The descriptors of a recorder.
pub struct Trace(Option<Descriptors>);

/// Numbers that no descriptor of the caller has.
struct Descriptors {
    /// The socket between jc-trace and jc-rootfs.
    listener: u32,
    /// The pipe from jc-cgroup.
    usage: u32,
}

impl Trace {
    /// The descriptors for a command line with options of jc-trace.
    pub fn new(options: &Options, mut next: impl FnMut() -> u32) -> Self {
        let is_traced = !options.trace.is_empty();
        Self(is_traced.then(|| Descriptors { listener: next(), usage: next() }))
    }

    /// Whether the chain has a recorder.
    pub fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// The link in front of the chain.
    pub fn link(&self, options: &Options) -> Option<Link> {
        let Descriptors { listener, usage } = self.0.as_ref()?;
        let mut all = options.trace.clone();
        all.push(Opt::new("--trace-fd", listener.to_string()));
        // jc-cgroup writes its report to one place: the file that the caller names, or the pipe.
        match &options.limits.report {
            Some(report) if report.to_str().is_some_and(|word| word.parse::<u32>().is_ok()) => {}
            Some(report) => all.push(Opt::new("--usage", report)),
            None => all.push(Opt::new("--usage", usage.to_string())),
        }
        let log = options.network.egress.iter().find(|option| option.name() == "--log");
        if let Some(log) = log.and_then(Opt::value) {
            all.push(Opt::new("--egress-log", log));
        }
        Some(Link::new("jc-trace", all))
    }

    /// The option by which jc-cgroup writes its report to the pipe.
    pub fn usage_option(&self, limits: &LimitOptions) -> Option<Opt> {
        let descriptors = self.0.as_ref().filter(|_| limits.report.is_none())?;
        Some(Opt::new("--report", descriptors.usage.to_string()))
    }

    /// The option by which jc-rootfs sends the listener.
    pub fn listener_option(&self) -> Option<Opt> {
        let descriptors = self.0.as_ref()?;
        Some(Opt::new("--trace-fd", descriptors.listener.to_string()))
    }
}
