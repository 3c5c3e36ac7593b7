//! The other commands of the binary, as an operator uses them.

use std::fs;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::world::{HUB_PORT, HUB_V4};
use ekiden_testbed::{Hub, Plan, Site, World, lab};

fn sites(lab: &mut lab::Lab, world: &mut World) -> Result<Vec<Site>> {
    [("a", 1), ("b", 2)].into_iter().map(|(name, net)| Site::new(lab, world, Plan::new(1001, name, net))).collect()
}

#[test]
fn check_says_everything_that_is_wrong_and_where() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let sites = sites(lab, &mut world)?;
        let hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        let config = hub.config().display().to_string();
        let check = || hub.ekiden(&["check", &config]);
        let output = check()?;
        ensure!(output.status.success(), "{output:?}");

        let text = fs::read_to_string(hub.config())?;
        let wrong = text.replace("10.9.1.0/24", "10.9.1.7/24").replace("id = 1001", "id = 16777216") + "colour = 1\n";
        fs::write(hub.config(), &wrong)?;
        let output = check()?;
        ensure!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = |needle: &str| 1 + wrong.lines().position(|line| line.contains(needle)).expect("it is there");
        for (at, what) in
            [(line("10.9.1.7/24"), "10.9.1.7/24"), (line("16777216"), "16777216"), (line("colour"), "colour")]
        {
            let place = format!("hub.toml:{at}");
            ensure!(said.lines().any(|line| line.contains(&place) && line.contains(what)), "{place} {what}: {said}");
        }
        Ok(())
    })
}

#[test]
fn status_tells_what_the_hub_knows() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = sites(lab, &mut world)?;
        let settings = Settings { ports: vec!["d0", "d1"], ..Settings::default() };
        let mut hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        must_ping_both_ways(&sites[0], &sites[1])?;

        let status = hub.status()?;
        let report = &status.0;
        ensure!(
            report["hub"]["name"] == "lab" && report["hub"]["public_key"] == *world.key.public,
            "{}",
            report["hub"]
        );
        ensure!(report["hub"]["pid"] == hub.process()?.pid());
        for (at, name, address) in [(0, "d0", "192.0.2.1"), (1, "d1", "203.0.113.1")] {
            let port = &report["ports"][at];
            let addresses = port["addresses"].as_array().context("addresses")?;
            ensure!(port["name"] == name && port["driver"] == "veth" && port["xdp"] == "native", "{port}");
            ensure!(port["copy"] == "copy" && port["queues"] == 1 && port["up"] == true, "{port}");
            ensure!(addresses.iter().any(|found| found == address), "{port}");
        }
        for site in &sites {
            let told = status.site(site)?;
            // Three echo requests and three replies, of IPv4 and of IPv6, both ways.
            ensure!(told["rx_packets"].as_u64() >= Some(12) && told["tx_packets"].as_u64() >= Some(12), "{told}");
            ensure!(told["endpoint"] == site.endpoint().to_string() && told["local"] == HUB_V4.to_string(), "{told}");
            ensure!(told["last_handshake_s_ago"].is_u64() && told["path"]["port"] == "d0", "{told}");
        }
        let text = hub.status_text()?;
        for word in ["lab", "d0", "d1", "veth", "WAN00001001", "198.18.1.2:51821", "198.18.2.2:51821"] {
            ensure!(text.contains(word), "no {word} in\n{text}");
        }
        hub.balance()?;
        hub.stop()?;
        let asked = hub.status().expect_err("no hub runs");
        ensure!(asked.to_string().contains("no hub runs"), "{asked}");
        Ok(())
    })
}

#[test]
fn a_client_is_set_up_by_what_site_config_prints() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = sites(lab, &mut world)?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        // Site a has an address and no key yet.
        let (known, text) = (sites[0].key.public.clone(), fs::read_to_string(hub.config())?);
        let address = "address = [\"10.9.1.1/24\", \"fd00:9:1::1/64\"]";
        fs::write(hub.config(), text.replace(&format!("public_key = \"{known}\""), address))?;

        let (config, endpoint) = (hub.config().display().to_string(), format!("{HUB_V4}:{HUB_PORT}"));
        let output = hub.ekiden(&["site-config", &config, "1001", "a", "--endpoint", &endpoint, "--new-key"])?;
        ensure!(output.status.success(), "{output:?}");
        let (printed, notes) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        let line = notes.lines().find_map(|line| line.trim().strip_prefix("public_key = ")).context("a public key")?;
        fs::write(hub.config(), text.replace(&format!("\"{known}\""), line))?;
        hub.start()?;

        // As `wg-quick` does: its own lines for `ip`, the rest for `wg setconf`.
        let file = lab.directory().join("adapter.conf");
        ekiden_testbed::world::write_secret(&file, &printed)?;
        let (a, rest) = sites.split_first_mut().context("two sites")?;
        a.launch()?;
        let bare = lab::run(std::process::Command::new("wg-quick").arg("strip").arg(&file))?;
        let stripped = lab.directory().join("stripped.conf");
        ekiden_testbed::world::write_secret(&stripped, &bare)?;
        a.namespace().run("wg", &["setconf", &a.interface, &stripped.display().to_string()])?;
        let value = |name: &str| {
            let found = printed.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            found.with_context(|| format!("{name} in\n{printed}"))
        };
        ensure!(value("MTU")? == "1420");
        let addresses: Vec<String> = value("Address")?.split(", ").map(str::to_owned).collect();
        a.bring_up(&addresses, &value("AllowedIPs")?.split(", ").collect::<Vec<_>>())?;

        let b = &mut rest[0];
        b.start()?;
        hub.await_sessions(&[b])?;
        must_ping_both_ways(a, b)
    })
}

#[test]
fn the_hub_names_the_capability_that_it_lacks() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let sites = sites(lab, &mut world)?;
        let hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        let (binary, config) =
            (ekiden_testbed::hub::binary()?.display().to_string(), hub.config().display().to_string());
        let words = ["--bounding-set", "-net_raw", "--", &binary, "run", "--config", &config];
        let output = world.hub.command("setpriv").args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("CAP_NET_RAW") && !said.contains("CAP_BPF (to"), "{said}");
        Ok(())
    })
}

#[test]
fn a_second_hub_of_the_same_name_is_refused() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let sites = sites(lab, &mut world)?;
        let (mut first, mut second) = {
            let sites: Vec<_> = sites.iter().collect();
            (Hub::new(lab, &world, &Settings::default(), &sites)?, Hub::new(lab, &world, &Settings::default(), &sites)?)
        };
        first.start()?;
        let refused = format!("{:#}", second.start().expect_err("there is one already"));
        ensure!(refused.contains("lab"), "{refused}");
        // And the first goes on.
        ensure!(first.status()?.0["hub"]["pid"] == first.process()?.pid());
        Ok(())
    })
}
