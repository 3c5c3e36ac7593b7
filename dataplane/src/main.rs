//! The command line.

use clap::{Args, Parser, Subcommand};
use ekiden_dataplane as ekiden;
use ekiden_dataplane::config::{Machine, validate_machine};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A WAN hub for many customers: their offices connect with stock WireGuard, and reach each other, strictly apart.
#[derive(Parser)]
#[command(name = "ekiden", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a hub in the foreground, until SIGTERM
    Run(Run),
    /// Read a configuration and say everything that is wrong with it
    Check {
        /// The configuration
        config: PathBuf,
        /// It is for another machine: don't ask whether this one has its ports and cores
        #[arg(long)]
        elsewhere: bool,
    },
    /// Ask a running hub how it is
    Status(ekiden::api::client::StatusArgs),
    /// Have a running hub read its configuration again and apply it, without losing a packet
    Reload(ekiden::api::client::ReloadArgs),
    /// Show a hub's statistics to Prometheus; needs no rights but to read its statistics
    Exporter(ekiden::monitor::exporter::ExporterArgs),
    /// Watch a hub: a live view of tenants, sites, ports, workers and drops
    Top(ekiden::monitor::top::TopArgs),
    /// Draw the traffic of a tenant or a site, or what was dropped: as SVG, PNG or CSV
    Graph(ekiden::monitor::graph::GraphArgs),
    /// Print a wg-quick configuration for a site's adapter
    SiteConfig(ekiden::site_config::SiteConfigArgs),
    /// Take a hub's XDP programs off its ports, for good: from then on the ports are the kernel's
    Detach(Detach),
}

#[derive(Args)]
struct Run {
    /// The configuration
    #[arg(long)]
    config: PathBuf,
    /// What to log, as in "info,ekiden_dataplane::control=debug"; EKIDEN_LOG does the same
    #[arg(long)]
    log: Option<String>,
    #[arg(long, hide = true, default_value = ekiden::api::DEFAULT_RUN_ROOT)]
    run_dir: PathBuf,
    #[arg(long, hide = true, default_value = ekiden::state::DEFAULT_STATE_ROOT)]
    state_dir: PathBuf,
    #[arg(long, hide = true, default_value = bpf::DEFAULT_PIN_ROOT)]
    pin_dir: PathBuf,
}

#[derive(Args)]
struct Detach {
    /// The hub's name, as in its configuration
    #[arg(long)]
    hub: String,
    /// This port only
    port: Option<String>,
    #[arg(long, hide = true, default_value = bpf::DEFAULT_PIN_ROOT)]
    pin_dir: PathBuf,
}

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Errors of a configuration name their file and line first, so that an editor finds the place.
            let whose = if error.is::<ekiden::config::Errors>() { "" } else { "ekiden: " };
            let _ = writeln!(std::io::stderr(), "{whose}{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Run(run) => {
            drop(out);
            ekiden::logging::init(run.log.as_deref())?;
            let Run { config, run_dir, state_dir, pin_dir, .. } = run;
            let desired = ekiden::config::load(&config)?;
            ekiden::start::run(
                desired,
                &ekiden::start::Places { config, run: run_dir, state: state_dir, pins: pin_dir },
            )?;
        }
        Command::Check { config, elsewhere } => {
            let desired = ekiden::config::load(&config)?;
            let sites: usize = desired.tenants.iter().map(|tenant| tenant.sites.len()).sum();
            if !elsewhere {
                validate_machine(&desired, &Machine::this()?)?;
            }
            let (tenants, ports, trunks) = (desired.tenants.len(), desired.ports.len(), desired.trunks.len());
            let trunks = if trunks == 0 { String::new() } else { format!(", {trunks} trunks") };
            writeln!(out, "{}: {tenants} tenants, {sites} sites, {ports} ports{trunks}: good", config.display())?;
        }
        Command::Status(args) => ekiden::api::client::status_command(&args, &mut out)?,
        Command::Reload(args) => match ekiden::api::client::reload_command(&args, &mut out) {
            Err(ekiden::api::client::ClientError::NotApplied(problems)) => {
                // As `check` says them.
                let _ = writeln!(std::io::stderr(), "{problems}\nekiden: nothing was changed");
                return Ok(ExitCode::FAILURE);
            }
            other => other?,
        },
        Command::Exporter(args) => {
            drop(out);
            ekiden::monitor::exporter::command(&args)?;
        }
        Command::Top(args) => {
            drop(out);
            ekiden::monitor::top::command(&args)?;
        }
        Command::Graph(args) => ekiden::monitor::graph::command(&args, &mut out)?,
        Command::SiteConfig(args) => ekiden::site_config::command(&args, &mut out, &mut std::io::stderr())?,
        Command::Detach(Detach { hub, port, pin_dir }) => {
            for removed in bpf::detach(&pin_dir, &hub, port.as_deref())? {
                writeln!(out, "detached {removed}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
