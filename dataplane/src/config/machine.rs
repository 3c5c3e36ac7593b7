//! Whether this machine has what the configuration names.

use std::fs;
use std::io;

use super::errors::{Errors, Problems, nearest};
use super::{Desired, Port};

/// What a machine offers to a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its network interfaces, in this thread's network namespace.
    pub interfaces: Vec<Interface>,
    /// The cores that this process may use.
    pub cores: Vec<usize>,
}

/// A network interface, as far as it decides whether it can be a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is a bond of others.
    pub is_bond: bool,
    /// The bond that it is a member of.
    pub member_of: Option<String>,
}

impl Machine {
    /// The machine that this runs on.
    ///
    /// It is read from `/proc/thread-self`, which shows the thread's own network namespace even where `/sys` still
    /// shows another.
    pub fn this() -> io::Result<Self> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let interfaces = interface_names(&read("/proc/thread-self/net/dev")?);
        let cores = allowed_cores(&read("/proc/thread-self/status")?);
        let mut bonds = Vec::new(); // name, and what the bonding driver says of it
        for entry in fs::read_dir("/proc/thread-self/net/bonding").into_iter().flatten().flatten() {
            let report = fs::read_to_string(entry.path()).unwrap_or_default(); // it may just have been removed
            bonds.push((entry.file_name().to_string_lossy().into_owned(), bond_members(&report)));
        }
        let interfaces = interfaces
            .into_iter()
            .map(|name| Interface {
                is_bond: bonds.iter().any(|(bond, _)| *bond == name),
                member_of: bonds.iter().find(|(_, members)| members.contains(&name)).map(|(bond, _)| bond.clone()),
                name,
            })
            .collect();
        Ok(Self { interfaces, cores })
    }
}

/// Checks that each port is an interface of `machine` that a hub can drive, and that each core may be used.
pub fn validate_machine(desired: &Desired, machine: &Machine) -> Result<(), Errors> {
    let problems = Problems::default();
    for port in &desired.ports {
        if let Some(message) = port_problem(port, machine) {
            problems.add(&port.origin, message);
        }
    }
    for core in desired.workers.cores.iter().flatten().filter(|core| !machine.cores.contains(core)) {
        let usable = ranges(&machine.cores);
        let message = format!("core {core} of [workers] is not one that this process may use; those are {usable}");
        problems.add(&desired.workers.origin, message);
    }
    if let Some(group) = &desired.stats.group
        && group_id(group).is_none()
    {
        let message = format!("group {group:?} of [stats]: this machine has no such group; groupadd makes it");
        problems.add(&desired.stats.origin, message);
    }
    problems.done()
}

/// The number of a group of this machine.
pub fn group_id(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

fn port_problem(port: &Port, machine: &Machine) -> Option<String> {
    let name = &port.name;
    let names = || machine.interfaces.iter().map(|interface| interface.name.as_str());
    let Some(interface) = machine.interfaces.iter().find(|interface| interface.name == **name) else {
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Some(format!("port {name:?}: this machine has no such network interface; {hint}"));
    };
    if interface.is_bond {
        let members = machine.interfaces.iter().filter(|member| member.member_of.as_deref() == Some(name));
        let members: Vec<_> = members.map(|member| member.name.as_str()).collect();
        let which = if members.is_empty() { String::new() } else { format!(" ({})", members.join(", ")) };
        return Some(format!(
            "port {name:?} is a bond, which AF_XDP can't drive; unbond it and make each member{which} a port"
        ));
    }
    let bond = interface.member_of.as_ref()?;
    Some(format!(
        "port {name:?} is a member of the bond {bond:?}, which would lose its frames; take it out of the bond"
    ))
}

/// The interfaces in `/proc/net/dev`: two lines of headings, then `name: counters` each.
fn interface_names(text: &str) -> Vec<String> {
    text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// The members in a file of `/proc/net/bonding`.
fn bond_members(report: &str) -> Vec<String> {
    report
        .lines()
        .filter_map(|line| line.strip_prefix("Slave Interface: "))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// The cores in `/proc/PID/status`, as the kernel prints a set: `Cpus_allowed_list: 0-3,8`.
fn allowed_cores(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
    list.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

/// Rising numbers as ranges: `0-3, 8`.
fn ranges(cores: &[usize]) -> String {
    cores
        .chunk_by(|a, b| *b == a + 1)
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let dev = "Inter-|   Receive   |  Transmit\n face |bytes    packets\n    lo: 1 2 3\nbond0:0 0\n";
        assert_eq!(interface_names(dev), ["lo", "bond0"]);
        let bond =
            "Ethernet Channel Bonding Driver: v6.1\n\nSlave Interface: ens1\nMII Status: up\n\nSlave Interface: ens2\n";
        assert_eq!(bond_members(bond), ["ens1", "ens2"]);
        assert_eq!(allowed_cores("Name:\tx\nCpus_allowed_list:\t0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(ranges(&[0, 1, 2, 8, 10, 11]), "0-2, 8, 10-11");
    }

    #[test]
    fn this_machine_has_a_loopback_and_a_core() {
        let machine = Machine::this().unwrap();
        assert!(machine.interfaces.iter().any(|interface| interface.name == "lo" && !interface.is_bond));
        assert!(!machine.cores.is_empty());
    }
}
