//! `ekiden exporter` and `docs/monitoring` with the real Prometheus.

mod scrape;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use ekiden_testbed::hub::{NAME, Settings, binary};
use ekiden_testbed::lab::Namespace;
use ekiden_testbed::probe::{must_ping_both_ways, ping};
use ekiden_testbed::wait::{until, until_true};
use ekiden_testbed::{Hub, Lab, Plan, Process, Site, Tap, World, lab};
use scrape::{EXPORTER, exporter, get, scrape};
use serde_json::Value;

const PROMETHEUS: &str = "127.0.0.1:9090";

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

/// Prometheus with the project's own configuration, but for the time between two scrapes.
struct Prometheus<'a> {
    namespace: &'a Namespace,
    process: Process,
}

impl<'a> Prometheus<'a> {
    fn start(lab: &Lab, namespace: &'a Namespace) -> Result<Self> {
        let directory = lab.directory().join("prometheus");
        fs::create_dir(&directory)?;
        let config = fs::read_to_string(documents().join("prometheus.yml"))?;
        for expected in ["interval: 15s", "scrape_timeout: 10s", EXPORTER] {
            ensure!(config.contains(expected), "{expected} in {config}");
        }
        let config =
            config.replace("interval: 15s", "interval: 1s").replace("scrape_timeout: 10s", "scrape_timeout: 1s");
        fs::write(directory.join("prometheus.yml"), config)?;
        fs::copy(documents().join("alerts.yml"), directory.join("alerts.yml"))?;
        let config = format!("--config.file={}", directory.join("prometheus.yml").display());
        let data = format!("--storage.tsdb.path={}", directory.join("data").display());
        let listen = format!("--web.listen-address={PROMETHEUS}");
        let words = ["prometheus", &config, &data, &listen];
        let process = Process::start(lab.directory(), namespace, "prometheus", &words, &[])?;
        let this = Self { namespace, process };
        until_true("Prometheus is ready", || {
            this.process.must_be_alive()?;
            Ok(get(namespace, PROMETHEUS, "/-/ready", "*/*").is_ok())
        })?;
        Ok(this)
    }

    fn api(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&get(self.namespace, PROMETHEUS, path, "*/*")?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// What an expression is now: a vector.
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let escaped: String = expression
            .bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        let data = self.api(&format!("/api/v1/query?query={escaped}")).with_context(|| expression.to_owned())?;
        ensure!(data["resultType"] == "vector", "{expression}: {data}");
        Ok(data["result"].as_array().context("a vector")?.clone())
    }
}

/// What an alert compares, without the thresholds: they are what the data of a hub that is well does not meet.
fn compared(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in expression.split(" and ") {
        let signs = [" == ", " != ", " >= ", " <= ", " > ", " < "];
        let sides = signs.into_iter().find_map(|sign| part.rsplit_once(sign));
        let sides = sides.map_or(vec![part], |(left, right)| vec![left, right]);
        found.extend(sides.into_iter().filter(|side| side.trim().parse::<f64>().is_err()).map(str::to_owned));
    }
    found
}

/// Every `expr` of the dashboard, and what its variables are found by.
fn dashboard(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| dashboard(one, found)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field.as_str()) {
                    ("expr", Some(text)) => {
                        found.insert(text.to_owned());
                    }
                    ("definition", Some(text)) => {
                        let inner = text.strip_prefix("label_values(").and_then(|rest| rest.split_once(','));
                        found.insert(inner.map_or(text, |(metric, _)| metric).to_owned());
                    }
                    _ => dashboard(field, found),
                }
            }
        }
        _ => {}
    }
}

