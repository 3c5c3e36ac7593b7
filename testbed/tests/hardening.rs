//! What an attacker who has taken over the hub's process can do with it: as little as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::{caps, seccomp};
use ekiden_testbed::hub::{NAME, Settings};
use ekiden_testbed::lab::run;
use ekiden_testbed::probe::{must_ping_both_ways, ping};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Hub, Outside, Plan, Process, Site, World, lab, until};

mod memory;
mod registers;

/// So long after an initiation the hub hears another of the same site.
const PAUSE: Duration = Duration::from_millis(60);
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/packaging/ekiden@.service");

fn two_sites(lab: &mut lab::Lab, world: &mut World) -> Result<Vec<Site>> {
    let v6 = Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) };
    [Plan::new(1001, "a", 1), v6].into_iter().map(|plan| Site::new(lab, world, plan)).collect()
}

/// Asks the hub over `control.sock`, as its commands will.
fn begin_handshake(hub: &Hub, site: &Site) -> Result<String> {
    let [run, ..] = hub.places();
    let mut stream = UnixStream::connect(run.join(NAME).join("control.sock"))?;
    let path = format!("/v1/sites/{}/{}/handshake", site.plan.tenant, site.plan.name);
    write!(stream, "POST {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Everything that a hub does between its start and its end, packets of every kind excepted, which are other tests'.
fn every_operation(lab: &lab::Lab, world: &World, hub: &Hub, sites: &[Site]) -> Result<()> {
    let (a, b) = (&sites[0], &sites[1]);
    must_ping_both_ways(a, b)?;

    // Status, and a handshake that was asked for: the first may come too soon after the last.
    hub.status_text()?;
    until_true("a handshake is begun", || Ok(begin_handshake(hub, a)?.starts_with("HTTP/1.1 202")))?;

    // A site moves.
    let to = a.move_to(9, 40000)?;
    until_true("the hub follows the site", || {
        must_try(a, b)?;
        Ok(hub.status()?.site(a)?["endpoint"] == to.to_string())
    })?;

    // An address comes and goes; the next hop has another MAC address.
    let has =
        |address: &str| -> Result<bool> { Ok(hub.status()?.0["ports"][0]["addresses"].to_string().contains(address)) };
    world.hub.ip("addr add 192.0.2.77/24 dev d0")?;
    until_true("the address is the hub's", || has("192.0.2.77"))?;
    world.hub.ip("addr del 192.0.2.77/24 dev d0")?;
    until_true("the address is gone", || Ok(!has("192.0.2.77")?))?;
    world.inet.ip("link set h0 address 02:00:00:00:be:ef")?;

    // The port's interface is made anew: new sockets, and the program attached and pinned again.
    world.hub.ip("link del d0")?;
    until_true("the hub misses the port", || Ok(hub.status()?.0["ports"][0]["ifindex"].is_null()))?;
    lab.wire((&world.hub, "d0"), (&world.inet, "h0"), 1)?;
    world.inet.ip("addr add 192.0.2.254/24 dev h0")?;
    world.inet.ip("addr add 2001:db8::fe/64 dev h0 nodad")?;
    world.hub.ip("addr add 192.0.2.1/24 dev d0")?;
    world.hub.ip("addr replace 2001:db8::1/64 dev d0 nodad")?;
    world.hub.ip("route replace default via 192.0.2.254 dev d0")?;
    world.hub.ip("-6 route replace default via 2001:db8::fe dev d0")?;
    until_true("packets pass again", || must_try(a, b)).with_context(|| hub.status_text().unwrap_or_default())?;
    must_ping_both_ways(a, b)?;
    let warnings = &hub.status()?.0["ports"][0]["warnings"];
    ensure!(!warnings.to_string().contains("could not"), "{warnings}");

    // What is known of the sites is written down.
    let [_, state, _] = hub.places();
    let known = state.join(NAME).join("peers");
    until_true("the state is saved", || Ok(known.exists()))
}

fn must_try(a: &Site, b: &Site) -> Result<bool> {
    let tries = b.inner().map(|address| ping(a.namespace(), address, &["-c", "1", "-W", "1"]));
    tries.into_iter().try_fold(true, |all, tried| Ok(all && tried?.all()))
}

/// System calls in a trace of `strace -f -o`: those before the filters were in place, and those after with whether the
/// kernel, or a filter, did not know them.
struct Trace {
    start: BTreeSet<String>,
    running: BTreeMap<String, bool>,
}

impl Trace {
    fn read(path: &Path) -> Result<Self> {
        let mut trace = Self { start: BTreeSet::new(), running: BTreeMap::new() };
        let mut filters = 0;
        for line in fs::read_to_string(path)?.lines() {
            // "PID name(arguments) = result", "PID <... name resumed>) = result", "PID +++ exited", "PID --- signal".
            let Some((_, text)) = line.split_once(' ') else { continue };
            let text = text.trim_start();
            let name: String = text
                .trim_start_matches("<... ")
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if name.is_empty() {
                continue;
            }
            filters += usize::from(name == "seccomp" && text.ends_with("= 0"));
            if filters < 2 || name == "seccomp" {
                trace.start.insert(name);
            } else {
                *trace.running.entry(name).or_default() |= text.contains(" = -1 ENOSYS ");
            }
        }
        ensure!(filters == 2, "{} filters were put in place", filters);
        Ok(trace)
    }
}

/// The system calls that the unit lets through, as systemd itself reads it.
fn unit_filter() -> Result<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for line in fs::read_to_string(UNIT)?.lines() {
        let Some(words) = line.strip_prefix("SystemCallFilter=") else { continue };
        let (words, deny) = words.strip_prefix('~').map_or((words, false), |words| (words, true));
        for word in words.split_whitespace() {
            let mut calls = BTreeSet::new();
            expand(word, &mut calls)?;
            match deny {
                true => allowed.retain(|call| !calls.contains(call)),
                false => allowed.extend(calls),
            }
        }
    }
    // systemd lets these through in any case, so that the program can be executed at all.
    expand("@default", &mut allowed)?;
    Ok(allowed)
}

fn expand(word: &str, into: &mut BTreeSet<String>) -> Result<()> {
    if !word.starts_with('@') {
        into.insert(word.to_owned());
        return Ok(());
    }
    let text = run(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", word]))?;
    let members = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.filter(|member| *member != word).try_for_each(|member| expand(member, into))
}

#[test]
fn every_operation_works_under_the_filters_and_they_let_little_else_through() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = two_sites(lab, &mut world)?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        let path = lab.directory().join("trace.txt");
        hub.start_by(&["strace", "-D", "-f", "-qq", "-o", &path.display().to_string()]);
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        every_operation(lab, &world, &hub, &sites)?;
        let pid = hub.process()?.pid();
        hub.balance()?;
        let status = hub.stop()?;
        ensure!(status.success(), "the hub ended with {status}");
        until_true("strace has written all", || {
            Ok(fs::read_to_string(&path)?
                .lines()
                .any(|line| line.split_whitespace().next() == Some(&pid.to_string()) && line.contains("exit_group(")))
        })?;
        let trace = Trace::read(&path)?;

        // 1. Nothing is missing: no call of the hub's was refused but the one that is meant to be.
        let refused: Vec<_> =
            trace.running.iter().filter(|(_, refused)| **refused).map(|(name, _)| name.as_str()).collect();
        ensure!(refused == ["clone3"], "refused: {refused:?}");

        // 2. Little is superfluous: what is in the list is used, or is said to be rare.
        let unused: Vec<_> =
            seccomp::allowed().filter(|call| !call.rare && !trace.running.contains_key(call.name())).collect();
        ensure!(unused.is_empty(), "allowed, and not used: {unused:#?}");
        let used: Vec<_> = seccomp::allowed().filter(|call| trace.running.contains_key(call.name())).collect();
        let rare = seccomp::allowed().count() - used.len();
        eprintln!(
            "{} system calls at the start, {} while running, {rare} more are allowed",
            trace.start.len(),
            used.len()
        );

        // 3. The unit lets all of it through, from the first instruction.
        let unit = unit_filter()?;
        let forbidden: Vec<_> =
            trace.start.iter().chain(trace.running.keys()).filter(|call| !unit.contains(*call)).collect();
        ensure!(forbidden.is_empty(), "the unit forbids: {forbidden:?}");
        ensure!(
            !unit.contains("ptrace") && !unit.contains("mount") && !unit.contains("init_module"),
            "the unit's filter is none"
        );
        Ok(())
    })
}

