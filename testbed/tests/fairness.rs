//! One tenant floods, another keeps its contract.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use ekiden_testbed::fairness::{Fair, Talk};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::lab;
use rustix::process::{Pid, Signal};

#[test]
fn a_flooding_tenant_takes_nothing_from_one_within_its_contract() -> Result<()> {
    lab::test(|lab| {
        let mut fair = Fair::new(lab, &Settings::default())?;
        let pid = fair.hub.process()?.pid();
        let before = fair.hub.balance()?;
        let flood = fair.flood()?;
        // A worker that has the machine for a part of the time only: less than the flood asks for, on any machine. While it is
        // away, the flood would fill its ring many times over.
        let done = AtomicBool::new(false);
        let pid = Pid::from_raw(pid as i32).expect("a process");
        let talk = std::thread::scope(|scope| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let _ = rustix::process::kill_process(pid, Signal::STOP);
                    std::thread::sleep(Duration::from_millis(100));
                    let _ = rustix::process::kill_process(pid, Signal::CONT);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            // Far less than half of what the worker can do meanwhile, on any machine: who floods may be given the other half. Until
            // there is no doubt that the flood was more than there was room for.
            let rounds = || -> Result<Talk> {
                let mut whole = Talk::default();
                for _ in 0..20 {
                    let talk = fair.talk(250, Duration::from_millis(5))?;
                    whole.sent += talk.sent;
                    whole.latency.extend(talk.latency);
                    if whole.sent >= 1000 && fair.hub.status()?.of_site(&fair.sites[2], "shed_packets")? > 1000 {
                        break;
                    }
                }
                Ok(whole)
            };
            let talk = rounds();
            done.store(true, Ordering::Relaxed);
            talk
        })?;
        flood.stop()?;
        let after = fair.hub.balance()?;
        let [a, b, villain, _] = &fair.sites[..] else { unreachable!("four sites") };
        let shed = after.of_site(villain, "shed_packets")?;
        eprintln!("{} of {} packets; {shed} of the flood shed", talk.latency.len(), talk.sent);
        ensure!(shed > 1000, "the flood was no overload: {shed} shed");
        ensure!(talk.latency.len() as u32 >= talk.sent / 100 * 99, "{} of {}", talk.latency.len(), talk.sent);
        // The hub itself has dropped nothing of it.
        ensure!((after.of_site(a, "shed_packets")?, after.of_site(b, "shed_packets")?) == (0, 0));
        let drops = |status: &ekiden_testbed::Status| status.0["tenants"][0]["drops"].clone();
        ensure!(drops(&after) == drops(&before), "{}", drops(&after));
        Ok(())
    })
}