fn promtool(words: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(words).current_dir(documents()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool")?;
    child.stdin.take().context("stdin is a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "promtool {words:?}: {said}");
    Ok(())
}

#[test]
fn the_alerts_say_what_they_should() -> Result<()> {
    promtool(&["check", "config", "prometheus.yml"], "")?;
    promtool(&["check", "rules", "alerts.yml"], "")?;
    promtool(&["test", "rules", "alerts_test.yml"], "")?;
    let (rules, tests) =
        (fs::read_to_string(documents().join("alerts.yml"))?, fs::read_to_string(documents().join("alerts_test.yml"))?);
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(names.len() >= 15);
    for name in names {
        ensure!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested");
    }
    Ok(())
}

fn two_sites(lab: &mut Lab) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    Ok((world, hub, sites))
}

#[test]
fn prometheus_finds_all_that_alerts_and_dashboard_ask_for() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab)?;
        let _exporter = exporter(lab, &world.hub, &["--hub", NAME])?;
        let prometheus = Prometheus::start(lab, &world.hub)?;
        let address = sites[1].v4().to_string();
        let words = ["ping", "-q", "-n", "-i", "0.01", &address];
        let _stream = Process::start(lab.directory(), sites[0].namespace(), "stream", &words, &[])?;
        // To nowhere: a drop of the tenant's.
        let words = ["ping", "-q", "-n", "-i", "0.1", "10.9.99.1"];
        let _lost = Process::start(lab.directory(), sites[0].namespace(), "lost", &words, &[])?;

        let mut expressions = BTreeSet::new();
        let rules = prometheus.api("/api/v1/rules")?;
        for group in rules["groups"].as_array().context("groups")? {
            for rule in group["rules"].as_array().context("rules")? {
                expressions.extend(compared(rule["query"].as_str().context("a query")?));
            }
        }
        let alerts = expressions.len();
        ensure!(alerts >= 15, "{expressions:?}");
        let mut asked = BTreeSet::new();
        dashboard(&serde_json::from_str(&fs::read_to_string(documents().join("dashboard.json"))?)?, &mut asked);
        ensure!(asked.len() >= 30, "{asked:?}");
        for expression in asked {
            // As Grafana fills in its variables.
            let filled = expression.replace("$hub", ".*").replace("$tenant", ".*").replace("$__rate_interval", "30s");
            ensure!(!filled.contains('$'), "{expression}");
            // "Where it is above zero" hides what is at rest, and an event that there was none of.
            expressions.insert(filled.strip_suffix(" > 0").map_or(filled.clone(), str::to_owned));
        }
        // This hub has no trunk. That the exporter has series of these names is what its own tests say.
        expressions
            .retain(|text| !["ekiden_trunk_", "ekiden_lane_", "ekiden_paths"].iter().any(|name| text.contains(name)));
        for expression in &expressions {
            until_true(&format!("there is data for {expression}"), || Ok(!prometheus.query(expression)?.is_empty()))?;
        }
        // What moves is seen to move.
        for expression in [
            r#"rate(ekiden_site_receive_bytes_total{tenant="WAN00001001",site="a"}[30s])"#,
            r#"rate(ekiden_tenant_drops_total{reason="no_route"}[30s])"#,
            "rate(ekiden_worker_busy_seconds_total[30s])",
            r#"rate(ekiden_port_xdp_frames_total{verdict="redirected"}[30s])"#,
            "histogram_quantile(0.99, sum by (le) (rate(ekiden_worker_latency_seconds_bucket[30s])))",
            "histogram_quantile(0.99, sum by (le) (rate(ekiden_worker_ring_seconds_bucket[30s])))",
        ] {
            until_true(&format!("{expression} is above zero"), || {
                Ok(!prometheus.query(&format!("{expression} > 0"))?.is_empty())
            })?;
        }
        let target = &prometheus.api("/api/v1/targets")?["activeTargets"][0];
        ensure!(target["health"] == "up" && target["lastError"] == "", "{target}");
        // A hub that is well raises nothing: its clock apart, which is the machine's.
        for alert in prometheus.api("/api/v1/alerts")?["alerts"].as_array().context("alerts")? {
            let (name, state) = (&alert["labels"]["alertname"], &alert["state"]);
            ensure!(state != "firing" || name == "EkidenClockNotSynchronised", "{alert}");
        }
        promtool(&["check", "metrics"], &get(&world.hub, EXPORTER, "/metrics", "text/plain")?)?;
        drop(hub);
        Ok(())
    })
}

