//! A hub that runs gets another configuration: what is not in the difference goes on, packet by packet.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::{Settings, Status};
use ekiden_testbed::load::Load;
use ekiden_testbed::probe::{echo, must_ping, must_ping_both_ways, ping};
use ekiden_testbed::wait::{until, until_true};
use ekiden_testbed::{Crowd, Hub, Plan, Site, World, lab};
use rustix::process::Signal;

const CROWD: usize = 1000;

/// Sites of one tenant, in networks 1, 2, 3 and so on.
fn sites(lab: &mut lab::Lab, world: &mut World, names: &[&str]) -> Result<Vec<Site>> {
    let plans = names.iter().zip(1..).map(|(name, net)| Plan::new(1001, name, net));
    plans.map(|plan| Site::new(lab, world, plan)).collect()
}

/// The configuration with more lines in a site's section.
fn with_lines(text: &str, site: &Site, lines: &str) -> Result<String> {
    let key = format!("public_key = \"{}\"\n", site.key.public);
    ensure!(text.contains(&key), "no {key} in {text}");
    Ok(text.replace(&key, &format!("{key}{lines}\n")))
}

/// The configuration with these prefixes besides the site's own.
fn with_prefixes(text: &str, site: &Site, more: &[String]) -> Result<String> {
    let own = format!("prefixes = [\"10.9.{net}.0/24\", \"fd00:9:{net:x}::/64\"", net = site.plan.net);
    ensure!(text.contains(&own), "no {own} in {text}");
    let more: String = more.iter().map(|prefix| format!(", \"{prefix}\"")).collect();
    Ok(text.replace(&own, &format!("{own}{more}")))
}

/// Numbered datagrams between two sites, each way.
struct Flows([Load; 2]);

impl Flows {
    fn start(a: &Site, b: &Site) -> Result<Self> {
        let flows = Self([Load::start(a, b, 500, 200)?, Load::start(b, a, 500, 200)?]);
        flows.must_flow()?;
        Ok(flows)
    }

    /// They get on, by some hundred packets.
    fn must_flow(&self) -> Result<()> {
        let arrived = |load: &Load| load.received();
        let before = self.0.each_ref().map(arrived);
        until_true("packets arrive", || Ok((0..2).all(|n| arrived(&self.0[n]) > before[n] + 300)))
    }

    /// Not one is missing.
    fn finish(self) -> Result<u64> {
        self.0.iter().for_each(|load| load.hold(true));
        let all = |load: &Load| (load.sent(), load.received());
        let last =
            until_true("all of them have arrived", || Ok(self.0.iter().all(|load| load.sent() == load.received())));
        last.with_context(|| format!("sent and received: {:?}", self.0.each_ref().map(all)))?;
        Ok(self.0.iter().map(Load::sent).sum())
    }
}

/// How long ago the last handshakes of these sites were: what no reload makes less.
fn ages(status: &Status, sites: &[&Site]) -> Result<Vec<u64>> {
    sites.iter().map(|site| status.of_site(site, "last_handshake_s_ago")).collect()
}

/// The sessions that sites have now.
struct Sessions(Instant);

impl Sessions {
    /// Notes them, once their handshakes are a while ago.
    fn of(hub: &Hub, sites: &[&Site]) -> Result<Self> {
        until_true("the handshakes are a while ago", || Ok(ages(&hub.status()?, sites)?.iter().all(|age| *age >= 2)))?;
        Ok(Self(Instant::now()))
    }

    /// Nobody has had another handshake since.
    fn must_stay(&self, hub: &Hub, sites: &[&Site]) -> Result<()> {
        // Both are whole seconds, cut off.
        let (passed, ages) = (self.0.elapsed().as_secs(), ages(&hub.status()?, sites)?);
        ensure!(ages.iter().all(|age| *age > passed), "a reload renewed a session: {ages:?} s ago, after {passed} s");
        Ok(())
    }
}

