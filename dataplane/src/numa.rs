//! Which memory is near: a worker far from its NIC waits for every frame to cross the machine.

use std::fs;
use std::path::Path;

/// What the kernel says of nodes: `/sys`, or a tree like it.
pub struct Nodes<'a>(pub &'a Path);

impl Nodes<'_> {
    /// The node of an interface's device; none for one without a device, and where there is one node only.
    pub fn of_interface(&self, name: &str) -> Option<usize> {
        let text = fs::read_to_string(self.0.join("class/net").join(name).join("device/numa_node")).ok()?;
        text.trim().parse().ok() // -1: the firmware doesn't say
    }

    /// The node of a core.
    pub fn of_core(&self, core: usize) -> Option<usize> {
        let entries = fs::read_dir(self.0.join(format!("devices/system/cpu/cpu{core}"))).ok()?;
        entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
    }

    /// The cores, those near to most of these interfaces first, otherwise in their order.
    pub fn near_first(&self, cores: &[usize], interfaces: &[&str]) -> Vec<usize> {
        let nodes: Vec<usize> = interfaces.iter().filter_map(|name| self.of_interface(name)).collect();
        let mut cores = cores.to_vec();
        cores.sort_by_key(|core| {
            let of_core = self.of_core(*core);
            std::cmp::Reverse(nodes.iter().filter(|node| Some(**node) == of_core).count())
        });
        cores
    }

    /// What an operator should know of an interface whose frames cross the machine to these cores.
    pub fn far(&self, interface: &str, cores: &[usize]) -> Option<String> {
        let node = self.of_interface(interface)?;
        let far: Vec<String> = cores
            .iter()
            .filter(|core| self.of_core(**core).is_some_and(|of_core| of_core != node))
            .map(ToString::to_string)
            .collect();
        let list = far.join(", ");
        (!far.is_empty()).then(|| {
            format!("the interface is on NUMA node {node}, and workers run elsewhere, on core(s) {list}: each frame crosses the machine")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores 0 and 1 on node 0, 2 and 3 on node 1; eth0 is on node 1, eth1 doesn't know, veth has no device.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for core in 0..4 {
            let node = format!("devices/system/cpu/cpu{core}/node{}", core / 2);
            fs::create_dir_all(root.path().join(node)).unwrap();
        }
        for (name, node) in [("eth0", "1\n"), ("eth1", "-1\n")] {
            let device = root.path().join("class/net").join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("numa_node"), node).unwrap();
        }
        fs::create_dir_all(root.path().join("class/net/veth0")).unwrap();
        root
    }

    #[test]
    fn near_cores_come_first_and_far_ones_are_told() {
        let root = machine();
        let nodes = Nodes(root.path());
        assert_eq!(["eth0", "eth1", "veth0", "none"].map(|name| nodes.of_interface(name)), [Some(1), None, None, None]);
        assert_eq!(nodes.near_first(&[0, 1, 2, 3], &["eth0", "veth0"]), [2, 3, 0, 1]);
        assert_eq!(nodes.near_first(&[1, 0], &["veth0"]), [1, 0], "where nothing is known, the order stays");
        let told = nodes.far("eth0", &[0, 2]).unwrap();
        assert!(told.contains("NUMA node 1") && told.contains("core(s) 0:"), "{told}");
        assert_eq!(nodes.far("eth0", &[2, 3]), None);
        assert_eq!(nodes.far("veth0", &[0]), None);
        assert_eq!(nodes.far("eth0", &[9]), None, "a core that is not there has no node");
    }
}