#[test]
fn what_prometheus_counts_is_what_status_says_and_what_arrived() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab)?;
        let _exporter = exporter(lab, &world.hub, &["--hub", NAME])?;
        let taps = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;
        let sent = |site: &Site, what: &str| {
            format!(r#"ekiden_site_transmit_{what}_total{{tenant="WAN00001001",site="{}"}}"#, site.plan.name)
        };
        hub.balance()?;
        let before = scrape(&world.hub)?;
        for tap in &taps {
            tap.drain()?;
        }
        must_ping_both_ways(&sites[0], &sites[1])?;
        ping(sites[0].namespace(), "10.9.99.1".parse()?, &["-c", "7", "-i", "0.05", "-W", "1"])?;
        hub.balance()?;

        // Some figures are written once a second: they agree once all are.
        let mut differ = Vec::new();
        let agree = until("the scrape says what status says", || {
            let (status, now) = (hub.status()?, scrape(&world.hub)?);
            differ.clear();
            let mut compare = |name: String, told: Option<u64>| -> Result<()> {
                let told = told.with_context(|| name.clone())? as f64;
                if now.get(&name) != Some(&told) {
                    differ.push(format!("{name}: {:?}, and status {told}", now.get(&name)));
                }
                Ok(())
            };
            for site in &sites {
                for (metric, field) in [
                    ("receive_packets", "rx_packets"),
                    ("receive_bytes", "rx_bytes"),
                    ("transmit_packets", "tx_packets"),
                    ("transmit_bytes", "tx_bytes"),
                ] {
                    let labels = format!(r#"{{tenant="WAN00001001",site="{}"}}"#, site.plan.name);
                    compare(format!("ekiden_site_{metric}_total{labels}"), status.site(site)?[field].as_u64())?;
                }
            }
            for (reason, packets) in status.drops() {
                compare(format!(r#"ekiden_drops_total{{reason="{reason}"}}"#), Some(packets))?;
            }
            let port = &status.0["ports"][0];
            for (metric, field) in [
                ("receive_frames", "rx_frames"),
                ("transmit_frames", "tx_frames"),
                ("xdp_seen_frames", "xdp_seen"),
                ("receive_lost_frames", "ring_lost"),
            ] {
                compare(format!(r#"ekiden_port_{metric}_total{{port="d0"}}"#), port[field].as_u64())?;
            }
            Ok(differ.is_empty().then_some(now))
        });
        let now = agree.with_context(|| format!("{differ:#?}"))?;
        let moved = |name: String| now[&name] - before.get(&name).copied().unwrap_or(0.0);
        for (site, tap) in sites.iter().zip(&taps) {
            let arrived: Vec<_> = tap.drain()?.into_iter().filter(|seen| !seen.outgoing).collect();
            ensure!(arrived.len() >= 12, "{} packets", arrived.len());
            let bytes: usize = arrived.iter().map(|seen| seen.bytes.len()).sum();
            ensure!(moved(sent(site, "packets")) == arrived.len() as f64, "packets of {}", site.label());
            ensure!(moved(sent(site, "bytes")) == bytes as f64, "bytes of {}", site.label());
        }
        let sum = |name: &str| {
            sites
                .iter()
                .map(|site| now[&format!(r#"ekiden_site_{name}{{tenant="WAN00001001",site="{}"}}"#, site.plan.name)])
                .sum::<f64>()
        };
        for name in
            ["receive_packets_total", "receive_bytes_total", "transmit_bytes_total", "transmit_outer_bytes_total"]
        {
            ensure!(
                now[&format!(r#"ekiden_tenant_{name}{{tenant="WAN00001001"}}"#)] == sum(name),
                "{name} of the tenant"
            );
        }
        ensure!(moved(r#"ekiden_tenant_drops_total{tenant="WAN00001001",reason="no_route"}"#.into()) == 7.0);
        ensure!(now["ekiden_books_in_packets_total"] >= now["ekiden_books_out_packets_total"]);
        Ok(())
    })
}

#[test]
fn the_exporter_outlives_hubs() -> Result<()> {
    lab::test(|lab| {
        let (world, mut hub, sites) = two_sites(lab)?;
        // Without a name: the only hub there is.
        let exporter = exporter(lab, &world.hub, &[])?;
        let shows = |name: &str, value: f64| {
            until_true(&format!("{name} is {value}"), || Ok(scrape(&world.hub)?.get(name) == Some(&value)))
        };
        shows("ekiden_hub_running", 1.0)?;
        let start = scrape(&world.hub)?["ekiden_hub_start_time_seconds"];
        hub.stop()?;
        shows("ekiden_hub_running", 0.0)?;
        hub.start()?;
        shows("ekiden_hub_running", 1.0)?;
        let restarted = scrape(&world.hub)?["ekiden_hub_start_time_seconds"];
        ensure!(restarted > start, "{restarted} after {start}");
        hub.kill()?;
        shows("ekiden_hub_running", 0.0)?;
        hub.start()?;
        shows("ekiden_hub_running", 1.0)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        shows(r#"ekiden_site_session_up{tenant="WAN00001001",site="a"}"#, 1.0)?;
        ensure!(scrape(&world.hub)?["ekiden_up"] == 1.0);
        ensure!(exporter.is_alive()? && !exporter.log().contains("WARN"), "{}", exporter.log());
        Ok(())
    })
}

#[test]
fn it_runs_in_another_namespace_than_the_hub() -> Result<()> {
    lab::test(|lab| {
        let (world, _hub, _sites) = two_sites(lab)?;
        let management = lab.namespace("management")?;
        let _exporter = exporter(lab, &management, &["--hub", NAME])?;
        let found = scrape(&management)?;
        ensure!((found["ekiden_up"], found["ekiden_hub_running"]) == (1.0, 1.0), "{found:?}");
        ensure!(found[r#"ekiden_site_session_up{tenant="WAN00001001",site="b"}"#] == 1.0, "{found:?}");
        ensure!(get(&world.hub, EXPORTER, "/metrics", "*/*").is_err(), "it answers where the hub is, too");
        Ok(())
    })
}

#[test]
fn it_answers_through_its_own_interface_alone() -> Result<()> {
    lab::test(|lab| {
        let world = World::new(lab)?;
        let _exporter = exporter(lab, &world.hub, &["--listen", "0.0.0.0:9586", "--interface", "d1"])?;
        until_true("the exporter answers through d1", || {
            Ok(get(&world.inet, "203.0.113.1:9586", "/metrics", "*/*")
                .is_ok_and(|text| text.contains("\nekiden_up 0\n")))
        })?;
        let refused = get(&world.inet, "192.0.2.1:9586", "/metrics", "*/*");
        ensure!(refused.is_err_and(|error| format!("{error:#}").contains("refused")), "it answers elsewhere, too");
        let run_dir = lab.directory().join("run").display().to_string();
        let words = ["exporter", "--run-dir", &run_dir, "--listen", "127.0.0.1:9999", "--interface", "none"];
        let output = world.hub.command(binary()?).args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !said.contains("interface \"none\"") {
            bail!("{}: {said}", output.status);
        }
        Ok(())
    })
}
