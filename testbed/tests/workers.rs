//! A hub with several workers, each with a queue of its own.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Plan, Site, World, iperf_both_ways, lab};

#[test]
fn two_workers_share_the_work_and_sites_change_between_them() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 2)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
        ];
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let frames = || -> Result<[u64; 2]> {
            let status = hub.status()?;
            Ok([0, 1].map(|worker| status.0["workers"][worker]["frames"].as_u64().unwrap_or(0)))
        };
        ensure!(hub.status()?.0["ports"][0]["queues"] == 2);

        // A flow's ports decide its queue. Site a moves from port to port, in one session, until each worker has had its
        // packets; the others' share is told apart by being the smaller.
        let mut served = [false; 2];
        for port in 40000..40064 {
            let before = frames()?;
            sites[0].set(&["listen-port", &port.to_string()])?;
            sites[0].speak()?;
            let endpoint = SocketAddr::new(sites[0].endpoint().ip(), port);
            until_true("the hub follows", || Ok(hub.status()?.site(&sites[0])?["endpoint"] == endpoint.to_string()))?;
            must_ping_both_ways(&sites[0], &sites[1])?;
            let after = frames()?;
            for worker in 0..2 {
                served[worker] |= after[worker] > before[worker];
            }
            if served == [true, true] {
                break;
            }
        }
        ensure!(served == [true, true], "one worker did everything: {:?}", frames()?);
        for transfer in iperf_both_ways(&sites[0], &sites[1], 2)? {
            ensure!(transfer.mbits > 1.0, "{transfer:?}");
        }
        must_ping_both_ways(&sites[0], &sites[1])?;
        let drops = hub.status()?.drops();
        ensure!(
            !drops.keys().any(|reason| reason.starts_with("counter") || reason.starts_with("session")),
            "{drops:?}"
        );
        hub.balance()?;
        Ok(())
    })
}