/// A thread's name, and what its `status` says.
fn threads(pid: u32) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        all.push((fields["Name"].clone(), fields));
    }
    Ok(all)
}

#[test]
fn a_running_hub_has_no_privilege_that_it_does_not_need() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = two_sites(lab, &mut world)?;
        let mut hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let pid = hub.process()?.pid();

        let needs = caps::needs(HUB_PORT, false);
        let mask = |until: &dyn Fn(&caps::Need) -> bool| {
            format!(
                "{:016x}",
                needs.iter().filter(|need| until(need)).fold(0, |mask, need| mask | need.capability.bitmask())
            )
        };
        let (bounding, none) = (mask(&|_| true), mask(&|_| false));
        let control = mask(&|need| need.until == caps::Until::End);
        ensure!(bounding != control && control != none);
        let threads = threads(pid)?;
        let names: Vec<&str> = threads.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(
            names.iter().filter(|name| name.starts_with("worker-")).count() == 1 && names.contains(&"ekiden-api"),
            "{names:?}"
        );
        for (name, fields) in &threads {
            // Control has what it needs to follow the network; who reads packets and requests has nothing.
            let bare = name.starts_with("worker-") || ["ekiden-api", "ekiden-stats"].contains(&name.as_str());
            let held = if bare { &none } else { &control };
            let wanted =
                [("CapPrm", held), ("CapEff", held), ("CapInh", &none), ("CapAmb", &none), ("CapBnd", &bounding)];
            for (set, wanted) in wanted {
                ensure!(&fields[set] == wanted, "{name}: {set} is {}, not {wanted}", fields[set]);
            }
            ensure!(
                fields["NoNewPrivs"] == "1" && fields["Seccomp"] == "2" && fields["Seccomp_filters"] == "2",
                "{name}: {fields:?}"
            );
        }

        // Not even a process of the same user with the same capabilities may look into it, as it may into its like.
        let like = ["--bounding-set", "-all,+net_admin,+net_raw,+bpf,+ipc_lock", "--inh-caps", "-all", "--"];
        let words = [&["setpriv"], &like[..], &["sleep", "60"]].concat();
        let control = Process::start(lab.directory(), &world.hub, "like", &words, &[])?;
        let readable = |pid: u32| -> Result<bool> {
            let file = format!("/proc/{pid}/environ");
            Ok(Command::new("setpriv").args(like).args(["head", "-c", "1", &file]).output()?.status.success())
        };
        until_true("a process without such protection is open", || readable(control.pid()))?;
        ensure!(!readable(pid)?, "the hub's /proc is open to its own user");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        ensure!(
            limits
                .lines()
                .any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0")),
            "{limits}"
        );
        Ok(())
    })
}