#[test]
fn ten_thousand_routes_a_thousand_sites_and_twenty_rekeys_cost_nobody_a_packet() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 2)?;
        let mut sites = sites(lab, &mut world, &["a", "b", "c"])?;
        let crowd = Crowd::new(lab, &mut world, CROWD)?;
        let mut late = sites.pop().context("c")?;
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let (a, b) = (&sites[0], &sites[1]);
        let first = fs::read_to_string(hub.config())?;
        let flows = Flows::start(a, b)?;
        let sessions = Sessions::of(&hub, &[a, b])?;

        // 10,000 routes, in the table by which the flows find their way; then other ones.
        let routes = |from: u32| -> Vec<String> {
            (from..from + 5000).map(|n| format!("10.{}.{}.0/24", 128 + n / 256, n % 256)).collect()
        };
        let more = with_prefixes(&first, b, &routes(0))?;
        let said = hub.must_reload(&more)?;
        ensure!(said.contains("1 site changed, 5000 routes added"), "{said}");
        let other = with_prefixes(&first, b, &routes(5000))?;
        let said = hub.must_reload(&other)?;
        ensure!(said.contains("5000 routes added, 5000 routes removed"), "{said}");
        flows.must_flow()?;

        // 1,000 sites in 100 tenants, and one more in the flows' own.
        let mut many = format!("\n{}\n", late.hub_section());
        for (tenant, keys) in (2000..).zip(crowd.keys().chunks(10)) {
            many += &format!("[[tenant]]\nid = {tenant}\n");
            for (site, key) in keys.iter().enumerate() {
                many += &format!("[[tenant.site]]\nname = \"{site}\"\npublic_key = \"{key}\"\n");
                many += &format!("prefixes = [\"10.9.{site}.0/24\", \"fd00:9:{site:x}::/64\"]\n");
            }
        }
        let said = hub.must_reload(&format!("{other}{many}"))?;
        ensure!(said.contains("100 tenants added, 1001 sites added"), "{said}");
        crowd.call(400);
        late.start()?;
        hub.await_sessions(&[&late])?;
        until_true("all of them have a session", || Ok(crowd.back() == CROWD))?;
        must_ping_both_ways(a, &late)?;
        must_ping(&late, b.v4().into())?;

        // Nobody who was there had to begin anew.
        sessions.must_stay(&hub, &[a, b])?;

        // 20 handshakes anew, those of the flows among them, and all the routes once more meanwhile.
        crowd.forget();
        let renew = |tenant: u32, site: &str| {
            until_true("a handshake begins", || {
                Ok(hub.change(&format!("/v1/sites/{tenant}/{site}/handshake"))?.contains(" 202 "))
            })
        };
        for tenant in 2000..2018 {
            renew(tenant, "7")?;
        }
        let before = ages(&hub.status()?, &[a, b])?;
        renew(1001, "a")?;
        renew(1001, "b")?;
        hub.must_reload(&format!("{more}{many}"))?;
        until_true("they are all done", || Ok(crowd.back() >= 18))?;
        until_true("those of the flows too", || {
            Ok(ages(&hub.status()?, &[a, b])?.iter().zip(&before).all(|(now, before)| now < before))
        })?;
        flows.must_flow()?;
        let packets = flows.finish()?;
        ensure!(packets > 2000, "{packets}");
        let status = hub.balance()?;
        let lost = |reason: &String| {
            ["session", "counter", "no_route", "staged", "source"].iter().any(|r| reason.starts_with(r))
        };
        ensure!(!status.drops().keys().any(lost), "{:?}", status.drops());
        Ok(())
    })
}

