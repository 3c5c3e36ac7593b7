//! The exporter of a lab's hub, and what it answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::binary;
use ekiden_testbed::lab::Namespace;
use ekiden_testbed::wait::{PATIENCE, until_true};
use ekiden_testbed::{Lab, Process};

/// Where it answers unless it is told otherwise.
pub(crate) const EXPORTER: &str = "127.0.0.1:9586";

/// The body of the answer to a GET from inside a namespace.
pub(crate) fn get(namespace: &Namespace, address: &str, path: &str, accept: &str) -> Result<String> {
    let (address, patience): (SocketAddr, Duration) = (address.parse()?, PATIENCE);
    let answer = namespace.inside(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\nAccept: {accept}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head and a body")?;
    ensure!(head.contains(" 200 ") || body.starts_with('{'), "{path}: {head}");
    Ok(body.to_owned())
}

/// The exporter, as the user nobody, who is in the hub's group.
pub(crate) fn exporter(lab: &Lab, namespace: &Namespace, words: &[&str]) -> Result<Process> {
    let directory = lab.directory();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
    // Where anyone may execute it, wherever it was built.
    let program = directory.join("ekiden-exporter");
    if !program.exists() && fs::hard_link(binary()?, &program).is_err() {
        fs::copy(binary()?, &program)?;
    }
    let (program, run) = (program.display().to_string(), directory.join("run").display().to_string());
    let mut all =
        vec!["setpriv", "--pdeathsig", "KILL", "--reuid=65534", "--regid=65534", "--groups=0", "--inh-caps=-all"];
    all.extend(["--bounding-set=-all", "--no-new-privs", "--", &program, "exporter", "--run-dir", &run]);
    all.extend(words);
    let process = Process::start(directory, namespace, "exporter", &all, &[])?;
    until_true("the exporter listens", || {
        process.must_be_alive()?;
        Ok(process.log().contains("exporter listens"))
    })?;
    Ok(process)
}

/// Series and their values.
pub(crate) fn scrape(namespace: &Namespace) -> Result<BTreeMap<String, f64>> {
    let text = get(namespace, EXPORTER, "/metrics", "text/plain")?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("a name and a value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}