#[test]
fn nothing_listens_in_the_data_namespace_but_the_reserved_port() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = two_sites(lab, &mut world)?;
        let mut hub =
            Hub::with_sites(lab, &world, &Settings { ports: vec!["d0", "d1"], ..Settings::default() }, &mut sites)?;
        let pid = format!("pid={},", hub.process()?.pid());
        // Every socket of every family that can hear the network, by whom it is held.
        let list = || {
            world.hub.run(
                "ss",
                &[
                    "--no-header",
                    "--numeric",
                    "--listening",
                    "--processes",
                    "--tcp",
                    "--udp",
                    "--raw",
                    "--packet",
                    "--sctp",
                    "--dccp",
                    "--vsock",
                ],
            )
        };
        let foreign = || -> Result<Vec<String>> {
            let reserved = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == Some("udp")
                    && line.contains(&pid)
                    && words.nth(3).is_some_and(|local| local.ends_with(&format!(":{HUB_PORT}")))
            };
            Ok(list()?.lines().filter(|line| !reserved(line)).map(str::to_owned).collect())
        };
        let sockets = list()?;
        ensure!(foreign()?.is_empty(), "{sockets}");
        // d0 and d1, IPv4 and IPv6; each bound to its address, none to all.
        ensure!(
            sockets.lines().count() >= 4 && !sockets.contains("0.0.0.0:51820") && !sockets.contains("*:51820"),
            "{sockets}"
        );

        // That a listener would be seen: one of the test's own.
        let listener = world.hub.inside(|| std::net::TcpListener::bind("127.0.0.1:0"))??;
        ensure!(foreign()?.len() == 1, "{}", list()?);
        drop(listener);
        Ok(())
    })
}