#[test]
fn who_is_removed_is_out_at_once_and_what_moves_is_where_it_went() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = sites(lab, &mut world, &["a", "b", "c"])?;
        let mut heir = Site::new(lab, &mut world, Plan::new(1001, "d", 3))?;
        let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let (a, b, c) = (&sites[0], &sites[1], &sites[2]);
        let first = fs::read_to_string(hub.config())?;
        let flows = Flows::start(a, b)?;
        must_ping_both_ways(b, c)?;
        let sessions = Sessions::of(&hub, &[a, b])?;

        // A network of a's, which c reaches there; then it is b's.
        let moving = vec!["10.9.77.0/24".to_owned()];
        hub.must_reload(&with_prefixes(&first, a, &moving)?)?;
        a.namespace().ip(&format!("addr add 10.9.77.1/32 dev {}", a.interface))?;
        must_ping(c, "10.9.77.1".parse()?)?;
        let said = hub.must_reload(&with_prefixes(&first, b, &moving)?)?;
        ensure!(said.contains("2 sites changed, 1 route added, 1 route removed"), "{said}");
        let before = hub.status()?;
        let words = ["-c", "3", "-i", "0.05", "-W", "1"];
        let from_there = [&words[..], &["-I", "10.9.77.1"]].concat();
        ensure!(ping(a.namespace(), c.v4().into(), &from_there)?.received == 0, "a still speaks for it");
        hub.must_have_dropped(&before, &[("source_not_allowed", 3)])?;
        a.namespace().ip(&format!("addr del 10.9.77.1/32 dev {}", a.interface))?;
        b.namespace().ip(&format!("addr add 10.9.77.1/32 dev {}", b.interface))?;
        must_ping(c, "10.9.77.1".parse()?)?;

        // c is gone: what it sends ends in XDP, and there is no way to it.
        let section = format!("\n{}\n", c.hub_section());
        ensure!(first.contains(&section), "{section} is not in {first}");
        let said = hub.must_reload(&first.replace(&section, ""))?;
        ensure!(said.contains("1 site removed"), "{said}");
        let before = hub.status()?;
        ensure!(before.site(c).is_err(), "it is shown");
        ensure!(ping(c.namespace(), a.v4().into(), &words)?.received == 0, "its packets arrive");
        hub.must_have_dropped_at_least(&before, "xdp_session_unknown", 3)?;
        let before = hub.status()?;
        ensure!(ping(a.namespace(), c.v4().into(), &words)?.received == 0, "packets for it arrive");
        hub.must_have_dropped_at_least(&before, "no_route", 3)?;
        flows.must_flow()?;

        // It comes back, and counts from nothing; then another adapter takes its place, and it is out again.
        hub.must_reload(&first)?;
        ensure!(hub.status()?.of_site(c, "rx_packets")? == 0, "it has somebody's numbers");
        let c = &mut sites[2];
        c.stop()?;
        c.start()?;
        hub.await_sessions(&[c])?;
        must_ping(&sites[2], sites[0].v4().into())?;
        heir.start()?;
        let said = hub.must_reload(&first.replace(&sites[2].key.public, &heir.key.public))?;
        ensure!(said.contains("1 site changed"), "{said}");
        let before = hub.status()?;
        ensure!(ping(sites[2].namespace(), sites[0].v4().into(), &words)?.received == 0, "the old key still works");
        hub.must_have_dropped_at_least(&before, "xdp_session_unknown", 3)?;
        until_true("the new adapter talks", || Ok(echo(heir.namespace(), sites[0].v4().into(), 1, &[])?.all()))?;
        ensure!(hub.status()?.site(&sites[2])?["public_key"] == *heir.key.public, "another key is shown");

        let (a, b) = (&sites[0], &sites[1]);
        sessions.must_stay(&hub, &[a, b])?;
        flows.must_flow()?;
        flows.finish()?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn what_is_wrong_or_takes_a_restart_changes_nothing_and_is_named() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = sites(lab, &mut world, &["a", "b"])?;
        let mut hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let (a, b) = (&sites[0], &sites[1]);
        let first = fs::read_to_string(hub.config())?;
        let flows = Flows::start(a, b)?;
        let in_force = hub.status()?.0["hub"]["configuration"].clone();
        ensure!(in_force["last_reload"].is_null(), "{in_force}");

        // As `check` says it, and no part of it is applied: neither the good line nor the bad one.
        let good = with_lines(&first, a, "rate = \"64 kbit/s\"")?;
        let broken = with_lines(&good, b, "mtu = 99999")?;
        let output = hub.reload(&broken)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = 1 + broken.lines().position(|line| line.contains("99999")).context("the line")?;
        let check = hub.ekiden(&["check", &hub.config().display().to_string()])?;
        let expected = String::from_utf8_lossy(&check.stderr).into_owned();
        ensure!(said.contains(&format!("hub.toml:{line}: ")) && !output.status.success(), "{said}");
        ensure!(said.starts_with(expected.trim_end()), "{said:?} and {expected:?}");
        ensure!(said.ends_with("nothing was changed\n"), "{said}");
        let after = hub.status()?.0["hub"]["configuration"].clone();
        ensure!(after["hash"] == in_force["hash"] && after["applied"] == in_force["applied"], "{after}");
        ensure!(after["last_reload"]["applied"] == false, "{after}");
        ensure!(after["last_reload"]["text"].as_str().is_some_and(|text| text.contains("99999")), "{after}");
        ensure!(hub.status_text()?.contains("REFUSED, nothing was changed"), "{}", hub.status_text()?);
        flows.must_flow()?;

        // What a running hub can't change is named, each key, and what to do.
        let fixed = good
            .replace("listen_port = 51820", "listen_port = 51833")
            .replace("role = \"wan\"", "role = \"wan\"\ncopy = true");
        let output = hub.reload(&fixed)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for what in ["listen_port of [hub]", "port \"d0\" is configured otherwise", "restart it"] {
            ensure!(said.contains(what), "{what}: {said}");
        }
        flows.must_flow()?;
        let answer = hub.change("/v1/reload")?;
        ensure!(answer.contains(" 422 ") && answer.contains("listen_port of [hub]"), "{answer}");
        flows.finish()?;

        // A signal does the same; rates and filters hold from the next packet on, and no longer than they are there.
        let limit = "filter_default = \"allow\"\n[[tenant.filter]]\nname = \"no ping\"\naction = \"deny\"\nprotocol = \"icmp\"\n";
        let filtered = with_lines(
            &first.replace("label = \"Tenant 1001\"\n", &format!("label = \"Tenant 1001\"\n{limit}")),
            b,
            "rate = \"64 kbit/s\"",
        )?;
        fs::write(hub.config(), &filtered)?;
        hub.process()?.signal(Signal::HUP)?;
        let now = until("the file is in force", || {
            let now = hub.status()?.0["hub"]["configuration"].clone();
            Ok((now["last_reload"]["applied"] == true).then_some(now))
        })?;
        ensure!(now["hash"] != in_force["hash"], "{now}");
        let before = hub.status()?;
        ensure!(
            ping(a.namespace(), b.v4().into(), &["-c", "3", "-i", "0.05", "-W", "1"])?.received == 0,
            "it is filtered"
        );
        hub.must_have_dropped(&before, &[("filter_denied", 3)])?;
        ensure!(hub.status()?.0["tenants"][0]["filter"][0]["packets"] == 3, "{}", hub.status()?.0["tenants"][0]);
        let load = Load::start(a, b, 1000, 200)?;
        hub.must_have_dropped_at_least(&before, "rate_site_down", 100)?;
        drop(load);
        hub.must_reload(&first)?;
        let tenant = hub.status()?.0["tenants"][0].clone();
        ensure!(tenant["filter"].as_array().is_none_or(Vec::is_empty), "its filter is gone: {tenant}");
        let flows = Flows::start(a, b)?;
        must_ping_both_ways(a, b)?;
        flows.finish()?;
        hub.balance()?;
        Ok(())
    })
}
