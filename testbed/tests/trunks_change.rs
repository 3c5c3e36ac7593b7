//! What changes about trunks while they carry: what their way takes, and whom they carry. And alternatives without any trunk.

use std::fs;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::backbone::{Backbone, route};
use ekiden_testbed::probe::{echo, must_ping};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Load, Plan, iperf_both_ways, lab};

/// What both lanes of a hub's only trunk take.
fn lanes_take(hub: &Hub) -> Result<Vec<u64>> {
    let status = hub.status()?;
    let lanes = status.0["trunks"][0]["lanes"].as_array().context("lanes")?;
    Ok(lanes.iter().filter_map(|lane| lane["mtu"].as_u64()).collect())
}

/// A router between two hubs takes 1,400 bytes, and tells nobody: they find it out themselves, each on each lane.
#[test]
fn a_narrow_way_between_hubs_is_measured() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.sites_everywhere(lab, &[1001])?;
        backbone.join(0, 1, "aes-256-gcm", false, "tenants = \"all\"\nlanes = 2\n");
        backbone.lead(1001, 0, 1, 1, 100);
        backbone.lead(1001, 1, 0, 0, 100);
        let inet = &backbone.worlds[0].inet;
        for world in &backbone.worlds {
            inet.ip(&format!("link set {} mtu 1400", world.uplink))?;
        }
        inet.ip("rule add pref 10 ipproto icmp blackhole")?;
        backbone.start(lab)?;
        // IP and UDP 28, header 16, the AEAD's 16: what is left is padded to 16, and 8 of it are the tag.
        let mut last = Vec::new();
        let found = until_true("lanes are measured", || {
            last = [lanes_take(&backbone.hubs[0])?, lanes_take(&backbone.hubs[1])?].concat();
            Ok(last == [(1400 - 28 - 16 - 16) / 16 * 16 - 8; 4])
        });
        found.with_context(|| format!("{last:?}"))?;
        // The sites' own ways to their hubs are as narrow, and are told so.
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        for site in [a, b] {
            site.namespace().ip(&format!("link set {} mtu 1320", site.interface))?;
        }
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.seconds.iter().all(|bytes| *bytes > 0), "{transfer:?}");
        }
        backbone.balance()
    })
}

/// Two sites of a hub that has no trunk: one is the alternative of the other.
#[test]
fn an_alternative_needs_no_trunk() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 1)?;
        backbone.site(lab, 0, Plan::new(1001, "a", 1))?;
        let contract = "address = [\"10.9.20.1/24\"]\n";
        backbone.site(lab, 0, Plan { contract, keepalive: 1, ..Plan::new(1001, "first", 20) })?;
        backbone.site(lab, 0, Plan { keepalive: 1, ..Plan::new(1001, "second", 21) })?;
        backbone.settings[0].hub_addresses.push(1001);
        backbone.settings[0].routes.push((1001, route("10.9.20.0/24", "{ site = \"second\" }", 200)));
        backbone.start_hub(lab, 0)?;
        let second = &backbone.sites[0][2];
        second.namespace().ip(&format!("addr add 10.9.20.1/32 dev {}", second.interface))?;
        let (hub, to) = (&backbone.hubs[0], "10.9.20.1".parse()?);
        let path = |key: &str| -> Result<String> {
            let status = hub.status()?;
            Ok(status.0["tenants"][0]["paths"][0][key].to_string())
        };
        let watched =
            || -> Result<bool> { Ok(hub.status()?.site(&backbone.sites[0][1])?["path"]["watch"] == "answers") };
        until_true("the first answers", watched)?;
        ensure!((path("via")?, path("alive")?) == ("\"first\"".into(), "true".into()), "{}", path("candidates")?);
        must_ping(&backbone.sites[0][0], to)?;
        backbone.sites[0][1].stop()?;
        until_true("the second is used", || Ok(path("via")? == "\"second\""))?;
        must_ping(&backbone.sites[0][0], to)?;
        backbone.balance()
    })
}

/// Another tenant goes, at one hub and then at both, and comes back: the one that stays loses nothing.
#[test]
fn a_tenant_comes_and_goes_at_two_hubs() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.sites_everywhere(lab, &[1001, 2002])?;
        backbone.mesh(&[1001, 2002], "tenants = \"all\"\nlanes = 2\n");
        backbone.start(lab)?;
        let hubs = &backbone.hubs;
        let site = |tenant, hub| backbone.the_site(tenant, hub);
        let (a, b) = (site(1001, 0)?, site(1001, 1)?);
        let loads = [Load::start(a, b, 200, 200)?, Load::start(b, a, 200, 200)?];
        Load::must_flow(&loads, 50)?;
        let both = hubs.iter().map(|hub| Ok(fs::read_to_string(hub.config())?)).collect::<Result<Vec<_>>>()?;
        let one: Vec<&str> = both
            .iter()
            .map(|text| Ok(&text[..text.find("[[tenant]]\nid = 2002").context("2002")?]))
            .collect::<Result<_>>()?;

        for round in 0..3 {
            must_ping(site(2002, 0)?, site(2002, 1)?.v4().into())?;
            let before = hubs[1].status()?;
            hubs[1].must_reload(one[1])?;
            let pings = echo(site(2002, 0)?.namespace(), site(2002, 1)?.v4().into(), 2, &["-W", "1"])?;
            ensure!(pings.received == 0, "round {round}: {}", pings.text);
            hubs[1].must_have_dropped_at_least(&before, "trunk_tenant_unknown", 2)?;
            hubs[0].must_reload(one[0])?;
            // Back in another order than it went.
            let said = hubs[1].must_reload(&both[1])?;
            ensure!(said.contains("1 tenant added, 1 site added"), "{said}");
            hubs[0].must_reload(&both[0])?;
            hubs[0].await_sessions(&[site(2002, 0)?])?;
            hubs[1].await_sessions(&[site(2002, 1)?])?;
        }
        must_ping(site(2002, 1)?, site(2002, 0)?.v4().into())?;
        Load::must_flow(&loads, 50)?;
        let lost = Load::lost(&loads)?;
        ensure!(lost == [0, 0], "who stayed lost {lost:?}");
        drop(loads);
        backbone.balance()
    })
}