/// All that lies under a directory, and itself, with the mode and whether it is a socket.
fn walk(path: &Path, found: &mut Vec<(PathBuf, u32, bool)>) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("{}", path.display()))?;
    ensure!(!metadata.is_symlink(), "{} is a link", path.display());
    found.push((path.to_owned(), metadata.permissions().mode() & 0o7777, metadata.file_type().is_socket()));
    if metadata.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| walk(&entry?.path(), found))?;
    }
    Ok(())
}

#[test]
fn files_and_sockets_are_open_to_nobody_else() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = two_sites(lab, &mut world)?;
        // A careless umask must not make anything wider.
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        hub.start_by(&["sh", "-c", "umask 0; exec \"$@\"", "sh"]);
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        let [run, state, pins] = hub.places();
        until_true("the state is saved", || Ok(state.join(NAME).join("peers").exists()))?;
        let mut found = Vec::new();
        for place in [&run, &state, &pins] {
            walk(place, &mut found)?;
        }
        let modes: BTreeMap<_, _> = found.iter().map(|(path, mode, _)| (path.clone(), *mode)).collect();
        for (path, mode) in [
            (run.clone(), 0o755),
            (run.join(NAME), 0o750),
            (run.join(NAME).join("api.sock"), 0o660),
            (run.join(NAME).join("control.sock"), 0o600),
            (run.join(NAME).join("stats"), 0o640),
            (run.join(NAME).join("stats.sock"), 0o660),
            (state.join(NAME), 0o700),
            (state.join(NAME).join("peers"), 0o600),
            (pins.join(NAME), 0o700),
        ] {
            ensure!(
                modes.get(&path) == Some(&mode),
                "{} has {}, not {mode:o}",
                path.display(),
                modes.get(&path).map_or("nothing".into(), |mode| format!("{mode:o}"))
            );
        }
        // And nothing that is not in that list is open to others, or to be written by the group.
        for (path, mode, socket) in &found {
            let wide = if *path == run {
                0o022
            } else if *socket {
                0o007
            } else {
                0o027
            };
            ensure!(*path == state || mode & wide == 0, "{}: {mode:o}", path.display());
        }
        // And all that it has open besides is its memory.
        for entry in fs::read_dir(format!("/proc/{}/fd", hub.process()?.pid()))? {
            let target = fs::read_link(entry?.path())?;
            let own = target.starts_with(lab.directory()) || target.starts_with("/dev/null");
            ensure!(
                !target.is_absolute() || own || target.to_string_lossy().starts_with("/memfd:ekiden-"),
                "{}",
                target.display()
            );
        }

        // A key that others may read is refused, with the remedy.
        fs::set_permissions(&world.key.private, fs::Permissions::from_mode(0o644))?;
        let output = hub.ekiden(&["check", &hub.config().display().to_string()])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("chmod") && said.contains("hub.key"), "{said}");
        Ok(())
    })
}

#[test]
fn the_unit_is_scored_by_systemd() -> Result<()> {
    // An "exposure" of 0 to 10; what is left is told by `systemd-analyze security --offline=true` itself: it has the
    // network, four capabilities and the address families that a hub cannot be without, and it is root's.
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", "--threshold=28", UNIT]);
    let text = run(&mut command)?;
    let score = text.lines().last().unwrap_or_default().to_owned();
    eprintln!("{score}");

    // That the threshold would be noticed: without one of its lines the unit is above it.
    let lab = lab::Lab::new()?;
    let worse = lab.directory().join("ekiden@.service");
    fs::write(
        &worse,
        fs::read_to_string(UNIT)?.replace("ProtectSystem=strict\n", "").replace("NoNewPrivileges=yes\n", ""),
    )?;
    let status = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=28"])
        .arg(&worse)
        .output()?;
    ensure!(!status.status.success(), "a worse unit is as good: {score}");
    Ok(())
}

#[test]
fn a_call_that_is_not_in_the_list_is_refused_and_one_that_no_hub_makes_is_its_end() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = two_sites(lab, &mut world)?;
        let mut hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let pid = hub.process()?.pid();

        // An attacker who runs code in control: first what is merely not in the list, then another program.
        let getpid = registers::call(pid, registers::GETPID)?;
        ensure!(getpid == Some(i64::from(pid)), "the control: {getpid:?}");
        let refused = registers::call(pid, registers::PACKET_SOCKET)?;
        ensure!(refused == Some(-registers::ENOSYS), "{refused:?}");
        must_ping_both_ways(&sites[0], &sites[1])?;

        let killed = registers::call(pid, registers::EXECVE)?;
        ensure!(killed.is_none(), "execve: {killed:?}");
        let status = until("the hub is dead", || {
            let process = hub.process()?;
            if process.is_alive()? { Ok(None) } else { process.end(Duration::ZERO).map(Some) }
        })?;
        use std::os::unix::process::ExitStatusExt;
        ensure!(status.signal() == Some(nix::libc::SIGSYS), "{status}");
        // It failed closed: XDP is still there, and a next hub takes over.
        hub.start()?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        if must_ping_both_ways(&sites[0], &sites[1]).is_err() {
            bail!("the next hub does not relay");
        }
        Ok(())
    })
}

#[test]
fn keys_are_gone_from_the_memory_of_an_idle_hub() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let site = Site::new(lab, &mut world, Plan::new(1001, "a", 1))?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &[&site])?;
        hub.start()?;
        let pid = hub.process()?.pid();
        let mut client = memory::Client::of(&site, &world)?;
        let in_use = |keys: &[memory::Keys; 1]| -> Result<()> {
            // What is there is seen: two keys, each in two halves.
            until_true("the hub has the session's keys", || Ok(memory::sightings(pid, keys)?[0] >= 4))
        };

        // A first session; a second takes its place, and it is kept for what is on the way; a third lets it go.
        let first = client.session()?;
        in_use(&[first])?;
        std::thread::sleep(PAUSE);
        let second = client.session()?;
        in_use(&[second])?;
        ensure!(memory::sightings(pid, &[first])?[0] > 0, "the session before is still known");
        std::thread::sleep(PAUSE);
        let third = client.session()?;
        in_use(&[third])?;

        // The hub turns, and has done all that it does within a second of it.
        hub.status()?;
        let begun = Instant::now();
        let gone = until("the first keys are gone", || {
            let looked = begun.elapsed();
            let [first, second, third] = memory::sightings(pid, &[first, second, third])?;
            ensure!(second > 0 && third > 0, "the keys that are in use are seen: {second} {third}");
            ensure!(first == 0 || looked < Duration::from_secs(1), "after {looked:?}, {first} halves are there");
            Ok((first == 0).then_some(looked))
        })?;
        eprintln!("gone when looked for after {gone:?}");
        hub.balance()?;
        Ok(())
    })
}
